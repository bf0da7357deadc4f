/**
 * Memory of ours that stands for that of a host whose memory is reached by messages: queues of a controller, and the data of commands under
 * way. Reactors have it mapped as they have memory of hosts. Owned by main.
 *
 * Each queue has its place, as large as a queue can be; what is never used takes no memory. Data lies in parts of 512 pages: one page of PRP
 * entries that name a part's pages in order describes any run of them, from whatever entry on.
 */
import {
  MAX_IO_QUEUE_PAIRS,
  MAX_QUEUE_ENTRIES,
  PAGE_SIZE,
  REMOTE_PART_PAGES,
  REMOTE_PARTS,
} from '../../limits.ts';
import { GuestMemory, type GuestRegion } from '../../memory/guest.ts';
import type { System } from '../../native/system.ts';
import { CQE_SIZE, SQE_SIZE } from '../../spec/nvme.ts';
import { writeU64 } from '../../util/struct.ts';

/** Where the controller finds the memory. No address of the host's means anything there. */
const BASE = 0x1_0000_0000;
/** An address at which it finds none. */
export const NOWHERE = 0;

const SQ_BYTES = MAX_QUEUE_ENTRIES * SQE_SIZE;
const CQ_BYTES = MAX_QUEUE_ENTRIES * CQE_SIZE;
const QUEUES_BYTES = (MAX_IO_QUEUE_PAIRS + 1) * (SQ_BYTES + CQ_BYTES);
const LISTS = QUEUES_BYTES;
const DATA = LISTS + REMOTE_PARTS * PAGE_SIZE;
const PAGES = REMOTE_PARTS * REMOTE_PART_PAGES;

/** Memory of a queue: its address for the controller, and as words. */
export interface StagedQueue {
  readonly iova: number;
  readonly words: Int32Array;
}

/** PRP entries, for the controller. */
export interface StagedPrps {
  readonly prp1: number;
  readonly prp2: number;
}

export class Staging {
  /** What the controller takes for its host's memory. */
  readonly memory: GuestMemory;
  readonly #buffer: SharedArrayBuffer;
  /** Completion queues that were handed out since they were cleared. */
  readonly #used = new Set<number>();

  constructor(system: System) {
    this.#buffer = system.mapAnonymous(DATA + PAGES * PAGE_SIZE);
    const region: GuestRegion = {
      iova: BASE,
      size: this.#buffer.byteLength,
      buffer: this.#buffer,
      writable: true,
    };
    this.memory = new GuestMemory(system);
    this.memory.add(region);
    const lists = new DataView(this.#buffer, LISTS, REMOTE_PARTS * PAGE_SIZE);
    for (let page = 0; page < PAGES; page++) {
      writeU64(lists, page * 8, pageIova(page));
    }
  }

  /** `size`: entries. */
  sq(qid: number, size: number): StagedQueue {
    return this.#queue(qid * (SQ_BYTES + CQ_BYTES), size * SQE_SIZE);
  }

  /** The same. */
  cq(qid: number, size: number): StagedQueue {
    this.#used.add(qid);
    return this.#queue(qid * (SQ_BYTES + CQ_BYTES) + SQ_BYTES, size * CQE_SIZE);
  }

  #queue(offset: number, bytes: number): StagedQueue {
    return { iova: BASE + offset, words: new Int32Array(this.#buffer, offset, bytes / 4) };
  }

  /** A completion queue that is gone leaves nothing to the next one. */
  clearCq(qid: number): void {
    this.cq(qid, MAX_QUEUE_ENTRIES).words.fill(0);
    this.#used.delete(qid);
  }

  /** No queue is in use: as at the start. */
  clear(): void {
    for (const qid of this.#used) {
      this.clearCq(qid);
    }
  }

  /** Bytes of data from a page on. */
  data(page: number, length: number): Uint8Array {
    return new Uint8Array(this.#buffer, DATA + page * PAGE_SIZE, length);
  }

  /** The entries of a run of pages, all of one part. */
  prps(page: number, length: number): StagedPrps {
    const pages = Math.ceil(length / PAGE_SIZE);
    const second = pages < 2 ? 0 : pages === 2 ? pageIova(page + 1) : BASE + LISTS + (page + 1) * 8;
    return { prp1: pageIova(page), prp2: second };
  }
}

function pageIova(page: number): number {
  return BASE + DATA + page * PAGE_SIZE;
}

/** The data pages of a `Staging`, given to commands as runs of neighbours in one part, in the order that they ask. */
export class StagedPages {
  readonly #used = new Uint8Array(PAGES);
  readonly #waiting: { readonly pages: number; readonly resolve: (page: number) => void }[] = [];

  /** Resolves with the first page, when there are as many as these bytes (MAX_TRANSFER_BYTES at most) need. */
  take(bytes: number): Promise<number> {
    const pages = Math.ceil(bytes / PAGE_SIZE);
    return new Promise((resolve) => {
      this.#waiting.push({ pages, resolve });
      this.#serve();
    });
  }

  give(page: number, bytes: number): void {
    this.#used.fill(0, page, page + Math.ceil(bytes / PAGE_SIZE));
    this.#serve();
  }

  #serve(): void {
    for (let first = this.#waiting[0]; first !== undefined; first = this.#waiting[0]) {
      const page = this.#find(first.pages);
      if (page < 0) {
        return;
      }
      this.#waiting.shift();
      this.#used.fill(1, page, page + first.pages);
      first.resolve(page);
    }
  }

  /** A run of free pages, or -1. */
  #find(pages: number): number {
    let run = 0;
    for (let page = 0; page < PAGES; page++) {
      if (page % REMOTE_PART_PAGES === 0) {
        run = 0;
      }
      run = this.#used[page] === 0 ? run + 1 : 0;
      if (run === pages) {
        return page + 1 - pages;
      }
    }
    return -1;
  }
}
