/** No regular file is made where devices are: a path there that is missing is a device that is not there (yet), whatever size is given. */
import { dirname, resolve } from 'node:path';
import type { BlockingCalls } from '../native/blocking-calls.ts';
import { statPath } from '../native/paths.ts';
import { ErrnoError } from '../util/errors.ts';

const DEVICES = '/dev';

/** Rejects with ENOENT if a file at this path would be in /dev, by whatever way its folder is named. */
export async function refuseDevicePath(calls: BlockingCalls, path: string): Promise<void> {
  if (await isUnderDev(calls, resolve(path))) {
    throw new ErrnoError('ENOENT', `${path} is no device, and no file is made in ${DEVICES}`);
  }
}

async function isUnderDev(calls: BlockingCalls, path: string): Promise<boolean> {
  if (path.startsWith(`${DEVICES}/`)) {
    return true;
  }
  // By way of a symbolic link. Where /dev is no file system of its own, there are no devices that come later.
  const [devices, root, folder] = [
    await statPath(calls, DEVICES),
    await statPath(calls, '/'),
    await statPath(calls, dirname(path)),
  ];
  return devices !== undefined && devices.dev !== root?.dev && devices.dev === folder?.dev;
}
