/**
 * A bdev that blocks can be copied to, from itself or from others: in steps through memory of the reactor's own, a read and a write each,
 * between which others have their turn. All other operations are handed on.
 */
import type { CopyBatch } from '../io/copies.ts';
import type { Ring } from '../io/ring.ts';
import type { Timers } from '../io/timers.ts';
import { MAX_FOREIGN_READS, MAX_INFLIGHT, MAX_STEP_BYTES } from '../limits.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import { type Backend, Detached, PENDING, type Request } from './backend.ts';
import type { BackendContext } from './context.ts';
import { ALL_OPS, Op } from './op.ts';
import { Ranges } from './ranges.ts';
import type { StaleWrites } from './requests/stale-writes.ts';
import { Result } from './result.ts';
import { Steps } from './whole.ts';

const State = {
  NONE: 0,
  /** The next step comes in the reactor's next round, or when a timer ends. */
  PAUSED: 1,
  READS: 2,
  WRITES: 3,
} as const;

/** Not over: there is a next step. */
const ON = -3;

/** Until a source is looked at again whose blocks nothing may touch now. Microseconds. */
const WAIT_US = 500;

/** What blocks are read from. */
export interface CopySource {
  /** Knows of blocks that cannot be read. */
  readonly marking: Backend;
  readonly stale: StaleWrites;
}

