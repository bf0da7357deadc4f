/**
 * O_DIRECT wants every buffer aligned, and a guest may send any dword: what is not aligned goes through memory of our own, a chunk after the
 * other. Never through the page cache, which would not agree with what other commands write past it.
 */
import type { CopyBatch } from '../io/copies.ts';
import { MAX_INFLIGHT } from '../limits.ts';
import { Status } from '../spec/nvme.ts';
import { RWF_DSYNC } from '../spec/uring.ts';
import { type Backend, PENDING, type Request } from './backend.ts';
import { Bounces, CHUNK } from './bounces.ts';
import type { BackendContext } from './context.ts';
import { Op } from './op.ts';

export class BounceBackend implements Backend {
  readonly async = true;
  readonly #base: Backend;
  readonly #mask: number;
  readonly #context: BackendContext;
  readonly #request: Request;
  readonly #copies: CopyBatch;
  #bounces: Bounces | undefined;
  /** By slot: bytes of the chunk under way, 0 if the command does not need this. */
  readonly #chunk = new Int32Array(MAX_INFLIGHT);

  /** `alignment` of addresses and lengths, a power of two. */
  constructor(base: Backend, alignment: number, context: BackendContext) {
    this.#base = base;
    this.#mask = alignment - 1;
    this.#context = context;
    this.#request = context.request;
    this.#copies = context.copies;
  }

  /** Hot. */
  submit(op: Op, slot: number): number {
    if (op === Op.FLUSH || this.#aligned()) {
      return this.#base.submit(op, slot);
    }
    this.#context.bounces ??= new Bounces();
    this.#bounces = this.#context.bounces;
    const { segments, offset, length, fua } = this.#request;
    const { transfers } = this.#bounces;
    transfers.start(slot, op, segments);
    transfers.offset[slot] = offset[0];
    transfers.rest[slot] = length;
    transfers.rwFlags[slot] = fua ? RWF_DSYNC : 0;
    return this.#next(this.#bounces, slot);
  }

  #aligned(): boolean {
    const { segments } = this.#request;
    let bits = 0;
    for (let i = 0; i < segments.count; i++) {
      bits |= segments.address[i] | segments.length[i];
    }
    return (bits & this.#mask) === 0;
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
    return this.#base.submit(op, slot);
  }

  complete(slot: number, result: number): number {
    const status = this.#base.complete(slot, result);
    const chunk = this.#chunk[slot];
    if (status === PENDING || chunk === 0 || this.#bounces === undefined) {
      return status;
    }
    this.#chunk[slot] = 0;
    if (status !== Status.SUCCESS) {
      return status;
    }
    const { transfers, address } = this.#bounces;
    if (transfers.op[slot] === Op.READ) {
      transfers.copy(slot, chunk, this.#copies, address, false);
      this.#copies.flush();
    }
    transfers.advance(slot, chunk);
    return transfers.rest[slot] === 0 ? status : this.#next(this.#bounces, slot);
  }

  hurry(slot: number, ends: boolean): void {
    this.#base.hurry?.(slot, ends);
  }

  close(): void {
    this.#base.close();
  }
}
