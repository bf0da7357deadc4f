/** The doorbells of one client's controller: a page of shared memory, mapped by the client or written by main for it. Owned by main. */
import { closeSync } from 'node:fs';
import { DOORBELLS_BYTES } from '../limits.ts';
import { native } from '../native/index.ts';
import { DOORBELL_OFFSET } from '../spec/registers.ts';
import type { DeviceRegion } from '../vfio-user/device.ts';

export class DoorbellPage {
  readonly buffer: SharedArrayBuffer;
  readonly words: Int32Array;
  /** A file of its own for each client: an earlier one may still have its doorbells mapped. */
  readonly #fd = native.memfdCreate('doorbell-bar0', DOORBELL_OFFSET + DOORBELLS_BYTES);

  constructor() {
    try {
      this.buffer = native.mapFile(this.#fd, DOORBELL_OFFSET, DOORBELLS_BYTES, true);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
    this.words = new Int32Array(this.buffer);
  }

  /** What the client may map of BAR0. */
  get mmap(): NonNullable<DeviceRegion['mmap']> {
    return { fd: this.#fd, areas: [{ offset: DOORBELL_OFFSET, size: DOORBELLS_BYTES }] };
  }

  /** A client that did not map the page: main writes for it. `rung` is told the queue of each doorbell. */
  write(offset: number, data: Uint8Array, rung: (qid: number) => void): void {
    if (offset % 4 !== 0 || data.length % 4 !== 0) {
      return;
    }
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    for (let at = 0; at < data.length && offset + at < DOORBELLS_BYTES; at += 4) {
      const index = (offset + at) / 4;
      Atomics.store(this.words, index, view.getInt32(at, true));
      rung(index >> 1);
    }
  }

  /** Nobody here looks at the page any more. The client may still have it mapped. */
  close(): void {
    native.revoke(this.words);
    closeSync(this.#fd);
  }
}
