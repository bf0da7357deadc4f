/**
 * A host's shadow doorbells (Doorbell Buffer Config, NVMe Base 2.0 §5.8): two pages of guest memory, laid out like the doorbell page. The
 * host writes its tails and heads into one; the other holds event indexes, which say what write is to be rung for at the real doorbell.
 * Owned by whoever polls the queues: main for the admin queue, a reactor for its I/O queues.
 */
import { DOORBELLS_BYTES } from '../limits.ts';
import type { GuestMemory } from '../memory/guest.ts';

/** Where the pages are, page aligned. */
export interface ShadowPages {
  readonly doorbells: number;
  readonly eventIdx: number;
}

export class ShadowDoorbells {
  readonly #pages: ShadowPages;
  /** Undefined while the pages are not in guest memory. */
  #words: { readonly doorbells: Int32Array; readonly eventIdx: Int32Array } | undefined;

  constructor(pages: ShadowPages, memory: GuestMemory) {
    this.#pages = pages;
    this.find(memory);
  }

  get words(): { readonly doorbells: Int32Array; readonly eventIdx: Int32Array } | undefined {
    return this.#words;
  }

  /** Looks the pages up, at the start and when the guest's memory has changed. */
  find(memory: GuestMemory): void {
    const doorbells = memory.queueMemory(this.#pages.doorbells, DOORBELLS_BYTES, true);
    const eventIdx = memory.queueMemory(this.#pages.eventIdx, DOORBELLS_BYTES, true);
    this.#words =
      doorbells === undefined || eventIdx === undefined
        ? undefined
        : { doorbells: doorbells.words, eventIdx: eventIdx.words };
  }
}
