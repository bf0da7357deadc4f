/** Memory compared with memory, in pieces that are collected first. Owned by one reactor. */
import type { System } from '../native/system.ts';

const WORDS = 3;

export class CompareBatch {
  readonly #capacity: number;
  readonly #list: Float64Array;
  readonly #run: (count: number) => boolean;
  #count = 0;
  #equal = true;

  constructor(capacity: number, system: System) {
    this.#capacity = capacity;
    this.#list = new Float64Array(new SharedArrayBuffer(capacity * WORDS * 8));
    this.#run = system.bindCompareBatch(this.#list);
  }

  /** Collects one comparison between host addresses, which the caller has checked: see `CopyBatch.push`. */
  push(
    one: Float64Array,
    oneIndex: number,
    oneOffset: number,
    other: Float64Array,
    otherIndex: number,
    otherOffset: number,
    length: number,
  ): void {
    if (this.#count === this.#capacity) {
      this.#compare();
    }
    const at = this.#count * WORDS;
    this.#list[at] = one[oneIndex] + oneOffset;
    this.#list[at + 1] = other[otherIndex] + otherOffset;
    this.#list[at + 2] = length;
    this.#count += 1;
  }

  #compare(): void {
    this.#equal &&= this.#run(this.#count);
    this.#count = 0;
  }

  /** Whether all that was collected since the last call is equal. */
  equal(): boolean {
    this.#compare();
    const equal = this.#equal;
    this.#equal = true;
    return equal;
  }
}
