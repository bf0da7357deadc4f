/** Memory copies collected over a poll batch and run in one native call. Owned by one reactor (or main). */
import type { System } from '../native/system.ts';

const WORDS = 3;

export class CopyBatch {
  readonly #capacity: number;
  readonly #list: Float64Array;
  readonly #run: (count: number) => void;
  #count = 0;
  /** Bytes collected since the last flush. */
  bytes = 0;

  constructor(capacity: number, system: System) {
    this.#capacity = capacity;
    this.#list = new Float64Array(new SharedArrayBuffer(capacity * WORDS * 8));
    this.#run = system.bindCopyBatch(this.#list);
  }

  get pending(): boolean {
    return this.#count > 0;
  }

  /**
   * Hot. Collects one copy between host addresses: `to[toIndex] + toOffset` ← `from[fromIndex] + fromOffset`. The caller has checked
   * both ranges against live mappings.
   */
  push(
    to: Float64Array,
    toIndex: number,
    toOffset: number,
    from: Float64Array,
    fromIndex: number,
    fromOffset: number,
    length: number,
  ): void {
    if (this.#count === this.#capacity) {
      this.flush();
    }
    const at = this.#count * WORDS;
    this.#list[at] = to[toIndex] + toOffset;
    this.#list[at + 1] = from[fromIndex] + fromOffset;
    this.#list[at + 2] = length;
    this.#count += 1;
    this.bytes += length;
  }

  /** Runs what was collected. */
  flush(): void {
    if (this.#count > 0) {
      this.#run(this.#count);
      this.#count = 0;
      this.bytes = 0;
    }
  }
}
