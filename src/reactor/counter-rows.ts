/**
 * Which counter row belongs to what, and what the rows of those that are gone had counted. Owned by main. A row has the same index on every
 * reactor.
 */
import { rowOf } from '../bdev/counters.ts';
import { Tally } from '../bdev/tally.ts';
import { MAX_COUNTER_ROWS } from '../limits.ts';

/** In place of an NSID: commands that were refused before a namespace was asked. In place of a bdev's index: none. */
export const NO_NAMESPACE = 0;
export const NO_BDEV = -1;

/** What a row counts. */
export interface RowUse {
  readonly controller: number;
  readonly nsid: number;
  /** Its index. */
  readonly bdev: number;
}

/** Shared by all that come when there is no other row: nobody reads it. */
const OVERFLOW = 0;

export class CounterRows {
  /** By reactor. */
  readonly #memories: readonly SharedArrayBuffer[];
  readonly #uses = new Map<number, RowUse>();
  readonly #free: number[];
  /** By bdev, by reactor: what rows counted that are gone; and what is left out of its statistics since they were last reset. */
  readonly #retired = new Map<number, Tally[]>();
  readonly #baselines = new Map<number, Tally[]>();
  /** By controller. */
  readonly #departed = new Map<number, Tally>();

  constructor(memories: readonly SharedArrayBuffer[]) {
    this.#memories = memories;
    this.#free = Array.from({ length: MAX_COUNTER_ROWS - 1 }, (_, i) => MAX_COUNTER_ROWS - 1 - i);
  }

  /** A row of zeros. */
  take(use: RowUse): number {
    const row = this.#free.pop() ?? OVERFLOW;
    if (row !== OVERFLOW) {
      this.#uses.set(row, use);
    }
    return row;
  }

  /** No reactor uses the row any more: what it counted is kept with the bdev and the controller. */
  give(row: number): void {
    const use = this.#uses.get(row);
    if (use === undefined) {
      return;
    }
    this.#uses.delete(row);
    const departed = this.#departed.get(use.controller) ?? new Tally();
    this.#departed.set(use.controller, departed);
    for (const [reactor, memory] of this.#memories.entries()) {
      const counters = rowOf(memory, row);
      departed.add(counters);
      if (use.bdev !== NO_BDEV) {
        this.#perReactor(this.#retired, use.bdev)[reactor].add(counters);
      }
      counters.fill(0);
    }
    this.#free.push(row);
  }

  #perReactor(map: Map<number, Tally[]>, bdev: number): Tally[] {
    const tallies = map.get(bdev) ?? this.#memories.map(() => new Tally());
    map.set(bdev, tallies);
    return tallies;
  }

  #live(wanted: (use: RowUse) => boolean): number[] {
    return [...this.#uses].filter(([, use]) => wanted(use)).map(([row]) => row);
  }

  /** A controller that is gone. */
  forgetController(controller: number): void {
    this.#departed.delete(controller);
  }

  /** A bdev that is gone: its index is going to be another's. */
  forgetBdev(bdev: number): void {
    this.#retired.delete(bdev);
    this.#baselines.delete(bdev);
  }

  /** What one reactor ever did on a bdev. */
  bdev(bdev: number, reactor: number): Tally {
    const tally = new Tally();
    const retired = this.#retired.get(bdev);
    if (retired !== undefined) {
      tally.merge(retired[reactor]);
    }
    for (const row of this.#live((use) => use.bdev === bdev)) {
      tally.add(rowOf(this.#memories[reactor], row));
    }
    return tally;
  }

  /** The same since its statistics were reset. */
  bdevSinceReset(bdev: number, reactor: number): Tally {
    const tally = this.bdev(bdev, reactor);
    const baseline = this.#baselines.get(bdev);
    return baseline === undefined ? tally : tally.merge(baseline[reactor], -1);
  }

  /** Begins a bdev's statistics anew, or its errors alone. The extremes of live rows are the reactors' to clear: see `rowsOf`. */
  reset(bdev: number, what: 'all' | 'error' | 'maxmin'): void {
    for (const reactor of this.#memories.keys()) {
      const retired = this.#perReactor(this.#retired, bdev)[reactor];
      const baselines = this.#perReactor(this.#baselines, bdev);
      if (what === 'all') {
        baselines[reactor] = this.bdev(bdev, reactor);
        baselines[reactor].clearExtremes();
      } else if (what === 'error') {
        // What was left out before, and all errors of today.
        const errors = new Tally().merge(this.bdevSinceReset(bdev, reactor));
        baselines[reactor].addErrors(errors);
      }
      if (what !== 'error') {
        retired.clearExtremes();
      }
    }
  }

  /** The live rows of a bdev, with their controllers. */
  rowsOf(bdev: number): { readonly row: number; readonly controller: number }[] {
    return this.#live((use) => use.bdev === bdev).map((row) => ({
      row,
      controller: this.#uses.get(row)!.controller,
    }));
  }

  /** All that a controller did, or what it did on one namespace that it has. */
  controller(controller: number, nsid?: number): Tally {
    const tally = new Tally();
    const departed = this.#departed.get(controller);
    if (nsid === undefined && departed !== undefined) {
      tally.merge(departed);
    }
    const rows = this.#live(
      (use) => use.controller === controller && (nsid === undefined || use.nsid === nsid),
    );
    for (const row of rows) {
      for (const memory of this.#memories) {
        tally.add(rowOf(memory, row));
      }
    }
    return tally;
  }
}
