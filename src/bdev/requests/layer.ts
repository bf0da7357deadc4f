/**
 * The request layer: between a plane, which speaks a protocol with its hosts, and the backends of bdevs. It gives requests slots, has those
 * wait that may not go yet (rate limits, shares, changes under way), counts and times them, tells of failures, and says when those are over
 * that somebody waits for. It knows no protocol: an owner is a number, a queue keeps room for completions, a command is an id. (SPDK: bdev_io.)
 *
 * Hot: `submit` and `finish`. Nothing there allocates per request.
 */
import { COMMAND_WORDS } from '../../limits.ts';
import { Detached, PENDING } from '../backend.ts';
import type { BackendContext } from '../context.ts';
import { changesBlocks, isRanged, Op } from '../op.ts';
import { Result } from '../result.ts';
import { BdevChannels } from './channel.ts';
import { RoundClock } from './clock.ts';
import { type Drain, MAX_DRAINS, type Scope } from './drain.ts';
import { Failures } from './failures.ts';
import type { Owner, RequestQueue } from './owner.ts';
import { NOBODY } from './parking.ts';
import { BatchSampler } from './sampler.ts';
import { type Share, Shares } from './share.ts';
import { Slots } from './slots.ts';

/** The request could not be taken now, and does not wait either: its owner has too many that do. Beside PENDING and results. */
export const BUSY = -2;

/** Old writes of other reactors are looked for so often: nobody tells that they are over. Nanoseconds. */
const STALE_NS = 500_000;
/** And what waits for a rate limit, at least: main may have changed it. */
const MAX_WAIT_NS = 20_000_000;
/** In place of the bits of drains: the reactor has ended, and the request uses memory of its owner's. */
const HOLDS = -1;

export class Requests {
  readonly clock: RoundClock;
  readonly sampler: BatchSampler;
  readonly slots = new Slots();
  readonly shares = new Shares();
  readonly #context: BackendContext;
  readonly channels: BdevChannels;
  readonly #failures: Failures;
  /** Shares with requests that wait. */
  readonly #waiting: Share[] = [];
  /** Some of them may go on now. */
  #look = false;
  /** When one of them may go that waits for time to pass, or for another reactor, in ns; Infinity: none does. */
  due = Number.POSITIVE_INFINITY;
  /** When a request came that is carried out now, at index 0. */
  readonly #since = new Float64Array(1);
  /** Drains that are over. */
  readonly #drained: Drain[] = [];

  constructor(context: BackendContext) {
    this.#context = context;
    this.clock = new RoundClock(context.system);
    this.sampler = new BatchSampler(this.clock);
    this.channels = new BdevChannels(context);
    this.#failures = new Failures(context.request, this.clock);
  }

  // --- shares -------------------------------------------------------------------------------------------------------

  open(share: Share): void {
    this.shares.open(share);
  }

  /** No more requests come. Those that wait were ended before; those under way keep the channel open. */
  close(share: Share): void {
    if (!share.closed) {
      this.shares.close(share);
      this.channels.release(share.channel);
      // What others hold counts anew.
      this.#look = this.#waiting.length > 0;
    }
  }

  /** What waited because the share was held may go. */
  letGo(share: Share): void {
    share.held = false;
    this.#look = true;
  }

  /** Rate limits, or whether a queue's memory is there, have changed: what waits is to be looked at. */
  lookAgain(): void {
    this.#look = true;
  }

  // --- requests -----------------------------------------------------------------------------------------------------

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
    const { direct } = share.channel;
    if (direct.async || share.limiter !== undefined || share.held || resumed) {
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
      if (!this.#admits(share, op)) {
        return this.#park(queue, share, op, cid, words, base);
      }
      this.#since[0] = this.clock.now[0];
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
      slots.start[slot] = this.#since[0];
      this.shares.take(share);
      channel.busy += isRanged(op) ? 1 : 0;
      queue.reserve();
      share.owner.inflight += 1;
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
    if (result !== Result.MISCOMPARE) {
      share.counters.failBackend();
      this.#failures.look(share, op, result);
    }
  }

