/**
 * A client's DMA regions: IOVA → host address. Main and each reactor hold their own table over the same shared memory.
 *
 * Hot: `append`. Addresses travel as two 32-bit halves or inside typed arrays, because a double that crosses a function call
 * the compiler did not inline is allocated.
 */
import { PAGE_SIZE } from '../limits.ts';
import type { System } from '../native/system.ts';
import { HostRanges } from './host-ranges.ts';
import type { Segments } from './segments.ts';

/** One mapped region, as main sends it to reactors. */
export interface GuestRegion {
  /** First IOVA and bytes, both multiples of the page size. */
  readonly iova: number;
  readonly size: number;
  readonly buffer: SharedArrayBuffer;
  /** The device may write to it. */
  readonly writable: boolean;
}

/** Queue memory: a view, and the extra mapping under it if the queue spans several regions. */
export interface QueueMemory {
  readonly words: Int32Array;
  /** To be revoked when the queue goes. */
  readonly alias: Uint8Array | undefined;
}

const TWO_32 = 0x1_0000_0000;
/** Table columns: first IOVA, end IOVA, host address − first IOVA, writable. */
const COLUMNS = 4;
/** Room in the first table. */
const MIN_ROWS = 8;
/** Typed arrays are opened over windows of a region, not the whole: an Int32Array ends at 16 GiB. */
const WINDOW_BYTES = 0x4000_0000;

export class GuestMemory {
  readonly #system: System;
  /** Sorted by IOVA, like the table. */
  readonly #regions: GuestRegion[] = [];
  /** A row each, and room for more: rows of zeros, which hold nothing. */
  #table = new Float64Array(0);
  /** Offset in the table of the region used last. */
  #last = 0;
  /** Of the regions in which words were looked for. */
  readonly #windows = new Map<GuestRegion, (Int32Array | undefined)[]>();

  /** Where `locate` found the words: the array, and the index in it. */
  words: Int32Array = new Int32Array(0);
  index = 0;

  constructor(system: System) {
    this.#system = system;
  }

  get regions(): readonly GuestRegion[] {
    return this.#regions;
  }

