/** What commands point to in a guest's memory, copied once into memory that the guest cannot change, and looked at there. */
import type { BackendContext } from '../../bdev/context.ts';
import type { CopyBatch } from '../../io/copies.ts';
import type { Segments } from '../../memory/segments.ts';

export class GuestFetch {
  /** The copy. */
  readonly words: Int32Array;
  readonly #address: Float64Array;
  readonly #copies: CopyBatch;

  /** `bytes`: the most that is fetched. */
  constructor(context: BackendContext, bytes: number) {
    const { system } = context;
    this.words = new Int32Array(system.mapAnonymous(bytes));
    this.#address = Float64Array.of(system.addressOf(this.words));
    this.#copies = context.copies;
  }

  /** Copies these segments, which are no more than there is room for, and empties the list. */
  fetch(segments: Segments): void {
    let done = 0;
    for (let i = 0; i < segments.count; i++) {
      this.#copies.push(this.#address, 0, done, segments.address, i, 0, segments.length[i]);
      done += segments.length[i];
    }
    this.#copies.flush();
    segments.count = 0;
  }
}
