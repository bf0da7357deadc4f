/**
 * Syncs of one file by one reactor, one at a time. What asks for one while another is under way waits for the next, which then serves all of
 * them: a group commit, one thread of the kernel, and one stream of results. The last matters for the truth: the kernel tells a failed
 * write-back once to each open file, and of two syncs at a time on it one would hear of success.
 */

import type { Ring } from '../../io/ring.ts';
import { MAX_INFLIGHT } from '../../limits.ts';
import type { WriteBack } from '../write-back.ts';
import type { EndedSlots } from './ended.ts';

const NOBODY = -1;
const EINTR = 4;
const EAGAIN = 11;

/** The next in a group, by slot. One for all files of a reactor, as a slot is in one group at most. */
export class SyncLinks {
  readonly next = new Int32Array(MAX_INFLIGHT).fill(NOBODY);
  /** The reactor has died: syncs that are under way, or still begin, are left. */
  dead = false;
  /** By slot: the file of a sync that is left. */
  readonly #left = new Map<number, WriteBack>();

  leave(slot: number, writeBack: WriteBack): void {
    if (!this.#left.has(slot)) {
      this.#left.set(slot, writeBack);
      writeBack.leaveSync();
    }
  }

  ended(slot: number): void {
    this.#left.get(slot)?.leftSyncEnded();
    this.#left.delete(slot);
  }

  /** Nobody will hear how they end. */
  forget(): void {
    for (const slot of [...this.#left.keys()]) {
      this.ended(slot);
    }
  }
}

export class Syncs {
  readonly #ring: Ring;
  /** Registered index. */
  readonly #file: number;
  readonly #next: Int32Array;
  readonly #ended: EndedSlots;
  /** The slot of the sync under way, and those that end with it. */
  #leader = NOBODY;
  #followers = NOBODY;
  /** Entries into the kernel when it was prepared: until the next, it has not begun. */
  #preparedAt = 0;
  /** Those that wait for the next one, and the last of them. */
  #waiting = NOBODY;
  #lastWaiting = NOBODY;

  constructor(ring: Ring, file: number, links: SyncLinks, ended: EndedSlots) {
    this.#ring = ring;
    this.#file = file;
    this.#next = links.next;
    this.#ended = ended;
  }

  /** The slot ends with a sync that begins after this call. */
  join(slot: number): void {
    const next = this.#next;
    next[slot] = NOBODY;
    if (this.#leader === NOBODY) {
      this.#lead(slot, NOBODY);
    } else if (this.#ring.entered === this.#preparedAt) {
      next[slot] = this.#followers;
      this.#followers = slot;
    } else if (this.#waiting === NOBODY) {
      this.#waiting = slot;
      this.#lastWaiting = slot;
    } else {
      next[this.#lastWaiting] = slot;
      this.#lastWaiting = slot;
    }
  }

  #lead(slot: number, followers: number): void {
    this.#leader = slot;
    this.#followers = followers;
    this.#preparedAt = this.#ring.entered;
    this.#ring.prepareSync(this.#file, slot);
  }

  /** The ring reported the sync of this slot: 0 or -errno. False if it begins anew. The others of its group are ended with the same result. */
  finish(slot: number, result: number): boolean {
    if (result === -EINTR || result === -EAGAIN) {
      this.#ring.prepareSync(this.#file, slot);
      return false;
    }
    for (let each = this.#followers; each !== NOBODY; each = this.#next[each]) {
      this.#ended.push(each, result);
    }
    this.#leader = NOBODY;
    this.#followers = NOBODY;
    const first = this.#waiting;
    if (first !== NOBODY) {
      this.#waiting = NOBODY;
      this.#lastWaiting = NOBODY;
      this.#lead(first, this.#next[first]);
    }
    return true;
  }

  /** Whether the sync under way is this slot's: if not, it can `leave`. */
  leads(slot: number): boolean {
    return slot === this.#leader;
  }

  /** A slot that only waits, or follows, wants no sync any more. */
  leave(slot: number): void {
    this.#followers = this.#without(this.#followers, slot);
    this.#waiting = this.#without(this.#waiting, slot);
    this.#lastWaiting = NOBODY;
    for (let each = this.#waiting; each !== NOBODY; each = this.#next[each]) {
      this.#lastWaiting = each;
    }
  }

  /** A list without a slot: its new first one. */
  #without(first: number, slot: number): number {
    const next = this.#next;
    if (first === slot) {
      return next[slot];
    }
    for (let each = first; each !== NOBODY; each = next[each]) {
      if (next[each] === slot) {
        next[each] = next[slot];
      }
    }
    return first;
  }
}
