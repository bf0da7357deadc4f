/** What a UNIX socket's path may be. */
import { ErrnoError } from './errors.ts';

/** The bytes of `sun_path` without its terminating zero. */
export const MAX_SOCKET_PATH_BYTES = 107;

/** Throws ENAMETOOLONG for a path that no socket can have. */
export function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_SOCKET_PATH_BYTES) {
    throw new ErrnoError(
      'ENAMETOOLONG',
      `${path} (${bytes} bytes, and the path of a socket has at most ${MAX_SOCKET_PATH_BYTES})`,
    );
  }
}
