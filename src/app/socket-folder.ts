/** The folder of the vfio-user socket. Who can open the socket can read and write the disks, so it is for this user only. */
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { BlockingCalls } from '../native/blocking-calls.ts';
import { makeFolder } from '../native/paths.ts';
import { FailedError } from '../util/errors.ts';

/** /run/doorbell for root; otherwise in the user's own runtime folder, or in /tmp if there is none. */
export function defaultSocketFolder(): string {
  const uid = process.getuid?.() ?? 0;
  const { XDG_RUNTIME_DIR: runtime } = process.env;
  if (runtime) {
    return join(runtime, 'doorbell');
  }
  return uid === 0 ? '/run/doorbell' : join(tmpdir(), `doorbell-${uid}`);
}

/** Makes the folder if it is not there. Its absolute path. Rejects with what the system says, and FailedError if it is somebody else's. */
export async function prepareSocketFolder(chosen: string | undefined): Promise<string> {
  const folder = resolve(chosen ?? defaultSocketFolder());
  const calls = new BlockingCalls();
  await makeFolder(calls, folder, 0o700);
  if (chosen === undefined) {
    // In a folder like /tmp anybody could have made it first.
    const stats = await calls.run('lstat', folder);
    if (stats.kind !== 'folder' || stats.uid !== process.getuid?.() || (stats.mode & 0o022) !== 0) {
      throw new FailedError(`${folder} is not a folder that only this user can write to`);
    }
  }
  return folder;
}
