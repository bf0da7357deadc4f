/**
 * A bdev that does everything, made of one that does some operations itself: writes of zeroes become writes, compares and verifies become
 * reads into memory of the reactor's own, a discard that the disk does not know has no effect. All of it in steps, between which others have
 * their turn: a discard may be of the whole disk.
 */
import { CompareBatch } from '../io/compares.ts';
import type { CopyBatch } from '../io/copies.ts';
import type { Ring } from '../io/ring.ts';
import { MAX_INFLIGHT, MAX_STEP_BYTES, MAX_ZEROED_BYTES, SEGMENTS_CAPACITY } from '../limits.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import type { System } from '../native/system.ts';
import { type Backend, Detached, PENDING, type Request } from './backend.ts';
import type { BackendContext } from './context.ts';
import { KeptRequests } from './kept.ts';
import { ALL_OPS, Op } from './op.ts';
import { Result } from './result.ts';

const State = {
  NONE: 0,
  /** A step is the base's. */
  BELOW: 1,
  /** The next step comes in the reactor's next round. */
  PAUSED: 2,
} as const;

/** Not over: there is a next step. */
const ON = -3;

/** What a reactor keeps of requests that are carried out in steps. Made when the first comes. */
export class Steps {
  readonly kept: KeptRequests;
  // By slot.
  readonly state = new Uint8Array(MAX_INFLIGHT);
  /** 1: nobody waits for it any more, and the memory of whoever asked is not to be touched. */
  readonly alone = new Uint8Array(MAX_INFLIGHT);
  /** 1: the base does not do this one itself, as has turned out; it is made of other operations. */
  readonly byOthers = new Uint8Array(MAX_INFLIGHT);
  /** Byte offset of the next step, what is left of the piece it is in, and bytes of the step under way. */
  readonly position = new Float64Array(MAX_INFLIGHT);
  readonly rest = new Float64Array(MAX_INFLIGHT);
  readonly length = new Float64Array(MAX_INFLIGHT);
  /** Pieces of a discard that were begun. */
  readonly pieces = new Uint16Array(MAX_INFLIGHT);
  /** Host address of each slot's own memory, for what is read. */
  readonly address = new Float64Array(MAX_INFLIGHT);
  readonly memory: SharedArrayBuffer;
  /** Host address of zeroes, at index 0. */
  readonly zeroes = new Float64Array(1);
  readonly zeroMemory: SharedArrayBuffer;
  readonly compares: CompareBatch;

  constructor(system: System) {
    this.kept = new KeptRequests(system);
    this.memory = system.mapAnonymous(MAX_INFLIGHT * MAX_STEP_BYTES);
    this.zeroMemory = system.mapAnonymous(MAX_STEP_BYTES);
    this.compares = new CompareBatch(SEGMENTS_CAPACITY, system);
    const base = system.addressOf(new Uint8Array(this.memory, 0, 1));
    for (let slot = 0; slot < MAX_INFLIGHT; slot++) {
      this.address[slot] = base + slot * MAX_STEP_BYTES;
    }
    this.zeroes[0] = system.addressOf(new Uint8Array(this.zeroMemory, 0, 1));
  }
}

/** The backend itself, if it does all operations, or one made of it that does. */
export function makeWhole(base: Backend, context: BackendContext): Backend {
  return base.operations === ALL_OPS ? base : new WholeBackend(base, context);
}

class WholeBackend implements Backend {
  readonly async = true;
  readonly operations = ALL_OPS;
  readonly #base: Backend;
  readonly #context: BackendContext;
  readonly #request: Request;
  readonly #copies: CopyBatch;
  readonly #ring: Ring;
  #steps: Steps | undefined;

  constructor(base: Backend, context: BackendContext) {
    this.#base = base;
    this.#context = context;
    this.#request = context.request;
    this.#copies = context.copies;
    this.#ring = context.ring;
  }

  get direct(): Backend {
    return this.#base;
  }

  get depth(): number | undefined {
    return this.#base.depth;
  }

