/**
 * The error bdev (SPDK: bdev_error_create): another bdev, some of whose commands fail, hang or carry wrong data, as main asks
 * (`injections.ts`). For trying out what a guest makes of a bad disk.
 */
import type { CopyBatch } from '../io/copies.ts';
import type { Timers } from '../io/timers.ts';
import { MAX_INFLIGHT } from '../limits.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import { type Backend, Detached, INJECTED, PENDING, type Request } from './backend.ts';
import type { BackendContext } from './context.ts';
import { INJECTED_ERRORS, Injections } from './injections.ts';
import { KeptRequests } from './kept.ts';
import { ALL_OPS, Op } from './op.ts';
import { protocolResult, Result } from './result.ts';

/** Until a command that found no memory is tried again. Microseconds. */
const RETRY_US = 100;
/** How often it is looked whether pending commands may go on. Microseconds. */
const LOOK_US = 10_000;

const State = {
  NONE: 0,
  BELOW: 1,
  /** It is pending: until it may go on, or what it needs goes. */
  HELD: 2,
  /** Its timer runs. */
  WAITS: 3,
  /** It is going to be aborted, or carried out. */
  ABORTED: 4,
  GOES: 5,
} as const;

export class ErrorBackend implements Backend {
  readonly async = true;
  readonly operations = ALL_OPS;
  readonly #injections: Injections;
  readonly #base: Backend;
  readonly #copies: CopyBatch;
  readonly #request: Request;
  readonly #context: BackendContext;
  #kept: KeptRequests | undefined;
  readonly #timers: Timers;
  /** Commands that the base has. */
  #inflight = 0;
  // By slot.
  readonly #state = new Uint8Array(MAX_INFLIGHT);
  /** `injections.resumed` when the command became pending. */
  readonly #heldAt = new Int32Array(MAX_INFLIGHT);
  /** Host address of the byte to be changed when a read is done, or 0; and the bits to invert. */
  readonly #corrupt = new Float64Array(MAX_INFLIGHT);
  readonly #invert = new Uint8Array(MAX_INFLIGHT);
  /** The changed byte of a write: the guest's own memory stays as it is. */
  readonly #bytes: Uint8Array;
  readonly #bytesAddress = new Float64Array(1);

  constructor(injections: SharedArrayBuffer, base: Backend, context: BackendContext) {
    this.#injections = new Injections(injections);
    this.#base = base;
    this.#copies = context.copies;
    this.#request = context.request;
    this.#context = context;
    this.#timers = context.timers;
    this.#bytes = new Uint8Array(context.system.mapAnonymous(MAX_INFLIGHT));
    this.#bytesAddress[0] = context.system.addressOf(this.#bytes);
  }

  submit(op: Op, slot: number): number {
    const injections = this.#injections;
    switch (injections.take(op, this.#inflight)) {
      case INJECTED_ERRORS.failure:
        this.#request.errno = INJECTED;
        return Result.FAILED;
      case INJECTED_ERRORS.nvme_failure:
        this.#request.errno = INJECTED;
        return protocolResult(injections.status(op));
      case INJECTED_ERRORS.pending:
        this.#keep(op, slot);
        this.#state[slot] = State.HELD;
        this.#heldAt[slot] = injections.resumed;
        this.#timers.start(slot, LOOK_US);
        return PENDING;
      case INJECTED_ERRORS.nomem:
        this.#keep(op, slot);
        this.#state[slot] = State.WAITS;
        this.#timers.start(slot, RETRY_US);
        return PENDING;
      case INJECTED_ERRORS.corrupt_data:
        this.#prepareCorruption(op, slot);
        break;
    }
    return this.#pass(op, slot);
  }

  #pass(op: Op, slot: number): number {
    const result = this.#base.submit(op, slot);
    if (result === PENDING) {
      this.#state[slot] = State.BELOW;
      this.#inflight += 1;
      return PENDING;
    }
    if (this.#invert[slot] !== 0) {
      // The copies of a bdev in memory: before the byte of the slot is another command's.
      this.#copies.flush();
    }
    return this.#end(slot, result);
  }

