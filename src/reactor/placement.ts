/** What is placed on which reactor: I/O queue pairs, and admin doorbells that are watched, which are next to no work. Owned by main. */
import { ReactorLostError } from './handle.ts';

interface Place {
  readonly index: number;
  readonly alive: boolean;
}

interface Load {
  readonly reactor: Place;
  queuePairs: number;
  watches: number;
  /** I/O queue pairs made there, those of dead threads too. */
  made: number;
}

export class Placement {
  readonly #loads: readonly Load[];

  constructor(reactors: readonly Place[]) {
    this.#loads = reactors.map((reactor) => ({ reactor, queuePairs: 0, watches: 0, made: 0 }));
  }

  /** The reactor with the fewest queue pairs; it has one more from now on, until `unload`. Throws ReactorLostError if none lives. */
  place(): number {
    const load = this.#least((a, b) => a.queuePairs - b.queuePairs || a.watches - b.watches);
    load.queuePairs += 1;
    return load.reactor.index;
  }

  /** The reactor that watches the fewest admin doorbells; it watches one more, until `unwatch`. Throws ReactorLostError if none lives. */
  placeWatch(): number {
    const load = this.#least((a, b) => a.watches - b.watches || a.queuePairs - b.queuePairs);
    load.watches += 1;
    return load.reactor.index;
  }

  /** The reactor with the fewest queue pairs, which are no more for that. Throws ReactorLostError if none lives. */
  placeNothing(): number {
    return this.#least((a, b) => a.queuePairs - b.queuePairs).reactor.index;
  }

  #least(compare: (a: Load, b: Load) => number): Load {
    const [load] = this.#loads.filter(({ reactor }) => reactor.alive).sort(compare);
    if (load === undefined) {
      throw new ReactorLostError(0);
    }
    return load;
  }

  /** Something is placed there that was placed elsewhere. */
  load(reactor: number): void {
    this.#loads[reactor].queuePairs += 1;
  }

  unload(reactor: number): void {
    this.#loads[reactor].queuePairs -= 1;
  }

  unwatch(reactor: number): void {
    this.#loads[reactor].watches -= 1;
  }

  /** Counts an I/O queue pair that was made there. */
  count(reactor: number): void {
    this.#loads[reactor].made += 1;
  }

  /** I/O queue pairs made there. */
  made(reactor: number): number {
    return this.#loads[reactor].made;
  }
}
