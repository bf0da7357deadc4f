/**
 * The errors to be injected into a bdev's I/O: 32-bit words that all reactors share. Main writes them; the number that is left of each kind is
 * taken from by reactors, too, so that an error that was asked for n times happens n times, whoever it hits.
 */

import { OPERATIONS } from './op.ts';

/** What can be done to a command, as SPDK names it. */
export const INJECTED_ERRORS = {
  /** Internal error. */
  failure: 1,
  /** It does not complete. */
  pending: 2,
  /** A byte of its data is changed. */
  corrupt_data: 3,
  /** It is tried again a little later. */
  nomem: 4,
  /** It fails with a status of the operator's choice. */
  nvme_failure: 5,
} as const;
export type InjectedError = keyof typeof INJECTED_ERRORS;
export const NO_ERROR = 0;

export interface Injection {
  readonly error: InjectedError;
  /** Commands it is to happen to, below 2^32. */
  readonly count: number;
  /** Of `nvme_failure`: status code type and status code, as in a completion. */
  readonly status: number;
  /** It happens only while so many commands of the namespace are under way in the reactor. */
  readonly queueDepth: number;
  /** Of `corrupt_data`: the byte of the command's data, and the bits to be inverted. */
  readonly corruptOffset: number;
  readonly corruptValue: number;
}

const Word = { COUNT: 0, ERROR: 1, STATUS: 2, DEPTH: 3, OFFSET: 4, VALUE: 5 } as const;
const WORDS = 8;
const OPS = OPERATIONS.length;
/** Behind the operations: how often what is pending was let go on. */
const RESUMED = OPS * WORDS;
const MOST = 2 ** 31 - 1;

export function makeInjections(): SharedArrayBuffer {
  return new SharedArrayBuffer((RESUMED + 1) * Int32Array.BYTES_PER_ELEMENT);
}

/** In place of what was to be injected into `op` before. By main. */
export function inject(memory: SharedArrayBuffer, op: number, injection: Injection): void {
  const words = new Int32Array(memory, op * WORDS * Int32Array.BYTES_PER_ELEMENT, WORDS);
  Atomics.store(words, Word.COUNT, 0);
  words[Word.ERROR] = INJECTED_ERRORS[injection.error];
  words[Word.STATUS] = injection.status;
  words[Word.DEPTH] = Math.min(injection.queueDepth, MOST);
  words[Word.OFFSET] = Math.min(injection.corruptOffset, MOST);
  words[Word.VALUE] = injection.corruptValue;
  Atomics.store(words, Word.COUNT, injection.count | 0);
}

/** Injects no more errors. By main. */
export function clearInjections(memory: SharedArrayBuffer): void {
  const words = new Int32Array(memory);
  for (let op = 0; op < OPS; op++) {
    Atomics.store(words, op * WORDS + Word.COUNT, 0);
  }
}

/** Commands that are pending by now are carried out. By main. */
export function resumePending(memory: SharedArrayBuffer): void {
  Atomics.add(new Int32Array(memory), RESUMED, 1);
}

/** A reactor's view. */
export class Injections {
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
  }

  /** What is to happen to the next command, of INJECTED_ERRORS or NO_ERROR; it counts as done. `inflight`: commands under way. */
  take(op: number, inflight: number): number {
    const words = this.#words;
    const base = op * WORDS;
    let left = Atomics.load(words, base + Word.COUNT);
    if (left === 0 || inflight < words[base + Word.DEPTH]) {
      return NO_ERROR;
    }
    while (left !== 0) {
      const found = Atomics.compareExchange(words, base + Word.COUNT, left, left - 1);
      if (found === left) {
        return words[base + Word.ERROR];
      }
      left = found;
    }
    return NO_ERROR;
  }

  /** Another number than it was: what was pending then goes on. */
  get resumed(): number {
    return Atomics.load(this.#words, RESUMED);
  }

  status(op: number): number {
    return this.#words[op * WORDS + Word.STATUS];
  }

  corruptOffset(op: number): number {
    return this.#words[op * WORDS + Word.OFFSET];
  }

  corruptValue(op: number): number {
    return this.#words[op * WORDS + Word.VALUE];
  }
}
