/**
 * Who may hold how many of a reactor's slots. Each user of a bdev has a share that is its own, whatever others do, and borrows beyond it from
 * what no share claims: never more than it leaves free, so that several that hang end up with equal parts and the last one still finds some.
 */

import { GUARANTEED_INFLIGHT, MAX_INFLIGHT, MAX_SHARE_INFLIGHT } from '../../limits.ts';
import type { Counters } from '../counters.ts';
import type { Limiter } from '../limiter.ts';
import type { Op } from '../op.ts';
import type { BdevChannel } from './channel.ts';
import type { Owner } from './owner.ts';
import { NOBODY } from './parking.ts';

/** One owner's use of one bdev. A plane keeps what it needs beside this. */
export abstract class Share {
  readonly owner: Owner;
  readonly channel: BdevChannel;
  readonly counters: Counters;
  /** Rate limits of the bdev, if there are any. */
  limiter: Limiter | undefined;
  /** Slots held. */
  used = 0;
  /** Nothing starts: what comes waits. */
  held = false;
  /** No more requests come. Those under way still hold slots. */
  closed = false;
  /** Requests that wait, in order: places of `owner.parking`. */
  parked = 0;
  /** It is in the list of those that have some. */
  listed = false;
  first = NOBODY;
  last = NOBODY;
  /** Failures that were not told of yet, and when one last was (ns). */
  failures = 0;
  toldAt = Number.NEGATIVE_INFINITY;

  constructor(
    owner: Owner,
    channel: BdevChannel,
    counters: Counters,
    limiter: Limiter | undefined,
  ) {
    this.owner = owner;
    this.channel = channel;
    this.counters = counters;
    this.limiter = limiter;
  }

  /**
   * The bdev reports an error: its errno (or END_OF_FILE), where (bytes; of no meaning for a flush), and how many there were since the last
   * that was told of, with this one. `result`: what the request ends with, or PENDING if it is not over.
   */
  abstract failed(op: Op, errno: number, offset: number, count: number, result: number): void;

  /** A request that had been taken ends with this Result, which is not OK: counts it under the name that the plane's protocol has for it. */
  abstract countError(result: number): void;
}

/** The accounts of a reactor's slots. */
export class Shares {
  readonly #shares = new Set<Share>();
  #open = 0;
  /** Slots that are each share's own. */
  #guaranteed = GUARANTEED_INFLIGHT;
  /** Slots that no share claims, and how many of them are lent. */
  #pool = MAX_INFLIGHT;
  #lent = 0;

  open(share: Share): void {
    this.#shares.add(share);
    this.#open += 1;
    this.#divide();
  }

  /** What it still holds is lent until it ends. */
  close(share: Share): void {
    if (!share.closed) {
      share.closed = true;
      this.#open -= 1;
      this.#divide();
    }
  }

  /** Half of the slots at most are promised. */
  #divide(): void {
    const most = Math.floor(MAX_INFLIGHT / 2 / Math.max(1, this.#open));
    this.#guaranteed = Math.max(1, Math.min(GUARANTEED_INFLIGHT, most));
    this.#pool = MAX_INFLIGHT - this.#open * this.#guaranteed;
    this.#lent = 0;
    for (const share of this.#shares) {
      if (share.closed && share.used === 0) {
        this.#shares.delete(share);
      }
      this.#lent += Math.max(0, share.used - this.#own(share));
    }
  }

  #own(share: Share): number {
    return share.closed ? 0 : this.#guaranteed;
  }

  /** Hot. Whether it may hold one slot more. */
  admits(share: Share): boolean {
    const borrowed = share.used - this.#guaranteed;
    return (
      borrowed < 0 || (share.used < MAX_SHARE_INFLIGHT && borrowed < this.#pool - this.#lent - 1)
    );
  }

  /** Hot. */
  take(share: Share): void {
    if (share.used >= this.#own(share)) {
      this.#lent += 1;
    }
    share.used += 1;
  }

  /** Hot. */
  give(share: Share): void {
    share.used -= 1;
    if (share.used >= this.#own(share)) {
      this.#lent -= 1;
    }
    if (share.closed && share.used === 0) {
      this.#shares.delete(share);
    }
  }
}
