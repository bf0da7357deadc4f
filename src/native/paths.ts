/**
 * What is done with paths that somebody named, on file systems that may never answer: each call takes the `BlockingCalls` of who asks, and
 * nobody else waits. Rejects with system errors that name the path.
 */
import { constants } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { ErrnoError, withErrnoDetail } from '../util/errors.ts';
import type { BlockingCalls } from './blocking-calls.ts';
import type { BlockDeviceInfo, FileStatus } from './types.ts';

/** PATH_MAX without its NUL. Bytes. */
const MAX_PATH_BYTES = 4095;
/** Errors that say that there is nothing at a path. */
const NOTHING: readonly unknown[] = ['ENOENT', 'ENOTDIR'];

const codeOf = (error: unknown): unknown =>
  error instanceof Error && 'code' in error ? error.code : undefined;

/** Throws ENAMETOOLONG for what no system call takes. */
function checkLength(path: string): void {
  if (Buffer.byteLength(path) > MAX_PATH_BYTES) {
    throw new ErrnoError('ENAMETOOLONG', path);
  }
}

async function about<T>(path: string, operation: () => Promise<T>): Promise<T> {
  checkLength(path);
  try {
    return await operation();
  } catch (error) {
    throw withErrnoDetail(error, path);
  }
}

export function statExisting(calls: BlockingCalls, path: string): Promise<FileStatus> {
  return about(path, () => calls.run('stat', path));
}

/** Undefined if there is nothing. */
export async function statPath(
  calls: BlockingCalls,
  path: string,
): Promise<FileStatus | undefined> {
  try {
    return await statExisting(calls, path);
  } catch (error) {
    if (NOTHING.includes(codeOf(error))) {
      return undefined;
    }
    throw error;
  }
}

/** Rejects with what access(2) says: `mode` is of `fs.constants`. */
export function accessPath(calls: BlockingCalls, path: string, mode: number): Promise<void> {
  return about(path, () => calls.run('access', path, mode));
}

/** Opens a path for as long as `operation` takes. */
export function withOpen<T>(
  calls: BlockingCalls,
  path: string,
  flags: number,
  operation: (fd: number) => Promise<T>,
): Promise<T> {
  return about(path, async () => {
    const fd = await calls.run('open', path, flags, 0);
    try {
      return await operation(fd);
    } finally {
      await calls.run('close', fd).catch(() => {});
    }
  });
}

export function blockDevicePath(calls: BlockingCalls, path: string): Promise<BlockDeviceInfo> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK;
  return withOpen(calls, path, flags, (fd) => calls.run('blockDeviceInfo', fd));
}

/** A whole text file of at most `maxBytes`, undefined if it is longer or no regular file. A FIFO is not waited for. */
export function readTextFile(
  calls: BlockingCalls,
  path: string,
  maxBytes: number,
): Promise<string | undefined> {
  return withOpen(calls, path, constants.O_RDONLY | constants.O_NONBLOCK, async (fd) => {
    const { kind, size } = await calls.run('fstat', fd);
    if (kind !== 'file' || size > maxBytes) {
      return undefined;
    }
    const pieces: Buffer[] = [];
    for (let length = 0; length <= maxBytes; ) {
      const piece = await calls.run('pread', fd, PIECE_BYTES, length);
      if (piece.length === 0) {
        return Buffer.concat(pieces).toString('utf8');
      }
      pieces.push(piece);
      length += piece.length;
    }
    return undefined;
  });
}

/** Of one read. */
const PIECE_BYTES = 256 * 1024;

/** Replaces a file whole, on stable storage: after a crash at any moment there is the old one or the new one. */
export async function replaceFile(
  calls: BlockingCalls,
  path: string,
  text: string,
  mode: number,
): Promise<void> {
  const temporary = `${path}.new`;
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC;
  await about(temporary, async () => {
    const fd = await calls.run('open', temporary, flags, mode);
    try {
      const bytes = Buffer.from(text);
      for (let written = 0; written < bytes.length; ) {
        const piece = bytes.subarray(written, written + MAX_WRITE_BYTES);
        written += await calls.run('pwrite', fd, piece, written);
      }
      await calls.run('fdatasync', fd);
    } finally {
      // A file system may tell of an earlier write only now.
      await calls.run('close', fd);
    }
    await calls.run('rename', temporary, path);
  });
  const folder = constants.O_RDONLY | constants.O_DIRECTORY;
  await withOpen(calls, dirname(path), folder, (fd) => calls.run('fsync', fd));
}

/** Of one write. */
const MAX_WRITE_BYTES = 1024 * 1024;

/**
 * Makes a folder, and those above it that are not there; it may be there. Rejects with what the system says: EEXIST if something else is
 * there. Node's own recursive mkdir never ends where the folder above is there and the system says that it is not (in /proc and /sys).
 */
export async function makeFolder(
  calls: BlockingCalls,
  folder: string,
  mode: number,
): Promise<void> {
  await about(folder, async () => {
    const path = resolve(folder);
    const missing: string[] = [];
    let at = path;
    while (!(await makeOne(calls, at, mode, dirname(at) !== at))) {
      missing.push(at);
      at = dirname(at);
    }
    for (const each of missing.reverse()) {
      await makeOne(calls, each, mode, false);
    }
    if ((await calls.run('stat', path)).kind !== 'folder') {
      throw new ErrnoError('EEXIST', path);
    }
  });
}

/** True if it is there now. False, if that is asked for, where the folder above is missing. */
async function makeOne(
  calls: BlockingCalls,
  path: string,
  mode: number,
  mayMiss: boolean,
): Promise<boolean> {
  try {
    await calls.run('mkdir', path, mode);
    return true;
  } catch (error) {
    const code = codeOf(error);
    if (code === 'EEXIST') {
      return true;
    }
    if (code === 'ENOENT' && mayMiss) {
      return false;
    }
    throw error;
  }
}
