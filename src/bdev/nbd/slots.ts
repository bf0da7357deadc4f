/**
 * The requests of NBD bdevs that a reactor has under way, by slot, and the lists of them: each bdev has its own, in the order in which they
 * are sent. Those before its `unsent` are with the server, or on their way there. Hot.
 */
import { MAX_INFLIGHT } from '../../limits.ts';
import { Pieces } from './pieces.ts';

export const NONE = -1;

export const State = {
  NONE: 0,
  /** It is to be sent. */
  QUEUED: 1,
  /** It is in a buffer that is sent, or with the server. */
  SENT: 2,
  /** The request layer will hear that it is over. */
  ENDED: 3,
} as const;

/** A reactor's, for all its NBD bdevs. */
export class NbdSlots {
  readonly state = new Uint8Array(MAX_INFLIGHT);
  /** The bdev's list that it is in. */
  readonly list: (SlotList | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);
  readonly next = new Int32Array(MAX_INFLIGHT);
  readonly previous = new Int32Array(MAX_INFLIGHT);
  /** Of its last request: no two of a slot have the same. */
  readonly cookie = new Int32Array(MAX_INFLIGHT);
  /** When it came, in ticks of its bdev. */
  readonly stamp = new Int32Array(MAX_INFLIGHT);
  /** NbdCommand of the request that is sent next, or was. */
  readonly command = new Uint8Array(MAX_INFLIGHT);
  /** NbdCommandFlag. */
  readonly flags = new Uint16Array(MAX_INFLIGHT);
  /** Bytes that the request is about, and those that have come of it. */
  readonly length = new Int32Array(MAX_INFLIGHT);
  readonly received = new Int32Array(MAX_INFLIGHT);
  readonly pieces = new Pieces();
  /** The first error of its answer. */
  readonly error = new Int32Array(MAX_INFLIGHT);
  /** Of a Flush: see `NbdWords.flushes`. */
  readonly epoch = new Int32Array(MAX_INFLIGHT);
  /** 1: a Flush follows the write. */
  readonly syncs = new Uint8Array(MAX_INFLIGHT);
  /** 1: nobody waits for it any more, and the memory of whoever asked is not to be touched. */
  readonly alone = new Uint8Array(MAX_INFLIGHT);
  /** 1: its time is over, and whoever asked was told. */
  readonly late = new Uint8Array(MAX_INFLIGHT);
}

/** The requests of one bdev. */
export class SlotList {
  readonly #slots: NbdSlots;
  first = NONE;
  #last = NONE;
  /** The first that is to be sent. */
  unsent = NONE;

  constructor(slots: NbdSlots) {
    this.#slots = slots;
  }

  get empty(): boolean {
    return this.first === NONE;
  }

  /** It is to be sent, after all others. */
  append(slot: number): void {
    const { next, previous, state, list } = this.#slots;
    state[slot] = State.QUEUED;
    list[slot] = this;
    next[slot] = NONE;
    previous[slot] = this.#last;
    if (this.#last === NONE) {
      this.first = slot;
    } else {
      next[this.#last] = slot;
    }
    this.#last = slot;
    if (this.unsent === NONE) {
      this.unsent = slot;
    }
  }

  /** The first that is to be sent is sent. */
  sent(): void {
    const { next, state } = this.#slots;
    state[this.unsent] = State.SENT;
    this.unsent = next[this.unsent];
  }

  remove(slot: number): void {
    const { next, previous, state, list } = this.#slots;
    const after = next[slot];
    const before = previous[slot];
    state[slot] = State.NONE;
    list[slot] = undefined;
    if (this.unsent === slot) {
      this.unsent = after;
    }
    if (before === NONE) {
      this.first = after;
    } else {
      next[before] = after;
    }
    if (after === NONE) {
      this.#last = before;
    } else {
      previous[after] = before;
    }
  }

  /** All are to be sent, once more. */
  rewind(): void {
    const { next, state } = this.#slots;
    for (let slot = this.first; slot !== this.unsent; slot = next[slot]) {
      state[slot] = State.QUEUED;
    }
    this.unsent = this.first;
  }
}
