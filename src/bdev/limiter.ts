/**
 * Rate limits of a bdev (SPDK: bdev_set_qos_limit). Tokens lie in memory that all reactors share, and are refilled for each millisecond by
 * whoever sees it begin; the limits are written by main. A command goes when every bucket has something left, and may leave a debt: so a
 * transfer larger than a millisecond's share goes, too, and what follows waits longer.
 */
import { changesBlocks, Op } from './op.ts';

/** What can be limited, as SPDK orders it. */
export const LIMITS = ['rwIos', 'rwBytes', 'readBytes', 'writtenBytes'] as const;
/** I/Os and bytes a second; 0: no limit. */
export type RateLimits = Readonly<Record<(typeof LIMITS)[number], number>>;
export const NO_LIMITS: RateLimits = { rwIos: 0, rwBytes: 0, readBytes: 0, writtenBytes: 0 };

const RW_IOS = 0;
const RW_BYTES = 1;
const READ_BYTES = 2;
const WRITTEN_BYTES = 3;

/** 32-bit words. `LIMIT`: tokens a slice, 0: no limit. `TOKENS`: what is left of this slice, negative: a debt. */
const Word = { SLICE: 0, LIMIT: 1, TOKENS: 5 } as const;
const BYTES = 64;
export const SLICE_MS = 1;
const NS_PER_SLICE = SLICE_MS * 1e6;
/** After a longer pause the buckets are full in any case. */
const MAX_SLICES = 1000;
/** Most tokens a slice: 2 TB/s. */
const MAX_TOKENS = 2 ** 31 - 1;

export function makeLimits(): SharedArrayBuffer {
  return new SharedArrayBuffer(BYTES);
}

/** By main. */
export function writeLimits(memory: SharedArrayBuffer, limits: RateLimits): void {
  const words = new Int32Array(memory);
  for (const [i, key] of LIMITS.entries()) {
    const tokens = Math.min(MAX_TOKENS, Math.ceil((limits[key] * SLICE_MS) / 1000));
    Atomics.store(words, Word.LIMIT + i, tokens);
    Atomics.store(words, Word.TOKENS + i, tokens);
  }
}

/** A reactor's view of the limits of a bdev. */
export class Limiter {
  readonly #words: Int32Array;
  readonly memory: SharedArrayBuffer;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
  }

  /** Takes the tokens of a request of `length` bytes (of no meaning for a discard, which moves none), at the time `now[0]` (ns). False if it has to wait for a later slice. */
  admit(op: Op, length: number, now: Float64Array): boolean {
    const words = this.#words;
    this.#refill((now[0] / NS_PER_SLICE) | 0);
    const direction = changesBlocks(op) ? WRITTEN_BYTES : READ_BYTES;
    if (!(this.#left(RW_IOS) && this.#left(RW_BYTES) && this.#left(direction))) {
      return false;
    }
    Atomics.sub(words, Word.TOKENS + RW_IOS, 1);
    if (op !== Op.DISCARD) {
      Atomics.sub(words, Word.TOKENS + RW_BYTES, length);
      Atomics.sub(words, Word.TOKENS + direction, length);
    }
    return true;
  }

  /** When a read or write that had to wait may go at the earliest, if nobody else takes what comes: in ns, as `now[0]`. */
  due(now: Float64Array): number {
    const words = this.#words;
    let slices = 1;
    for (let i = 0; i < LIMITS.length; i++) {
      const limit = Atomics.load(words, Word.LIMIT + i);
      const tokens = Atomics.load(words, Word.TOKENS + i);
      if (limit > 0 && tokens <= 0) {
        slices = Math.max(slices, Math.floor(-tokens / limit) + 1);
      }
    }
    return (Math.floor(now[0] / NS_PER_SLICE) + slices) * NS_PER_SLICE;
  }

  #left(limit: number): boolean {
    const words = this.#words;
    return (
      Atomics.load(words, Word.LIMIT + limit) === 0 || Atomics.load(words, Word.TOKENS + limit) > 0
    );
  }

  #refill(slice: number): void {
    const words = this.#words;
    const last = Atomics.load(words, Word.SLICE);
    const passed = (slice - last) | 0;
    if (passed <= 0 || Atomics.compareExchange(words, Word.SLICE, last, slice) !== last) {
      return;
    }
    for (let i = 0; i < LIMITS.length; i++) {
      const limit = Atomics.load(words, Word.LIMIT + i);
      const left = Atomics.load(words, Word.TOKENS + i);
      // What others take between these two lines is taken twice at worst, or not at all: a command's worth.
      const tokens = limit === 0 ? 0 : Math.min(limit, left + limit * Math.min(passed, MAX_SLICES));
      Atomics.add(words, Word.TOKENS + i, tokens - left);
    }
  }
}
