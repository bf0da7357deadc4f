/** Which pages of the client's memory a device has written, for as long as the client wants to know. Owned by main. */
import { PAGE_SIZE } from '../limits.ts';
import type { DmaLog } from '../vfio-user/device.ts';

/** Bits of one piece of a sparse bitmap. */
const PIECE_PAGES = 2 ** 15;

/** Pages by number, in pieces that are made when they are first needed: as large as the memory that was written, a bit a page. */
class PageSet {
  readonly #pieces = new Map<number, Uint8Array>();

  add(first: number, last: number): void {
    for (let page = first; page <= last; page++) {
      const number = Math.floor(page / PIECE_PAGES);
      let piece = this.#pieces.get(number);
      if (piece === undefined) {
        piece = new Uint8Array(PIECE_PAGES / 8);
        this.#pieces.set(number, piece);
      }
      const bit = page % PIECE_PAGES;
      piece[bit >> 3] |= 1 << (bit & 7);
    }
  }

  /** Sets bit i of `bitmap` for each page first + i; with `take` they are in the set no more. */
  collect(first: number, count: number, bitmap: Uint8Array, take: boolean): void {
    for (let i = 0; i < count; i++) {
      const piece = this.#pieces.get(Math.floor((first + i) / PIECE_PAGES));
      if (piece === undefined) {
        // To the last page of the piece.
        i += PIECE_PAGES - 1 - ((first + i) % PIECE_PAGES);
        continue;
      }
      const bit = (first + i) % PIECE_PAGES;
      const mask = 1 << (bit & 7);
      if ((piece[bit >> 3] & mask) !== 0) {
        bitmap[i >> 3] |= 1 << (i & 7);
        piece[bit >> 3] &= take ? ~mask : 0xff;
      }
    }
  }

  clear(): void {
    this.#pieces.clear();
  }
}

export class DirtyPages implements DmaLog {
  readonly #written = new PageSet();
  /** Pages that the device has had as bytes: it may write to them at any time. */
  readonly #viewed = new PageSet();
  #logging = false;

  start(): void {
    this.#written.clear();
    this.#logging = true;
  }

  stop(): void {
    this.#logging = false;
    this.#written.clear();
  }

  /** The device writes to shared memory. What is written by messages the client sees itself. */
  wrote(iova: number, size: number): void {
    if (this.#logging && size > 0) {
      this.#written.add(...pagesOf(iova, size));
    }
  }

  viewed(iova: number, size: number): void {
    if (size > 0) {
      this.#viewed.add(...pagesOf(iova, size));
    }
  }

  report(iova: number, length: number, bitmap: Uint8Array): void {
    if (this.#logging) {
      const [first, count] = [iova / PAGE_SIZE, length / PAGE_SIZE];
      this.#written.collect(first, count, bitmap, true);
      this.#viewed.collect(first, count, bitmap, false);
    }
  }
}

function pagesOf(iova: number, size: number): [number, number] {
  return [Math.floor(iova / PAGE_SIZE), Math.floor((iova + size - 1) / PAGE_SIZE)];
}
