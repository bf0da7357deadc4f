/** The requests of a reactor that complete later. Each holds a slot, whose number is its operation's user data in the ring. Hot. */
import { MAX_INFLIGHT } from '../../limits.ts';
import type { Op } from '../op.ts';
import type { BdevChannel } from './channel.ts';
import type { RequestQueue } from './owner.ts';
import type { Share } from './share.ts';

const NONE = -1;

export class Slots {
  // By slot.
  /** Undefined: nobody waits for it any more (or nothing is there). */
  readonly queue: (RequestQueue | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);
  readonly share: (Share | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);
  readonly #cid = new Int32Array(MAX_INFLIGHT);
  readonly #op = new Int32Array(MAX_INFLIGHT);
  readonly #bytes = new Int32Array(MAX_INFLIGHT);
  /** Where in the bdev. Bytes. */
  readonly offset = new Float64Array(MAX_INFLIGHT);
  /** Of discards: the bytes from the first to the last, and those that are discarded. */
  readonly span = new Float64Array(MAX_INFLIGHT);
  readonly discarded = new Float64Array(MAX_INFLIGHT);
  /** Of copies from other bdevs: these, which stay open meanwhile. */
  readonly sources: (readonly BdevChannel[] | undefined)[] = new Array(MAX_INFLIGHT).fill(
    undefined,
  );
  /** When the request came. Nanoseconds. */
  readonly start = new Float64Array(MAX_INFLIGHT);
  /** Bits of the drains that wait for it. */
  readonly marks = new Int32Array(MAX_INFLIGHT);
  /** Its entry among the stale writes of its bdev, or −1. */
  readonly stale = new Int32Array(MAX_INFLIGHT).fill(NONE);
  /** The first slot is on top. */
  readonly #free = Int32Array.from({ length: MAX_INFLIGHT }, (_, i) => MAX_INFLIGHT - 1 - i);
  #freeCount = MAX_INFLIGHT;
  /** Slots below this were used. */
  #used = 0;

  get count(): number {
    return MAX_INFLIGHT - this.#freeCount;
  }

  /** No slot at or above this is taken: the bound of a walk over all. */
  get end(): number {
    return this.#used;
  }

  get full(): boolean {
    return this.#freeCount === 0;
  }

  /** The slot that `take` takes. */
  get next(): number {
    return this.#free[this.#freeCount - 1];
  }

  take(queue: RequestQueue, share: Share, op: Op, cid: number, bytes: number): void {
    this.#freeCount -= 1;
    const slot = this.#free[this.#freeCount];
    this.queue[slot] = queue;
    this.share[slot] = share;
    this.#op[slot] = op;
    this.#cid[slot] = cid;
    this.#bytes[slot] = bytes;
    if (slot >= this.#used) {
      this.#used = slot + 1;
    }
  }

  /** What is known of the request stays until the slot is taken again. */
  give(slot: number): void {
    this.queue[slot] = undefined;
    this.share[slot] = undefined;
    this.#free[this.#freeCount] = slot;
    this.#freeCount += 1;
  }

  op(slot: number): Op {
    return this.#op[slot] as Op;
  }

  cid(slot: number): number {
    return this.#cid[slot];
  }

  bytes(slot: number): number {
    return this.#bytes[slot];
  }
}
