/** A disk that waits and fails when told to: one file of a FUSE file system, which a process of its own serves. */
import { type ChildProcess, fork, spawnSync } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Behaviour, Notice } from './fuse-server.ts';
import type { Test } from './target.ts';

const { PATH } = process.env;
const SERVER = fileURLToPath(new URL('fuse-server.js', import.meta.url));

/** Why there can be no such disk here; false if there can. */
export const noFuse: string | false = reasonAgainst();

function reasonAgainst(): string | false {
  if (process.getuid?.() !== 0) {
    return 'only root mounts file systems';
  }
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
    return false;
  } catch {
    return '/dev/fuse is not to be had';
  }
}

export class FuseDisk {
  readonly path: string;
  readonly #child: ChildProcess;
  /** Requests that wait. */
  #held = 0;
  #wake = () => {};
  #sets = 0;
  #done = 0;

  /** Mounted; unmounted at the end of the test, which the target's end must come before: start the target after this. */
  static async mount(t: Test, bytes: number): Promise<FuseDisk> {
    const folder = mkdtempSync(join(tmpdir(), 'db-fuse-'));
    // Without the loaders of the test's process.
    const child = fork(SERVER, [folder, String(bytes)], { execArgv: [], env: { PATH } });
    const over = new Promise((resolve) => child.once('exit', resolve));
    t.teardown(async () => {
      spawnSync('umount', ['-l', folder]);
      if (child.connected) {
        child.disconnect();
      }
      await over;
      rmdirSync(folder);
    });
    const disk = new FuseDisk(join(folder, 'disk'), child);
    await new Promise<void>((resolve, reject) => {
      child.once('message', (notice: Notice) => {
        if (notice.kind === 'failed') {
          reject(new Error(`mount: ${notice.reason}`));
        } else {
          resolve();
        }
      });
      child.once('exit', () => reject(new Error('the file system ended')));
    });
    return disk;
  }

  private constructor(path: string, child: ChildProcess) {
    this.path = path;
    this.#child = child;
    child.on('message', (notice: Notice) => {
      if (notice.kind === 'held') {
        this.#held = notice.count;
      } else if (notice.kind === 'set') {
        this.#done += 1;
      }
      this.#wake();
    });
    child.once('exit', () => this.#wake());
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#child.exitCode !== null) {
        throw new Error('the file system ended');
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** Resolves when the file behaves so. What waited is let go, unless `hold` is asked for again. */
  async behave(behaviour: Behaviour): Promise<void> {
    this.#sets += 1;
    const mine = this.#sets;
    if (behaviour.hold !== true) {
      this.#held = 0;
    }
    this.#child.send(behaviour);
    await this.#until(() => this.#done >= mine);
  }

  /** Resolves when at least `count` requests wait. */
  held(count: number): Promise<void> {
    return this.#until(() => this.#held >= count);
  }
}