  /** Adds a region. The caller has checked that it overlaps none. */
  add(region: GuestRegion): void {
    const { iova, size, buffer, writable } = region;
    const at = this.#position(iova);
    const address = this.#system.addressOf(new Uint8Array(buffer, 0, 1));
    const used = this.#regions.length * COLUMNS;
    if (used === this.#table.length) {
      const table = new Float64Array(Math.max(MIN_ROWS * COLUMNS, 2 * used));
      table.set(this.#table);
      this.#table = table;
    }
    this.#table.copyWithin((at + 1) * COLUMNS, at * COLUMNS, used);
    this.#table.set([iova, iova + size, address - iova, writable ? 1 : 0], at * COLUMNS);
    this.#last = 0;
    this.#regions.splice(at, 0, region);
  }

  /** Removes the regions that start in [start, end), and every view over them that this table holds. */
  remove(start: number, end: number): GuestRegion[] {
    const from = this.#position(start);
    const to = this.#position(end);
    const used = this.#regions.length * COLUMNS;
    this.#table.copyWithin(from * COLUMNS, to * COLUMNS, used);
    this.#table.fill(0, used - (to - from) * COLUMNS, used);
    this.#last = 0;
    const removed = this.#regions.splice(from, to - from);
    for (const region of removed) {
      this.#windows.delete(region);
    }
    this.words = new Int32Array(0);
    return removed;
  }

  /** Where the regions that start in [start, end) are in this process. */
  hostRanges(start: number, end: number): HostRanges {
    const from = this.#position(start);
    const to = this.#position(end);
    return new HostRanges(
      this.#regions.slice(from, to).map(({ iova, size }, i) => {
        const address = iova + this.#table[(from + i) * COLUMNS + 2];
        return { from: address, to: address + size };
      }),
    );
  }

  /** Index of the first region that starts at `iova` or above. */
  #position(iova: number): number {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#regions[middle].iova < iova) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  /** Table offset of the region that holds an IOVA, or -1. Binary search, for when the region used last is not it. */
  #find(lo: number, hi: number): number {
    const iova = (hi >>> 0) * TWO_32 + (lo >>> 0);
    const table = this.#table;
    let low = 0;
    let high = this.#regions.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const at = middle * COLUMNS;
      if (iova < table[at]) {
        high = middle - 1;
      } else if (iova >= table[at + 1]) {
        low = middle + 1;
      } else {
        return at;
      }
    }
    return -1;
  }

  /**
   * Hot. Appends the guest buffer [iova, iova + length) to a scatter list. False, and nothing is appended, if it does not lie within one
   * mapped region, or `write` is asked of a region that the device may only read.
   */
  append(lo: number, hi: number, length: number, write: boolean, segments: Segments): boolean {
    const iova = (hi >>> 0) * TWO_32 + (lo >>> 0);
    const table = this.#table;
    let at = this.#last;
    // An empty table reads as undefined, which no comparison accepts.
    if (!(iova >= table[at] && iova + length <= table[at + 1])) {
      at = this.#find(lo, hi);
      if (at < 0 || iova + length > table[at + 1]) {
        return false;
      }
      this.#last = at;
    }
    if (write && table[at + 3] === 0) {
      return false;
    }
    const address = iova + table[at + 2];
    const count = segments.count;
    if (count > 0 && segments.address[count - 1] + segments.length[count - 1] === address) {
      segments.length[count - 1] += length;
      return true;
    }
    segments.address[count] = address;
    segments.length[count] = length;
    segments.count = count + 1;
    return true;
  }

  /**
   * Finds the 32-bit words at a 4-byte aligned IOVA and leaves them in `words` and `index`: all words to the end of that page are
   * there. False if the page is not mapped.
   */
  locate(lo: number, hi: number): boolean {
    const at = this.#find(lo, hi);
    if (at < 0) {
      return false;
    }
    const region = this.#regions[at / COLUMNS];
    const offset = (hi >>> 0) * TWO_32 + (lo >>> 0) - region.iova;
    const number = Math.floor(offset / WINDOW_BYTES);
    const start = number * WINDOW_BYTES;
    let windows = this.#windows.get(region);
    if (windows === undefined) {
      windows = [];
      this.#windows.set(region, windows);
    }
    let window = windows[number];
    if (window === undefined) {
      const bytes = Math.min(WINDOW_BYTES, region.size - start);
      window = new Int32Array(region.buffer, start, bytes / 4);
      windows[number] = window;
    }
    this.words = window;
    this.index = (offset - start) / 4;
    return true;
  }

  /**
   * The memory of a queue: page aligned, contiguous in IOVA space, in one region or across several. Undefined if part of it is not
   * mapped or may not be written as asked, or cannot be mapped side by side (huge pages).
   */
  queueMemory(iova: number, bytes: number, writable: boolean): QueueMemory | undefined {
    const addresses: number[] = [];
    const lengths: number[] = [];
    const whole = Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
    for (let done = 0; done < whole; ) {
      const position = iova + done;
      const at = this.#find(position | 0, Math.floor(position / TWO_32) | 0);
      if (at < 0 || (writable && this.#table[at + 3] === 0)) {
        return undefined;
      }
      const length = Math.min(whole - done, this.#table[at + 1] - position);
      if (length === whole) {
        const region = this.#regions[at / COLUMNS];
        const words = new Int32Array(region.buffer, iova - region.iova, bytes / 4);
        return { words, alias: undefined };
      }
      addresses.push(position + this.#table[at + 2]);
      lengths.push(length);
      done += length;
    }
    try {
      const buffer = this.#system.mapAlias(
        Float64Array.from(addresses),
        Float64Array.from(lengths),
      );
      return { words: new Int32Array(buffer, 0, bytes / 4), alias: new Uint8Array(buffer) };
    } catch {
      return undefined;
    }
  }
}
