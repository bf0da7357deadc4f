/** How a device interrupts its guest. Owned by main. */
import type { Interrupts } from './interrupts.ts';
import type { Vectors } from './vectors.ts';

export class Irq {
  readonly #interrupts: Interrupts;
  readonly #vectors: Vectors;
  #asserted = false;

  constructor(interrupts: Interrupts, vectors: Vectors) {
    this.#interrupts = interrupts;
    this.#vectors = vectors;
  }

  /** The guest uses MSI-X or MSI, so that `signal` is heard, and not the pin. */
  get usesMessages(): boolean {
    return this.#interrupts.usesMessages;
  }

  /** Sends the message of a vector, from 0. True if the guest uses MSI-X or MSI and has connected the vector; otherwise nothing happens. */
  signal(vector: number): boolean {
    return this.#interrupts.usesMessages && this.#vectors.signal(vector);
  }

  /** The pin's level. */
  get asserted(): boolean {
    return this.#asserted;
  }

  /**
   * Asserts the pin, INTA, until `deassert`. The client learns of the rise; if the pin is still asserted when it unmasks it, says that the
   * guest has handled the interrupt, or stops using MSI, it is told again.
   */
  assert(): void {
    if (!this.#asserted) {
      this.#asserted = true;
      this.signalPending();
    }
  }

  deassert(): void {
    this.#asserted = false;
  }

  /** The client took the last signal for handled, or can hear it only now. */
  signalPending(): void {
    if (this.#asserted && this.#interrupts.pinIsFree) {
      this.#vectors.signal(0);
    }
  }
}
