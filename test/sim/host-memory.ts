/**
 * The memory of a model host: regions that are mapped to the device, or not. The host reaches it at any time; what the device was given is
 * another buffer when the same memory is mapped again, so that whoever still uses the old one is found out.
 */
import type { GuestRegion } from '../../src/memory/guest.ts';
import type { Random } from '../helpers/random.ts';
import type { SimMemory } from './memory.ts';
import { Violation } from './violation.ts';

export const PAGE = 4096;
const PAGE_WORDS = PAGE / 4;
const REGIONS = 8;
const PAGES_PER_REGION = 4;
export const REGION_BYTES = PAGES_PER_REGION * PAGE;

/** What pages are for. */
export const Pages = { QUEUES: 0, SHADOW: 8, LISTS: 10, DATA: 12, END: 32 } as const;
export const LIST_SLOTS = PAGE / 64;
/** What is in a page of data that no command uses. */
const QUIET = 0x0d15_ea5e;

const QUIET_PAGE = Buffer.from(new Int32Array(PAGE / 4).fill(QUIET).buffer);

/** There is one thread only, and memory of its own is faster. */
function makeRegion(): SharedArrayBuffer {
  return new ArrayBuffer(REGION_BYTES) as unknown as SharedArrayBuffer;
}

interface HostRegion {
  readonly iova: number;
  buffer: SharedArrayBuffer;
  words: Int32Array;
  mapped: boolean;
  /** It is on its way in or out. */
  changing: boolean;
}

export class HostMemory {
  readonly regions: HostRegion[];
  readonly #memory: SimMemory;
  readonly #owner: number;
  readonly #free = new Set<number>();
  readonly #lists: number[] = Array.from({ length: LIST_SLOTS }, (_, i) => i);

  constructor(memory: SimMemory, owner: number, random: Random) {
    this.#memory = memory;
    this.#owner = owner;
    const base = random.pick([0x10_0000, 0xffff_0000, 0x1_2345_0000_0000]);
    const gap = random.pick([0, PAGE]);
    this.regions = Array.from({ length: REGIONS }, (_, i) => {
      const buffer = makeRegion();
      const iova = base + i * (REGION_BYTES + gap);
      return { iova, buffer, words: new Int32Array(buffer), mapped: false, changing: false };
    });
    for (let page: number = Pages.DATA; page < Pages.END; page++) {
      this.#quieten(page);
      this.#free.add(page);
    }
  }

  regionOf(page: number): HostRegion {
    return this.regions[Math.floor(page / PAGES_PER_REGION)];
  }

  iova(page: number): number {
    return this.regionOf(page).iova + (page % PAGES_PER_REGION) * PAGE;
  }

  /** Whether the device is sure to reach a page. */
  reachable(page: number): boolean {
    const { mapped, changing } = this.regionOf(page);
    return mapped && !changing;
  }

  /** The words of a page. */
  words(page: number): Int32Array {
    const at = (page % PAGES_PER_REGION) * PAGE_WORDS;
    return this.regionOf(page).words.subarray(at, at + PAGE_WORDS);
  }

  /** What the device is told of a region. */
  map(region: HostRegion): GuestRegion {
    this.#memory.add(region.buffer, this.#owner);
    return { iova: region.iova, size: REGION_BYTES, buffer: region.buffer, writable: true };
  }

  /** The device has answered that it does not use it any more. */
  unmapped(region: HostRegion): void {
    const buffer = makeRegion();
    const words = new Int32Array(buffer);
    words.set(region.words);
    const before = region.buffer;
    region.buffer = buffer;
    region.words = words;
    region.mapped = false;
    this.#memory.remove(before);
  }

  #bytes(page: number): Buffer {
    const { buffer } = this.regionOf(page);
    return Buffer.from(buffer, (page % PAGES_PER_REGION) * PAGE, PAGE);
  }

  // --- pages of data ----------------------------------------------------------------------------------------------------

  #quieten(page: number): void {
    this.#bytes(page).set(QUIET_PAGE);
  }

  /** Pages for a command, or undefined if there are too few. Nothing was written to them since they were last used. */
  take(count: number, random: Random): number[] | undefined {
    if (this.#free.size < count) {
      return undefined;
    }
    const free = [...this.#free];
    const pages = Array.from({ length: count }, () => free.splice(random.below(free.length), 1)[0]);
    for (const page of pages) {
      this.#free.delete(page);
      this.#checkQuiet(page);
    }
    return pages;
  }

  give(pages: readonly number[]): void {
    for (const page of pages) {
      this.#quieten(page);
      this.#free.add(page);
    }
  }

  #checkQuiet(page: number): void {
    if (!this.#bytes(page).equals(QUIET_PAGE)) {
      throw new Violation(
        `page ${page} of host ${this.#owner} was written, and no command uses it`,
      );
    }
  }

  /** A word of a command's buffers that is not data. */
  isQuiet(page: number, word: number): boolean {
    return this.words(page)[word] === QUIET;
  }

  checkFree(): void {
    for (const page of this.#free) {
      this.#checkQuiet(page);
    }
  }

  takeList(): number | undefined {
    return this.#lists.pop();
  }

  giveList(slot: number): void {
    this.#lists.push(slot);
  }
}
