/**
 * I/O counters of the bdevs, one block of shared memory per reactor: the reactor writes its own, main reads all.
 * A read by main may fall between two counters of one command; each counter is exact.
 */
import { MAX_BDEVS } from '../limits.ts';
import { Op } from './op.ts';

/** Columns of a bdev's row. Read and write columns are `op` apart (see Op). */
const Column = {
  OPS: 0,
  BYTES: 2,
  LATENCY: 4,
  MAX_LATENCY: 6,
  /** Plus one, so that 0 means "none yet". */
  MIN_LATENCY: 8,
  FLUSHES: 10,
  ERRORS: 11,
} as const;
const COLUMNS = 12;

export const COUNTERS_BYTES = MAX_BDEVS * COLUMNS * Float64Array.BYTES_PER_ELEMENT;

/** What bdev_get_iostat shows of one bdev on one reactor. Ticks are nanoseconds. */
export interface IoCounters {
  bytesRead: number;
  numReadOps: number;
  bytesWritten: number;
  numWriteOps: number;
  readLatencyTicks: number;
  maxReadLatencyTicks: number;
  minReadLatencyTicks: number;
  writeLatencyTicks: number;
  maxWriteLatencyTicks: number;
  minWriteLatencyTicks: number;
  /** Completions with an error. */
  errors: number;
}

/** The counters of one bdev on one reactor. Times are nanoseconds. */
export class Counters {
  readonly #row: Float64Array;

  constructor(memory: SharedArrayBuffer, bdevIndex: number) {
    const bytes = COLUMNS * Float64Array.BYTES_PER_ELEMENT;
    this.#row = new Float64Array(memory, bdevIndex * bytes, COLUMNS);
  }

  /** Hot. Counts a completed command. */
  count(op: number, length: number, status: number): void {
    const row = this.#row;
    if (status !== 0) {
      row[Column.ERRORS] += 1;
    } else if (op === Op.FLUSH) {
      row[Column.FLUSHES] += 1;
    } else {
      row[Column.OPS + op] += 1;
      row[Column.BYTES + op] += length;
    }
  }

  /** Adds the time from `start[slot]` to `now[0]` (arrays, so that no double is allocated on the way). */
  time(op: number, now: Float64Array, start: Float64Array, slot: number): void {
    if (op === Op.FLUSH) {
      return;
    }
    const row = this.#row;
    const elapsed = now[0] - start[slot];
    row[Column.LATENCY + op] += elapsed;
    if (elapsed > row[Column.MAX_LATENCY + op]) {
      row[Column.MAX_LATENCY + op] = elapsed;
    }
    const least = row[Column.MIN_LATENCY + op];
    if (least === 0 || elapsed + 1 < least) {
      row[Column.MIN_LATENCY + op] = elapsed + 1;
    }
  }

  report(): IoCounters {
    const row = this.#row;
    const least = (op: Op): number => Math.max(0, row[Column.MIN_LATENCY + op] - 1);
    return {
      bytesRead: row[Column.BYTES + Op.READ],
      numReadOps: row[Column.OPS + Op.READ],
      bytesWritten: row[Column.BYTES + Op.WRITE],
      numWriteOps: row[Column.OPS + Op.WRITE],
      readLatencyTicks: row[Column.LATENCY + Op.READ],
      maxReadLatencyTicks: row[Column.MAX_LATENCY + Op.READ],
      minReadLatencyTicks: least(Op.READ),
      writeLatencyTicks: row[Column.LATENCY + Op.WRITE],
      maxWriteLatencyTicks: row[Column.MAX_LATENCY + Op.WRITE],
      minWriteLatencyTicks: least(Op.WRITE),
      errors: row[Column.ERRORS],
    };
  }

  reset(): void {
    this.#row.fill(0);
  }
}
