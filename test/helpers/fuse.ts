/** Disks that wait and fail when told to: files of a FUSE file system, which a process of its own serves. */
import { type ChildProcess, fork, spawnSync } from 'node:child_process';
import { accessSync, constants, mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { bareEnvironment } from './bare-environment.ts';
import type { Behaviour, Notice } from './fuse-server.ts';
import type { Test } from './target.ts';

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

export interface FuseOptions {
  /** How many there are (1). */
  readonly files?: number;
  /** Reads and writes go through the page cache, and the files can be mapped. */
  readonly cached?: boolean;
}

export class FuseDisk {
  /** Of each file, which `Behaviour.files` names by its place here. */
  readonly paths: readonly string[];
  readonly #child: ChildProcess;
  /** Requests that wait. */
  #held = 0;
  readonly #waiters = new Set<() => void>();
  #over = false;
  #sets = 0;
  #done = 0;

  /** Mounted; unmounted at the end of the test, which the target's end must come before: start the target after this. */
  static async mount(t: Test, bytes: number, options: FuseOptions = {}): Promise<FuseDisk> {
    const { files = 1, cached = false } = options;
    const folder = mkdtempSync(join(tmpdir(), 'db-fuse-'));
    const args = [folder, String(bytes), String(files), cached ? 'cached' : 'direct'];
    const child = fork(SERVER, args, { execArgv: [], env: bareEnvironment() });
    const over = new Promise((resolve) => child.once('exit', resolve));
    t.teardown(async () => {
      child.kill('SIGCONT');
      // First: to start a program closes descriptors of ours, which may wait for the file system.
      if (child.connected) {
        child.disconnect();
      }
      await over;
      spawnSync('umount', ['-l', folder]);
      rmdirSync(folder);
    });
    const paths = Array.from({ length: files }, (_, i) =>
      join(folder, i === 0 ? 'disk' : `disk${i}`),
    );
    const disk = new FuseDisk(paths, child);
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

  private constructor(paths: readonly string[], child: ChildProcess) {
    this.paths = paths;
    this.#child = child;
    child.on('message', (notice: Notice) => {
      if (notice.kind === 'held') {
        this.#held = notice.count;
      } else if (notice.kind === 'set') {
        this.#done += 1;
      }
      this.#wake();
    });
    child.once('exit', () => {
      this.#over = true;
      this.#wake();
    });
  }

  /** Of the first file. */
  get path(): string {
    return this.paths[0];
  }

  /** How many requests wait. */
  get heldCount(): number {
    return this.#held;
  }

  #wake(): void {
    for (const waiter of this.#waiters) {
      waiter();
    }
    this.#waiters.clear();
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      if (this.#over) {
        throw new Error('the file system ended');
      }
      await new Promise<void>((resolve) => this.#waiters.add(resolve));
    }
  }

  /** Resolves when the files behave so. What waited is let go, unless `hold` is asked for again. */
  async behave(behaviour: Behaviour): Promise<void> {
    this.#sets += 1;
    const mine = this.#sets;
    this.#child.send(behaviour);
    await this.#until(() => this.#done >= mine);
  }

  /** Resolves when at least `count` requests wait. */
  held(count: number): Promise<void> {
    return this.#until(() => this.#held >= count);
  }

  /** The server dies: what waits fails, and so does everything after. */
  die(): void {
    this.#child.kill('SIGKILL');
  }

  /** From now on nothing of the whole file system is answered, until `resume`. */
  freeze(): void {
    this.#child.kill('SIGSTOP');
  }

  resume(): void {
    this.#child.kill('SIGCONT');
  }
}
