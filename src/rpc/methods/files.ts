/** Making the files that disks and sockets need, for operators who have no shell on the host: methods of our own. */
import { mkdirSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { Type } from 'typebox';
import { createDiskImage } from '../../bdev/image.ts';
import { ErrnoError, InvalidError, withErrnoDetail } from '../../util/errors.ts';
import { method } from '../dispatcher.ts';
import { DONE, Path, Uint } from '../schema.ts';

/** Smallest unit that all block sizes divide. Bytes. */
const SIZE_UNIT = 4096;

function checkAbsolute(key: string, path: string): void {
  if (!isAbsolute(path)) {
    throw new InvalidError(`key '${key}' must be an absolute path, not ${path}`);
  }
}

export function fileMethods() {
  return [
    method({
      name: 'doorbell_create_disk_file',
      summary: 'Makes a sparse file of zeros, for the user of the target only.',
      params: Type.Object({
        filename: Path('absolute path; nothing may be there'),
        size: Uint('bytes: a multiple of 4096', Number.MAX_SAFE_INTEGER, SIZE_UNIT),
      }),
      result: DONE,
      call: ({ filename, size }) => {
        checkAbsolute('filename', filename);
        if (size % SIZE_UNIT !== 0) {
          throw new InvalidError(`key 'size' must be a multiple of ${SIZE_UNIT}, not ${size}`);
        }
        if (!createDiskImage(filename, size)) {
          throw new ErrnoError('EEXIST', filename);
        }
        return true;
      },
    }),
    method({
      name: 'doorbell_create_socket_folder',
      summary:
        'Makes a folder for a socket, for the user of the target only, and those above it. It may be there.',
      params: Type.Object({ folder: Path('absolute path') }),
      result: DONE,
      call: ({ folder }) => {
        checkAbsolute('folder', folder);
        try {
          mkdirSync(folder, { recursive: true, mode: 0o700 });
        } catch (error) {
          throw withErrnoDetail(error, folder);
        }
        return true;
      },
    }),
  ];
}
