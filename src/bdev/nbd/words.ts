/**
 * What main and the reactors know of the connections of one bdev: words of memory, each with one writer. Main makes connections and offers
 * them; a reactor takes what is offered to it, and says when it has let go of it.
 *
 * A connection that is lost may mean that its server has crashed, and has forgotten what it acknowledged and had not flushed. Whether there was such data is asked
 * when no reactor uses a connection any more: so after one is lost the others are drained (`Global.ROUND`), and all are made anew.
 * Writes are told from flushed ones by epochs: each Flush begins the next one, and when it succeeds, all that was acknowledged in its epoch or before is
 * on stable storage, whichever connection it came by.
 */
import { MAX_REACTORS } from '../../limits.ts';

const Global = {
  /** Written by all, by atomic addition: the epoch of now. */
  EPOCH: 0,
  /** Written by reactors, and never less than before: what was acknowledged up to this epoch is on stable storage. */
  CLEAN: 1,
  /** Written by whoever is first: 0, or the errno of the first loss of data that had been acknowledged. */
  LOST: 2,
  /** Written by main: the connections of earlier rounds are to be drained and let go of. */
  ROUND: 3,
} as const;

const Row = {
  /** Written by the reactor: the number of an offer of main's, and what it makes of it (`Ask`). */
  ASK: 0,
  /** The epoch in which a write was last acknowledged that was not on stable storage then. */
  DIRTY: 1,
  /** Requests that were sent, and those that are not answered. */
  REQUESTS: 2,
  IN_FLIGHT: 3,
  /** Why the last connection was let go of: an errno, or 0. */
  REASON: 4,
  /** Written by main: the number of its last offer, which is written after what it is about. */
  OFFER: 5,
  FD: 6,
  STRUCTURED: 7,
  MAXIMUM: 8,
} as const;

const ROWS_AT = 8;
const ROW_WORDS = 16;

/** What a reactor says with the number of an offer. */
export const Ask = {
  /** It does not use the bdev. */
  CLOSED: 0,
  /** It has let go of all offers up to this one, and wants another. */
  WANTS: 1,
  USES: 2,
} as const;
export type Ask = (typeof Ask)[keyof typeof Ask];
const ASK_BITS = 2;

export function makeNbdWords(): SharedArrayBuffer {
  const memory = new SharedArrayBuffer((ROWS_AT + MAX_REACTORS * ROW_WORDS) * 4);
  new Int32Array(memory)[Global.EPOCH] = 1;
  return memory;
}

export interface Offer {
  readonly fd: number;
  readonly structured: boolean;
  /** Of the data of a request. Bytes. */
  readonly maximum: number;
}

export class NbdWords {
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
  }

  #at(reactor: number, word: number): number {
    return ROWS_AT + reactor * ROW_WORDS + word;
  }

  #load(reactor: number, word: number): number {
    return Atomics.load(this.#words, this.#at(reactor, word));
  }

  // --- data that is not on stable storage ---------------------------------------------------------------------------

  /** Hot. The reactor was told that a write is carried out, which is not on stable storage. */
  acknowledged(reactor: number): void {
    const epoch = Atomics.load(this.#words, Global.EPOCH);
    const at = this.#at(reactor, Row.DIRTY);
    if (this.#words[at] !== epoch) {
      Atomics.store(this.#words, at, epoch);
    }
  }

  /** A Flush is about to be sent. Gives what `flushed` is to be given when it has succeeded. */
  flushes(): number {
    return Atomics.add(this.#words, Global.EPOCH, 1);
  }

  flushed(epoch: number): void {
    for (;;) {
      const clean = Atomics.load(this.#words, Global.CLEAN);
      if (
        ((epoch - clean) | 0) <= 0 ||
        Atomics.compareExchange(this.#words, Global.CLEAN, clean, epoch) === clean
      ) {
        return;
      }
    }
  }

  /** Whether there is data that was acknowledged and not flushed. */
  get dirty(): boolean {
    const clean = Atomics.load(this.#words, Global.CLEAN);
    for (let reactor = 0; reactor < MAX_REACTORS; reactor++) {
      const epoch = this.#load(reactor, Row.DIRTY);
      if (epoch !== 0 && ((epoch - clean) | 0) > 0) {
        return true;
      }
    }
    return false;
  }

  /** Nothing is known to be lost. */
  get lost(): number {
    return Atomics.load(this.#words, Global.LOST);
  }

  /** Data that was acknowledged may be gone: no Flush succeeds any more. False if that was known. */
  lose(errno: number): boolean {
    return Atomics.compareExchange(this.#words, Global.LOST, 0, errno) === 0;
  }

  /** An operator has been told, and goes on. What was acknowledged is not flushed by that: the server may have it yet, and may still lose it. */
  forgive(): void {
    Atomics.store(this.#words, Global.LOST, 0);
  }

  // --- connections --------------------------------------------------------------------------------------------------

  /** Hot. */
  get round(): number {
    return Atomics.load(this.#words, Global.ROUND);
  }

  nextRound(): void {
    Atomics.add(this.#words, Global.ROUND, 1);
  }

  /** The number that was asked with, and what for. */
  asked(reactor: number): { readonly offer: number; readonly ask: Ask } {
    const word = this.#load(reactor, Row.ASK);
    return { offer: word >> ASK_BITS, ask: (word & ((1 << ASK_BITS) - 1)) as Ask };
  }

  ask(reactor: number, offer: number, ask: Ask, reason = 0): void {
    Atomics.store(this.#words, this.#at(reactor, Row.REASON), reason);
    Atomics.store(this.#words, this.#at(reactor, Row.ASK), (offer << ASK_BITS) | ask);
  }

  reason(reactor: number): number {
    return this.#load(reactor, Row.REASON);
  }

  /** The number of the last offer. */
  offered(reactor: number): number {
    return this.#load(reactor, Row.OFFER);
  }

  /** Of the last offer. */
  offer(reactor: number): Offer {
    return {
      fd: this.#load(reactor, Row.FD),
      structured: this.#load(reactor, Row.STRUCTURED) !== 0,
      maximum: this.#load(reactor, Row.MAXIMUM) >>> 0,
    };
  }

  /** Gives the number of the offer. */
  makeOffer(reactor: number, { fd, structured, maximum }: Offer): number {
    Atomics.store(this.#words, this.#at(reactor, Row.FD), fd);
    Atomics.store(this.#words, this.#at(reactor, Row.STRUCTURED), structured ? 1 : 0);
    Atomics.store(this.#words, this.#at(reactor, Row.MAXIMUM), maximum | 0);
    return Atomics.add(this.#words, this.#at(reactor, Row.OFFER), 1) + 1;
  }

  // --- what is told ---------------------------------------------------------------------------------------------------

  /** Hot. A request is sent. */
  sent(reactor: number): void {
    this.#words[this.#at(reactor, Row.REQUESTS)] += 1;
    this.#words[this.#at(reactor, Row.IN_FLIGHT)] += 1;
  }

  /** Hot. It is answered, or never will be. */
  ended(reactor: number): void {
    this.#words[this.#at(reactor, Row.IN_FLIGHT)] -= 1;
  }

  /** Another reactor begins in this place, or none: its predecessor has nothing under way any more. */
  begin(reactor: number): void {
    Atomics.store(this.#words, this.#at(reactor, Row.IN_FLIGHT), 0);
  }

  requests(reactor: number): number {
    return this.#load(reactor, Row.REQUESTS) >>> 0;
  }

  inFlight(reactor: number): number {
    return this.#load(reactor, Row.IN_FLIGHT);
  }
}
