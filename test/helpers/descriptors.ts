/** Descriptors as a hostile VMM has them: made in another process, which keeps a copy and changes it later. */
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Test } from './target.ts';
import { spawnTied } from './tied.ts';
import { BlockingSocket } from './vfio-blocking.ts';

/** From dist/test/helpers; Python is not compiled. */
const SERVER = fileURLToPath(new URL('../../../test/helpers/descriptors.py', import.meta.url));

export const noPython: string | false =
  spawnSync('python3', ['-c', 'import os; os.eventfd']).status === 0
    ? false
    : 'python3 (3.10 or later) is not here';

let count = 0;

export class Descriptors {
  readonly #socket: BlockingSocket;

  /** The process ends with the test, and its copies with it. */
  static async start(t: Test): Promise<Descriptors> {
    count += 1;
    const path = join(tmpdir(), `db-fds-${process.pid}-${count}`);
    const child = spawnTied('python3', [SERVER, path], { stdio: ['ignore', 'pipe', 'inherit'] });
    const over = once(child, 'exit');
    t.teardown(async () => {
      child.kill('SIGKILL');
      await over;
      rmSync(path, { force: true });
    });
    await once(child.stdout!, 'data');
    return new Descriptors(new BlockingSocket(t, path));
  }

  private constructor(socket: BlockingSocket) {
    this.#socket = socket;
  }

  /** One of the commands of descriptors.py. Resolves with the descriptor, the caller's to close, if it makes one. */
  async #ask(command: string): Promise<number | undefined> {
    this.#socket.send(Buffer.from(`${command}\n`));
    await this.#socket.receive(1);
    return this.#socket.fds.shift();
  }

  /** `eventfd` and `semaphore` count from 0. */
  async make(command: 'eventfd' | 'semaphore' | 'linger'): Promise<number> {
    const fd = await this.#ask(command);
    if (fd === undefined) {
      throw new Error(`${command} made no descriptor`);
    }
    return fd;
  }

  /** To the eventfd that was made last. */
  async change(command: 'block' | 'drain' | 'rest' | `fill ${bigint}`): Promise<void> {
    await this.#ask(command);
  }
}
