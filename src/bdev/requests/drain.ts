/** Waiting for some requests of one owner to end, and for no others. */

import type { RequestQueue } from './owner.ts';
import type { Share } from './share.ts';

/** Which requests of an owner are to end, or are waited for. */
export interface Scope {
  includes(queue: RequestQueue, share: Share, slot: number): boolean;
  /** They need not be carried out. */
  readonly ends: boolean;
  /** Those that may be left to themselves are: they complete with `result` at once. */
  readonly detaches: boolean;
  /** A Result. */
  readonly result: number;
}

/** What waits. The slots it waits for are marked with its bit when it begins; each that ends counts down. */
export interface Drain {
  /** Of Owner.drains. */
  readonly bit: number;
  /** What it waits for. */
  readonly scope: Scope;
  /** Marked slots that have not ended. */
  left: number;
  /** Called once, at the end of the round in which nothing is left, after all completions of that round were published. */
  readonly done: () => void;
}

/** Drains of one owner at a time: a bit of a word each. */
export const MAX_DRAINS = 31;
