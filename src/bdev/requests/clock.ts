/** The time of a poll round, for latencies: read once a round at most, and not at all if nobody needs it. Hot. */
import type { System } from '../../native/system.ts';

export class RoundClock {
  /** Nanoseconds, at index 0: a double that is returned would be garbage. */
  readonly now = new Float64Array(new SharedArrayBuffer(8));
  readonly #read: (index?: number) => void;
  #known = false;

  constructor(system: System) {
    this.#read = system.bindClock(this.now);
  }

  /** A new round. */
  begin(): void {
    this.#known = false;
  }

  /** Sees to it that `now` is of this round. */
  need(): void {
    if (!this.#known) {
      this.read();
    }
  }

  /** Reads it anew. */
  read(): void {
    this.#read(0);
    this.#known = true;
  }
}
