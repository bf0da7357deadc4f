/** The folder of the vfio-user socket. Who can open the socket can read and write the disks, so it is for this user only. */
import { lstatSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { FailedError, withErrnoDetail } from '../util/errors.ts';

/** /run/doorbell for root; otherwise in the user's own runtime folder, or in /tmp if there is none. */
export function defaultSocketFolder(): string {
  const uid = process.getuid?.() ?? 0;
  const { XDG_RUNTIME_DIR: runtime } = process.env;
  if (runtime) {
    return join(runtime, 'doorbell');
  }
  return uid === 0 ? '/run/doorbell' : join(tmpdir(), `doorbell-${uid}`);
}

/** Makes the folder if it is not there. Its absolute path. Throws what the system says, and FailedError if it is somebody else's. */
export function prepareSocketFolder(chosen: string | undefined): string {
  const folder = resolve(chosen ?? defaultSocketFolder());
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw withErrnoDetail(error, folder);
  }
  if (chosen === undefined) {
    // In a folder like /tmp anybody could have made it first.
    const stats = lstatSync(folder);
    if (!stats.isDirectory() || stats.uid !== process.getuid?.() || (stats.mode & 0o022) !== 0) {
      throw new FailedError(`${folder} is not a folder that only this user can write to`);
    }
  }
  return folder;
}
