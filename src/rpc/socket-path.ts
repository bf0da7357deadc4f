/** The path of the JSON-RPC socket: its length, and a socket left behind there by a process that is gone. */
import { type BigIntStats, existsSync, lstatSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { ErrnoError, errnoOf } from '../util/errors.ts';
import { checkSocketPath } from '../util/socket-path.ts';

function lstat(path: string): BigIntStats | undefined {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false });
}

/** Somebody accepts connections at the socket. */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    probe.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ECONNREFUSED' || error.code === 'ENOENT') {
        resolve(false);
      } else if (error.code === 'EAGAIN') {
        resolve(true); // Its backlog is full.
      } else {
        reject(new ErrnoError('EADDRINUSE', `${path} (${error.code})`));
      }
    });
  });
}

/**
 * Makes a path free to be bound: removes a socket that nobody answers at. Rejects with EADDRINUSE if somebody does or if the path
 * is something else than a socket, with ENOENT if its folder is not there, and with ENAMETOOLONG; the path is left alone then.
 */
export async function claimSocketPath(path: string): Promise<void> {
  checkSocketPath(path);
  const folder = dirname(path);
  // Of a folder that is not there Node says that access to it is denied.
  if (!existsSync(folder)) {
    throw new ErrnoError('ENOENT', `${path} (there is no folder ${folder})`);
  }
  const before = lstat(path);
  if (before === undefined) {
    return;
  }
  if (!before.isSocket()) {
    throw new ErrnoError('EADDRINUSE', `${path} exists and is not a socket`);
  }
  if (await answers(path)) {
    throw new ErrnoError('EADDRINUSE', path);
  }
  const after = lstat(path);
  // Not one that somebody bound in the meantime.
  if (after !== undefined && after.ino === before.ino && after.dev === before.dev) {
    try {
      unlinkSync(path);
    } catch (error) {
      throw new ErrnoError('EADDRINUSE', `${path} (stale, not removed: errno ${errnoOf(error)})`);
    }
  }
}
