/** Making the files that disks and sockets need, for operators who have no shell on the host: methods of our own. */
import { isAbsolute } from 'node:path';
import { Type } from 'typebox';
import { createDiskImage } from '../../bdev/image.ts';
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { makeFolder } from '../../native/paths.ts';
import { ErrnoError, InvalidError } from '../../util/errors.ts';
import { DONE, Path, Uint } from '../../util/schema.ts';
import { type Caller, method, type Outlet } from '../dispatcher.ts';

/** Smallest unit that all block sizes divide. Bytes. */
const SIZE_UNIT = 4096;

/** A file system that does not answer holds up the client that named it. */
class ClientCalls {
  readonly #byOutlet = new WeakMap<Outlet, BlockingCalls>();
  /** Of all who have no connection of their own. */
  readonly #others = new BlockingCalls();

  of({ outlet }: Caller): BlockingCalls {
    if (outlet === undefined) {
      return this.#others;
    }
    let calls = this.#byOutlet.get(outlet);
    if (calls === undefined) {
      calls = new BlockingCalls();
      this.#byOutlet.set(outlet, calls);
    }
    return calls;
  }
}

function checkAbsolute(key: string, path: string): void {
  if (!isAbsolute(path)) {
    throw new InvalidError(`key '${key}' must be an absolute path, not ${path}`);
  }
}

export function fileMethods() {
  const clients = new ClientCalls();
  return [
    method({
      name: 'doorbell_create_disk_file',
      summary: 'Makes a sparse file of zeros, for the user of the target only.',
      params: Type.Object({
        filename: Path('absolute path; nothing may be there'),
        size: Uint('bytes: a multiple of 4096', Number.MAX_SAFE_INTEGER, SIZE_UNIT),
      }),
      result: DONE,
      call: async ({ filename, size }, caller) => {
        checkAbsolute('filename', filename);
        if (size % SIZE_UNIT !== 0) {
          throw new InvalidError(`key 'size' must be a multiple of ${SIZE_UNIT}, not ${size}`);
        }
        if (!(await createDiskImage(clients.of(caller), filename, size))) {
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
      call: async ({ folder }, caller) => {
        checkAbsolute('folder', folder);
        await makeFolder(clients.of(caller), folder, 0o700);
        return true;
      },
    }),
  ];
}
