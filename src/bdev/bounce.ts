/**
 * Commands whose data goes through memory of the reactor's own, a chunk after the other, for two reasons.
 *
 * O_DIRECT wants every buffer aligned, and a guest may send any dword; and never may it go through the page cache instead, which would not
 * agree with what other commands write past it. And where the file system may block, an operation that hangs must not hold on to memory of
 * the guest, which its VM may take away at any time: so it holds on to ours, and can be left to itself.
 */
import type { CopyBatch } from '../io/copies.ts';
import { MAX_INFLIGHT } from '../limits.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import { RWF_DSYNC } from '../spec/uring.ts';
import { type Backend, Detached, PENDING, type Request } from './backend.ts';
import { Bounces, CHUNK } from './bounces.ts';
import type { BackendContext } from './context.ts';
import { Op } from './op.ts';
import { Result } from './result.ts';

export interface BounceOptions {
  /** Of addresses and lengths that the base takes as they are, a power of two. Bytes. */
  readonly alignment: number;
  /** No command may use its own buffers. */
  readonly ownBuffers: boolean;
}

export class BounceBackend implements Backend {
  readonly async = true;
  readonly #base: Backend;
  readonly #mask: number;
  readonly #always: boolean;
  readonly #context: BackendContext;
  readonly #request: Request;
  readonly #copies: CopyBatch;
  #bounces: Bounces | undefined;
  /** By slot: bytes of the chunk under way, 0 if the command does not need this. */
  readonly #chunk = new Int32Array(MAX_INFLIGHT);
  /** By slot: 1 when nobody waits for it any more, and its own buffers are not to be touched. */
  readonly #alone = new Uint8Array(MAX_INFLIGHT);

  constructor(base: Backend, { alignment, ownBuffers }: BounceOptions, context: BackendContext) {
    this.#base = base;
    this.#mask = alignment - 1;
    this.#always = ownBuffers;
    this.#context = context;
    this.#request = context.request;
    this.#copies = context.copies;
  }

  get operations(): number {
    return this.#base.operations;
  }

  get depth(): number | undefined {
    return this.#base.depth;
  }

  /** Hot. */
  submit(op: Op, slot: number): number {
    if (op > Op.WRITE || !(this.#always || this.#unaligned())) {
      return this.#base.submit(op, slot);
    }
    this.#context.bounces ??= new Bounces(this.#context.system);
    this.#bounces = this.#context.bounces;
    const { segments, offset, length, fua } = this.#request;
    const { transfers } = this.#bounces;
    transfers.start(slot, op, segments);
    transfers.offset[slot] = offset[0];
    transfers.rest[slot] = length;
    transfers.rwFlags[slot] = fua ? RWF_DSYNC : 0;
    return this.#next(this.#bounces, slot);
  }

  #unaligned(): boolean {
    const { segments } = this.#request;
    let bits = 0;
    for (let i = 0; i < segments.count; i++) {
      bits |= segments.address[i] | segments.length[i];
    }
    return (bits & this.#mask) !== 0;
  }

  /** The next chunk becomes the command under way. */
  #next({ transfers, address }: Bounces, slot: number): number {
    const request = this.#request;
    const op = transfers.op[slot] as Op;
    const length = Math.min(CHUNK, transfers.rest[slot]);
    this.#chunk[slot] = length;
    if (op === Op.WRITE) {
      transfers.copy(slot, length, this.#copies, address, true);
      this.#copies.flush();
    }
    request.segments.address[0] = address[slot];
    request.segments.length[0] = length;
    request.segments.count = 1;
    request.offset[0] = transfers.offset[slot];
    request.length = length;
    request.fua = transfers.rwFlags[slot] !== 0;
    const status = this.#base.submit(op, slot);
    if (status !== PENDING) {
      // The slot's next command may need none of this.
      this.#chunk[slot] = 0;
    }
    return status;
  }

  complete(slot: number, reported: number): number {
    const result = this.#base.complete(slot, reported);
    const chunk = this.#chunk[slot];
    if (result === PENDING || chunk === 0 || this.#bounces === undefined) {
      return result;
    }
    this.#chunk[slot] = 0;
    if (this.#alone[slot] === 1) {
      this.#alone[slot] = 0;
      return result;
    }
    if (result !== Result.OK) {
      return result;
    }
    const { transfers, address } = this.#bounces;
    if (transfers.op[slot] === Op.READ) {
      transfers.copy(slot, chunk, this.#copies, address, false);
      this.#copies.flush();
    }
    transfers.advance(slot, chunk);
    return transfers.rest[slot] === 0 ? result : this.#next(this.#bounces, slot);
  }

  hurry(slot: number, ends: boolean): void {
    this.#base.hurry?.(slot, ends);
  }

  touches(slot: number, memory: HostRanges): boolean {
    return this.#chunk[slot] === 0
      ? this.#base.touches?.(slot, memory) === true
      : this.#bounces?.transfers.touches(slot, memory) === true;
  }

  quick(slot: number): boolean {
    return this.#base.quick?.(slot) === true;
  }

  /** What is under way uses our memory. Chunks that were not begun are left out. */
  detach(slot: number): Detached {
    if (this.#chunk[slot] === 0) {
      return this.#base.detach?.(slot) ?? Detached.NO;
    }
    this.#alone[slot] = 1;
    return Detached.ALONE;
  }

  close(): void {
    this.#base.close();
  }
}
