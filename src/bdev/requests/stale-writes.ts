/**
 * Writes under way whose owner has gone (its controller was reset, its client left) and that cannot be called back: until they end, nothing
 * else may touch their blocks, or an old write would land on top of a new one. Ranges in memory that all reactors share, one such memory a
 * bdev; each entry is written by the reactor that has the write.
 */
import { MAX_STALE_WRITES } from '../../limits.ts';

/** 32-bit words: how many entries are in use; writes that found none; then one word an entry, 1 while it is in use. */
const COUNT = 0;
const OVERFLOW = 1;
const USED = 2;
const RANGES_AT = Math.ceil(((USED + MAX_STALE_WRITES) * 4) / 8);
const BYTES = (RANGES_AT + 2 * MAX_STALE_WRITES) * 8;

/** In place of an entry: there was none left. */
const NO_ENTRY = MAX_STALE_WRITES;

export function makeStaleWrites(): SharedArrayBuffer {
  return new SharedArrayBuffer(BYTES);
}

export class StaleWrites {
  readonly #words: Int32Array;
  /** First byte and end of each entry. */
  readonly #ranges: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
    this.#ranges = new Float64Array(memory, RANGES_AT * 8);
  }

  /** Hot. Whether there are any: a read that costs nothing. */
  get any(): boolean {
    return this.#words[COUNT] !== 0;
  }

  /** Returns the entry, for `remove`. */
  add(offset: number, length: number): number {
    const words = this.#words;
    for (let entry = 0; entry < MAX_STALE_WRITES; entry++) {
      if (Atomics.compareExchange(words, USED + entry, 0, 1) === 0) {
        this.#ranges[2 * entry] = offset;
        this.#ranges[2 * entry + 1] = offset + length;
        Atomics.add(words, COUNT, 1);
        return entry;
      }
    }
    Atomics.add(words, OVERFLOW, 1);
    Atomics.add(words, COUNT, 1);
    return NO_ENTRY;
  }

  remove(entry: number): void {
    const words = this.#words;
    if (entry === NO_ENTRY) {
      Atomics.sub(words, OVERFLOW, 1);
    } else {
      this.#ranges[2 * entry + 1] = 0;
      Atomics.store(words, USED + entry, 0);
    }
    Atomics.sub(words, COUNT, 1);
  }

  /** Whether a request for this range has to wait. Where there are more writes than entries, all have to. */
  blocks(offset: number, length: number): boolean {
    const words = this.#words;
    if (Atomics.load(words, COUNT) === 0) {
      return false;
    }
    if (Atomics.load(words, OVERFLOW) > 0) {
      return true;
    }
    for (let entry = 0; entry < MAX_STALE_WRITES; entry++) {
      const from = this.#ranges[2 * entry];
      const end = this.#ranges[2 * entry + 1];
      if (Atomics.load(words, USED + entry) === 1 && offset < end && from < offset + length) {
        return true;
      }
    }
    return false;
  }
}
