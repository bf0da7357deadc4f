/**
 * The open file descriptions of a file bdev: one of main and one of each reactor. Linux tells each description once of a failed write-back
 * (errseq_t), so on one that they shared the sync of one could take the error, and that of another succeed at the same time. For the same
 * reason main has one sync of its own under way at most. Owned by main.
 */
import { closeSync, constants, fdatasync, openSync } from 'node:fs';
import { promisify } from 'node:util';
import type { BlockingCalls } from '../native/blocking-calls.ts';

const fdatasyncAsync = promisify(fdatasync);

/** Where the kernel shows what a process has open: opening it gives a description of its own, by whatever path the file was found. */
const SELF = '/proc/self/fd';

export class Descriptions {
  readonly main: number;
  /** By reactor. */
  readonly reactors: readonly number[];
  /** The last sync that was asked for, and whether it has yet to begin. */
  #sync: Promise<void> = Promise.resolve();
  #waits = false;
  /** Syncs that have not ended: the descriptor must not become another file's meanwhile. */
  #syncs = 0;
  readonly #flags: number;
  /** Set when they are to be closed. */
  #closed: (() => void) | undefined;

  private constructor(main: number, reactors: readonly number[], flags: number) {
    this.main = main;
    this.reactors = reactors;
    this.#flags = flags;
  }

  /** `main`: open with `flags`, and the caller's if this throws what the system says. */
  static share(main: number, flags: number, count: number): Descriptions {
    const reactors: number[] = [];
    try {
      for (let i = 0; i < count; i++) {
        reactors.push(openQuietly(`${SELF}/${main}`, flags));
      }
    } catch (error) {
      closeAll(reactors);
      throw error;
    }
    return new Descriptions(main, reactors, flags);
  }

  /** Others of the same file: they know nothing of earlier failures. Rejects with what the system says. */
  async again(calls: BlockingCalls): Promise<Descriptions> {
    const fds: number[] = [];
    try {
      while (fds.length <= this.reactors.length) {
        fds.push(await openAgain(calls, `${SELF}/${this.main}`, this.#flags));
      }
    } catch (error) {
      closeAll(fds);
      throw error;
    }
    return new Descriptions(fds[0], fds.slice(1), this.#flags);
  }

  /** fdatasync of main's. Who asks while one is under way shares the next. Rejects with what the system says. */
  sync(): Promise<void> {
    if (!this.#waits) {
      this.#waits = true;
      this.#syncs += 1;
      this.#sync = this.#sync.catch(() => {}).then(() => this.#run());
    }
    return this.#sync;
  }

  async #run(): Promise<void> {
    this.#waits = false;
    try {
      await fdatasyncAsync(this.main);
    } finally {
      this.#syncs -= 1;
      this.#closeIfUnused();
    }
  }

  #closeIfUnused(): void {
    if (this.#closed !== undefined && this.#syncs === 0) {
      closeAll([this.main, ...this.reactors]);
      this.#closed();
    }
  }

  /** No reactor uses them any more. `closed` is called when the syncs under way have ended, too. To be called once. */
  close(closed: () => void): void {
    this.#closed = closed;
    this.#closeIfUnused();
  }
}

/** Without access times, which cost every read some work; only the file's owner and root may ask for that. */
export function openQuietly(filename: string, flags: number): number {
  try {
    return openSync(filename, flags | constants.O_NOATIME);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') {
      throw error;
    }
    return openSync(filename, flags);
  }
}

/** The same, where it may last. */
async function openAgain(calls: BlockingCalls, path: string, flags: number): Promise<number> {
  try {
    return await calls.run('open', path, flags | constants.O_NOATIME, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') {
      throw error;
    }
    return calls.run('open', path, flags, 0);
  }
}

function closeAll(fds: readonly number[]): void {
  for (const fd of fds) {
    closeSync(fd);
  }
}
