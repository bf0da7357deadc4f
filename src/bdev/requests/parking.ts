/**
 * Requests of one owner that wait before they hold a slot, each as the plane's own words for the command and what the layer needs to know to
 * let it go. Each holds room in a completion queue, so their number is bounded by the size of the owner's queues. Storage grows by doubling
 * and is kept: an owner that never waits has none.
 */
import { COMMAND_WORDS, MAX_PARKED } from '../../limits.ts';
import type { Op } from '../op.ts';
import type { RequestQueue } from './owner.ts';

export const NOBODY = -1;
const FIRST_CAPACITY = 64;

export class Parking {
  #capacity = 0;
  #free = NOBODY;
  /** Requests that wait. */
  count = 0;
  // By place.
  queue: (RequestQueue | undefined)[] = [];
  /** The plane's command, COMMAND_WORDS each. */
  words = new Int32Array(0);
  /** The one behind it, or NOBODY. */
  next = new Int32Array(0);
  op = new Uint8Array(0);
  cid = new Int32Array(0);
  /** Where in the bdev, and how much. Bytes. */
  offset = new Float64Array(0);
  length = new Float64Array(0);
  /** When it came. Nanoseconds. */
  start = new Float64Array(0);

  /** Takes a place for a command of which the words begin at `from[base]`. NOBODY if there are too many. */
  take(queue: RequestQueue, op: Op, cid: number, from: Int32Array, base: number): number {
    if (this.#free === NOBODY && !this.#grow()) {
      return NOBODY;
    }
    const place = this.#free;
    this.#free = this.next[place];
    this.count += 1;
    this.queue[place] = queue;
    this.next[place] = NOBODY;
    this.op[place] = op;
    this.cid[place] = cid;
    const at = place * COMMAND_WORDS;
    for (let i = 0; i < COMMAND_WORDS; i++) {
      this.words[at + i] = from[base + i];
    }
    return place;
  }

  give(place: number): void {
    this.queue[place] = undefined;
    this.next[place] = this.#free;
    this.#free = place;
    this.count -= 1;
  }

  #grow(): boolean {
    const before = this.#capacity;
    const capacity = Math.min(MAX_PARKED, Math.max(FIRST_CAPACITY, 2 * before));
    if (capacity === before) {
      return false;
    }
    const grown = <T extends Int32Array | Float64Array | Uint8Array>(made: T, old: T): T => {
      made.set(old);
      return made;
    };
    this.words = grown(new Int32Array(capacity * COMMAND_WORDS), this.words);
    this.next = grown(new Int32Array(capacity), this.next);
    this.op = grown(new Uint8Array(capacity), this.op);
    this.cid = grown(new Int32Array(capacity), this.cid);
    this.offset = grown(new Float64Array(capacity), this.offset);
    this.length = grown(new Float64Array(capacity), this.length);
    this.start = grown(new Float64Array(capacity), this.start);
    for (let place = capacity - 1; place >= before; place--) {
      this.queue[place] = undefined;
      this.next[place] = this.#free;
      this.#free = place;
    }
    this.#capacity = capacity;
    return true;
  }
}
