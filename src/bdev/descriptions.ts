/**
 * The open file descriptions of a file bdev: one of main and one of each reactor. Linux tells each description once of a failed write-back
 * (errseq_t), so on one that they shared the sync of one could take the error, and that of another succeed at the same time. For the same
 * reason main has one sync of its own under way at most. Owned by main.
 */
import type { BlockingCalls } from '../native/blocking-calls.ts';
import { openQuietly } from './open-file.ts';

/** Where the kernel shows what a process has open: opening it gives a description of its own, by whatever path the file was found. */
const SELF = '/proc/self/fd';

export class Descriptions {
  readonly main: number;
  /** By reactor. */
  readonly reactors: readonly number[];
  readonly #calls: BlockingCalls;
  readonly #flags: number;
  /** The last sync that was asked for, and whether it has yet to begin. */
  #sync: Promise<void> = Promise.resolve();
  #waits = false;

  private constructor(
    calls: BlockingCalls,
    main: number,
    reactors: readonly number[],
    flags: number,
  ) {
    this.#calls = calls;
    this.#flags = flags;
    this.main = main;
    this.reactors = reactors;
  }

  /** `main`: open with `flags`, and the caller's if this rejects with what the system says. */
  static async share(
    calls: BlockingCalls,
    main: number,
    flags: number,
    count: number,
  ): Promise<Descriptions> {
    const reactors: number[] = [];
    try {
      for (let i = 0; i < count; i++) {
        reactors.push(await openQuietly(calls, `${SELF}/${main}`, flags));
      }
    } catch (error) {
      await closeAll(calls, reactors);
      throw error;
    }
    return new Descriptions(calls, main, reactors, flags);
  }

  /** Others of the same file, opened by `calls`: they know nothing of earlier failures. Rejects with what the system says. */
  async again(calls: BlockingCalls): Promise<Descriptions> {
    const fds: number[] = [];
    try {
      while (fds.length <= this.reactors.length) {
        fds.push(await openQuietly(calls, `${SELF}/${this.main}`, this.#flags));
      }
    } catch (error) {
      await closeAll(calls, fds);
      throw error;
    }
    return new Descriptions(this.#calls, fds[0], fds.slice(1), this.#flags);
  }

  /**
   * fdatasync of main's. Who asks while one is under way shares the next: one that hangs takes one thread, whoever waits for it. Rejects with
   * what the system says.
   */
  sync(): Promise<void> {
    if (!this.#waits) {
      this.#waits = true;
      this.#sync = this.#sync
        .catch(() => {})
        .then(() => {
          this.#waits = false;
          return this.#calls.run('fdatasync', this.main);
        });
    }
    return this.#sync;
  }

  /** No reactor uses them any more. Resolves when the syncs under way have ended, too, and all are closed. To be called once. */
  async close(): Promise<void> {
    // The descriptor must not become another file's meanwhile.
    await this.#sync.catch(() => {});
    await closeAll(this.#calls, [this.main, ...this.reactors]);
  }
}

/** What the file system says then is of writes that were synced, or that nobody wanted synced. */
async function closeAll(calls: BlockingCalls, fds: readonly number[]): Promise<void> {
  await Promise.all(fds.map((fd) => calls.run('close', fd).catch(() => {})));
}
