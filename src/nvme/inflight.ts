/**
 * The commands of a reactor that complete later. Each holds a slot, whose number is its operation's user data in the ring, and an entry of its
 * CQ. Hot.
 */
import type { Op } from '../bdev/op.ts';
import { MAX_CONTROLLER_INFLIGHT, MAX_INFLIGHT } from '../limits.ts';
import type { Drain, IoController, IoNamespace, IoQueue } from './io-view.ts';

/** The command could not be taken now: it stays in the queue. Beside PENDING and the NVMe statuses. */
export const BUSY = -2;

export class Inflight {
  // By slot.
  readonly queue: (IoQueue | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);
  readonly namespace: (IoNamespace | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);
  readonly #cid = new Int32Array(MAX_INFLIGHT);
  readonly #op = new Int32Array(MAX_INFLIGHT);
  readonly #bytes = new Int32Array(MAX_INFLIGHT);
  /** When the command came. Nanoseconds. */
  readonly start = new Float64Array(MAX_INFLIGHT);
  readonly #free = Int32Array.from({ length: MAX_INFLIGHT }, (_, slot) => slot);
  #freeCount = MAX_INFLIGHT;

  get count(): number {
    return MAX_INFLIGHT - this.#freeCount;
  }

  /** Hot. No slot is left, or the controller has its share. */
  full(controller: IoController): boolean {
    return this.#freeCount === 0 || controller.inflight >= MAX_CONTROLLER_INFLIGHT;
  }

  /** Hot. The slot that `take` takes. */
  get next(): number {
    return this.#free[this.#freeCount - 1];
  }

  /** Hot. Takes a slot and a CQ entry for a command that moves so many bytes. */
  take(queue: IoQueue, namespace: IoNamespace, op: Op, cid: number, bytes: number): number {
    this.#freeCount -= 1;
    const slot = this.#free[this.#freeCount];
    this.queue[slot] = queue;
    this.namespace[slot] = namespace;
    this.#op[slot] = op;
    this.#cid[slot] = cid;
    this.#bytes[slot] = bytes;
    queue.sq.cq.reserve();
    queue.controller.inflight += 1;
    return slot;
  }

  /** Hot. Gives both back. What is known of the command stays until the slot is taken again. */
  give(slot: number, { sq, controller }: IoQueue): void {
    this.queue[slot] = undefined;
    this.namespace[slot] = undefined;
    this.#free[this.#freeCount] = slot;
    this.#freeCount += 1;
    controller.inflight -= 1;
    sq.cq.unreserve();
  }

  op(slot: number): Op {
    return this.#op[slot] as Op;
  }

  cid(slot: number): number {
    return this.#cid[slot];
  }

  bytes(slot: number): number {
    return this.#bytes[slot];
  }

  /** The queue of each command: a queue as often as it has commands. For diagnosis. */
  queues(): IoQueue[] {
    return this.queue.filter((queue) => queue !== undefined);
  }

  /** The reactor ends: what is only held up does not last. */
  hurry(): void {
    for (let slot = 0; slot < MAX_INFLIGHT; slot++) {
      this.namespace[slot]?.backend.hurry?.(slot, true);
    }
  }

  /** Has the commands of a controller go on that are only held up. Returns how many of its commands are to be waited for. */
  drain(controller: IoController, { memory, ends }: Drain): number {
    let count = 0;
    for (let slot = 0; slot < MAX_INFLIGHT; slot++) {
      const queue = this.queue[slot];
      const namespace = this.namespace[slot];
      if (queue?.controller === controller && namespace !== undefined) {
        const { backend } = namespace;
        const end = ends(queue, namespace);
        if (end || backend.stays?.(slot, memory) !== true) {
          backend.hurry?.(slot, end);
          count += 1;
        }
      }
    }
    return count;
  }
}
