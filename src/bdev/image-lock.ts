/**
 * Locks on the files of bdevs, so that no two processes write one disk: exclusive if it may be written, shared if not. QEMU locks its images
 * the same way, so it is kept out, too. A process has one lock a file, however many bdevs are on it; hence this is the process's, not a
 * target's. Owned by main.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { native } from '../native/index.ts';
import { ErrnoError } from '../util/errors.ts';

interface Held {
  /** Nothing else uses it, io_uring least of all: what that has open outlives the process for a moment. */
  fd: number;
  exclusive: boolean;
  users: number;
}

/** What a file system says that knows no locks: then there are none. */
const NO_LOCKS: readonly unknown[] = ['ENOLCK', 'EOPNOTSUPP', 'ENOSYS', 'EINVAL'];

const held = new Map<string, Held>();

/** Locks the file that `fd` has open. `id` names it, by whatever path. Returns how to let go of it. Throws EBUSY if another process has it. */
export function lockImage(fd: number, id: string, filename: string, readonly: boolean): () => void {
  const lock = held.get(id) ?? { fd: reopen(fd, readonly), exclusive: !readonly, users: 0 };
  if (lock.users === 0) {
    acquire(lock, filename);
    held.set(id, lock);
  } else if (!readonly && !lock.exclusive) {
    upgrade(lock, fd, filename);
  }
  lock.users += 1;
  return () => {
    lock.users -= 1;
    if (lock.users === 0) {
      held.delete(id);
      closeSync(lock.fd);
    }
  };
}

/** The first user's lock. Whatever is thrown, nothing stays open. */
function acquire({ fd, exclusive }: Held, filename: string): void {
  let taken = false;
  try {
    taken = take(fd, exclusive);
  } finally {
    if (!taken) {
      closeSync(fd);
    }
  }
  if (!taken) {
    throw inUse(filename);
  }
}

/** Makes a shared lock an exclusive one, or leaves it as it is. */
function upgrade(lock: Held, fd: number, filename: string): void {
  const writable = reopen(fd, false);
  // Two open files of one process exclude each other, too.
  closeSync(lock.fd);
  lock.fd = writable;
  lock.exclusive = take(writable, true);
  if (!lock.exclusive) {
    take(writable, false);
    throw inUse(filename);
  }
}

function inUse(filename: string): ErrnoError {
  return new ErrnoError('EBUSY', `${filename} is in use: another process has locked it`);
}

/** An open file of its own. */
function reopen(fd: number, readonly: boolean): number {
  return openSync(`/proc/self/fd/${fd}`, readonly ? constants.O_RDONLY : constants.O_RDWR);
}

function take(fd: number, exclusive: boolean): boolean {
  try {
    return native.lockFile(fd, exclusive);
  } catch (error) {
    if (NO_LOCKS.includes((error as NodeJS.ErrnoException).code)) {
      return true;
    }
    throw error;
  }
}