export class CopyingBackend implements Backend {
  readonly async = true;
  readonly operations = ALL_OPS;
  readonly #own: CopySource;
  readonly #context: BackendContext;
  readonly #request: Request;
  readonly #copies: CopyBatch;
  readonly #ring: Ring;
  readonly #timers: Timers;
  #steps: Steps | undefined;
  /** Reads of other bdevs that are under way. */
  #foreignReads = 0;
  // By slot.
  readonly #state = new Uint8Array(MAX_INFLIGHT);
  /** 1: nobody waits for it any more. */
  readonly #alone = new Uint8Array(MAX_INFLIGHT);
  readonly #fua = new Uint8Array(MAX_INFLIGHT);
  readonly #ranges: (Ranges | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);
  /** By range, where some are other bdevs. */
  readonly #sources: (readonly CopySource[] | undefined)[] = new Array(MAX_INFLIGHT).fill(
    undefined,
  );
  /** The range under way, and bytes of it that are done. */
  readonly #range = new Uint16Array(MAX_INFLIGHT);
  readonly #done = new Float64Array(MAX_INFLIGHT);
  /** Byte offset that is written next, and bytes of the step under way. */
  readonly #target = new Float64Array(MAX_INFLIGHT);
  readonly #length = new Float64Array(MAX_INFLIGHT);

  constructor(own: CopySource, context: BackendContext) {
    this.#own = own;
    this.#context = context;
    this.#request = context.request;
    this.#copies = context.copies;
    this.#ring = context.ring;
    this.#timers = context.timers;
  }

  submit(op: Op, slot: number): number {
    if (op !== Op.COPY) {
      return this.#own.marking.submit(op, slot);
    }
    const request = this.#request;
    try {
      this.#context.steps ??= new Steps(this.#context.system);
    } catch {
      // The system has no memory for it. Another command may find some.
      return Result.FAILED;
    }
    this.#steps = this.#context.steps;
    let kept = this.#ranges[slot];
    if (kept === undefined) {
      kept = new Ranges();
      this.#ranges[slot] = kept;
    }
    kept.copy(request.ranges);
    this.#sources[slot] = request.sources;
    this.#alone[slot] = 0;
    this.#fua[slot] = request.fua ? 1 : 0;
    this.#range[slot] = 0;
    this.#done[slot] = 0;
    this.#target[slot] = request.offset[0];
    return this.#read(slot);
  }

  #source(slot: number): CopySource {
    return this.#sources[slot]?.[this.#range[slot]] ?? this.#own;
  }

  #isForeign(slot: number): boolean {
    return this.#source(slot) !== this.#own;
  }

  #end(slot: number, result: number): number {
    this.#state[slot] = State.NONE;
    this.#sources[slot] = undefined;
    this.#request.detail = result === Result.OK ? 0 : this.#range[slot];
    return result;
  }

  #pause(slot: number, us: number): number {
    this.#state[slot] = State.PAUSED;
    if (us === 0) {
      this.#ring.prepareNop(slot);
    } else {
      this.#timers.start(slot, us);
    }
    return PENDING;
  }

  /** Begins a step. There is one. */
  #read(slot: number): number {
    const ranges = this.#ranges[slot]!;
    const range = this.#range[slot];
    const { marking, stale } = this.#source(slot);
    const offset = ranges.offset[range] + this.#done[slot];
    const length = Math.min(MAX_STEP_BYTES, ranges.length[range] - this.#done[slot]);
    const foreign = this.#isForeign(slot);
    if (
      (stale.any && stale.blocks(offset, length)) ||
      (foreign && this.#foreignReads >= MAX_FOREIGN_READS)
    ) {
      return this.#pause(slot, WAIT_US);
    }
    this.#length[slot] = length;
    this.#prepare(slot, offset);
    this.#request.fua = false;
    const result = marking.submit(Op.READ, slot);
    if (result === PENDING) {
      this.#foreignReads += foreign ? 1 : 0;
      this.#state[slot] = State.READS;
      return PENDING;
    }
    return this.#write(slot, result);
  }

  /** The step's memory, as the buffer of the request under way. */
  #prepare(slot: number, offset: number): void {
    const request = this.#request;
    const { segments } = request;
    segments.count = 1;
    segments.address[0] = this.#steps!.address[slot];
    segments.length[0] = this.#length[slot];
    request.offset[0] = offset;
    request.length = this.#length[slot];
  }

  /** The read of a step has ended. */
  #write(slot: number, read: number): number {
    if (read !== Result.OK || this.#alone[slot] !== 0) {
      return this.#end(slot, read);
    }
    this.#copies.flush();
    this.#prepare(slot, this.#target[slot]);
    this.#request.fua = this.#fua[slot] !== 0;
    const result = this.#own.marking.submit(Op.WRITE, slot);
    if (result === PENDING) {
      this.#state[slot] = State.WRITES;
      return PENDING;
    }
    this.#copies.flush();
    const outcome = this.#written(slot, result);
    return outcome === ON ? this.#pause(slot, 0) : outcome;
  }

  /** The write of a step has ended. ON, or what the request ends with. */
  #written(slot: number, result: number): number {
    if (result !== Result.OK) {
      return this.#end(slot, result);
    }
    const ranges = this.#ranges[slot]!;
    this.#target[slot] += this.#length[slot];
    this.#done[slot] += this.#length[slot];
    if (this.#done[slot] === ranges.length[this.#range[slot]]) {
      this.#range[slot] += 1;
      this.#done[slot] = 0;
      if (this.#range[slot] === ranges.count) {
        return this.#end(slot, Result.OK);
      }
    }
    return this.#alone[slot] === 0 ? ON : this.#end(slot, Result.ABORTED);
  }

  complete(slot: number, reported: number): number {
    switch (this.#state[slot]) {
      case State.PAUSED:
        return this.#alone[slot] === 0 ? this.#read(slot) : this.#end(slot, Result.ABORTED);
      case State.READS: {
        const result = this.#source(slot).marking.complete(slot, reported);
        if (result === PENDING) {
          return PENDING;
        }
        this.#foreignReads -= this.#isForeign(slot) ? 1 : 0;
        return this.#write(slot, result);
      }
      case State.WRITES: {
        const result = this.#own.marking.complete(slot, reported);
        if (result === PENDING) {
          return PENDING;
        }
        const outcome = this.#written(slot, result);
        return outcome === ON ? this.#read(slot) : outcome;
      }
      default:
        return this.#own.marking.complete(slot, reported);
    }
  }

  hurry(slot: number, ends: boolean): void {
    switch (this.#state[slot]) {
      case State.PAUSED:
        break;
      case State.READS:
        this.#source(slot).marking.hurry?.(slot, ends);
        break;
      default:
        this.#own.marking.hurry?.(slot, ends);
        break;
    }
  }

  touches(slot: number, memory: HostRanges): boolean {
    return this.#state[slot] === State.NONE && this.#own.marking.touches?.(slot, memory) === true;
  }

  /** The step under way uses our memory, or none. Those that were not begun are left out. */
  detach(slot: number): Detached {
    if (this.#state[slot] === State.NONE) {
      return this.#own.marking.detach?.(slot) ?? Detached.NO;
    }
    this.#alone[slot] = 1;
    return Detached.ALONE;
  }

  close(): void {
    this.#own.marking.close();
  }
}
