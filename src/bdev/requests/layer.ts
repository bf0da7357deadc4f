/**
 * The request layer: between a plane, which speaks a protocol with its hosts, and the backends of bdevs. It gives requests slots, has those
 * wait that may not go yet (rate limits, shares, changes under way), counts and times them, tells of failures, and says when those are over
 * that somebody waits for. It knows no protocol: an owner is a number, a queue keeps room for completions, a command is an id. (SPDK: bdev_io.)
 *
 * Hot: `submit` and `finish`. Nothing there allocates per request.
 */
import { GIVEN_UP, PENDING } from '../backend.ts';
import type { BackendContext } from '../context.ts';
import { isRanged, Op } from '../op.ts';
import { Result } from '../result.ts';
import { BdevChannels } from './channel.ts';
import { RoundClock } from './clock.ts';
import { Failures } from './failures.ts';
import { Flight } from './flight.ts';
import type { RequestQueue } from './owner.ts';
import { NOBODY } from './parking.ts';
import { BatchSampler } from './sampler.ts';
import { type Share, Shares } from './share.ts';
import { Slots } from './slots.ts';
import { Waiting } from './waiting.ts';

export class Requests {
  readonly clock: RoundClock;
  readonly sampler: BatchSampler;
  readonly slots = new Slots();
  readonly shares = new Shares();
  readonly #context: BackendContext;
  readonly channels: BdevChannels;
  readonly #failures: Failures;
  /** Requests that have no slot yet. */
  readonly waiting: Waiting;
  /** Requests that have one. */
  readonly flight: Flight;

  constructor(context: BackendContext) {
    this.#context = context;
    this.clock = new RoundClock(context.system);
    this.sampler = new BatchSampler(this.clock);
    this.channels = new BdevChannels(context);
    this.#failures = new Failures(context.request, this.clock);
    this.waiting = new Waiting(context, this.clock, this.slots, this.shares);
    this.flight = new Flight(this.slots, this.shares, this.channels, this.waiting);
  }

  open(share: Share): void {
    this.shares.open(share);
  }

  /** No more requests come. Those that wait were ended before; those under way keep the channel open. */
  close(share: Share): void {
    if (!share.closed) {
      this.shares.close(share);
      this.channels.release(share.channel);
      // What others hold counts anew.
      this.waiting.freed();
    }
  }

