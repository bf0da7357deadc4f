/** Making disk images, and making them longer. */
import { constants } from 'node:fs';
import type { BlockingCalls } from '../native/blocking-calls.ts';
import { statPath, withOpen } from '../native/paths.ts';
import { ErrnoError, withErrnoDetail } from '../util/errors.ts';
import { refuseDevicePath } from './device-path.ts';

/**
 * Makes a sparse file of `bytes`, for this user only, unless there is one of that name. True if it made one. Rejects with what the system
 * says.
 */
export async function createDiskImage(
  calls: BlockingCalls,
  path: string,
  bytes: number,
): Promise<boolean> {
  if ((await statPath(calls, path)) !== undefined) {
    return false;
  }
  await refuseDevicePath(calls, path);
  try {
    const fd = await calls.run(
      'open',
      path,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL,
      0o600,
    );
    try {
      await calls.run('ftruncate', fd, bytes);
    } catch (error) {
      await calls.run('unlink', path);
      throw error;
    } finally {
      await calls.run('close', fd).catch(() => {});
    }
    return true;
  } catch (error) {
    throw withErrnoDetail(error, path);
  }
}

/** The bytes of a regular file that was made longer, if it was shorter; undefined if it is none. */
export async function growDiskImage(
  calls: BlockingCalls,
  path: string,
  bytes: number,
): Promise<{ readonly before: number } | undefined> {
  const stats = await statPath(calls, path);
  if (stats === undefined) {
    throw new ErrnoError('ENOENT', path);
  }
  if (stats.kind !== 'file') {
    return undefined;
  }
  if (stats.size < bytes) {
    await withOpen(calls, path, constants.O_WRONLY | constants.O_NONBLOCK, (fd) =>
      calls.run('ftruncate', fd, bytes),
    );
  }
  return { before: stats.size };
}