  submit(op: Op, slot: number): number {
    const inSteps = op === Op.WRITE_ZEROES || op === Op.DISCARD;
    if (op <= Op.FLUSH || (!inSteps && this.#baseDoes(op))) {
      return this.#base.submit(op, slot);
    }
    if (op === Op.DISCARD && !this.#baseDoes(op)) {
      return Result.OK;
    }
    const steps = this.#makeSteps();
    if (steps === undefined) {
      return Result.FAILED;
    }
    steps.kept.keep(slot, op, this.#request);
    steps.alone[slot] = 0;
    steps.byOthers[slot] = 0;
    steps.pieces[slot] = 0;
    steps.position[slot] = this.#request.offset[0];
    steps.rest[slot] = op === Op.DISCARD ? 0 : this.#request.length;
    return this.#proceed(steps, slot);
  }

  /** Undefined if the system has no memory for it. */
  #makeSteps(): Steps | undefined {
    if (this.#steps === undefined) {
      try {
        this.#context.steps ??= new Steps(this.#context.system);
        this.#steps = this.#context.steps;
      } catch {
        // Another command may find some.
      }
    }
    return this.#steps;
  }

  #baseDoes(op: Op): boolean {
    return ((this.#base.operations >>> op) & 1) !== 0;
  }

  /** Steps until one has to be waited for, or the request is over. */
  #proceed(steps: Steps, slot: number): number {
    for (;;) {
      const result = this.#step(steps, slot);
      if (result === PENDING) {
        steps.state[slot] = State.BELOW;
        return PENDING;
      }
      const outcome = this.#stepped(steps, slot, result);
      if (outcome !== ON) {
        steps.state[slot] = State.NONE;
        return outcome;
      }
      if (!this.#base.async) {
        steps.state[slot] = State.PAUSED;
        this.#ring.prepareNop(slot);
        return PENDING;
      }
    }
  }

  /** Has the base begin the next step. There is one. */
  #step(steps: Steps, slot: number): number {
    const request = this.#request;
    const { segments } = request;
    const op = steps.kept.transfers.op[slot] as Op;
    if (steps.rest[slot] === 0) {
      const ranges = steps.kept.ranges(slot);
      const piece = steps.pieces[slot];
      steps.position[slot] = ranges.offset[piece];
      steps.rest[slot] = ranges.length[piece];
      steps.pieces[slot] = piece + 1;
    }
    const isWhole = this.#baseDoes(op) && steps.byOthers[slot] === 0;
    const most = isWhole ? (this.#base.zeroStep ?? MAX_ZEROED_BYTES) : MAX_STEP_BYTES;
    const length = Math.min(most, steps.rest[slot]);
    steps.length[slot] = length;
    request.offset[0] = steps.position[slot];
    request.length = length;
    request.fua = steps.kept.fua[slot] !== 0;
    request.deallocate = steps.kept.deallocate[slot] !== 0;
    if (isWhole) {
      segments.count = 0;
      return this.#base.submit(op, slot);
    }
    segments.count = 1;
    segments.length[0] = length;
    if (op === Op.WRITE_ZEROES) {
      segments.address[0] = steps.zeroes[0];
      return this.#base.submit(Op.WRITE, slot);
    }
    segments.address[0] = steps.address[slot];
    return this.#base.submit(Op.READ, slot);
  }

  /** A step is over. ON, or what the request ends with. */
  #stepped(steps: Steps, slot: number, result: number): number {
    const { transfers } = steps.kept;
    const op = transfers.op[slot] as Op;
    if (result === Result.UNSUPPORTED && steps.byOthers[slot] === 0) {
      steps.byOthers[slot] = 1;
      return op === Op.DISCARD ? Result.OK : ON;
    }
    if (result !== Result.OK || steps.alone[slot] !== 0) {
      return result;
    }
    const length = steps.length[slot];
    if (op === Op.COMPARE) {
      this.#copies.flush();
      transfers.copy(slot, length, steps.compares, steps.address, true);
      if (!steps.compares.equal()) {
        return Result.MISCOMPARE;
      }
      transfers.advance(slot, length);
    }
    steps.position[slot] += length;
    steps.rest[slot] -= length;
    const pieces = op === Op.DISCARD ? steps.kept.ranges(slot).count : 0;
    return steps.rest[slot] === 0 && steps.pieces[slot] === pieces ? Result.OK : ON;
  }

  complete(slot: number, reported: number): number {
    const steps = this.#steps;
    if (steps === undefined || steps.state[slot] === State.NONE) {
      return this.#base.complete(slot, reported);
    }
    if (steps.state[slot] === State.BELOW) {
      const result = this.#base.complete(slot, reported);
      if (result === PENDING) {
        return PENDING;
      }
      const outcome = this.#stepped(steps, slot, result);
      if (outcome !== ON) {
        steps.state[slot] = State.NONE;
        return outcome;
      }
    } else if (steps.alone[slot] !== 0) {
      steps.state[slot] = State.NONE;
      return Result.ABORTED;
    }
    return this.#proceed(steps, slot);
  }

  hurry(slot: number, ends: boolean): void {
    if (this.#steps?.state[slot] !== State.PAUSED) {
      this.#base.hurry?.(slot, ends);
    }
  }

  /** Only a compare needs the memory of whoever asked. */
  touches(slot: number, memory: HostRanges): boolean {
    const steps = this.#steps;
    return steps === undefined || steps.state[slot] === State.NONE
      ? this.#base.touches?.(slot, memory) === true
      : steps.kept.transfers.touches(slot, memory);
  }

  /** The step under way uses our memory, or none. Those that were not begun are left out. */
  detach(slot: number): Detached {
    const steps = this.#steps;
    if (steps === undefined || steps.state[slot] === State.NONE) {
      return this.#base.detach?.(slot) ?? Detached.NO;
    }
    steps.alone[slot] = 1;
    return Detached.ALONE;
  }

  close(): void {
    this.#base.close();
  }
}
