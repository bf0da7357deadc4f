/** Slots that a backend has ended beside the one that the ring reported, with their results: the layer finishes them next. Hot. */
import { MAX_INFLIGHT } from '../../limits.ts';

export class EndedSlots {
  readonly #slots = new Int32Array(MAX_INFLIGHT);
  readonly #results = new Int32Array(MAX_INFLIGHT);
  #first = 0;
  #count = 0;

  get any(): boolean {
    return this.#count > 0;
  }

  /** `result`: as the ring would have it. */
  push(slot: number, result: number): void {
    const at = (this.#first + this.#count) % MAX_INFLIGHT;
    this.#slots[at] = slot;
    this.#results[at] = result;
    this.#count += 1;
  }

  /** The result that goes with what `next` returns. Call it before. */
  get result(): number {
    return this.#results[this.#first];
  }

  next(): number {
    const slot = this.#slots[this.#first];
    this.#first = (this.#first + 1) % MAX_INFLIGHT;
    this.#count -= 1;
    return slot;
  }
}
