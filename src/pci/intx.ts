/** The level of a function's interrupt pin. The client learns of it by an eventfd, which has no level: it is signalled for each rise. Owned by main. */
import type { Interrupts } from './interrupts.ts';
import type { Vectors } from './vectors.ts';

export class IntxLine {
  readonly #interrupts: Interrupts;
  readonly #vectors: Vectors;
  #asserted = false;

  constructor(interrupts: Interrupts, vectors: Vectors) {
    this.#interrupts = interrupts;
    this.#vectors = vectors;
  }

  get asserted(): boolean {
    return this.#asserted;
  }

  assert(): void {
    if (!this.#asserted) {
      this.#asserted = true;
      this.signalPending();
    }
  }

  deassert(): void {
    this.#asserted = false;
  }

  /** The client took the last signal for handled, or can hear it only now: a pin that is still asserted is told again. */
  signalPending(): void {
    if (this.#asserted && this.#interrupts.pinIsFree) {
      this.#vectors.signal(0);
    }
  }
}
