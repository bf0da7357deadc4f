/**
 * Data buffers of a driver that takes its pages where it finds them: scattered over client memory, with the PRPs that describe them.
 * NVMe Base 2.0 §4.1.1.
 */
import type { ClientMemory } from '../../src/client/memory.ts';
import type { Random } from './random.ts';

const PAGE = 4096;
const ENTRY = 8;
/** What the pages around the data are filled with. */
const GUARD = 0xa5;

export interface Page {
  readonly iova: number;
  readonly bytes: Uint8Array;
}

/** Free pages of client memory, handed out in random order. */
export class PagePool {
  readonly #random: Random;
  readonly #free: Page[] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  /** Takes all that is left of a client's memory, or a number of pages of it. */
  add(memory: ClientMemory, pages = Number.POSITIVE_INFINITY): this {
    for (let i = 0; i < pages; i++) {
      try {
        const offset = memory.allocate(PAGE);
        this.#free.push({ iova: memory.iova + offset, bytes: memory.bytes(offset, PAGE) });
      } catch (error) {
        if (error instanceof RangeError && pages === Number.POSITIVE_INFINITY) {
          break;
        }
        throw error;
      }
    }
    return this;
  }

  take(): Page {
    const at = this.#random.below(this.#free.length);
    const page = this.#free[at];
    const last = this.#free.pop();
    if (page === undefined || last === undefined) {
      throw new RangeError('no page is left');
    }
    if (at < this.#free.length) {
      this.#free[at] = last;
    }
    return page;
  }

  release(pages: readonly Page[]): void {
    this.#free.push(...pages);
  }
}

export class Scatter {
  readonly length: number;
  readonly prp1: number;
  readonly prp2: number;
  /** Of the data. */
  readonly pages: readonly Page[];
  /** Of the PRP list. */
  readonly lists: readonly Page[];
  /** Of the first byte in the first page, a multiple of 4. */
  readonly #offset: number;
  readonly #pool: PagePool;

  /** `offset`: of the data in its first page; a random dword by default. */
  constructor(pool: PagePool, length: number, random: Random, offset = random.below(PAGE / 4) * 4) {
    this.#pool = pool;
    this.length = length;
    this.#offset = offset;
    const count = Math.ceil((offset + length) / PAGE);
    this.pages = Array.from({ length: count }, () => pool.take());
    for (const { bytes } of this.pages) {
      bytes.fill(GUARD);
    }
    this.prp1 = this.pages[0].iova + offset;
    const rest = this.pages.slice(1).map(({ iova }) => iova);
    if (rest.length <= 1) {
      this.prp2 = rest[0] ?? 0;
      this.lists = [];
    } else {
      // The first list page is entered anywhere, often near its end.
      const entries = random.chance(0.5) ? 1 + random.below(PAGE / ENTRY) : random.size(300);
      const first = PAGE - entries * ENTRY;
      this.lists = writeList(pool, rest, first);
      this.prp2 = this.lists[0].iova + first;
    }
  }

  /** Calls back for each piece of the data: its page's bytes, and its place in the data. */
  #pieces(callback: (piece: Uint8Array, at: number) => void): void {
    let at = 0;
    for (const [i, { bytes }] of this.pages.entries()) {
      const start = i === 0 ? this.#offset : 0;
      const length = Math.min(PAGE - start, this.length - at);
      callback(bytes.subarray(start, start + length), at);
      at += length;
    }
  }

  write(data: Uint8Array): void {
    this.#pieces((piece, at) => piece.set(data.subarray(at, at + piece.length)));
  }

  read(): Uint8Array {
    const data = new Uint8Array(this.length);
    this.#pieces((piece, at) => data.set(piece, at));
    return data;
  }

  /** Whether the bytes around the data are as they were. */
  get intact(): boolean {
    const first = this.pages[0].bytes.subarray(0, this.#offset);
    const end = (this.#offset + this.length) % PAGE;
    const last = this.pages[this.pages.length - 1].bytes.subarray(end === 0 ? PAGE : end);
    return first.every((byte) => byte === GUARD) && last.every((byte) => byte === GUARD);
  }

  /** Gives the pages back. */
  release(): void {
    this.#pool.release(this.pages);
    this.#pool.release(this.lists);
  }
}

/** A list that begins at byte `first` of its first page; a full page's last entry leads to the next page, if more than one is left. */
function writeList(pool: PagePool, addresses: readonly number[], first: number): Page[] {
  const lists = [pool.take()];
  let at = first;
  const put = (address: number): void => {
    const { bytes } = lists[lists.length - 1];
    const view = new DataView(bytes.buffer, bytes.byteOffset, PAGE);
    view.setBigUint64(at, BigInt(address), true);
    at += ENTRY;
  };
  for (const [i, address] of addresses.entries()) {
    if (at === PAGE - ENTRY && i < addresses.length - 1) {
      const next = pool.take();
      put(next.iova);
      lists.push(next);
      at = 0;
    }
    put(address);
  }
  return lists;
}
