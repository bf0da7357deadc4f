/**
 * Requests that may not go yet: because of a rate limit, of what their share holds, of blocks that an old write still comes to, or since the
 * share is held. Those of a share go in the order they came.
 *
 * Hot: `admits`. Nothing here allocates per request.
 */
import { COMMAND_WORDS } from '../../limits.ts';
import { PENDING } from '../backend.ts';
import type { BackendContext } from '../context.ts';
import { isRanged, Op } from '../op.ts';
import type { RoundClock } from './clock.ts';
import type { Owner, RequestQueue } from './owner.ts';
import { NOBODY } from './parking.ts';
import type { Share, Shares } from './share.ts';
import type { Slots } from './slots.ts';

/** The request could not be taken now, and does not wait either: its owner has too many that do. Beside PENDING and results. */
export const BUSY = -2;

/** Old writes of other reactors are looked for so often: nobody tells that they are over. Nanoseconds. */
const STALE_NS = 500_000;
/** And what waits for a rate limit, at least: main may have changed it. */
const MAX_WAIT_NS = 20_000_000;

export class Waiting {
  readonly #context: BackendContext;
  readonly #clock: RoundClock;
  readonly #slots: Slots;
  readonly #shares: Shares;
  /** Shares with requests that wait. */
  readonly #waiting: Share[] = [];
  /** Some of them may go on now. */
  #look = false;
  /** When one of them may go that waits for time to pass, or for another reactor, in ns; Infinity: none does. */
  due = Number.POSITIVE_INFINITY;
  /** When a request came that is carried out now, at index 0. Nanoseconds. */
  readonly since = new Float64Array(1);

  constructor(context: BackendContext, clock: RoundClock, slots: Slots, shares: Shares) {
    this.#context = context;
    this.#clock = clock;
    this.#slots = slots;
    this.#shares = shares;
  }

  /** Hot. Whether the request in `context.request` may go now: those of a share go in the order they came. Takes its tokens of a rate limit if so. */
  admits(share: Share, op: Op): boolean {
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
      this.#waitsUntil(this.#clock.now[0] + STALE_NS);
      return false;
    }
    const { limiter } = share;
    if (limiter === undefined || limiter.admit(op, request.length, this.#clock.now)) {
      return true;
    }
    this.#waitsUntil(limiter.due(this.#clock.now));
    return false;
  }

  /** Hot. A slot, within its share and what the bdev may have under way. */
  #hasRoom(share: Share, op: Op): boolean {
    const { channel } = share;
    return (
      !this.#slots.full &&
      this.#shares.admits(share) &&
      (!isRanged(op) || channel.busy < channel.depth)
    );
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

  /** Hot. Something is over that others may have waited for. */
  freed(): void {
    if (this.#waiting.length > 0) {
      this.#look = true;
    }
  }

  /** PENDING or BUSY. */
  park(
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
    parking.start[place] = this.#clock.now[0];
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
    this.#clock.read();
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
      this.#waitsUntil(this.#clock.now[0] + STALE_NS);
      return false;
    }
    const { limiter } = share;
    if (limiter === undefined || limiter.admit(op, length, this.#clock.now)) {
      return true;
    }
    this.#waitsUntil(limiter.due(this.#clock.now));
    return false;
  }

  #waitsUntil(due: number): void {
    this.due = Math.min(this.due, due, this.#clock.now[0] + MAX_WAIT_NS);
  }

  /** Carries out a request that waits; `before` is the one before it. */
  #go(share: Share, place: number, before: number): void {
    const { parking } = share.owner;
    const queue = parking.queue[place]!;
    this.since[0] = parking.start[place];
    this.#unpark(share, place, before);
    queue.resume(parking.words, place * COMMAND_WORDS);
  }

  /** Carries out what waits in a share, as far as it has room, whatever the rate limits say. */
  resumeAll(share: Share): void {
    const { limiter } = share;
    share.limiter = undefined;
    this.#clock.read();
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
  endWaitingOf(owner: Owner, queue: RequestQueue | undefined, result: number): void {
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
  endWaiting(share: Share, queue: RequestQueue | undefined, result: number): void {
    const { parking } = share.owner;
    let before = NOBODY;
    for (let place = share.first; place !== NOBODY; ) {
      const next = parking.next[place];
      const its = parking.queue[place]!;
      const silent = its.discarded || (its.stopped && its.line === queue);
      if (silent || (!its.stopped && (queue === undefined || its.line === queue))) {
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

  /** Ends the request of a queue that waits under this id: it completes with `result`. False if none does, or its completion has no place now. */
  endOne(queue: RequestQueue, cid: number, result: number): boolean {
    for (const share of this.#waiting) {
      const { parking } = share.owner;
      let before = NOBODY;
      for (let place = share.first; place !== NOBODY; place = parking.next[place]) {
        const its = parking.queue[place]!;
        if (its.line === queue && parking.cid[place] === cid && !its.stopped && !its.discarded) {
          this.#unpark(share, place, before);
          share.countError(result);
          its.completed(cid, result);
          return true;
        }
        before = place;
      }
    }
    return false;
  }

  /** The queue of each request that waits: a queue as often as it has requests. For diagnosis. */
  queues(): RequestQueue[] {
    const owners = new Set(this.#waiting.map(({ owner }) => owner));
    return [...owners].flatMap(({ parking }) =>
      parking.queue.filter((queue) => queue !== undefined),
    );
  }
}
