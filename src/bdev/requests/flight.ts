/**
 * Requests under way, each in its slot: those that somebody waits for to end before something is taken away (drains), those that are left to
 * themselves, and those that a reactor leaves when it ends.
 */
import { Detached } from '../backend.ts';
import { changesBlocks, isRanged, Op } from '../op.ts';
import { Result } from '../result.ts';
import type { BdevChannel, BdevChannels } from './channel.ts';
import { type Drain, MAX_DRAINS, type Scope } from './drain.ts';
import type { Owner, RequestQueue } from './owner.ts';
import { NOBODY } from './parking.ts';
import type { Share, Shares } from './share.ts';
import type { Slots } from './slots.ts';
import type { Waiting } from './waiting.ts';

/** In place of the bits of drains: the reactor has ended, and the request uses memory of its owner's. */
const HOLDS = -1;
/** Of more requests one ends soon in any case. */
const MAX_QUICK = 64;

export class Flight {
  readonly #slots: Slots;
  readonly #shares: Shares;
  readonly #channels: BdevChannels;
  readonly #waiting: Waiting;
  /** Drains that are over. */
  readonly #drained: Drain[] = [];

  constructor(slots: Slots, shares: Shares, channels: BdevChannels, waiting: Waiting) {
    this.#slots = slots;
    this.#shares = shares;
    this.#channels = channels;
    this.#waiting = waiting;
  }

  /** The slot is another's to take. */
  free(slot: number, share: Share, op: Op): void {
    const slots = this.#slots;
    this.#unlock(slot);
    if (op === Op.COPY) {
      this.#letGo(slot);
    }
    share.channel.busy -= isRanged(op) ? 1 : 0;
    this.#shares.give(share);
    slots.give(slot);
    this.#waiting.freed();
  }

  /** What the copy of a slot reads stays open until the slot is free. */
  hold(slot: number, sources: readonly BdevChannel[] | undefined): void {
    this.#slots.sources[slot] = sources;
    for (const source of sources ?? []) {
      source.users += 1;
    }
  }

  #letGo(slot: number): void {
    for (const source of this.#slots.sources[slot] ?? []) {
      this.#channels.release(source);
    }
    this.#slots.sources[slot] = undefined;
  }

  /** The request is its owner's no more. */
  leave(slot: number, queue: RequestQueue, { owner }: Share): void {
    owner.inflight -= 1;
    queue.unreserve();
    const { marks } = this.#slots;
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
  endAlone(slot: number, share: Share, op: Op): void {
    this.free(slot, share, op);
    this.#channels.release(share.channel);
  }

  /** No old write of the slot's comes to the blocks any more that were kept from others. */
  #unlock(slot: number): void {
    const slots = this.#slots;
    if (slots.stale[slot] >= 0) {
      slots.share[slot]?.channel.stale.remove(slots.stale[slot]);
      slots.stale[slot] = NOBODY;
    }
  }

  /**
   * A request that somebody waits for, or nobody any more, goes on: what holds it up next is not to, either; and what it does now can perhaps
   * be left to itself, as what it did before could not.
   */
  hurryOn(slot: number, share: Share): void {
    const slots = this.#slots;
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

  /** Its backend has no answer for too long: whoever asked is told that the way is lost, and the request goes on alone. */
  giveUp(slot: number, share: Share): void {
    const queue = this.#slots.queue[slot];
    if (queue !== undefined && this.#detach(slot, queue, share, Result.PATH_LOST)) {
      share.counters.failBackend();
    }
  }

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
    const slots = this.#slots;
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
    const slots = this.#slots;
    const op = slots.op(slot);
    if (changesBlocks(op) && slots.stale[slot] < 0) {
      const bytes = op === Op.DISCARD ? slots.span[slot] : slots.bytes(slot);
      slots.stale[slot] = share.channel.stale.add(slots.offset[slot], bytes);
    }
  }

  /** Leaves a request to itself, if its backend can. Its blocks are kept from others until a write is over. */
  #detach(slot: number, queue: RequestQueue, share: Share, result: number): boolean {
    const slots = this.#slots;
    const op = slots.op(slot);
    this.#keepBlocks(slot, share);
    const detached = share.channel.backendOf(op).detach?.(slot) ?? Detached.NO;
    if (detached === Detached.NO) {
      return false;
    }
    this.leave(slot, queue, share);
    if (detached === Detached.OVER) {
      this.free(slot, share, op);
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
    const slots = this.#slots;
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
    const slots = this.#slots;
    const detached = share.channel.backendOf(slots.op(slot)).detach?.(slot) ?? Detached.NO;
    slots.marks[slot] = detached === Detached.NO ? HOLDS : 0;
    if (detached === Detached.OVER) {
      this.endAlone(slot, share, slots.op(slot));
    }
  }

  /** After `leaveAll`: nobody will hear how what is left ends, so that its blocks can be kept from others no longer. */
  forgetAll(): void {
    for (let slot = 0; slot < this.#slots.end; slot++) {
      this.#unlock(slot);
    }
  }

  /** After `leaveAll`: the owners whose memory is still in use. */
  holders(): Set<number> {
    const slots = this.#slots;
    const holders = new Set<number>();
    for (let slot = 0; slot < slots.end; slot++) {
      const share = slots.share[slot];
      if (share !== undefined && slots.marks[slot] === HOLDS) {
        holders.add(share.owner.id);
      }
    }
    return holders;
  }

  /** Whether there are requests under way, not many, and all of them are soon to end by interrupts of their disks. */
  get quick(): boolean {
    const slots = this.#slots;
    if (slots.count === 0 || slots.count > MAX_QUICK) {
      return false;
    }
    for (let slot = 0; slot < slots.end; slot++) {
      const share = slots.share[slot];
      if (share !== undefined && !share.channel.backendOf(slots.op(slot)).quick?.(slot)) {
        return false;
      }
    }
    return true;
  }

  /** The queue of each request that is under way: a queue as often as it has requests. For diagnosis. */
  queues(): RequestQueue[] {
    return this.#slots.queue.filter((queue) => queue !== undefined);
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
