/**
 * What a reactor runs beside its ring: a plane speaks one protocol with its hosts. It takes what they ask from their queues, hands it to the
 * request layer, and makes completions visible to them. The reactor knows no more of it than this.
 */
import type { BackendContext } from '../bdev/context.ts';
import type { Requests } from '../bdev/requests/layer.ts';
import type { PlaneMessage } from './control.ts';

/** Called once a round, in this order, but for what a comment says otherwise. None of it blocks. */
export interface Plane {
  /** Carries out a message of main, now or later, and answers it by `PlaneParts.answer`. Called first, for each message. */
  handle(id: number, message: PlaneMessage): void;
  /** Takes what hosts have submitted, a bounded share of each. Returns how much there was. */
  poll(): number;
  /** Makes completions visible that were posted since it was last called. */
  publish(): void;
  /** Carries out what waited for requests that are over by now. */
  settle(): void;
  /** Interrupts hosts. `late`: also those that are still busy with an earlier interrupt. Returns how many it has held back. */
  signal(late: boolean): number;
  /** When an interrupt comes that is held back for a time, in ns of the clock; Infinity: none is. */
  readonly due: number;
  /** Looks at what is main's to carry out, and tells main. Returns how often. */
  watch(): number;
  /** The ring reports a poll of the plane's own, by the user data that the plane chose below UNHEARD. */
  heard(userData: number): void;
  /** Before a sleep: hosts are to ring from now on; the reactor looks once more after it. And after the sleep: they need not. */
  arm(): void;
  hush(): void;
  /** Some hosts submit without a word to anyone: the reactor must look from time to time. */
  readonly unheard: boolean;
  /** Writes down, for main, how far everything is. */
  report(): void;
}

/** What a reactor lends to its plane. */
export interface PlaneParts {
  readonly context: BackendContext;
  readonly requests: Requests;
  /** Rows of counters, see `bdev/counters.ts`. */
  readonly counters: SharedArrayBuffer;
  /** Answers a message with a status, once. */
  answer(id: number, status: number): void;
  /** Tells main something that it did not ask for. */
  tell(message: PlaneMessage): void;
  /** Mappings were let go of that main is about to take away. */
  reclaim(): void;
  /** Counts interrupts of hosts. */
  interrupted(): void;
}

export type MakePlane = (parts: PlaneParts) => Plane;
