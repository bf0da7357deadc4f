/** The last minutes of everything that is measured: rings of a fixed length with one time axis. */

import { heatRows, percentiles } from './latency.js';

/** @typedef {import('./rates.js').Rates} Rates */

/** Seconds, at one point a second. */
export const HISTORY_POINTS = 600;

const COLUMNS = /** @type {const} */ ([
  'readOps',
  'writeOps',
  'readBytes',
  'writeBytes',
  'p50',
  'p99',
  'p999',
]);
/** @typedef {typeof COLUMNS[number]} Column */
const NO_HEAT = new Uint32Array(0);

/** One thing that is measured. Points at which it was not are NaN. */
class Track {
  /** @type {Record<Column, Float64Array>} */
  columns;
  /** @type {Uint32Array[]} */
  heat = new Array(HISTORY_POINTS).fill(NO_HEAT);

  constructor() {
    const ring = () => new Float64Array(HISTORY_POINTS).fill(Number.NaN);
    const columns = Object.fromEntries(COLUMNS.map((name) => [name, ring()]));
    this.columns = /** @type {Record<Column, Float64Array>} */ (columns);
  }

  /** @param {number} slot @param {Rates | undefined} rates */
  set(slot, rates) {
    const [p50, p99, p999] = percentiles(rates?.latency ?? [], [0.5, 0.99, 0.999]);
    /** @type {Record<Column, number | undefined>} */
    const values = {
      readOps: rates?.readOps,
      writeOps: rates?.writeOps,
      readBytes: rates?.readBytes,
      writeBytes: rates?.writeBytes,
      p50,
      p99,
      p999,
    };
    for (const name of COLUMNS) this.columns[name][slot] = values[name] ?? Number.NaN;
    this.heat[slot] = rates === undefined ? NO_HEAT : heatRows(rates.latency);
  }
}

export class History {
  /** Unix time, s. */
  #times = new Float64Array(HISTORY_POINTS);
  /** Points ever written. */
  #written = 0;
  /** @type {Map<string, Track>} */
  #tracks = new Map();

  /**
   * Adds a point to all tracks; those that are not in `rates` have a gap there, and are forgotten if they do not exist any more.
   *
   * @param {number} time Unix time, s
   * @param {ReadonlyMap<string, Rates> | undefined} rates `undefined`: nobody knows
   */
  push(time, rates) {
    const slot = this.#written % HISTORY_POINTS;
    this.#times[slot] = time;
    this.#written += 1;
    for (const [key, track] of this.#tracks) {
      if (rates !== undefined && !rates.has(key)) this.#tracks.delete(key);
      else track.set(slot, rates?.get(key));
    }
    for (const [key, value] of rates ?? []) {
      if (this.#tracks.has(key)) continue;
      const track = new Track();
      track.set(slot, value);
      this.#tracks.set(key, track);
    }
  }

  clear() {
    this.#written = 0;
    this.#tracks.clear();
  }

  /** @param {number} seconds how far back from the last point */
  #slots(seconds) {
    const slots = [];
    const stored = Math.min(this.#written, HISTORY_POINTS);
    const last = this.#times[(this.#written - 1) % HISTORY_POINTS];
    for (let i = this.#written - stored; i < this.#written; i++) {
      const slot = i % HISTORY_POINTS;
      if (this.#times[slot] > last - seconds) slots.push(slot);
    }
    return slots;
  }

  /** @param {number} seconds @returns {number[]} Unix times, s */
  times(seconds) {
    return this.#slots(seconds).map((slot) => this.#times[slot]);
  }

  /**
   * @param {string} key
   * @param {Column} column
   * @param {number} seconds
   * @returns {(number | null)[]} as long as {@link times}; null where nothing was measured
   */
  column(key, column, seconds) {
    const ring = this.#tracks.get(key)?.columns[column];
    return this.#slots(seconds).map((slot) => {
      const value = ring?.[slot] ?? Number.NaN;
      return Number.isNaN(value) ? null : value;
    });
  }

  /**
   * @param {string} key
   * @param {number} seconds
   * @returns {Uint32Array[]} as long as {@link times}: row, count, row, count, …
   */
  heat(key, seconds) {
    const track = this.#tracks.get(key);
    return this.#slots(seconds).map((slot) => track?.heat[slot] ?? NO_HEAT);
  }

  /** Tracks that are kept. */
  get size() {
    return this.#tracks.size;
  }
}
