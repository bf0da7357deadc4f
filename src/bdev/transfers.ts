/**
 * Operations under way in the ring: for each slot its iovecs (in memory the kernel can read) and how far it has come.
 * Shared by all file backends of a reactor.
 */
import type { CopyBatch } from '../io/copies.ts';
import { MAX_INFLIGHT, SEGMENTS_CAPACITY } from '../limits.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import type { Segments } from '../memory/segments.ts';
import type { System } from '../native/system.ts';
import { Iovec } from '../spec/uring.ts';
import { hasData, type Op } from './op.ts';

const IOVEC_WORDS = Iovec.size / 4;
const BASE = Iovec.word('base');
const LEN = Iovec.word('len');
const SLOT_WORDS = SEGMENTS_CAPACITY * IOVEC_WORDS;
const PAGE = 4096;
const TWO_32 = 0x1_0000_0000;

export class Transfers {
  readonly #words: Int32Array;
  /** Host address of each slot's first iovec that is not done. */
  readonly iovecs = new Float64Array(MAX_INFLIGHT);
  readonly #firstIovecs = new Float64Array(MAX_INFLIGHT);
  /** iovecs that are not done. */
  readonly iovecCount = new Int32Array(MAX_INFLIGHT);
  /** Next byte offset in the file. */
  readonly offset = new Float64Array(MAX_INFLIGHT);
  /** Bytes of a slot without data. */
  readonly length = new Float64Array(MAX_INFLIGHT);
  /** Bytes still to move. */
  readonly rest = new Int32Array(MAX_INFLIGHT);
  readonly op = new Uint8Array(MAX_INFLIGHT);
  readonly rwFlags = new Uint8Array(MAX_INFLIGHT);
  /** 1: a sync follows the write. */
  readonly syncs = new Uint8Array(MAX_INFLIGHT);

  constructor(system: System) {
    const bytes = Math.ceil((MAX_INFLIGHT * SLOT_WORDS * 4) / PAGE) * PAGE;
    const buffer = system.mapAnonymous(bytes);
    this.#words = new Int32Array(buffer);
    const base = system.addressOf(this.#words);
    for (let slot = 0; slot < MAX_INFLIGHT; slot++) {
      this.#firstIovecs[slot] = base + slot * SLOT_WORDS * 4;
    }
  }

  /** Hot. Takes over a scatter list for a slot. */
  start(slot: number, op: Op, segments: Segments): void {
    this.op[slot] = op;
    const count = segments.count;
    let at = slot * SLOT_WORDS;
    for (let i = 0; i < count; i++, at += IOVEC_WORDS) {
      const address = segments.address[i];
      this.#words[at + BASE] = address;
      this.#words[at + BASE + 1] = address / TWO_32;
      this.#words[at + LEN] = segments.length[i];
      this.#words[at + LEN + 1] = 0;
    }
    this.iovecs[slot] = this.#firstIovecs[slot];
    this.iovecCount[slot] = count;
  }

  /** The scatter list that a slot was started with. */
  restore(slot: number, segments: Segments): void {
    const count = this.iovecCount[slot];
    let at = slot * SLOT_WORDS;
    for (let i = 0; i < count; i++, at += IOVEC_WORDS) {
      segments.address[i] =
        (this.#words[at + BASE + 1] >>> 0) * TWO_32 + (this.#words[at + BASE] >>> 0);
      segments.length[i] = this.#words[at + LEN];
    }
    segments.count = count;
  }

  /** The address of a piece, at index 0. */
  readonly #piece = new Float64Array(1);

  /** Collects copies (or comparisons) between the next `bytes` of a slot's iovecs and the memory at `other[slot]`. */
  copy(
    slot: number,
    bytes: number,
    copies: Pick<CopyBatch, 'push'>,
    other: Float64Array,
    isWrite: boolean,
  ): void {
    let at = (this.iovecs[slot] - this.#firstIovecs[slot]) / 4 + slot * SLOT_WORDS;
    for (let done = 0; done < bytes; at += IOVEC_WORDS) {
      const length = Math.min(this.#words[at + LEN], bytes - done);
      this.#piece[0] = (this.#words[at + BASE + 1] >>> 0) * TWO_32 + (this.#words[at + BASE] >>> 0);
      if (isWrite) {
        copies.push(other, slot, done, this.#piece, 0, 0, length);
      } else {
        copies.push(this.#piece, 0, 0, other, slot, done, length);
      }
      done += length;
    }
  }

  /**
   * The same for `bytes` that begin `skip` bytes after what is done, and the memory at `other[index] + at`.
   */
  copyAt(
    slot: number,
    skip: number,
    bytes: number,
    copies: CopyBatch,
    other: Float64Array,
    index: number,
    at: number,
    isWrite: boolean,
  ): void {
    let word = (this.iovecs[slot] - this.#firstIovecs[slot]) / 4 + slot * SLOT_WORDS;
    let skipped = skip;
    while (skipped >= this.#words[word + LEN]) {
      skipped -= this.#words[word + LEN];
      word += IOVEC_WORDS;
    }
    for (let done = 0; done < bytes; word += IOVEC_WORDS, skipped = 0) {
      const length = Math.min(this.#words[word + LEN] - skipped, bytes - done);
      this.#piece[0] =
        (this.#words[word + BASE + 1] >>> 0) * TWO_32 + (this.#words[word + BASE] >>> 0);
      if (isWrite) {
        copies.push(other, index, at + done, this.#piece, 0, skipped, length);
      } else {
        copies.push(this.#piece, 0, skipped, other, index, at + done, length);
      }
      done += length;
    }
  }

  /** Whether any of a slot's iovecs lies in this memory. */
  touches(slot: number, memory: HostRanges): boolean {
    if (!hasData(this.op[slot] as Op)) {
      return false;
    }
    let at = (this.iovecs[slot] - this.#firstIovecs[slot]) / 4 + slot * SLOT_WORDS;
    for (let i = 0; i < this.iovecCount[slot]; i++, at += IOVEC_WORDS) {
      const address = (this.#words[at + BASE + 1] >>> 0) * TWO_32 + (this.#words[at + BASE] >>> 0);
      if (memory.overlaps(address, address + this.#words[at + LEN])) {
        return true;
      }
    }
    return false;
  }

  /** After a short transfer of `bytes`: drops what is done from the slot's iovecs and moves its file offset. */
  advance(slot: number, bytes: number): void {
    this.rest[slot] -= bytes;
    this.offset[slot] += bytes;
    let left = bytes;
    let at = (this.iovecs[slot] - this.#firstIovecs[slot]) / 4 + slot * SLOT_WORDS;
    while (left > 0) {
      const length = this.#words[at + LEN];
      if (length > left) {
        const base =
          (this.#words[at + BASE + 1] >>> 0) * TWO_32 + (this.#words[at + BASE] >>> 0) + left;
        this.#words[at + BASE] = base;
        this.#words[at + BASE + 1] = base / TWO_32;
        this.#words[at + LEN] = length - left;
        return;
      }
      left -= length;
      at += IOVEC_WORDS;
      this.iovecs[slot] += Iovec.size;
      this.iovecCount[slot] -= 1;
    }
  }
}
