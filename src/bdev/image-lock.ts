/**
 * Locks on the files of bdevs, so that no two processes write one disk: exclusive if it may be written, shared if not. QEMU locks its images
 * the same way, so it is kept out, too. A process has one lock a file, however many bdevs are on it; hence this is the process's, not a
 * target's. Its file system may take its time, in threads of the bdev's own. Owned by main.
 */
import { constants } from 'node:fs';
import type { BlockingCalls } from '../native/blocking-calls.ts';
import { ErrnoError } from '../util/errors.ts';
import { Serial } from '../util/serial.ts';

/** Lets go of a lock. Never rejects. */
export type Unlock = () => Promise<void>;

/** What a file system says that knows no locks: then there are none. */
const NO_LOCKS: readonly unknown[] = ['ENOLCK', 'EOPNOTSUPP', 'ENOSYS', 'EINVAL'];

/** By file. */
const locks = new Map<string, ImageLock>();

/** Locks the file that `fd` has open. `id` names it, by whatever path. Resolves with how to let go of it. Rejects with EBUSY if another process has it. */
export async function lockImage(
  calls: BlockingCalls,
  fd: number,
  id: string,
  filename: string,
  readonly: boolean,
): Promise<Unlock> {
  const lock = locks.get(id) ?? new ImageLock();
  locks.set(id, lock);
  const forget = (): void => {
    if (lock.unused) {
      locks.delete(id);
    }
  };
  try {
    await lock.take(calls, fd, filename, readonly);
  } finally {
    forget();
  }
  return async () => {
    await lock.give(calls);
    forget();
  };
}

class ImageLock {
  /** One after the other: two open files of one process exclude each other, too. */
  readonly #order = new Serial();
  /** Under way, or waiting. */
  #pending = 0;
  #users = 0;
  /** Nothing else uses it, io_uring least of all: what that has open outlives the process for a moment. */
  #fd: number | undefined;
  #exclusive = false;

  get unused(): boolean {
    return this.#users === 0 && this.#pending === 0;
  }

  take(calls: BlockingCalls, fd: number, filename: string, readonly: boolean): Promise<void> {
    return this.#run(async () => {
      if (this.#fd === undefined) {
        await this.#acquire(calls, fd, filename, readonly);
      } else if (!readonly && !this.#exclusive) {
        await this.#upgrade(calls, this.#fd, fd, filename);
      }
      this.#users += 1;
    });
  }

  give(calls: BlockingCalls): Promise<void> {
    return this.#run(async () => {
      this.#users -= 1;
      if (this.#users === 0 && this.#fd !== undefined) {
        const fd = this.#fd;
        this.#fd = undefined;
        await close(calls, fd);
      }
    });
  }

  async #run(operation: () => Promise<void>): Promise<void> {
    this.#pending += 1;
    try {
      await this.#order.run(operation);
    } finally {
      this.#pending -= 1;
    }
  }

  /** The first user's lock. Whatever is thrown, nothing stays open. */
  async #acquire(
    calls: BlockingCalls,
    fd: number,
    filename: string,
    readonly: boolean,
  ): Promise<void> {
    const own = await reopen(calls, fd, readonly);
    let taken = false;
    try {
      taken = await take(calls, own, !readonly);
    } finally {
      if (!taken) {
        await close(calls, own);
      }
    }
    if (!taken) {
      throw inUse(filename);
    }
    this.#fd = own;
    this.#exclusive = !readonly;
  }

  /** Makes a shared lock an exclusive one, or leaves it as it is. */
  async #upgrade(
    calls: BlockingCalls,
    shared: number,
    fd: number,
    filename: string,
  ): Promise<void> {
    const writable = await reopen(calls, fd, false);
    await close(calls, shared);
    this.#fd = writable;
    this.#exclusive = await take(calls, writable, true);
    if (!this.#exclusive) {
      await take(calls, writable, false);
      throw inUse(filename);
    }
  }
}

function inUse(filename: string): ErrnoError {
  return new ErrnoError('EBUSY', `${filename} is in use: another process has locked it`);
}

/** An open file of its own. */
function reopen(calls: BlockingCalls, fd: number, readonly: boolean): Promise<number> {
  const access = readonly ? constants.O_RDONLY : constants.O_RDWR;
  return calls.run('open', `/proc/self/fd/${fd}`, access, 0);
}

/** The lock goes with the descriptor, whatever the file system says. */
async function close(calls: BlockingCalls, fd: number): Promise<void> {
  await calls.run('close', fd).catch(() => {});
}

async function take(calls: BlockingCalls, fd: number, exclusive: boolean): Promise<boolean> {
  try {
    return await calls.run('lockFile', fd, exclusive);
  } catch (error) {
    if (NO_LOCKS.includes((error as NodeJS.ErrnoException).code)) {
      return true;
    }
    throw error;
  }
}