  /** Hot. Whether the request may go now: those of a share go in the order they came. Takes its tokens of a rate limit if so. */
  #admits(share: Share, op: Op): boolean {
    if (share.held || share.parked > 0) {
      return false;
    }
    const { request } = this.#context;
    if (share.channel.backendOf(op).async && !this.#hasRoom(share, op)) {
      return false;
    }
    if (!isRanged(op)) {
      return true;
    }
    const { stale } = share.channel;
    if (
      stale.any &&
      stale.blocks(request.offset[0], op === Op.DISCARD ? request.span[0] : request.length)
    ) {
      this.#waitsUntil(this.clock.now[0] + STALE_NS);
      return false;
    }
    const { limiter } = share;
    if (limiter === undefined || limiter.admit(op, request.length, this.clock.now)) {
      return true;
    }
    this.#waitsUntil(limiter.due(this.clock.now));
    return false;
  }

  /** Hot. A slot, within its share and what the bdev may have under way. */
  #hasRoom(share: Share, op: Op): boolean {
    const { channel } = share;
    return (
      !this.slots.full &&
      this.shares.admits(share) &&
      (!isRanged(op) || channel.busy < channel.depth)
    );
  }

  /** Adds the time since `#since` of a request that has completed at once. */
  #timed(share: Share, op: Op): void {
    this.#context.copies.flush();
    this.clock.read();
    share.counters.time(op, this.clock.now, this.#since, 0);
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
      if (slots.marks[slot] !== 0 || queue === undefined) {
        this.#hurryOn(slot, share);
      }
      return;
    }
    if (queue === undefined) {
      this.#failures.look(share, op, result);
      this.#endAlone(slot, share, op);
      return;
    }
    this.#free(slot, share, op);
    this.#leave(slot, queue, share);
    if (result === Result.OK) {
      share.counters.count(op, op === Op.DISCARD ? slots.discarded[slot] : slots.bytes(slot));
    } else {
      share.countError(result);
      this.#failed(share, op, result);
    }
    share.counters.time(op, this.clock.now, slots.start, slot);
    if (!queue.discarded) {
      queue.completed(slots.cid(slot), result);
    }
  }

  /**
   * A request that somebody waits for, or nobody any more, goes on: what holds it up next is not to, either; and what it does now can perhaps
   * be left to itself, as what it did before could not.
   */
  #hurryOn(slot: number, share: Share): void {
    const { slots } = this;
    const marks = slots.marks[slot];
    const scopes = share.owner.drains
      .filter((drain) => drain !== undefined && (marks & (1 << drain.bit)) !== 0)
      .map((drain) => drain!.scope);
    share.channel
      .backendOf(slots.op(slot))
      .hurry?.(slot, marks === 0 || scopes.some(({ ends }) => ends));
    const queue = slots.queue[slot];
    if (queue === undefined && marks === HOLDS) {
      this.#leaveAlone(slot, share);
      return;
    }
    const leaves = scopes.find(({ detaches }) => detaches);
    if (queue !== undefined && leaves !== undefined) {
      this.#detach(slot, queue, share, leaves.result);
    }
  }

  /** No old write of the slot's comes to the blocks any more that were kept from others. */
  #unlock(slot: number): void {
    const { slots } = this;
    if (slots.stale[slot] >= 0) {
      slots.share[slot]?.channel.stale.remove(slots.stale[slot]);
      slots.stale[slot] = NOBODY;
    }
  }

  /** The slot is another's to take. */
  #free(slot: number, share: Share, op: Op): void {
    const { slots } = this;
    this.#unlock(slot);
    share.channel.busy -= isRanged(op) ? 1 : 0;
    this.shares.give(share);
    slots.give(slot);
    if (this.#waiting.length > 0) {
      this.#look = true;
    }
  }

  /** The request is its owner's no more. */
  #leave(slot: number, queue: RequestQueue, { owner }: Share): void {
    owner.inflight -= 1;
    queue.unreserve();
    const { marks } = this.slots;
    let left = marks[slot];
    marks[slot] = 0;
    while (left !== 0) {
      const bit = 31 - Math.clz32(left);
      left &= ~(1 << bit);
      const drain = owner.drains[bit];
      if (drain !== undefined) {
        drain.left -= 1;
        this.#check(owner, drain);
      }
    }
  }

  /** A request that nobody waited for any more is over. */
  #endAlone(slot: number, share: Share, op: Op): void {
    this.#free(slot, share, op);
    this.channels.release(share.channel);
  }

  // --- waiting ------------------------------------------------------------------------------------------------------

  /** PENDING or BUSY. */
  #park(
    queue: RequestQueue,
    share: Share,
    op: Op,
    cid: number,
    words: Int32Array,
    base: number,
  ): number {
    const { parking } = share.owner;
    const place = parking.take(queue, op, cid, words, base);
    if (place === NOBODY) {
      return BUSY;
    }
    const { request } = this.#context;
    parking.offset[place] = request.offset[0];
    parking.length[place] = op === Op.DISCARD ? request.span[0] : request.length;
    parking.start[place] = this.clock.now[0];
    queue.reserve();
    if (!share.listed) {
      share.listed = true;
      this.#waiting.push(share);
    }
    if (share.parked === 0) {
      share.first = place;
    } else {
      parking.next[share.last] = place;
      // It may wait for nothing but its turn, behind one that rests.
      this.#look = true;
    }
    share.last = place;
    share.parked += 1;
    return PENDING;
  }

  /** Whether `resume` has anything to do now. */
  get resumes(): boolean {
    return this.#look || this.due !== Number.POSITIVE_INFINITY;
  }

  /** Carries out what waited and may go by now. Returns how many requests that was. */
  resume(): number {
    const waiting = this.#waiting;
    this.#look = false;
    this.due = Number.POSITIVE_INFINITY;
    this.clock.read();
    let resumed = 0;
    let kept = 0;
    for (let i = 0; i < waiting.length; i++) {
      const share = waiting[i];
      resumed += this.#resume(share);
      share.listed = share.parked > 0;
      if (share.listed) {
        waiting[kept++] = share;
      }
    }
    waiting.length = kept;
    this.#context.copies.flush();
    return resumed;
  }

  /** Those of a share go in the order they came, but for those of queues that rest, which the others pass. Returns how many went. */
  #resume(share: Share): number {
    const { parking } = share.owner;
    let resumed = 0;
    let before = NOBODY;
    for (let place = share.first; place !== NOBODY; ) {
      const next = parking.next[place];
      if (parking.queue[place]!.stopped) {
        before = place;
      } else if (this.#mayGo(share, place)) {
        this.#go(share, place, before);
        resumed += 1;
      } else {
        break;
      }
      place = next;
    }
    return resumed;
  }

  /** Whether a request that waits may go. Takes its tokens of a rate limit if so. */
  #mayGo(share: Share, place: number): boolean {
    const { parking } = share.owner;
    const op = parking.op[place] as Op;
    if (share.held || (share.channel.backendOf(op).async && !this.#hasRoom(share, op))) {
      return false;
    }
    if (!isRanged(op)) {
      return true;
    }
    const length = parking.length[place];
    if (share.channel.stale.blocks(parking.offset[place], length)) {
      this.#waitsUntil(this.clock.now[0] + STALE_NS);
      return false;
    }
    const { limiter } = share;
    if (limiter === undefined || limiter.admit(op, length, this.clock.now)) {
      return true;
    }
    this.#waitsUntil(limiter.due(this.clock.now));
    return false;
  }

  #waitsUntil(due: number): void {
    this.due = Math.min(this.due, due, this.clock.now[0] + MAX_WAIT_NS);
  }

  /** Carries out a request that waits; `before` is the one before it. */
  #go(share: Share, place: number, before: number): void {
    const { parking } = share.owner;
    const queue = parking.queue[place]!;
    this.#since[0] = parking.start[place];
    this.#unpark(share, place, before);
    queue.resume(parking.words, place * COMMAND_WORDS);
  }

  /** Carries out what waits in a share, as far as it has room, whatever the rate limits say. */
  resumeAll(share: Share): void {
    const { limiter } = share;
    share.limiter = undefined;
    this.clock.read();
    this.#resume(share);
    share.limiter = limiter;
    this.#context.copies.flush();
  }

  /** Takes a request out of those of its share that wait; `before` is the one before it. */
  #unpark(share: Share, place: number, before: number): void {
    const { parking } = share.owner;
    const next = parking.next[place];
    if (before === NOBODY) {
      share.first = next;
    } else {
      parking.next[before] = next;
    }
    if (share.last === place) {
      share.last = before;
    }
    share.parked -= 1;
    parking.queue[place]?.unreserve();
    parking.give(place);
  }

  /** Ends the requests of an owner that wait, or those of one queue: see `endWaiting`. */
  endWaitingOf(owner: Owner, queue: RequestQueue | undefined, result: Result): void {
    for (const share of this.#waiting) {
      if (share.owner === owner) {
        this.endWaiting(share, queue, result);
      }
    }
  }

  /**
   * Ends the requests of a share that wait, or those of one queue, which goes: they complete with `result` where their queue is not discarded.
   * Those whose completions have no place now wait on, and end when they may go, as nothing is there for them any more; those of a queue
   * that goes are forgotten.
   */
  endWaiting(share: Share, queue: RequestQueue | undefined, result: Result): void {
    const { parking } = share.owner;
    let before = NOBODY;
    for (let place = share.first; place !== NOBODY; ) {
      const next = parking.next[place];
      const its = parking.queue[place]!;
      const silent = its.discarded || (its.stopped && its === queue);
      if (silent || (!its.stopped && (queue === undefined || its === queue))) {
        const cid = parking.cid[place];
        this.#unpark(share, place, before);
        if (!silent) {
          share.countError(result);
          its.completed(cid, result);
        }
      } else {
        before = place;
      }
      place = next;
    }
  }

  // --- drains -------------------------------------------------------------------------------------------------------

  /**
   * Has the requests in scope go on that are only held up, leaves those to themselves that may be, and calls `done` when the rest has
   * ended. False if too many such calls of the owner are under way.
   */
  drain(owner: Owner, scope: Scope, done: () => void): boolean {
    const bit = freeBit(owner);
    if (bit === NOBODY) {
      return false;
    }
    const drain: Drain = { bit, scope, left: 0, done };
    owner.drains[bit] = drain;
    const { slots } = this;
    for (let slot = 0; slot < slots.end; slot++) {
      const queue = slots.queue[slot];
      const share = slots.share[slot];
      if (queue?.owner !== owner || share === undefined || !scope.includes(queue, share, slot)) {
        continue;
      }
      share.channel.backendOf(slots.op(slot)).hurry?.(slot, scope.ends);
      if (!(scope.detaches && this.#detach(slot, queue, share, scope.result))) {
        slots.marks[slot] |= 1 << bit;
        drain.left += 1;
      }
    }
    this.#check(owner, drain);
    return true;
  }

  #check(owner: Owner, drain: Drain): void {
    if (drain.left === 0) {
      owner.drains[drain.bit] = undefined;
      this.#drained.push(drain);
    }
  }

  /** Calls what waited for drains that are over. To be called when all completions so far are published. */
  settle(): void {
    for (const { done } of this.#drained.splice(0)) {
      done();
    }
  }

  get settles(): boolean {
    return this.#drained.length > 0;
  }

  /** What comes for the blocks of a write waits until it is over. */
  #keepBlocks(slot: number, share: Share): void {
    const { slots } = this;
    const op = slots.op(slot);
    if (changesBlocks(op) && slots.stale[slot] < 0) {
      const bytes = op === Op.DISCARD ? slots.span[slot] : slots.bytes(slot);
      slots.stale[slot] = share.channel.stale.add(slots.offset[slot], bytes);
    }
  }

  /** Leaves a request to itself, if its backend can. Its blocks are kept from others until a write is over. */
  #detach(slot: number, queue: RequestQueue, share: Share, result: Result): boolean {
    const { slots } = this;
    const op = slots.op(slot);
    this.#keepBlocks(slot, share);
    const detached = share.channel.backendOf(op).detach?.(slot) ?? Detached.NO;
    if (detached === Detached.NO) {
      return false;
    }
    this.#leave(slot, queue, share);
    if (detached === Detached.OVER) {
      this.#free(slot, share, op);
    } else {
      slots.queue[slot] = undefined;
      share.channel.users += 1;
    }
    if (!queue.discarded) {
      share.countError(result);
      queue.completed(slots.cid(slot), result);
    }
    return true;
  }

  /**
   * The reactor ends: nobody waits for what is under way any more. It is still to be finished, as it may tell of data that is lost; until
   * then its blocks are kept from others.
   */
  leaveAll(): void {
    const { slots } = this;
    for (let slot = 0; slot < slots.end; slot++) {
      const share = slots.share[slot];
      if (share === undefined) {
        continue;
      }
      share.channel.backendOf(slots.op(slot)).hurry?.(slot, true);
      if (slots.queue[slot] !== undefined) {
        slots.queue[slot] = undefined;
        share.channel.users += 1;
        this.#keepBlocks(slot, share);
        this.#leaveAlone(slot, share);
      }
    }
  }

  /** It goes on alone if it can; else it is marked, as it uses memory of its owner's. */
  #leaveAlone(slot: number, share: Share): void {
    const { slots } = this;
    const detached = share.channel.backendOf(slots.op(slot)).detach?.(slot) ?? Detached.NO;
    slots.marks[slot] = detached === Detached.NO ? HOLDS : 0;
    if (detached === Detached.OVER) {
      this.#endAlone(slot, share, slots.op(slot));
    }
  }

  /** After `leaveAll`: nobody will hear how what is left ends, so that its blocks can be kept from others no longer. */
  forgetAll(): void {
    for (let slot = 0; slot < this.slots.end; slot++) {
      this.#unlock(slot);
    }
  }

  /** After `leaveAll`: the owners whose memory is still in use. */
  holders(): Set<number> {
    const { slots } = this;
    const holders = new Set<number>();
    for (let slot = 0; slot < slots.end; slot++) {
      const share = slots.share[slot];
      if (share !== undefined && slots.marks[slot] === HOLDS) {
        holders.add(share.owner.id);
      }
    }
    return holders;
  }

  /** The queue of each request that is under way or waits: a queue as often as it has requests. For diagnosis. */
  queues(): RequestQueue[] {
    const inSlots = this.slots.queue.filter((queue) => queue !== undefined);
    const owners = new Set(this.#waiting.map(({ owner }) => owner));
    const waiting = [...owners].flatMap(({ parking }) =>
      parking.queue.filter((queue) => queue !== undefined),
    );
    return [...inSlots, ...waiting];
  }
}

function freeBit({ drains }: Owner): number {
  for (let bit = 0; bit < MAX_DRAINS; bit++) {
    if (drains[bit] === undefined) {
      return bit;
    }
  }
  return NOBODY;
}
