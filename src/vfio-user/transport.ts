/**
 * One connected socket that carries vfio-user messages, either end. Lives on the event loop of the thread that made it.
 *
 * Incoming descriptors belong to the message they came with; those that reach none are closed here. Outgoing descriptors stay the
 * caller's, and must stay open until the message is on its way. Reading stops while too much waits to be sent.
 */
import { closeSync } from 'node:fs';
import { type FdPoll, native } from '../native/index.ts';
import { FrameDecoder, MAX_FRAME_FDS, type Malformed, type Message } from './codec.ts';

export interface ConnectionHandler {
  /** A message has come. The handler owns its descriptors. */
  message(message: Message): void;
  /** A message that cannot be accepted has come. If it is fatal, the handler closes the connection. */
  malformed(frame: Malformed): void;
  /** The connection is closed, by whichever side: called once, last. */
  closed(reason: string): void;
}

/** Unsent bytes beyond which nothing is read: a peer that does not take replies gets no more work done. */
const MAX_UNSENT_BYTES = 1024 * 1024;
/** Bytes of messages that go in one call. */
const MAX_GATHERED_BYTES = 64 * 1024;
/** Reads in one turn of the event loop. Two make a message. */
const READS_PER_TURN = 64;

interface Outgoing {
  data: Uint8Array;
  /** Go with the first byte. */
  fds: readonly number[];
  /** It may go together with others like it. */
  readonly gathers: boolean;
}

/** Closes descriptors of a peer that is trusted: one that can be waited for, and whose files do not fail. */
export function closeFds(fds: readonly number[]): void {
  for (const fd of fds) closeSync(fd);
}

// Filled and read within one call: [count, descriptor, …].
const received = new Int32Array(1 + MAX_FRAME_FDS);

function takeReceived(): number[] {
  return Array.from(received.subarray(1, 1 + received[0]));
}

export class Connection {
  readonly #fd: number;
  readonly #handler: ConnectionHandler;
  readonly #closeFds: (fds: readonly number[]) => void;
  readonly #decoder: FrameDecoder;
  readonly #poll: FdPoll;
  readonly #queue: Outgoing[] = [];
  #unsent = 0;
  /** Messages go at the end of this turn. */
  #soon = false;
  #paused = false;
  #closed = false;
  /** What the poll watches for: 0 nothing, 1 readable, 2 writable, 3 both. */
  #interest = 0;

  /**
   * Takes a connected, non-blocking stream socket and owns it. `maxPayload` bounds incoming messages, in bytes without the header. `close`
   * closes what the peer sent, and the socket itself, whose queue may hold more of that.
   */
  constructor(
    fd: number,
    maxPayload: number,
    handler: ConnectionHandler,
    close: (fds: readonly number[]) => void = closeFds,
  ) {
    this.#fd = fd;
    this.#handler = handler;
    this.#closeFds = close;
    this.#decoder = new FrameDecoder(maxPayload, close);
    this.#poll = new native.FdPoll(fd, (readable, writable) => this.#onReady(readable, writable));
    this.#watch();
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Sends a message, in order, now or when the socket has room. Does nothing once the connection is closed. */
  send(data: Uint8Array, fds: readonly number[] = []): void {
    if (this.#closed) return;
    this.#queue.push({ data, fds, gathers: false });
    this.#unsent += data.length;
    if (this.#queue.length === 1 || this.#soon) this.#flush();
    this.#watch();
  }

  /** As `send`, but at the end of this turn of the event loop: with all others of the turn, in few calls. */
  sendSoon(data: Uint8Array): void {
    if (this.#closed) return;
    this.#queue.push({ data, fds: [], gathers: true });
    this.#unsent += data.length;
    if (!this.#soon) {
      this.#soon = true;
      setImmediate(() => {
        this.#soon = false;
        this.#flush();
        this.#watch();
      });
    }
  }

  /** Delivers no more messages until `resume`. A peer that goes away meanwhile is noticed only then. */
  pause(): void {
    this.#paused = true;
    this.#watch();
  }

  resume(): void {
    this.#paused = false;
    this.#watch();
  }

  /** Closes the socket. What the socket did not take yet is lost; what it took the peer can still read. */
  close(reason: string): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#poll.close();
    this.#queue.length = 0;
    this.#decoder.abandon();
    native.socketShutdown(this.#fd);
    this.#closeFds([this.#fd]);
    this.#handler.closed(reason);
  }

  get #wantsRead(): boolean {
    return !this.#closed && !this.#paused && this.#unsent <= MAX_UNSENT_BYTES;
  }

  #onReady(readable: boolean, writable: boolean): void {
    if (writable) this.#flush();
    if (readable) this.#read();
    this.#watch();
  }

  #read(): void {
    for (let i = 0; i < READS_PER_TURN && this.#wantsRead; i++) {
      let count: number;
      try {
        count = native.socketReceive(this.#fd, this.#decoder.space, received);
      } catch (error) {
        this.#closeFds(takeReceived());
        this.close((error as Error).message);
        return;
      }
      if (count < 0) return;
      if (count === 0) {
        this.close('the peer closed the connection');
        return;
      }
      const frame = this.#decoder.received(count, takeReceived());
      if (frame?.kind === 'message') this.#handler.message(frame);
      else if (frame !== undefined) this.#handler.malformed(frame);
    }
  }

  #flush(): void {
    while (this.#queue.length > 0) {
      const first = this.#queue[0];
      let sent: number;
      try {
        sent = native.socketSend(this.#fd, this.#gather(), first.fds);
      } catch (error) {
        this.close((error as Error).message);
        return;
      }
      if (sent < 0) return;
      this.#sent(sent);
    }
  }

  /** The first message, or those from the first on that may go together. */
  #gather(): Uint8Array {
    const [first, second] = this.#queue;
    if (second === undefined || !first.gathers || !second.gathers) return first.data;
    const parts: Uint8Array[] = [];
    let bytes = 0;
    for (const { data, gathers } of this.#queue) {
      if (!gathers || (parts.length > 0 && bytes + data.length > MAX_GATHERED_BYTES)) break;
      parts.push(data);
      bytes += data.length;
    }
    return Buffer.concat(parts, bytes);
  }

  /** So many bytes from the first message on are on their way. */
  #sent(bytes: number): void {
    this.#unsent -= bytes;
    let left = bytes;
    // The first may have no bytes at all.
    do {
      const first = this.#queue[0];
      if (left < first.data.length) {
        first.data = first.data.subarray(left);
        first.fds = [];
        return;
      }
      left -= first.data.length;
      this.#queue.shift();
    } while (left > 0);
  }

  #watch(): void {
    if (this.#closed) return;
    const interest = (this.#wantsRead ? 1 : 0) | (this.#queue.length > 0 ? 2 : 0);
    if (interest === this.#interest) return;
    this.#interest = interest;
    if (interest === 0) this.#poll.stop();
    else this.#poll.start((interest & 1) !== 0, (interest & 2) !== 0);
  }
}
