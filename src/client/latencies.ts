/**
 * A histogram of latencies that costs some nanoseconds a record and allocates nothing: buckets of equal width within each power of two.
 * A bucket is at most 1/128 of its values wide.
 */

const SUB_BITS = 7;
const SUB_BUCKETS = 1 << SUB_BITS;
const TWO_32 = 2 ** 32;
/** A latency of 2^32 ns or more is filed by its upper bits, this many powers of two further on. */
const FAR_BITS = 16;
/** Larger latencies count as this one (78 hours). Nanoseconds. */
const LARGEST = 2 ** (32 + FAR_BITS) - 1;
const BUCKETS = (32 + FAR_BITS - SUB_BITS + 1) * SUB_BUCKETS;

const ZERO = new Float64Array(1);

/** Of `#sums`. */
const COUNT = 0;
const SUM = 1;
const MIN = 2;
const MAX = 3;

/** The bucket of a latency below 2^32 ns. */
function nearBucket(ns: number): number {
  const shift = 31 - SUB_BITS - Math.clz32(ns | SUB_BUCKETS);
  return (shift << SUB_BITS) + (ns >>> shift);
}

/** The smallest value of a bucket, and the first of the next one. */
export function bucketBounds(bucket: number): { readonly from: number; readonly to: number } {
  const shift = Math.max(0, (bucket >>> SUB_BITS) - 1);
  const width = 2 ** shift;
  const from = (bucket - shift * SUB_BUCKETS) * width;
  return { from, to: from + width };
}

export class Latencies {
  /** Doubles count beyond 2^32, and are incremented in place. */
  readonly #buckets = new Float64Array(BUCKETS);
  readonly #sums = new Float64Array(4);

  constructor() {
    this.clear();
  }

  clear(): void {
    this.#buckets.fill(0);
    this.#sums.set([0, 0, Number.POSITIVE_INFINITY, 0]);
  }

  /** Nanoseconds; what is below 0 counts as 0. */
  record(ns: number): void {
    this.recordSince(ZERO, 0, Float64Array.of(ns));
  }

  /** Hot. Records the time from `starts[index]` to `now[0]`. They stay where they are: an argument that is a double may be allocated. */
  recordSince(starts: Float64Array, index: number, now: Float64Array): void {
    const ns = now[0] - starts[index];
    const value = ns > 0 ? (ns < LARGEST ? Math.floor(ns) : LARGEST) : 0;
    const bucket =
      value < TWO_32
        ? nearBucket(value)
        : nearBucket(value / 2 ** FAR_BITS) + FAR_BITS * SUB_BUCKETS;
    this.#buckets[bucket] += 1;
    const sums = this.#sums;
    sums[COUNT] += 1;
    sums[SUM] += value;
    if (value < sums[MIN]) sums[MIN] = value;
    if (value > sums[MAX]) sums[MAX] = value;
  }

  get count(): number {
    return this.#sums[COUNT];
  }

  /** Exact, as are the other two. 0 without records. Nanoseconds. */
  get mean(): number {
    return this.count === 0 ? 0 : this.#sums[SUM] / this.count;
  }

  get min(): number {
    return this.count === 0 ? 0 : this.#sums[MIN];
  }

  get max(): number {
    return this.#sums[MAX];
  }

  /** Adds the records of another. */
  add(other: Latencies): void {
    other.#buckets.forEach((count, bucket) => {
      this.#buckets[bucket] += count;
    });
    this.#sums[COUNT] += other.#sums[COUNT];
    this.#sums[SUM] += other.#sums[SUM];
    this.#sums[MIN] = Math.min(this.#sums[MIN], other.#sums[MIN]);
    this.#sums[MAX] = Math.max(this.#sums[MAX], other.#sums[MAX]);
  }

  /** The non-empty buckets in order: the values from `from` to below `to`, in ns, and how many there were. */
  *buckets(): Generator<{ readonly from: number; readonly to: number; readonly count: number }> {
    for (const [bucket, count] of this.#buckets.entries()) {
      if (count > 0) {
        yield { ...bucketBounds(bucket), count };
      }
    }
  }
}
