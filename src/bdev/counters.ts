/**
 * What a reactor counts of the I/O of one namespace of one controller: a row of 64-bit floats in shared memory, one block of rows a reactor.
 * A row belongs to the reactor from the time main names it in a message until the namespace or the controller is gone there; main reads it
 * at any time (each counter is exact, two may differ by a command), and writes only rows that nobody has. See `tally.ts` for the readers.
 */
import { MAX_COUNTER_ROWS } from '../limits.ts';
import { Counted, countedAs, Op } from './op.ts';

/** Buckets of a latency histogram are eight an octave: bucket 8·r + i holds what begins at (8 + i)·2^(r−1) ns (r = 0: i ns). */
export const LATENCY_SHIFT = 3;
const LATENCY_MASK = (1 << LATENCY_SHIFT) - 1;
/** Up to 2^41 ns, 36 minutes; what is longer is in the last bucket. */
export const LATENCY_BUCKETS = 312;
/** Statuses, as the protocol of the plane has them, that a row counts one by one. */
export const STATUSES = 8;

/** Columns of a row. Those of reads and writes are `Counted` apart. */
export const Column = {
  OPS: 0,
  BYTES: 2,
  /** Commands whose latency was measured, or for which that of another stands (see `sample`); and its sum in ns. */
  TIMED: 4,
  LATENCY: 6,
  MAX_LATENCY: 8,
  /** Plus one, so that 0 means "none yet". */
  MIN_LATENCY: 10,
  FLUSHES: 12,
  /** Errors that the backend reported (the others were found before it was asked). */
  BACKEND_ERRORS: 13,
  /** Errors with a status that found no place in the table. */
  OTHER_ERRORS: 14,
  DISCARDS: 15,
  DISCARDED_BYTES: 16,
  /** Operations that are none of these. */
  OTHERS: 17,
  /** STATUSES pairs of status and count. */
  ERRORS: 18,
  HISTOGRAM: 18 + 2 * STATUSES,
} as const;
export const COLUMNS = Column.HISTOGRAM + 2 * LATENCY_BUCKETS;

const ROW_BYTES = COLUMNS * Float64Array.BYTES_PER_ELEMENT;
export const COUNTERS_BYTES = Math.ceil((MAX_COUNTER_ROWS * ROW_BYTES) / 4096) * 4096;

const TWO_31 = 2 ** 31;
const FAR_BITS = 16;

export function rowOf(memory: SharedArrayBuffer, index: number): Float64Array {
  return new Float64Array(memory, index * ROW_BYTES, COLUMNS);
}

/** The bucket of a latency below 2^31 ns. */
function bucketOf(ns: number): number {
  const octave = 31 - Math.clz32(ns | LATENCY_MASK);
  return octave < LATENCY_SHIFT
    ? ns
    : ((octave - LATENCY_SHIFT + 1) << LATENCY_SHIFT) +
        ((ns >>> (octave - LATENCY_SHIFT)) & LATENCY_MASK);
}

/** The first latency above a bucket's, in ns. */
export function bucketEnd(bucket: number): number {
  const range = bucket >>> LATENCY_SHIFT;
  const at = (bucket & LATENCY_MASK) + 1;
  return range === 0 ? at : (LATENCY_MASK + 1 + at) * 2 ** (range - 1);
}

/** The writer of a row. */
export class Counters {
  readonly #row: Float64Array;

  constructor(memory: SharedArrayBuffer, index: number) {
    this.#row = rowOf(memory, index);
  }

  /** Hot. A command has succeeded. `length`: bytes of data. */
  count(op: Op, length: number): void {
    const row = this.#row;
    if (op <= Op.WRITE) {
      row[Column.OPS + op] += 1;
      row[Column.BYTES + op] += length;
    } else {
      this.#countRare(countedAs(op), length);
    }
  }

  #countRare(counted: Counted, length: number): void {
    const row = this.#row;
    if (counted <= Counted.WRITE) {
      row[Column.OPS + counted] += 1;
      row[Column.BYTES + counted] += length;
    } else if (counted === Counted.FLUSH) {
      row[Column.FLUSHES] += 1;
    } else if (counted === Counted.DISCARD) {
      row[Column.DISCARDS] += 1;
      row[Column.DISCARDED_BYTES] += length;
    } else {
      row[Column.OTHERS] += 1;
    }
  }

  /** A command was completed with an error. */
  fail(status: number): void {
    const row = this.#row;
    for (let at: number = Column.ERRORS; at < Column.HISTOGRAM; at += 2) {
      if (row[at] === status || row[at + 1] === 0) {
        row[at] = status;
        row[at + 1] += 1;
        return;
      }
    }
    row[Column.OTHER_ERRORS] += 1;
  }

  /** The backend reported that error. */
  failBackend(): void {
    this.#row[Column.BACKEND_ERRORS] += 1;
  }

  /** Adds the time from `start[slot]` to `now[0]` (arrays, so that no double is allocated on the way). Nanoseconds. */
  time(op: Op, now: Float64Array, start: Float64Array, slot: number): void {
    const counted = countedAs(op);
    if (counted <= Counted.WRITE) {
      this.#add(counted, now, start, slot, 1);
    }
  }

  /**
   * As `time`, of a command that stands for all that were counted since the last and not timed. So sums of rows are right, also where one
   * row has samples and another every command.
   */
  sample(op: Op, now: Float64Array, start: Float64Array, slot: number): void {
    const counted = countedAs(op);
    if (counted <= Counted.WRITE) {
      const row = this.#row;
      const untimed = row[Column.OPS + counted] - row[Column.TIMED + counted];
      this.#add(counted, now, start, slot, Math.max(1, untimed));
    }
  }

  #add(op: Counted, now: Float64Array, start: Float64Array, slot: number, weight: number): void {
    const row = this.#row;
    const elapsed = now[0] - start[slot];
    row[Column.TIMED + op] += weight;
    row[Column.LATENCY + op] += weight * elapsed;
    if (elapsed > row[Column.MAX_LATENCY + op]) {
      row[Column.MAX_LATENCY + op] = elapsed;
    }
    const least = row[Column.MIN_LATENCY + op];
    if (least === 0 || elapsed + 1 < least) {
      row[Column.MIN_LATENCY + op] = elapsed + 1;
    }
    const bucket =
      elapsed < TWO_31
        ? bucketOf(elapsed | 0)
        : Math.min(
            bucketOf((elapsed / 2 ** FAR_BITS) | 0) + (FAR_BITS << LATENCY_SHIFT),
            LATENCY_BUCKETS - 1,
          );
    row[Column.HISTOGRAM + op * LATENCY_BUCKETS + bucket] += weight;
  }

  /** Forgets the shortest and the longest latency. */
  clearExtremes(): void {
    this.#row.fill(0, Column.MAX_LATENCY, Column.FLUSHES);
  }
}
