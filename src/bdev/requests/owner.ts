/** Who asks for I/O, as the request layer knows it: an owner is a number, and a queue keeps room for completions. */
import type { Drain } from './drain.ts';
import { Parking } from './parking.ts';

/** Somebody whose requests are counted, waited for and ended together: a controller. Belongs to one reactor. */
export class Owner {
  readonly id: number;
  /** Requests that hold a slot. */
  inflight = 0;
  /** Requests that wait for a slot, in storage of its own: what one owner has waiting takes nothing from another. */
  readonly parking = new Parking();
  /** What waits for requests of this owner, by the bit that marks these. */
  readonly drains: (Drain | undefined)[] = [];

  constructor(id: number) {
    this.id = id;
  }
}

/** What requests come by, and where their completions go. A plane makes it, and knows more of it. */
export interface RequestQueue {
  readonly owner: Owner;
  /** The queue that it goes with: itself, or the one that its requests are a part of. */
  readonly line: RequestQueue;
  /** Completions go nowhere: the queue is about to go. */
  readonly discarded: boolean;
  /** Requests that wait must go on waiting: there is no place for their completions now. */
  readonly stopped: boolean;
  /** Keeps room for the completion of a request that ends later. */
  reserve(): void;
  /** Gives it back: the completion is about to be posted, or never will be. */
  unreserve(): void;
  /** A request of the queue is over, with a Result. */
  completed(cid: number, result: number): void;
  /** A request that waited may go: the words of its command begin at `words[base]`. If that ends it at once, the queue completes it itself. */
  resume(words: Int32Array, base: number): void;
}