  complete(slot: number, reported: number): number {
    switch (this.#state[slot]) {
      case State.HELD: {
        if (this.#injections.resumed === this.#heldAt[slot]) {
          this.#timers.start(slot, LOOK_US);
          return PENDING;
        }
        const result = this.#pass(this.#recall(slot), slot);
        this.#copies.flush();
        return result;
      }
      case State.WAITS: {
        this.#state[slot] = State.NONE;
        const result = this.submit(this.#recall(slot), slot);
        this.#copies.flush();
        return result;
      }
      case State.GOES: {
        const result = this.#pass(this.#recall(slot), slot);
        this.#copies.flush();
        return result;
      }
      case State.BELOW: {
        const result = this.#base.complete(slot, reported);
        if (result === PENDING) {
          return PENDING;
        }
        this.#inflight -= 1;
        return this.#end(slot, result);
      }
      default:
        this.#state[slot] = State.NONE;
        return Result.ABORTED;
    }
  }

  /** The base is done with the command. */
  #end(slot: number, result: number): number {
    this.#state[slot] = State.NONE;
    if (this.#invert[slot] !== 0) {
      if (this.#corrupt[slot] !== 0 && result === Result.OK) {
        this.#takeByte(this.#corrupt, slot, 0, slot);
        this.#copies.push(this.#corrupt, slot, 0, this.#bytesAddress, 0, slot, 1);
        this.#copies.flush();
      }
      this.#corrupt[slot] = 0;
      this.#invert[slot] = 0;
    }
    return result;
  }

  /** Copies a byte of the guest's to the slot's, with bits inverted. */
  #takeByte(from: Float64Array, index: number, offset: number, slot: number): void {
    this.#copies.push(this.#bytesAddress, 0, slot, from, index, offset, 1);
    this.#copies.flush();
    this.#bytes[slot] ^= this.#invert[slot];
  }

  /** A read is changed when it is done; of a write, the piece that the byte is in is split around another byte. */
  #prepareCorruption(op: Op, slot: number): void {
    const { segments, length } = this.#request;
    let offset = this.#injections.corruptOffset(op);
    if (op > Op.WRITE || offset >= length) {
      return;
    }
    let piece = 0;
    while (offset >= segments.length[piece]) {
      offset -= segments.length[piece];
      piece += 1;
    }
    this.#invert[slot] = this.#injections.corruptValue(op);
    if (op === Op.READ) {
      this.#corrupt[slot] = segments.address[piece] + offset;
      return;
    }
    this.#takeByte(segments.address, piece, offset, slot);
    const { address, length: lengths } = segments;
    address.copyWithin(piece + 2, piece, segments.count);
    lengths.copyWithin(piece + 2, piece, segments.count);
    lengths[piece] = offset;
    address[piece + 1] = this.#bytesAddress[0] + slot;
    lengths[piece + 1] = 1;
    address[piece + 2] += offset + 1;
    lengths[piece + 2] -= offset + 1;
    segments.count += 2;
  }

  /** Remembers the command under way. */
  #keep(op: Op, slot: number): void {
    this.#context.kept ??= new KeptRequests(this.#context.system);
    this.#kept = this.#context.kept;
    this.#kept.keep(slot, op, this.#request);
  }

  /** Makes a command that was kept the one under way. */
  #recall(slot: number): Op {
    return this.#kept!.recall(slot, this.#request);
  }

  hurry(slot: number, ends: boolean): void {
    switch (this.#state[slot]) {
      case State.HELD:
        this.#state[slot] = State.ABORTED;
        this.#timers.cancel(slot);
        break;
      case State.WAITS:
        this.#state[slot] = ends ? State.ABORTED : State.GOES;
        this.#timers.cancel(slot);
        break;
      case State.BELOW:
        this.#base.hurry?.(slot, ends);
        break;
    }
  }

  touches(slot: number, memory: HostRanges): boolean {
    switch (this.#state[slot]) {
      case State.HELD:
      case State.WAITS:
      case State.GOES:
        return this.#kept?.transfers.touches(slot, memory) === true;
      case State.BELOW:
        return this.#corrupts(slot, memory) || this.#base.touches?.(slot, memory) === true;
      default:
        return false;
    }
  }

  #corrupts(slot: number, memory: HostRanges): boolean {
    return (
      this.#corrupt[slot] !== 0 && memory.overlaps(this.#corrupt[slot], this.#corrupt[slot] + 1)
    );
  }

  detach(slot: number): Detached {
    // A read whose byte is to be changed would be changed in its owner's memory.
    if (this.#state[slot] !== State.BELOW || this.#corrupt[slot] !== 0) {
      return Detached.NO;
    }
    const detached = this.#base.detach?.(slot) ?? Detached.NO;
    if (detached === Detached.OVER) {
      this.#inflight -= 1;
      this.#state[slot] = State.NONE;
      this.#invert[slot] = 0;
    }
    return detached;
  }

  get depth(): number | undefined {
    return this.#base.depth;
  }

  close(): void {
    this.#base.close();
  }
}
