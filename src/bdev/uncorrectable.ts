/**
 * A bdev with blocks that can be marked uncorrectable (NVM Command Set 1.0 §3.2.7): what reads them fails, until they are written, zeroed or
 * discarded. Requests come here only while there are such blocks, or to mark some; else the bdev is used as it is.
 *
 * What marks or clears blocks ends when main has it (`uncorrectable-ranges.ts`), which is looked for from time to time: it is rare.
 */
import type { CopyBatch } from '../io/copies.ts';
import type { Timers } from '../io/timers.ts';
import { MAX_INFLIGHT } from '../limits.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import { type Backend, Detached, PENDING, type Request } from './backend.ts';
import { Answer, type BlockStates, Change, NO_ENTRY } from './block-states.ts';
import type { BackendContext } from './context.ts';
import { ALL_OPS, changesBlocks, isRanged, Op } from './op.ts';
import { Ranges } from './ranges.ts';
import { Result } from './result.ts';

const State = {
  NONE: 0,
  /** It is the base's, and clears blocks when it has succeeded. */
  BELOW: 1,
  /** Main is asked, or is going to be. */
  ASKS: 2,
} as const;

/** Between two looks at what main answers: the first, and the longest. Microseconds. */
const LOOK_US = 50;
const MOST_LOOK_US = 10_000;

export class UncorrectableBackend implements Backend {
  readonly async = true;
  readonly operations = ALL_OPS;
  readonly #base: Backend;
  readonly #blocks: BlockStates;
  readonly #request: Request;
  readonly #copies: CopyBatch;
  readonly #timers: Timers;
  /** Requests that end by way of this. */
  busy = 0;
  // By slot.
  readonly #state = new Uint8Array(MAX_INFLIGHT);
  readonly #op = new Uint8Array(MAX_INFLIGHT);
  readonly #entry = new Int16Array(MAX_INFLIGHT);
  readonly #lookUs = new Int32Array(MAX_INFLIGHT);
  /** Pieces to be marked or cleared, and how many were. */
  readonly #ranges: (Ranges | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);
  readonly #pieces = new Uint16Array(MAX_INFLIGHT);

  constructor(base: Backend, blocks: BlockStates, context: BackendContext) {
    this.#base = base;
    this.#blocks = blocks;
    this.#request = context.request;
    this.#copies = context.copies;
    this.#timers = context.timers;
  }

  get depth(): number | undefined {
    return this.#base.depth;
  }

  submit(op: Op, slot: number): number {
    if (op === Op.WRITE_UNCORRECTABLE) {
      this.#keep(op, slot);
      return this.#ask(slot);
    }
    if (!isRanged(op) || !this.#hits(op)) {
      return this.#base.submit(op, slot);
    }
    if (!changesBlocks(op)) {
      return Result.UNCORRECTABLE;
    }
    this.#keep(op, slot);
    this.#state[slot] = State.BELOW;
    return this.#written(slot, this.#base.submit(op, slot));
  }

  /** Whether any block of the request under way is uncorrectable. */
  #hits(op: Op): boolean {
    const { offset, length, ranges } = this.#request;
    if (op !== Op.DISCARD) {
      return this.#blocks.isUncorrectable(offset[0], length);
    }
    for (let i = 0; i < ranges.count; i++) {
      if (this.#blocks.isUncorrectable(ranges.offset[i], ranges.length[i])) {
        return true;
      }
    }
    return false;
  }

  /** Remembers which blocks the request under way is about. */
  #keep(op: Op, slot: number): void {
    const request = this.#request;
    let kept = this.#ranges[slot];
    if (kept === undefined) {
      kept = new Ranges();
      this.#ranges[slot] = kept;
    }
    if (op === Op.DISCARD) {
      kept.copy(request.ranges);
    } else {
      kept.count = 1;
      kept.offset[0] = request.offset[0];
      kept.length[0] = request.length;
    }
    this.#op[slot] = op;
    this.#pieces[slot] = 0;
    this.busy += 1;
  }

  /** The base has ended a request that clears blocks, or not yet (PENDING). */
  #written(slot: number, result: number): number {
    if (result === Result.OK) {
      // Those of a bdev in memory: its blocks are to be what they will read as.
      this.#copies.flush();
      return this.#ask(slot);
    }
    return result === PENDING ? PENDING : this.#end(slot, result);
  }

  #end(slot: number, result: number): number {
    this.#state[slot] = State.NONE;
    this.busy -= 1;
    return result;
  }

  /** Asks main for the next piece. */
  #ask(slot: number): number {
    const ranges = this.#ranges[slot]!;
    const piece = this.#pieces[slot];
    const change = this.#op[slot] === Op.WRITE_UNCORRECTABLE ? Change.MARK : Change.CLEAR;
    this.#state[slot] = State.ASKS;
    this.#entry[slot] = this.#blocks.ask(change, ranges.offset[piece], ranges.length[piece]);
    this.#lookUs[slot] = LOOK_US;
    return this.#look(slot);
  }

  #look(slot: number): number {
    this.#timers.start(slot, this.#lookUs[slot]);
    this.#lookUs[slot] = Math.min(2 * this.#lookUs[slot], MOST_LOOK_US);
    return PENDING;
  }

  complete(slot: number, reported: number): number {
    switch (this.#state[slot]) {
      case State.BELOW:
        return this.#written(slot, this.#base.complete(slot, reported));
      case State.ASKS:
        return this.#answered(slot);
      default:
        return this.#base.complete(slot, reported);
    }
  }

  #answered(slot: number): number {
    const entry = this.#entry[slot];
    if (entry === NO_ENTRY) {
      return this.#ask(slot);
    }
    switch (this.#blocks.answer(entry)) {
      case Answer.NONE:
        return this.#look(slot);
      case Answer.FULL:
        return this.#end(slot, Result.NO_SPACE);
      case Answer.FAILED:
        return this.#end(slot, Result.WRITE_ERROR);
      case Answer.DONE:
        this.#pieces[slot] += 1;
        return this.#pieces[slot] < this.#ranges[slot]!.count
          ? this.#ask(slot)
          : this.#end(slot, Result.OK);
    }
  }

  hurry(slot: number, ends: boolean): void {
    if (this.#state[slot] !== State.ASKS) {
      this.#base.hurry?.(slot, ends);
    }
  }

  touches(slot: number, memory: HostRanges): boolean {
    return this.#state[slot] !== State.ASKS && this.#base.touches?.(slot, memory) === true;
  }

  /** Main is not called back. */
  detach(slot: number): Detached {
    if (this.#state[slot] === State.ASKS) {
      return Detached.ALONE;
    }
    const detached = this.#base.detach?.(slot) ?? Detached.NO;
    if (detached === Detached.OVER && this.#state[slot] !== State.NONE) {
      this.#end(slot, Result.ABORTED);
    }
    return detached;
  }

  close(): void {
    this.#base.close();
  }
}
