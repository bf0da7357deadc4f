/**
 * The memory of a host that is not mapped here, as a controller reaches it: by messages that the host's VMM answers. Owned by main.
 *
 * Nobody who asks for more than there may be under way is refused: it waits, in the order that it came.
 */
import { MAX_REMOTE_MESSAGES } from '../../limits.ts';

/** Who sends the messages. What it rejects with has a `code`, as a system error. */
export interface Reach {
  /** Most bytes of one message. */
  readonly maxBytes: number;
  /** Whether the host has memory at all of [iova, iova + bytes), and the device may `write` to it if it is to. */
  holds(iova: number, bytes: number, write: boolean): boolean;
  read(iova: number, into: Uint8Array): Promise<void>;
  write(iova: number, data: Uint8Array): Promise<void>;
}

/** In place of an IOVA: what would be written there is discarded. */
export const DISCARDED = -1;

/** A piece of the host's memory. Bytes. */
export interface Piece {
  /** Or DISCARDED. */
  readonly iova: number;
  readonly length: number;
}

/** The memory was given up: the controller was reset, or its client is gone. */
export class RemoteMemoryClosed extends Error {
  override readonly name = 'RemoteMemoryClosed';
}

export class RemoteMemory {
  readonly #reach: Reach;
  #underWay = 0;
  /** Who waits for a message to be over, to send one. */
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  constructor(reach: Reach) {
    this.#reach = reach;
  }

  holds(iova: number, bytes: number, write: boolean): boolean {
    return this.#reach.holds(iova, bytes, write);
  }

  /** Fills `into`. Rejects as the messages do, and with RemoteMemoryClosed; nothing is written to `into` then any more. */
  read(iova: number, into: Uint8Array): Promise<void> {
    return this.#move([{ iova, length: into.length }], into, (at, bytes) =>
      this.#reach.read(at, bytes),
    );
  }

  /** Messages are sent in the order of the calls. Rejects as `read` does; parts may have been written then. */
  write(iova: number, data: Uint8Array): Promise<void> {
    return this.#move([{ iova, length: data.length }], data, (at, bytes) =>
      this.#reach.write(at, bytes),
    );
  }

  /** The same for memory in pieces, which have as many bytes as the data. */
  readPieces(pieces: readonly Piece[], into: Uint8Array): Promise<void> {
    return this.#move(pieces, into, (at, bytes) => this.#reach.read(at, bytes));
  }

  writePieces(pieces: readonly Piece[], data: Uint8Array): Promise<void> {
    return this.#move(pieces, data, (at, bytes) => this.#reach.write(at, bytes));
  }

  /** Whoever waits, or asks from now on, is rejected. What is under way is not taken back by this. */
  close(): void {
    this.#closed = true;
    for (const go of this.#waiting.splice(0)) {
      go();
    }
  }

  /** All messages at once; settles when all have. */
  async #move(
    pieces: readonly Piece[],
    bytes: Uint8Array,
    send: (iova: number, bytes: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const { maxBytes } = this.#reach;
    const moves: Promise<void>[] = [];
    let done = 0;
    for (const { iova, length } of pieces) {
      for (let at = 0; at < length && iova !== DISCARDED; at += maxBytes) {
        const part = bytes.subarray(done + at, done + Math.min(at + maxBytes, length));
        moves.push(this.#one(() => send(iova + at, part)));
      }
      done += length;
    }
    const results = await Promise.allSettled(moves);
    const failed = results.find(({ status }) => status === 'rejected');
    if (failed !== undefined) {
      throw (failed as PromiseRejectedResult).reason;
    }
  }

  async #one(send: () => Promise<void>): Promise<void> {
    if (this.#underWay >= MAX_REMOTE_MESSAGES) {
      // Who is over leaves its place to the first that waits.
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    } else {
      this.#underWay += 1;
    }
    try {
      if (this.#closed) {
        throw new RemoteMemoryClosed('the memory of the host was given up');
      }
      await send();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) {
        this.#underWay -= 1;
      } else {
        next();
      }
    }
  }
}
