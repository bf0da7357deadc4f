/** Sums of counter rows, as the control plane reads them. */
import { bucketEnd, COLUMNS, Column, LATENCY_BUCKETS } from './counters.ts';
import { Op } from './op.ts';

/** Columns that simply add up, beside the histograms. */
const SUMS = [
  Column.OPS,
  Column.OPS + 1,
  Column.BYTES,
  Column.BYTES + 1,
  Column.TIMED,
  Column.TIMED + 1,
  Column.LATENCY,
  Column.LATENCY + 1,
  Column.FLUSHES,
  Column.BACKEND_ERRORS,
  Column.OTHER_ERRORS,
  Column.DISCARDS,
  Column.DISCARDED_BYTES,
  Column.OTHERS,
];

/** Counts of one kind of command. Times in ns. */
export interface OpTally {
  readonly ops: number;
  readonly bytes: number;
  /** Of all `ops`; where only samples were timed, what they let expect. */
  readonly latency: number;
  /** Of those commands alone that were timed: the sum of the histogram. */
  readonly timedLatency: number;
  /** 0 without any. */
  readonly minLatency: number;
  readonly maxLatency: number;
}

export class Tally {
  readonly #row = new Float64Array(COLUMNS);
  readonly #errors = new Map<number, number>();

  /** Adds a row of counters, or (`sign` −1) takes away what was added before; the extremes stay as they are then. */
  add(row: Float64Array, sign: 1 | -1 = 1): this {
    const sums = this.#row;
    for (const column of SUMS) {
      sums[column] += sign * row[column];
    }
    for (let column: number = Column.HISTOGRAM; column < COLUMNS; column++) {
      sums[column] += sign * row[column];
    }
    for (let at: number = Column.ERRORS; at < Column.HISTOGRAM; at += 2) {
      this.#addError(row[at], sign * row[at + 1]);
    }
    if (sign === 1) {
      for (const op of [Op.READ, Op.WRITE]) {
        sums[Column.MAX_LATENCY + op] = Math.max(
          sums[Column.MAX_LATENCY + op],
          row[Column.MAX_LATENCY + op],
        );
        const least = row[Column.MIN_LATENCY + op];
        const known = sums[Column.MIN_LATENCY + op];
        sums[Column.MIN_LATENCY + op] =
          known === 0 || least === 0 ? known || least : Math.min(known, least);
      }
    }
    return this;
  }

  /** As `add` of all rows that the other has added. */
  merge(other: Tally, sign: 1 | -1 = 1): this {
    this.add(other.#row, sign);
    for (const [status, count] of other.#errors) {
      this.#addError(status, sign * count);
    }
    return this;
  }

  /** Adds the errors of another alone. */
  addErrors(other: Tally): this {
    for (const column of [Column.BACKEND_ERRORS, Column.OTHER_ERRORS]) {
      this.#row[column] += other.#row[column];
    }
    for (const [status, count] of other.#errors) {
      this.#addError(status, count);
    }
    return this;
  }

  clearExtremes(): void {
    this.#row.fill(0, Column.MAX_LATENCY, Column.FLUSHES);
  }

  #addError(status: number, count: number): void {
    if (count !== 0) {
      const total = (this.#errors.get(status) ?? 0) + count;
      if (total === 0) {
        this.#errors.delete(status);
      } else {
        this.#errors.set(status, total);
      }
    }
  }

  of(op: typeof Op.READ | typeof Op.WRITE): OpTally {
    const row = this.#row;
    const ops = row[Column.OPS + op];
    const timed = row[Column.TIMED + op];
    return {
      ops,
      bytes: row[Column.BYTES + op],
      latency: timed === 0 ? 0 : Math.round(row[Column.LATENCY + op] * Math.max(1, ops / timed)),
      timedLatency: row[Column.LATENCY + op],
      minLatency: Math.max(0, row[Column.MIN_LATENCY + op] - 1),
      maxLatency: row[Column.MAX_LATENCY + op],
    };
  }

  /** All commands that have succeeded. */
  get commands(): number {
    const row = this.#row;
    const [reads, writes] = [row[Column.OPS + Op.READ], row[Column.OPS + Op.WRITE]];
    return reads + writes + this.flushes + this.discards.ops + this.others;
  }

  get flushes(): number {
    return this.#row[Column.FLUSHES];
  }

  /** Discards, and the bytes that were discarded. */
  get discards(): { readonly ops: number; readonly bytes: number } {
    return { ops: this.#row[Column.DISCARDS], bytes: this.#row[Column.DISCARDED_BYTES] };
  }

  /** Operations that are counted nowhere else. */
  get others(): number {
    return this.#row[Column.OTHERS];
  }

  get backendErrors(): number {
    return this.#row[Column.BACKEND_ERRORS];
  }

  /** Completions by status, as the plane's protocol has them; those beyond what a row tells apart are under −1. */
  get errors(): ReadonlyMap<number, number> {
    const other = this.#row[Column.OTHER_ERRORS];
    return other === 0 ? this.#errors : new Map([...this.#errors, [-1, other]]);
  }

  /** How many of the timed commands fell into each bucket. */
  histogram(op: typeof Op.READ | typeof Op.WRITE): Float64Array {
    const start = Column.HISTOGRAM + op * LATENCY_BUCKETS;
    return this.#row.subarray(start, start + LATENCY_BUCKETS);
  }

  /** The buckets with anything in them: the first latency above the bucket (ns), and its count. */
  latencies(op: typeof Op.READ | typeof Op.WRITE): [number, number][] {
    const buckets: [number, number][] = [];
    for (const [bucket, count] of this.histogram(op).entries()) {
      if (count > 0) {
        buckets.push([bucketEnd(bucket), count]);
      }
    }
    return buckets;
  }
}
