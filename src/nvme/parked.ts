/**
 * Commands that wait for the rate limit of their bdev, in the order they came: each with a slot, a CQ entry, and a copy of its SQE, whose
 * place the host may use again.
 */
import { PENDING } from '../bdev/backend.ts';
import { type Limiter, SLICE_MS } from '../bdev/limiter.ts';
import { Op } from '../bdev/op.ts';
import { MAX_INFLIGHT } from '../limits.ts';
import { CDW12_NLB_MASK, NvmOpcode } from '../spec/nvm.ts';
import { Sqe } from '../spec/nvme.ts';
import { BUSY, type Inflight } from './inflight.ts';
import type { IoNamespace, IoQueue } from './io-view.ts';
import { SQE_WORDS } from './queue.ts';
import type { RoundClock } from './round-clock.ts';

const CDW0 = Sqe.word('cdw0');
const CDW12 = Sqe.word('cdw12');

export class ParkedCommands {
  readonly #inflight: Inflight;
  readonly #clock: RoundClock;
  /** Carries out the command of a slot, which it gives back, from its SQE at `sqes[base]`. */
  readonly #carryOut: (slot: number, queue: IoQueue, sqes: Int32Array, base: number) => void;
  /** Slots, in order. */
  readonly #order = new Int32Array(MAX_INFLIGHT);
  #count = 0;
  readonly #sqes = new Int32Array(MAX_INFLIGHT * SQE_WORDS);
  /** The slice in which they were last looked at. */
  #lastSlice = 0;

  constructor(
    inflight: Inflight,
    clock: RoundClock,
    carryOut: (slot: number, queue: IoQueue, sqes: Int32Array, base: number) => void,
  ) {
    this.#inflight = inflight;
    this.#clock = clock;
    this.#carryOut = carryOut;
  }

  get count(): number {
    return this.#count;
  }

  /** Hot, where there are limits. Whether a command may go now: those of a namespace go in the order they came. Needs the clock. */
  admit(namespace: IoNamespace, limiter: Limiter, op: Op, length: number): boolean {
    this.#clock.need();
    return namespace.parked === 0 && limiter.admit(op, length, this.#clock.now);
  }

  /** Keeps a command that may not go. PENDING or BUSY. */
  park(
    queue: IoQueue,
    namespace: IoNamespace,
    op: Op,
    cid: number,
    words: Int32Array,
    base: number,
  ): number {
    if (this.#inflight.full(queue.controller)) {
      return BUSY;
    }
    const slot = this.#inflight.take(queue, namespace, op, cid, 0);
    this.#inflight.start[slot] = this.#clock.now[0];
    for (let i = 0; i < SQE_WORDS; i++) {
      this.#sqes[slot * SQE_WORDS + i] = words[base + i];
    }
    this.#order[this.#count] = slot;
    this.#count += 1;
    namespace.parked += 1;
    return PENDING;
  }

  /** Once a slice (and at once where something drains): carries out those that may go by now. Returns how many. */
  release(draining: boolean): number {
    this.#clock.read();
    const slice = (this.#clock.now[0] / (SLICE_MS * 1e6)) | 0;
    if (slice === this.#lastSlice && !draining) {
      return 0;
    }
    this.#lastSlice = slice;
    const count = this.#count;
    let kept = 0;
    for (let i = 0; i < count; i++) {
      const slot = this.#order[i];
      const queue = this.#inflight.queue[slot]!;
      const namespace = this.#inflight.namespace[slot]!;
      if (this.#goes(slot, queue, namespace)) {
        namespace.parked -= 1;
        this.#carryOut(slot, queue, this.#sqes, slot * SQE_WORDS);
      } else {
        namespace.waiting = slice;
        this.#order[kept++] = slot;
      }
    }
    this.#count = kept;
    return count - kept;
  }

  /** Whether it may go in this slice. */
  #goes(slot: number, { sq, controller }: IoQueue, namespace: IoNamespace): boolean {
    const { limiter } = namespace;
    if (sq.discarded || controller.draining || limiter === undefined) {
      return true;
    }
    const at = slot * SQE_WORDS;
    const op = (this.#sqes[at + CDW0] & 0xff) === NvmOpcode.READ ? Op.READ : Op.WRITE;
    const blocks = (this.#sqes[at + CDW12] & CDW12_NLB_MASK) + 1;
    return (
      namespace.waiting !== this.#lastSlice &&
      limiter.admit(op, blocks << namespace.blockShift, this.#clock.now)
    );
  }
}
