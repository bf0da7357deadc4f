/**
 * Listens on a UNIX socket and serves one client after another, each with a device of its own. While a client is connected, others wait in
 * the backlog; the next one is accepted when the device of the last has dropped everything of it, or lingers over that.
 */
import { closeSync, lstatSync, type Stats, unlinkSync } from 'node:fs';
import { DescriptorCloser } from '../native/descriptor-closer.ts';
import { type FdPoll, native, type PassedSocket, type SystemError } from '../native/index.ts';
import type { Accept } from './device.ts';
import type { DmaLayout } from './dma-messages.ts';
import { Lingering } from './lingering.ts';
import { Session, type SessionEvent } from './session.ts';

export interface VfioUserServerOptions {
  /** Of the socket. At most 107 bytes. */
  readonly path: string;
  /** A socket that is open already, at `path` or anywhere: it is used instead, and neither closed nor removed. */
  readonly passed?: PassedSocket | undefined;
  /** The only client, of a socket passed connected, is gone. */
  readonly onExhausted?: (() => void) | undefined;
  /** Makes the device of each client that comes. */
  readonly accept: Accept;
  /** Told what happens to clients. What a client causes is not limited in rate. */
  readonly onEvent?: (event: SessionEvent) => void;
  /** How clients lay out messages that reach their memory, if that is known: it is found out otherwise, by a write of no bytes. */
  readonly dmaLayout?: DmaLayout;
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
  /** Absent if the one client was passed connected. */
  readonly #listener: number | undefined;
  /** The socket's file, to know it again. Absent if it is not ours. */
  readonly #file: Stats | undefined;
  readonly #poll: FdPoll | undefined;
  /** Closes what clients send. */
  readonly #closer = new DescriptorCloser();
  readonly #lingering = new Lingering((end) => this.#emit({ type: 'lingers', end }));
  #session: Session | undefined;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  /** Listens. Throws EADDRINUSE if someone answers on the path, or it is no socket; a stale socket file is replaced. */
  constructor(options: VfioUserServerOptions) {
    this.path = options.path;
    this.#options = options;
    const { path, passed } = options;
    if (passed?.listening === false) {
      this.#serve(passed.fd);
      return;
    }
    const listener = passed?.fd ?? listen(path);
    this.#listener = listener;
    this.#file = passed === undefined ? lstatSync(path) : undefined;
    this.#poll = new native.FdPoll(listener, () => this.#accept(listener));
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
      this.#poll?.close();
      this.#removeFile();
      if (this.#options.passed === undefined && this.#listener !== undefined) {
        // Clients that wait may have sent descriptors already. What those before them left behind must not keep it open.
        new DescriptorCloser().close([this.#listener]);
      }
    }
    await this.disconnect('the server closes');
  }

  #accept(listener: number): void {
    let fd: number;
    try {
      fd = native.socketAccept(listener);
    } catch (error) {
      this.#emit({ type: 'failed', error });
      this.#poll?.stop();
      this.#retry = setTimeout(() => this.#poll?.start(true, false), ACCEPT_RETRY_MS);
      return;
    }
    if (fd >= 0) this.#serve(fd);
  }

  /** Serves a connected client, and nobody else meanwhile. */
  #serve(fd: number): void {
    this.#poll?.stop();
    const { accept, negotiationTimeoutMs, dmaLayout } = this.#options;
    const session = new Session(fd, {
      accept,
      closer: this.#closer,
      lingering: this.#lingering,
      dmaLayout,
      patienceMs: negotiationTimeoutMs ?? NEGOTIATION_TIMEOUT_MS,
      emit: (event) => this.#emit(event),
    });
    this.#session = session;
    session.ended.then(async () => {
      // What one client's descriptors hold up, another of the same socket must not add to.
      await this.#closer.space();
      this.#session = undefined;
      if (this.#closed) return;
      if (this.#poll === undefined) this.#options.onExhausted?.();
      else this.#poll.start(true, false);
    });
  }

  #emit(event: SessionEvent): void {
    this.#options.onEvent?.(event);
  }

  /** Removes the socket's file, unless it is another's by now. */
  #removeFile(): void {
    if (this.#file === undefined) return;
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
