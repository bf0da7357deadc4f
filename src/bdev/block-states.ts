/**
 * What is special about blocks of a bdev, in memory that main and all reactors share: one such memory a file, or a bdev without one. Nothing is
 * special of most bdevs, which one word says.
 *
 * Uncorrectable ranges: main writes them, into the half of the table that nobody reads, and then says by the version which half is to be read.
 * A reactor that wants them changed writes what it asks for into an entry, and raises the word that main waits for.
 */
import { MAX_UNCORRECTABLE_ASKED, MAX_UNCORRECTABLE_RANGES } from '../limits.ts';

/** 32-bit words. */
const Word = {
  /** How many kinds of special blocks there are. */
  ATTENTION: 0,
  /** The half of the table that is valid is VERSION modulo 2. */
  VERSION: 1,
  /** Ranges in each half. */
  COUNT: 2,
  /** Raised for each thing that a reactor asks for. */
  ASKED: 4,
  /** By entry: Entry, and Change. */
  STATE: 8,
  CHANGE: 8 + MAX_UNCORRECTABLE_ASKED,
} as const;
const WORDS = 8 + 2 * MAX_UNCORRECTABLE_ASKED;
/** 64-bit floats after them: offset and end of each entry, then of each range, in bytes. */
const ENTRIES_AT = Math.ceil(WORDS / 2);
const RANGES_AT = ENTRIES_AT + 2 * MAX_UNCORRECTABLE_ASKED;
const HALF = 2 * MAX_UNCORRECTABLE_RANGES;
const BYTES = (RANGES_AT + 2 * HALF) * 8;

const Entry = { FREE: 0, TAKEN: 1, ASKED: 2, ANSWERED: 3 } as const;

/** What a reactor can ask for. */
export const Change = { MARK: 0, CLEAR: 1 } as const;
export type Change = (typeof Change)[keyof typeof Change];

/** What main can answer. */
export const Answer = {
  NONE: 0,
  DONE: 1,
  /** There would be more ranges than there may be. Nothing has changed. */
  FULL: 2,
  /** It could not be kept. Nothing has changed. */
  FAILED: 3,
} as const;
export type Answer = (typeof Answer)[keyof typeof Answer];

/** In place of an entry: all are in use. */
export const NO_ENTRY = -1;

export function makeBlockStates(): SharedArrayBuffer {
  return new SharedArrayBuffer(BYTES);
}

/** A reactor's view. */
export class BlockStates {
  readonly #words: Int32Array;
  readonly #floats: Float64Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory, 0, WORDS);
    this.#floats = new Float64Array(memory);
  }

  /** Hot. Whether anything is special about any block: a read that costs nothing. */
  get any(): boolean {
    return this.#words[Word.ATTENTION] !== 0;
  }

  /** Whether any of these bytes is uncorrectable. */
  isUncorrectable(offset: number, length: number): boolean {
    const words = this.#words;
    for (;;) {
      const version = Atomics.load(words, Word.VERSION);
      const found = this.#search(version & 1, offset, offset + length);
      if (Atomics.load(words, Word.VERSION) === version) {
        return found;
      }
    }
  }

  /** The ranges are in ascending order, and do not touch. */
  #search(half: number, offset: number, end: number): boolean {
    const floats = this.#floats;
    const base = RANGES_AT + half * HALF;
    let low = 0;
    let high = this.#words[Word.COUNT + half];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (floats[base + 2 * middle + 1] <= offset) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low < this.#words[Word.COUNT + half] && floats[base + 2 * low] < end;
  }

  /** Asks main to mark these bytes, or to clear them. Returns the entry, for `answer`; or NO_ENTRY. */
  ask(change: Change, offset: number, length: number): number {
    const words = this.#words;
    for (let entry = 0; entry < MAX_UNCORRECTABLE_ASKED; entry++) {
      if (Atomics.compareExchange(words, Word.STATE + entry, Entry.FREE, Entry.TAKEN) === 0) {
        words[Word.CHANGE + entry] = change;
        this.#floats[ENTRIES_AT + 2 * entry] = offset;
        this.#floats[ENTRIES_AT + 2 * entry + 1] = offset + length;
        Atomics.store(words, Word.STATE + entry, Entry.ASKED);
        Atomics.add(words, Word.ASKED, 1);
        Atomics.notify(words, Word.ASKED);
        return entry;
      }
    }
    return NO_ENTRY;
  }

  /** What main answers, or NONE if it has not yet. After an answer the entry is another's to take. */
  answer(entry: number): Answer {
    const words = this.#words;
    const state = Atomics.load(words, Word.STATE + entry);
    if (state < Entry.ANSWERED) {
      return Answer.NONE;
    }
    Atomics.store(words, Word.STATE + entry, Entry.FREE);
    return (state - Entry.ANSWERED) as Answer;
  }
}

/** What a reactor asks for. */
export interface AskedChange {
  readonly entry: number;
  readonly change: Change;
  /** Bytes. */
  readonly offset: number;
  readonly end: number;
}

/** Main's view. */
export class BlockStatesOwner {
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  #closed = false;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory, 0, WORDS);
    this.#floats = new Float64Array(memory);
  }

  /** Everything that is asked for and not answered, again and again as it comes, until `close`. */
  async *asked(): AsyncGenerator<readonly AskedChange[]> {
    const words = this.#words;
    while (!this.#closed) {
      const seen = Atomics.load(words, Word.ASKED);
      const asked = this.#collect();
      if (asked.length > 0) {
        yield asked;
      } else {
        await Atomics.waitAsync(words, Word.ASKED, seen).value;
      }
    }
  }

  #collect(): AskedChange[] {
    const asked: AskedChange[] = [];
    for (let entry = 0; entry < MAX_UNCORRECTABLE_ASKED; entry++) {
      if (Atomics.load(this.#words, Word.STATE + entry) === Entry.ASKED) {
        asked.push({
          entry,
          change: this.#words[Word.CHANGE + entry] as Change,
          offset: this.#floats[ENTRIES_AT + 2 * entry],
          end: this.#floats[ENTRIES_AT + 2 * entry + 1],
        });
      }
    }
    return asked;
  }

  answer({ entry }: AskedChange, answer: Answer): void {
    Atomics.store(this.#words, Word.STATE + entry, Entry.ANSWERED + answer);
  }

  /** Ranges in ascending order that do not touch, each as offset and end: MAX_UNCORRECTABLE_RANGES at most. */
  publish(ranges: readonly (readonly [number, number])[]): void {
    const words = this.#words;
    const version = words[Word.VERSION] + 1;
    const half = version & 1;
    for (const [i, [offset, end]] of ranges.entries()) {
      this.#floats[RANGES_AT + half * HALF + 2 * i] = offset;
      this.#floats[RANGES_AT + half * HALF + 2 * i + 1] = end;
    }
    const before = words[Word.COUNT + (1 - half)];
    words[Word.COUNT + half] = ranges.length;
    Atomics.store(words, Word.VERSION, version);
    Atomics.add(words, Word.ATTENTION, Math.min(ranges.length, 1) - Math.min(before, 1));
  }

  /** Nobody asks any more. */
  close(): void {
    this.#closed = true;
    Atomics.notify(this.#words, Word.ASKED);
  }
}