  /**
   * Hot. Starts the read or write in `context.request`, or has it wait. `words`: the plane's own command, at `base`, for the case that it waits.
   * `resumed`: it has waited. Returns a Result, PENDING or BUSY.
   */
  submit(
    queue: RequestQueue,
    share: Share,
    op: Op,
    cid: number,
    words: Int32Array,
    base: number,
    resumed: boolean,
  ): number {
    const { direct, blocks } = share.channel;
    if (direct.async || share.limiter !== undefined || share.held || resumed || blocks.any) {
      return this.submitSlowly(queue, share, op, cid, words, base, resumed);
    }
    // What most requests of RAM take, small enough to become part of the caller's code.
    const result = direct.submit(op, NOBODY);
    if (result === Result.OK) {
      share.counters.count(op, this.#context.request.length);
      this.sampler.took(share, op);
    } else {
      share.counters.failBackend();
    }
    return result;
  }

  /** Hot. The same for any operation, where requests may have to wait, or complete later. */
  submitSlowly(
    queue: RequestQueue,
    share: Share,
    op: Op,
    cid: number,
    words: Int32Array,
    base: number,
    resumed: boolean,
  ): number {
    const { channel } = share;
    const backend = channel.backendOf(op);
    if (!resumed) {
      this.clock.need();
      if (!this.waiting.admits(share, op)) {
        return this.waiting.park(queue, share, op, cid, words, base);
      }
      this.waiting.since[0] = this.clock.now[0];
    }
    const { length, offset } = this.#context.request;
    if (!backend.async) {
      const result = backend.submit(op, NOBODY);
      if (result === Result.OK) {
        share.counters.count(op, op === Op.DISCARD ? this.#discarded() : length);
        // Every request of a bdev with limits is timed, as those that wait are: samples of the others would not go with them.
        this.#timed(share, op);
      } else {
        share.counters.failBackend();
      }
      return result;
    }
    const { slots } = this;
    const slot = slots.next;
    slots.offset[slot] = offset[0];
    if (op === Op.DISCARD) {
      slots.span[slot] = this.#context.request.span[0];
      slots.discarded[slot] = this.#discarded();
    }
    const result = backend.submit(op, slot);
    if (result === PENDING) {
      slots.take(queue, share, op, cid, length);
      slots.start[slot] = this.waiting.since[0];
      this.shares.take(share);
      channel.busy += isRanged(op) ? 1 : 0;
      queue.reserve();
      share.owner.inflight += 1;
      if (op === Op.COPY) {
        this.flight.hold(slot, this.#context.request.sources);
      }
    } else if (result === Result.OK) {
      share.counters.count(op, op === Op.DISCARD ? slots.discarded[slot] : length);
      this.#timed(share, op);
    } else {
      this.#failed(share, op, result);
    }
    return result;
  }

  /** Bytes of the pieces of the discard under way. */
  #discarded(): number {
    const { count, length } = this.#context.request.ranges;
    let bytes = 0;
    for (let i = 0; i < count; i++) {
      bytes += length[i];
    }
    return bytes;
  }

  /** A backend has ended a request with this Result, which is not OK. */
  #failed(share: Share, op: Op, result: number): void {
    if (result !== Result.MISCOMPARE && result !== Result.UNCORRECTABLE) {
      share.counters.failBackend();
      this.#failures.look(share, op, result);
    }
  }

  /** Adds the time since `waiting.since` of a request that has completed at once. */
  #timed(share: Share, op: Op): void {
    this.#context.copies.flush();
    this.clock.read();
    share.counters.time(op, this.clock.now, this.waiting.since, 0);
  }

  /** The ring finished an operation of a slot: its request completes, or goes on. With it those that its backend ends at the same time. */
  finish(slot: number, result: number): void {
    this.#finish(slot, result);
    if (this.#context.ended.any) {
      this.finishEnded();
    }
  }

  /** Whether `finishEnded` has anything to do. */
  get ends(): boolean {
    return this.#context.ended.any;
  }

  /** Requests complete, or go on, that backends have ended without a word of the ring about their slots. */
  finishEnded(): void {
    const { ended } = this.#context;
    while (ended.any) {
      const { result } = ended;
      this.#finish(ended.next(), result);
    }
  }

  #finish(slot: number, reported: number): void {
    const { slots } = this;
    const share = slots.share[slot];
    if (share === undefined) {
      throw new Error(`slot ${slot} has no request`);
    }
    const op = slots.op(slot);
    const result = share.channel.backendOf(op).complete(slot, reported);
    const queue = slots.queue[slot];
    if (result === PENDING) {
      // It goes on; a delay bdev may hold a failed one back.
      this.#failures.look(share, op, result);
      if (reported === GIVEN_UP) {
        this.flight.giveUp(slot, share);
      } else if (slots.marks[slot] !== 0 || queue === undefined) {
        this.flight.hurryOn(slot, share);
      }
      return;
    }
    if (queue === undefined) {
      this.#failures.look(share, op, result);
      this.#context.request.detail = 0;
      this.flight.endAlone(slot, share, op);
      return;
    }
    this.flight.free(slot, share, op);
    this.flight.leave(slot, queue, share);
    if (result === Result.OK) {
      share.counters.count(op, op === Op.DISCARD ? slots.discarded[slot] : slots.bytes(slot));
    } else {
      share.countError(result);
      this.#failed(share, op, result);
    }
    share.counters.time(op, this.clock.now, slots.start, slot);
    if (!queue.discarded) {
      queue.completed(slots.cid(slot), result);
    } else {
      this.#context.request.detail = 0;
    }
  }

  /** The queue of each request that is under way or waits: a queue as often as it has requests. For diagnosis. */
  queues(): RequestQueue[] {
    return [...this.flight.queues(), ...this.waiting.queues()];
  }
}
