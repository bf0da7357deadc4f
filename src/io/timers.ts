/** A timer a slot, kept by the kernel: it ends as a completion of the ring, so that a reactor can sleep meanwhile. Owned by one reactor. */
import { MAX_INFLIGHT } from '../limits.ts';
import type { System } from '../native/system.ts';
import { Timespec } from '../spec/uring.ts';
import { type Ring, UNHEARD } from './ring.ts';

const WORDS = Timespec.size / 4;
const SECONDS = Timespec.word('seconds');
const NANOSECONDS = Timespec.word('nanoseconds');
const US_PER_SECOND = 1_000_000;

export class Timers {
  readonly #ring: Ring;
  readonly #words: Int32Array;
  readonly #base: number;
  /** Of the timespec in use, at index 0. */
  readonly #address = new Float64Array(1);

  constructor(ring: Ring, system: System) {
    this.#ring = ring;
    this.#words = new Int32Array(system.mapAnonymous(MAX_INFLIGHT * Timespec.size));
    this.#base = system.addressOf(this.#words);
  }

  /** The ring completes `slot` after so many microseconds, up to 2^32 − 1. A slot has one timer at a time. */
  start(slot: number, microseconds: number): void {
    const at = slot * WORDS;
    this.#words[at + SECONDS] = microseconds / US_PER_SECOND;
    this.#words[at + NANOSECONDS] = (microseconds % US_PER_SECOND) * 1000;
    this.#address[0] = this.#base + slot * Timespec.size;
    this.#ring.prepareTimeout(this.#address, slot);
  }

  /** The ring completes `slot` now. Of no effect if it is about to in any case. */
  cancel(slot: number): void {
    this.#ring.cancelTimeout(slot, UNHEARD);
  }
}
