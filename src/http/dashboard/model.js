/** All that the page knows: the last snapshot, the last minutes, the last events, the connection. What shows it asks here. */

import { History } from './history.js';
import { ALL, ratesBetween, reactorLoads } from './rates.js';

/**
 * @typedef {import('../../target/snapshot.ts').Snapshot} Snapshot
 * @typedef {import('../../target/events.ts').TargetEvent} TargetEvent
 * @typedef {import('./stream.js').StreamState} StreamState
 * @typedef {import('./rates.js').Rates} Rates
 */

/** Events that are kept. */
const MAX_EVENTS = 256;
/** How far back errors of I/O are of interest. ms */
const ERROR_MEMORY_MS = 60_000;

/** I/O errors that something had in one interval. @typedef {{ at: number, key: string, status: string, n: number }} ErrorCount */

export class Model {
  /** @type {Snapshot | undefined} */
  snapshot;
  /** Between the last two snapshots. @type {Map<string, Rates>} */
  rates = new Map();
  /** Busy shares by reactor. @type {Map<number, number>} */
  loads = new Map();
  history = new History();
  /** Oldest first. @type {TargetEvent[]} */
  events = [];
  /** @type {StreamState} */
  connection = 'connecting';
  /** When the connection was lost. @type {Date | undefined} */
  lostAt;
  /** @type {ErrorCount[]} */
  errors = [];
  /** When each controller that has commands outstanding last completed one, by key. ms @type {Map<string, number>} */

  /**
   * @param {Snapshot} snapshot
   * @returns {boolean} whether it is of another process than the one before
   */
  accept(snapshot) {
    const before = this.snapshot;
    const restarted = before !== undefined && before.pid !== snapshot.pid;
    const time = Date.parse(snapshot.time);
    if (restarted) {
      // A gap where nobody knows: the counters began anew.
      this.history.push(time / 1000, undefined);
      this.rates = new Map();
      this.loads = new Map();
      this.errors = [];
      this.events = [];
    } else if (before !== undefined) {
      this.rates = ratesBetween(before, snapshot);
      this.loads = reactorLoads(before, snapshot);
      this.history.push(time / 1000, this.rates);
      this.#noteErrors(time);
    }
    this.snapshot = snapshot;
    return restarted;
  }

  /** @param {number} time ms */
  #noteErrors(time) {
    this.errors = this.errors.filter(({ at }) => at > time - ERROR_MEMORY_MS);
    for (const [key, { errors }] of this.rates) {
      if (key === ALL) continue;
      for (const [status, n] of errors) this.errors.push({ at: time, key, status, n });
    }
  }

  /** @param {TargetEvent} event */
  addEvent(event) {
    // After a reconnection, some may come again.
    if (this.events.some(({ seq, time }) => seq === event.seq && time === event.time)) return;
    this.events.push(event);
    if (this.events.length > MAX_EVENTS) this.events.shift();
  }

  /** @param {StreamState} state */
  setConnection(state) {
    if (state === 'lost' && this.connection === 'live') this.lostAt = new Date();
    if (state === 'live') this.lostAt = undefined;
    this.connection = state;
  }
}
