/**
 * The memory of one queue pair's verification: which version of each place was written last. A place has one command in flight at most,
 * so it is always known what a read must find. Places of other queue pairs are theirs.
 */
import { compareBlock, describeMismatch, fillBlock } from './pattern.ts';

/** Places of a queue pair, over all its namespaces: a word and a byte each. */
export const MAX_VERIFIED_PLACES = 2 ** 27;

/** A read found something other than what was written. */
export class VerifyError extends Error {
  override readonly name = 'VerifyError';
}

/** The part of a namespace that is verified. */
export interface VerifiedRange {
  readonly nsid: number;
  readonly places: number;
  readonly firstLba: number;
  /** Of a place. */
  readonly lbas: number;
  readonly lbaBytes: number;
}

export class Verifier {
  /** Blocks of commands that were read and compared. */
  checked = 0;
  readonly #seed: number;
  readonly #ranges: readonly VerifiedRange[];
  /** By range and place: the version on the disk, 0 if this run wrote none; and whether a command is in flight. */
  readonly #versions: readonly Uint32Array[];
  readonly #busy: readonly Uint8Array[];
  /** Where the search for places to check goes on. */
  #sweepRange = 0;
  #sweepPlace = 0;

  constructor(seed: number, ranges: readonly VerifiedRange[]) {
    this.#seed = seed | 0;
    this.#ranges = ranges;
    this.#versions = ranges.map(({ places }) => new Uint32Array(places));
    this.#busy = ranges.map(({ places }) => new Uint8Array(places));
  }

  /** The first place from `place` on without a command in flight; there are more places than commands. It now has one. */
  claim(range: number, place: number): number {
    const busy = this.#busy[range];
    let free = place;
    while (busy[free] !== 0) {
      free = free + 1 === busy.length ? 0 : free + 1;
    }
    busy[free] = 1;
    return free;
  }

  /** Puts the next version of a place into the buffer of a write. */
  fill(words: Int32Array, range: number, place: number): void {
    const { firstLba, lbas, lbaBytes } = this.#ranges[range];
    const version = this.#versions[range][place] + 1;
    for (let i = 0; i < lbas; i++) {
      const lba = firstLba + place * lbas + i;
      fillBlock(words, (i * lbaBytes) / 4, lbaBytes / 4, lba, version, this.#seed);
    }
  }

  /** A write of the place has completed. */
  wrote(range: number, place: number): void {
    this.#versions[range][place] += 1;
    this.#busy[range][place] = 0;
  }

  /** A read of the place has completed. Throws a VerifyError if it is not what was written. */
  read(words: Int32Array, range: number, place: number): void {
    this.#busy[range][place] = 0;
    const version = this.#versions[range][place];
    if (version === 0) {
      return;
    }
    this.checked += 1;
    const { nsid, firstLba, lbas, lbaBytes } = this.#ranges[range];
    for (let i = 0; i < lbas; i++) {
      const [at, lba] = [(i * lbaBytes) / 4, firstLba + place * lbas + i];
      const index = compareBlock(words, at, lbaBytes / 4, lba, version, this.#seed);
      if (index >= 0) {
        const what = describeMismatch(words, at, index, lba, version, this.#seed);
        throw new VerifyError(`namespace ${nsid}: ${what}`);
      }
    }
  }

  /** The range of the next place that was written, for a sweep over all of them; -1 after the last. `sweepPlace` has the place. */
  sweep(): number {
    while (this.#sweepRange < this.#ranges.length) {
      const versions = this.#versions[this.#sweepRange];
      while (this.#sweepPlace < versions.length) {
        this.#sweepPlace += 1;
        if (versions[this.#sweepPlace - 1] !== 0) {
          return this.#sweepRange;
        }
      }
      this.#sweepRange += 1;
      this.#sweepPlace = 0;
    }
    return -1;
  }

  get sweepPlace(): number {
    return this.#sweepPlace - 1;
  }
}
