/**
 * A stream socket as main uses it while a connection is made: what is sent and what is expected, one after the other, within a time. Then the
 * descriptor is somebody else's. Owned by main.
 */
import { type FdPoll, native } from '../../native/index.ts';
import { ErrnoError } from '../../util/errors.ts';

/** Bytes read at a time. */
const CHUNK = 4096;

interface Expected {
  readonly count: number;
  readonly resolve: (data: Buffer) => void;
  readonly reject: (error: unknown) => void;
}

// Filled and looked at within one call.
const passed = new Int32Array(254);

export class Wire {
  readonly fd: number;
  readonly #poll: FdPoll;
  readonly #timer: NodeJS.Timeout;
  #received: Buffer = Buffer.alloc(0);
  #unsent: Buffer = Buffer.alloc(0);
  #expected: Expected | undefined;
  #failure: unknown;
  #closed = false;

  /** Takes a connected, non-blocking descriptor, which stays the caller's to close. After `timeoutMs` everything fails with ETIMEDOUT. */
  constructor(fd: number, timeoutMs: number) {
    this.fd = fd;
    this.#poll = new native.FdPoll(fd, (readable, writable) => this.#onReady(readable, writable));
    this.#timer = setTimeout(
      () => this.#fail(new ErrnoError('ETIMEDOUT', 'the server does not answer')),
      timeoutMs,
    );
    this.#watch();
  }

  /** The next `count` bytes. Rejects with what the system says, ECONNRESET at the end of the stream, ETIMEDOUT. One call at a time. */
  receive(count: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#expected = { count, resolve, reject };
      this.#settle();
    });
  }

  /** Sends, now or when there is room. What goes wrong is told by the next `receive`. */
  send(...parts: readonly Uint8Array[]): void {
    this.#unsent = Buffer.concat([this.#unsent, ...parts]);
    this.#push();
  }

  /** Bytes that came and that nobody has asked for. */
  get surplus(): number {
    return this.#received.length;
  }

  /** The descriptor is the caller's alone. */
  release(): void {
    if (!this.#closed) {
      this.#closed = true;
      clearTimeout(this.#timer);
      this.#poll.close();
    }
  }

  #watch(): void {
    if (!this.#closed && this.#failure === undefined) {
      this.#poll.start(true, this.#unsent.length > 0);
    }
  }

  #onReady(readable: boolean, writable: boolean): void {
    if (writable) {
      this.#push();
    }
    if (readable) {
      this.#pull();
    }
  }

  #push(): void {
    try {
      while (this.#unsent.length > 0) {
        const sent = native.socketSend(this.fd, this.#unsent, []);
        if (sent < 0) {
          break;
        }
        this.#unsent = this.#unsent.subarray(sent);
      }
      this.#watch();
    } catch (error) {
      this.#fail(error);
    }
  }

  #pull(): void {
    const buffer = Buffer.alloc(CHUNK);
    try {
      const count = native.socketReceive(this.fd, buffer, passed);
      if (count === 0) {
        this.#fail(new ErrnoError('ECONNRESET', 'the server has ended the connection'));
      } else if (count > 0) {
        this.#received = Buffer.concat([this.#received, buffer.subarray(0, count)]);
        this.#settle();
        // Nobody asks for it: a peer that sends on and on is not read.
        if (this.#expected === undefined && !this.#closed) {
          this.#poll.stop();
        }
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  #settle(): void {
    const expected = this.#expected;
    if (expected === undefined) {
      return;
    }
    if (this.#received.length >= expected.count) {
      this.#expected = undefined;
      const data = this.#received.subarray(0, expected.count);
      this.#received = this.#received.subarray(expected.count);
      expected.resolve(data);
    } else if (this.#failure !== undefined) {
      this.#expected = undefined;
      expected.reject(this.#failure);
    } else {
      this.#watch();
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= error;
    if (!this.#closed) {
      this.#poll.stop();
    }
    this.#settle();
  }
}
