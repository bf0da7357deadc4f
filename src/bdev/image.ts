/** Making the default disk, for the user who has none yet. */
import { closeSync, existsSync, ftruncateSync, openSync, unlinkSync } from 'node:fs';
import { withErrnoDetail } from '../util/errors.ts';

/** Makes a sparse file of `bytes`, for this user only, unless there is one of that name. True if it made one. Throws what the system says. */
export function createDiskImage(path: string, bytes: number): boolean {
  if (existsSync(path)) {
    return false;
  }
  try {
    const fd = openSync(path, 'wx', 0o600);
    try {
      ftruncateSync(fd, bytes);
    } catch (error) {
      unlinkSync(path);
      throw error;
    } finally {
      closeSync(fd);
    }
    return true;
  } catch (error) {
    throw withErrnoDetail(error, path);
  }
}
