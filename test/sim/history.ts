/**
 * The reference disk: for each sector every write that was ever tried, with when it began and ended. It says what a read may return (the
 * rules of a register that several write: no value that was overwritten before the read began, none from nowhere), and what stable
 * storage must hold.
 */
import { Violation } from './violation.ts';

export interface SimWrite {
  /** What each word of the sector is then. */
  readonly stamp: number;
  /** Of the simulation's steps. */
  readonly begin: number;
  /** Infinity: under way. From then on nothing of it may appear that was not there. */
  end: number;
  /** It succeeded: nothing older may be seen from `end` on. */
  done: boolean;
}

export class History {
  readonly #sectors: SimWrite[][];
  readonly name: string;

  constructor(name: string, sectors: number) {
    this.name = name;
    const nothing: SimWrite = { stamp: 0, begin: -1, end: -1, done: true };
    this.#sectors = Array.from({ length: sectors }, () => [nothing]);
  }

  /** A write of sectors begins: several may share one record. */
  begin(write: SimWrite, first: number, count: number): void {
    for (let sector = first; sector < first + count; sector++) {
      this.#sectors[sector]?.push(write);
    }
  }

  /** Whether `stamp` may be seen by what began at `since`. */
  allows(sector: number, stamp: number, since: number): boolean {
    const writes = this.#sectors[sector];
    const seen = writes.findLast((write) => write.stamp === stamp);
    return (
      seen !== undefined &&
      !writes.some(({ done, begin, end }) => done && begin > seen.end && end < since)
    );
  }

  /** What is on stable storage is this write, or a later one. */
  checkStored(sector: number, stamp: number, write: SimWrite, what: string): void {
    const seen = this.#sectors[sector].findLast((each) => each.stamp === stamp);
    if (seen === undefined || seen.end < write.begin) {
      throw new Violation(`${what} ${this.name}, sector ${sector}: ${stamp} is on stable storage`);
    }
  }

  check(sector: number, stamp: number, since: number, what: string): void {
    if (!this.allows(sector, stamp, since)) {
      const writes = this.#sectors[sector]
        .slice(-6)
        .map(
          ({ stamp, begin, end, done }) => `${stamp} [${begin}, ${end}]${done ? '' : ' not done'}`,
        );
      throw new Violation(
        `${what} ${this.name}, sector ${sector}: ${stamp} since ${since}, after ${writes.join('; ')}`,
      );
    }
  }
}
