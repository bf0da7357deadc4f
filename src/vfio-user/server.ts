/**
 * Listens on a UNIX socket and serves one client after another with one device. While a client is connected, others wait in the
 * backlog; the next one is accepted when the device has dropped everything of the last.
 */
import { closeSync, lstatSync, type Stats, unlinkSync } from 'node:fs';
import { type FdPoll, native, type SystemError } from '../native/index.ts';
import type { VfioUserDevice } from './device.ts';
import { Session, type SessionEvent } from './session.ts';

export interface VfioUserServerOptions {
  /** Of the socket. At most 107 bytes. */
  readonly path: string;
  readonly device: VfioUserDevice;
  /** Told what happens to clients. What a client causes is not limited in rate. */
  readonly onEvent?: (event: SessionEvent) => void;
  /** How long a client may take to agree on a version. ms. */
  readonly negotiationTimeoutMs?: number;
}

/** Clients that can wait for the one before them. */
const BACKLOG = 16;
const NEGOTIATION_TIMEOUT_MS = 10_000;
/** Accepting fails when descriptors have run out; it is tried again after this time. */
const ACCEPT_RETRY_MS = 100;

export class VfioUserServer {
  readonly path: string;
  readonly #options: VfioUserServerOptions;
  readonly #listener: number;
  /** The socket's file, to know it again. */
  readonly #file: Stats;
  readonly #poll: FdPoll;
  #session: Session | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  /** Listens. Throws EADDRINUSE if someone answers on the path, or it is no socket; a stale socket file is replaced. */
  constructor(options: VfioUserServerOptions) {
    this.path = options.path;
    this.#options = options;
    this.#listener = listen(options.path);
    this.#file = lstatSync(options.path);
    this.#poll = new native.FdPoll(this.#listener, () => this.#accept());
    this.#poll.start(true, false);
  }

  /** A client is connected, or the last one is still being cleaned up after. */
  get busy(): boolean {
    return this.#session !== undefined;
  }

  /** Disconnects the client, if there is one. Resolves when the device has dropped everything of it. */
  async disconnect(reason: string): Promise<void> {
    const session = this.#session;
    session?.close(reason);
    await session?.ended;
  }

  /** Stops listening, removes the socket, disconnects the client. Clients that wait are turned away. */
  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      clearTimeout(this.#retry);
      this.#poll.close();
      this.#removeFile();
      closeSync(this.#listener);
    }
    await this.disconnect('the server closes');
  }

  #accept(): void {
    let fd: number;
    try {
      fd = native.socketAccept(this.#listener);
    } catch (error) {
      this.#emit({ type: 'failed', error });
      this.#poll.stop();
      this.#retry = setTimeout(() => this.#poll.start(true, false), ACCEPT_RETRY_MS);
      return;
    }
    if (fd < 0) return;
    this.#poll.stop();
    const { device, negotiationTimeoutMs } = this.#options;
    const patience = negotiationTimeoutMs ?? NEGOTIATION_TIMEOUT_MS;
    const session = new Session(fd, device, patience, (event) => this.#emit(event));
    this.#session = session;
    session.ended.then(() => {
      this.#session = undefined;
      if (!this.#closed) this.#poll.start(true, false);
    });
  }

  #emit(event: SessionEvent): void {
    this.#options.onEvent?.(event);
  }

  /** Removes the socket's file, unless it is another's by now. */
  #removeFile(): void {
    const now = lstatSync(this.path, { throwIfNoEntry: false });
    if (now?.dev === this.#file.dev && now.ino === this.#file.ino) unlinkSync(this.path);
  }
}

function listen(path: string): number {
  try {
    return native.socketListen(path, BACKLOG);
  } catch (error) {
    if ((error as SystemError).code !== 'EADDRINUSE' || !isStale(path)) throw error;
  }
  unlinkSync(path);
  return native.socketListen(path, BACKLOG);
}

/** A socket that nobody listens on: what a server leaves that was killed. */
function isStale(path: string): boolean {
  // A connect to a plain file is refused too.
  if (!lstatSync(path).isSocket()) return false;
  try {
    closeSync(native.socketConnect(path));
    return false;
  } catch (error) {
    return (error as SystemError).code === 'ECONNREFUSED';
  }
}
