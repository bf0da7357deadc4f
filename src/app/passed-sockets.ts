/**
 * Sockets that were open when the process started: from systemd (sd_listen_fds(3)), or by number from whoever started it. They are
 * never closed or unlinked here; a listener that goes gives its socket back. Owned by main.
 */
import { native, type PassedSocket } from '../native/index.ts';
import { describeError, InvalidError } from '../util/errors.ts';

/** systemd passes descriptors from here on. */
const FIRST_FD = 3;
const MAX_FDS = 1024;
/** The name (FileDescriptorName=) of the JSON-RPC socket; all others are for VMs. */
const RPC_NAME = 'rpc';

export interface PassedOptions {
  /** For the disks of the command line. */
  readonly fd?: number | undefined;
  readonly rpcFd?: number | undefined;
}

export class PassedSockets {
  /** For JSON-RPC: listens, or is connected to its only client. */
  readonly rpc: PassedSocket | undefined;
  /** For the disks of the command line: the same. */
  readonly disk: PassedSocket | undefined;
  /** Others that listen, by their paths: for the listeners at these. */
  readonly #byPath = new Map<string, PassedSocket>();
  readonly #taken = new Set<PassedSocket>();

  /** Takes what `options` and the environment name, and clears that from the environment. Throws InvalidError for what is no fit socket. */
  constructor(options: PassedOptions, environment: NodeJS.ProcessEnv, pid: number) {
    let rpc = options.rpcFd === undefined ? undefined : adopt(options.rpcFd, '--rpc-fd');
    let disk = options.fd === undefined ? undefined : adopt(options.fd, '--fd');
    for (const { fd, name } of activated(environment, pid)) {
      const socket = adopt(fd, `$LISTEN_FDS, '${name}'`);
      if (name === RPC_NAME && rpc === undefined) {
        rpc = socket;
      } else if (name === RPC_NAME) {
        throw new InvalidError(`two sockets were passed for JSON-RPC: fd ${rpc?.fd} and fd ${fd}`);
      } else if (socket.listening && socket.address.startsWith('/')) {
        this.#byPath.set(socket.address, socket);
      } else if (disk === undefined) {
        disk = socket;
      } else {
        throw new InvalidError(`fd ${fd} ('${name}') has no path, so no listener can use it`);
      }
    }
    // One alone needs no telling what it is for.
    const [only] = this.#byPath.values();
    if (disk === undefined && this.#byPath.size === 1) {
      disk = only;
    }
    this.rpc = rpc;
    this.disk = disk;
  }

  /** The socket that listens at a path, if it was passed and nobody has it. To be given back by `release`. */
  take(path: string): PassedSocket | undefined {
    const socket = this.#byPath.get(path) ?? (this.disk?.address === path ? this.disk : undefined);
    if (socket === undefined || this.#taken.has(socket)) {
      return undefined;
    }
    this.#taken.add(socket);
    return socket;
  }

  /** A connected one was of use once. */
  release(socket: PassedSocket): void {
    if (socket.listening) {
      this.#taken.delete(socket);
    }
  }
}

function adopt(fd: number, source: string): PassedSocket {
  try {
    const { listening, address } = native.socketAdopt(fd);
    return { fd, listening, address: address === '' ? `fd:${fd}` : address };
  } catch (error) {
    throw new InvalidError(
      `${source}: fd ${fd} is no UNIX stream socket (${describeError(error)})`,
    );
  }
}

/** What systemd passed to this very process. */
function activated(environment: NodeJS.ProcessEnv, pid: number): { fd: number; name: string }[] {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES } = environment;
  // Not for children, whose descriptors these are not.
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) {
    delete environment[name];
  }
  if (LISTEN_PID !== String(pid) || LISTEN_FDS === undefined) {
    return [];
  }
  const count = /^\d{1,4}$/.test(LISTEN_FDS) ? Number(LISTEN_FDS) : -1;
  if (count < 0 || count > MAX_FDS) {
    throw new InvalidError(`$LISTEN_FDS is '${LISTEN_FDS}', not a number up to ${MAX_FDS}`);
  }
  const names = LISTEN_FDNAMES?.split(':') ?? [];
  return Array.from({ length: count }, (_, i) => ({ fd: FIRST_FD + i, name: names[i] ?? '' }));
}
