/**
 * A bdev as a reactor sees it: where a command's data goes. One object per bdev and reactor.
 *
 * The request lies in the fields of the shared {@link Request}, so that nothing is allocated per command. A backend either finishes at
 * once (`async` is false: null, RAM) or holds the command under a slot number and finishes it later (files).
 */
import type { HostRanges } from '../memory/host-ranges.ts';
import { Segments } from '../memory/segments.ts';
import type { Op } from './op.ts';
import { Ranges } from './ranges.ts';
import type { BdevChannel } from './requests/channel.ts';

/** The command under way. One per reactor, overwritten by each command. */
export class Request {
  readonly segments = new Segments();
  /** Byte offset in the bdev, at index 0. (In an array, so that the double is never allocated.) */
  readonly offset = new Float64Array(1);
  /** Bytes to move; of operations without data, bytes that they are about, which for a discard are in `ranges`. */
  length = 0;
  /** What is changed must be on stable storage when it completes. */
  fua = false;
  /** Of a write of zeroes: what holds the blocks may be given back, as they read as zeroes without. */
  deallocate = false;
  /** Of a discard: the pieces, which all lie in `span` bytes from `offset` on (at index 0). Of a copy: what is copied to `offset`, in this order. */
  readonly ranges = new Ranges();
  readonly span = new Float64Array(1);
  /** Of a copy: by range, the bdev that it is read from; undefined if all are from the one that is written. */
  sources: readonly BdevChannel[] | undefined;
  /**
   * To the request layer, when a command failed because the system said so: its errno (or END_OF_FILE, or INJECTED), and 0 else. `offset` is
   * then where in the bdev.
   */
  errno = 0;
  /** To the plane, when a copy failed: the range that was not copied, from 0 on. Otherwise 0. */
  detail = 0;
}

/** In place of an errno: the file is shorter than it was. */
export const END_OF_FILE = -1;
/** The same: an operator asked for the error (`error.ts`). */
export const INJECTED = -2;

/** What `submit` and `complete` return when the command is still under way; anything else is a Result. */
export const PENDING = -1;

/**
 * What a backend that has no answer for a request for too long pushes to `context.ended`: whoever asked for it is told that the way to its data is
 * lost, and the request goes on alone (`detach`), as it may be carried out yet. Its `complete` gives PENDING then.
 */
export const GIVEN_UP = -0x1000_0000;

/** What `detach` can say. */
export const Detached = {
  /** The request stays its owner's until it ends: it may use the owner's memory. */
  NO: 0,
  /** It is over at once, and its slot free. */
  OVER: 1,
  /** It goes on alone and ends by `complete`, without touching memory that is not the backend's own. */
  ALONE: 2,
} as const;
export type Detached = (typeof Detached)[keyof typeof Detached];

export interface Backend {
  /** Commands need a slot, and finish through `complete`. */
  readonly async: boolean;
  /**
   * The operations that it does itself (`opSet`): reads, writes and flushes at least. The others are made of these (`whole.ts`). Where it turns
   * out that the disk does not know one after all, that ends with UNSUPPORTED, and nothing was done.
   */
  readonly operations: number;
  /** Bytes that it zeroes or discards at a time, without others waiting too long. */
  readonly zeroStep?: number | undefined;
  /** Where reads, writes and flushes may go instead, to save a call. */
  readonly direct?: Backend | undefined;
  /** Starts the command in the shared request. `slot` matters only if `async`. A Result, or PENDING. */
  submit(op: Op, slot: number): number;
  /** The ring reported `result` (a count or -errno) for the operation of `slot`. A Result, or PENDING if there is more to do. */
  complete(slot: number, result: number): number;
  /**
   * Somebody waits for the command of `slot`: if nothing but this backend holds it up, it is to complete soon. `ends`: as its queue or its
   * namespace goes, it need not be carried out. May be asked again.
   */
  hurry?(slot: number, ends: boolean): void;
  /** Whether the command of `slot` may still read or write any of this memory. Without this method none does. */
  touches?(slot: number, memory: HostRanges): boolean;
  /** Whoever asked for the command of `slot` goes, and wants no answer. Without this method: Detached.NO. */
  detach?(slot: number): Detached;
  /** Whether the command of `slot` ends by an interrupt of its disk, and needs no processor until then. Without this method none does. */
  quick?(slot: number): boolean;
  /** Reads and writes that may be under way at a time, where each may hold a thread of the kernel. Undefined: any number. */
  readonly depth?: number | undefined;
  /** No command uses the backend any more: lets go of what it holds. */
  close(): void;
}
