/**
 * The doorbells of the admin queue, as main sees them: in the doorbell page, and in the host's shadow of it once the host writes there.
 * Owned by main.
 *
 * Nobody polls for main. Before it rests it says what it has seen: to the reactor that watches the page, which wakes it at any other value,
 * and by the event indexes to a host with shadow doorbells, which rings when it goes past them. It decides whether there is something to do
 * after it has said so, never before: what the host writes between the two would be seen by nobody.
 */
import type { ControllerHost } from './host.ts';
import type { CompletionQueue, SubmissionQueue } from './queue.ts';
import { ShadowDoorbells, type ShadowPages } from './shadow.ts';

/** Words of the doorbell page: the tail of the SQ, the head of the CQ. */
const TAIL = 0;
const HEAD = 1;

export class AdminDoorbells {
  readonly #host: ControllerHost;
  #shadow: ShadowDoorbells | undefined;
  /** What main wrote into the shadow words. */
  readonly #written = [0, 0];
  /**
   * The host has written this shadow word, and so goes on to. Hosts that have shadow doorbells are to write them for the admin queue, too
   * (NVMe Base 2.0 §B.5), but Linux leaves them out there: until then the page counts, and main keeps the shadow word like it.
   */
  readonly #shadowed = [false, false];

  constructor(host: ControllerHost) {
    this.#host = host;
  }

  /** The shadow pages are not in the guest's memory at the moment. */
  get lost(): boolean {
    return this.#shadow !== undefined && this.#shadow.words === undefined;
  }

  /** As after the controller was enabled: zeros, and no shadow. */
  reset(): void {
    this.#shadow = undefined;
    this.#shadowed.fill(false);
    Atomics.store(this.#host.doorbells, TAIL, 0);
    Atomics.store(this.#host.doorbells, HEAD, 0);
  }

  /** The host may write its doorbells into these pages from now on. False if they are not in its memory. */
  setShadow(pages: ShadowPages): boolean {
    const shadow = new ShadowDoorbells(pages, this.#host.memory);
    if (shadow.words === undefined) {
      return false;
    }
    for (const index of [TAIL, HEAD]) {
      const value = Atomics.load(this.#host.doorbells, index);
      Atomics.store(shadow.words.doorbells, index, value);
      this.#written[index] = value;
      this.#shadowed[index] = false;
    }
    this.#shadow = shadow;
    return true;
  }

  /** The guest's memory has changed. */
  findShadow(): void {
    this.#shadow?.find(this.#host.memory);
  }

  /** Has the queues read their doorbells where the host writes them now. */
  place(sq: SubmissionQueue, cq: CompletionQueue): void {
    sq.doorbells = this.#words(TAIL);
    cq.doorbells = this.#words(HEAD);
  }

  #words(index: number): Int32Array {
    const shadow = this.#shadow?.words?.doorbells;
    if (shadow === undefined) {
      return this.#host.doorbells;
    }
    if (!this.#shadowed[index]) {
      const value = Atomics.load(this.#host.doorbells, index);
      const written = this.#written[index];
      this.#shadowed[index] = Atomics.compareExchange(shadow, index, written, value) !== written;
      this.#written[index] = value;
    }
    return this.#shadowed[index] ? shadow : this.#host.doorbells;
  }

  /**
   * Asks to be woken when the host goes on from here. `forRoom`: completions wait for it to consume others; else the CQ's head is of no
   * interest. The caller looks at the queue once more before it rests.
   */
  askToRing(forRoom: boolean): void {
    const host = this.#host;
    host.sawAdminTail(Atomics.load(host.doorbells, TAIL));
    host.sawAdminHead(forRoom ? Atomics.load(host.doorbells, HEAD) : undefined);
    const shadow = this.#shadow?.words;
    if (shadow !== undefined) {
      Atomics.store(shadow.eventIdx, TAIL, Atomics.load(shadow.doorbells, TAIL));
      if (forRoom) {
        Atomics.store(shadow.eventIdx, HEAD, Atomics.load(shadow.doorbells, HEAD));
      }
    }
  }
}
