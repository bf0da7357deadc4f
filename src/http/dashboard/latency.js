/** Histograms of latencies: [upper bound in ns, how many], sorted by bound, without empty buckets. */

/** @typedef {import('../../target/snapshot.ts').LatencyBuckets} LatencyBuckets */

/** Rows of the heat map: two an octave, from 1 µs to 34 s; those outside fall into the first and the last. */
export const HEAT_ROWS = 51;
const ROWS_AN_OCTAVE = 2;
const FIRST_BOUND_NS = 1000;

/**
 * What came to a cumulative histogram. If it was reset meanwhile: all that is in it.
 *
 * @param {LatencyBuckets} before
 * @param {LatencyBuckets} after
 * @returns {LatencyBuckets}
 */
export function subtract(before, after) {
  /** @type {LatencyBuckets} */
  const result = [];
  let i = 0;
  for (const [bound, total] of after) {
    if (i < before.length && before[i][0] < bound) return after;
    const earlier = before[i]?.[0] === bound ? before[i++][1] : 0;
    if (total < earlier) return after;
    if (total > earlier) result.push([bound, total - earlier]);
  }
  return i < before.length ? after : result;
}

/**
 * @param {LatencyBuckets} a
 * @param {LatencyBuckets} b
 * @returns {LatencyBuckets}
 */
export function add(a, b) {
  if (a.length === 0) return b;
  if (b.length === 0) return a;
  /** @type {LatencyBuckets} */
  const result = [];
  let i = 0;
  let j = 0;
  while (i < a.length || j < b.length) {
    const left = i < a.length ? a[i][0] : Number.POSITIVE_INFINITY;
    const right = j < b.length ? b[j][0] : Number.POSITIVE_INFINITY;
    let total = 0;
    if (left <= right) total += a[i++][1];
    if (right <= left) total += b[j++][1];
    result.push([Math.min(left, right), total]);
  }
  return result;
}

/**
 * The bounds below which these shares of the commands were, or `undefined` of none.
 *
 * @param {LatencyBuckets} buckets
 * @param {readonly number[]} shares ascending, each from 0 to 1
 * @returns {(number | undefined)[]} ns
 */
export function percentiles(buckets, shares) {
  const total = buckets.reduce((sum, [, n]) => sum + n, 0);
  let seen = 0;
  let i = -1;
  return shares.map((share) => {
    if (total === 0) return undefined;
    while (seen < share * total && i < buckets.length - 1) {
      i += 1;
      seen += buckets[i][1];
    }
    return buckets[Math.max(i, 0)][0];
  });
}

/**
 * The histogram in rows of the heat map: row, count, row, count, … of those that are not empty.
 *
 * @param {LatencyBuckets} buckets
 * @returns {Uint32Array}
 */
export function heatRows(buckets) {
  /** @type {number[]} */
  const pairs = [];
  for (const [bound, n] of buckets) {
    const row = heatRow(bound);
    if (pairs.at(-2) === row) pairs[pairs.length - 1] += n;
    else pairs.push(row, n);
  }
  return Uint32Array.from(pairs);
}

/** @param {number} ns */
function heatRow(ns) {
  const row = Math.ceil(Math.log2(ns / FIRST_BOUND_NS) * ROWS_AN_OCTAVE - 1e-9);
  return Math.min(Math.max(row, 0), HEAT_ROWS - 1);
}

/**
 * The upper bound of a row, ns.
 *
 * @param {number} row -1 gives the lower bound of the first
 */
export function heatBound(row) {
  return FIRST_BOUND_NS * 2 ** (row / ROWS_AN_OCTAVE);
}
