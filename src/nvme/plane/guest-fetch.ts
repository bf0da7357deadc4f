/** What commands point to in a guest's memory, copied once into memory that the guest cannot change, and looked at there. */
import type { Request } from '../../bdev/backend.ts';
import type { BackendContext } from '../../bdev/context.ts';
import type { CopyBatch } from '../../io/copies.ts';

export class GuestFetch {
  /** The copy. */
  readonly words: Int32Array;
  readonly #address: Float64Array;
  readonly #copies: CopyBatch;
  readonly #request: Request;

  /** `bytes`: the most that is fetched. */
  constructor(context: BackendContext, bytes: number) {
    const { system } = context;
    this.words = new Int32Array(system.mapAnonymous(bytes));
    this.#address = Float64Array.of(system.addressOf(this.words));
    this.#copies = context.copies;
    this.#request = context.request;
  }

  /** Copies the segments of the request under way, which are no more than there is room for. It has none after it. */
  fetch(): void {
    const { segments } = this.#request;
    let done = 0;
    for (let i = 0; i < segments.count; i++) {
      this.#copies.push(this.#address, 0, done, segments.address, i, 0, segments.length[i]);
      done += segments.length[i];
    }
    this.#copies.flush();
    segments.count = 0;
  }
}
