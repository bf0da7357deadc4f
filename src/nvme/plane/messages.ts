/** What main and the NVMe plane of a reactor tell each other: messages, and words of memory that both see, each with one writer. */
import type { BdevDescriptor } from '../../bdev/bdev.ts';
import type { Op } from '../../bdev/op.ts';
import { MAX_IO_QUEUE_PAIRS } from '../../limits.ts';
import type { GuestRegion } from '../../memory/guest.ts';
import type { Coalescing } from '../features/coalescing.ts';
import type { Access } from '../namespace-state.ts';
import type { ShadowPages } from '../shadow.ts';
import type { IoFailure } from './failure.ts';

/**
 * How far a controller's queues are: 32-bit words, row `qid` for SQ and CQ of that id. Written by the reactor of the queue when main asks
 * (`report`, `release-queues`), and not before.
 */
export const QueueWord = {
  /** Next entry to take; and the host's doorbell, if it lies within the queue. */
  SQ_HEAD: 0,
  SQ_TAIL: 1,
  /** Commands taken and not completed. */
  INFLIGHT: 2,
  /** Memory of the queue, or of its CQ, is unmapped. */
  STOPPED: 3,
  CQ_HEAD: 4,
  CQ_TAIL: 5,
  /** Phase tag of the next completion. */
  PHASE: 6,
} as const;
export const QUEUE_WORDS = 8;
export const QUEUE_WORDS_BYTES = (MAX_IO_QUEUE_PAIRS + 1) * QUEUE_WORDS * 4;

/** 32-bit words about a controller's admin doorbells, written by main. The reactor tells main of any other values. */
export const AdminWord = {
  TAIL: 0,
  /** Or NOT_WAITING. */
  HEAD: 1,
  /** `admin` messages that main has taken: there is one under way at most. */
  TAKEN: 2,
} as const;
export const NOT_WAITING = -1;
export const ADMIN_WORDS_BYTES = 16;

/** 32-bit words about all doorbells of a controller, as AdminWord: those that main has seen, by index, and then `rung` messages taken. */
export const PAGE_DOORBELLS = 2 * (MAX_IO_QUEUE_PAIRS + 1);
export const PageWord = { TAKEN: PAGE_DOORBELLS } as const;
export const PAGE_WORDS_BYTES = (PAGE_DOORBELLS + 1) * 4;

/** In place of a status: there is no such command that waits. */
export const NOT_ABORTED = -1;

/** A namespace, as a reactor opens it. */
export interface NamespaceDescriptor {
  readonly nsid: number;
  /** Its counter row. */
  readonly row: number;
  /** Rate limits of its bdev, if there are any. See `bdev/limiter.ts`. */
  readonly limits: SharedArrayBuffer | undefined;
  readonly access: Access;
  readonly bdev: BdevDescriptor;
}

/** What commands may do to a namespace. `abort`: what those end with, a status, that are under way and may not be carried out any more. */
export interface NamespaceAccess {
  readonly nsid: number;
  readonly access: Access;
  readonly abort?: number;
}

/** What main has done to a namespace. Bytes. `deallocate`: see `Request`. */
export interface Operation {
  readonly op: Op;
  readonly offset: number;
  readonly length: number;
  readonly deallocate?: boolean;
  /** What a write writes: 32 bits, over and over. */
  readonly pattern?: number;
}

/** A completion queue, as a reactor makes it. */
export interface CqDescriptor {
  readonly qid: number;
  readonly size: number;
  readonly iova: number;
  readonly interrupts: boolean;
  readonly vector: number;
  readonly eventfd: number;
  /** No interrupt while the host is busy with the last one. */
  readonly adaptive: boolean;
}

/** A submission queue, as a reactor makes it. */
export interface SqDescriptor {
  readonly qid: number;
  readonly size: number;
  readonly iova: number;
  readonly cqid: number;
  /** Which of the queues that had this id: main never gives the number twice. */
  readonly generation: number;
}

/**
 * What a message to the plane asks about a controller. Each is carried out at once, or when the commands that are in its way have ended: those
 * that take nothing from each other may overtake.
 */
export type NvmeRequest =
  | {
      readonly kind: 'attach';
      readonly controller: number;
      /** Doorbell page: 32-bit words, SQ y tail at 2y, CQ y head at 2y + 1. */
      readonly doorbells: SharedArrayBuffer;
      /** The client cannot map the page: main writes there what the client sends, and wakes the reactor. */
      readonly trapped: boolean;
      readonly shadow: ShadowPages | undefined;
      /** The client's socket. It stays main's; a reactor that sleeps listens when there is something to read. */
      readonly socket: number;
      /** The counter row of refused commands. */
      readonly row: number;
      readonly maxTransferBytes: number;
      readonly writeThrough: boolean;
      readonly coalescing: Coalescing;
      /** Formats of source ranges that Copy takes: a bit each. */
      readonly copyFormats: number;
      readonly namespaces: readonly NamespaceDescriptor[];
      /** See QueueWord. */
      readonly progress: SharedArrayBuffer;
    }
  | { readonly kind: 'detach'; readonly controller: number }
  /** Tell main when the host rings the admin doorbells. */
  | {
      readonly kind: 'watch-admin';
      readonly controller: number;
      readonly enabled: boolean;
      /** See AdminWord. */
      readonly seen: SharedArrayBuffer;
    }
  /** Tell main when the host writes any doorbell: main serves its queues, not this reactor. */
  | {
      readonly kind: 'watch-page';
      readonly controller: number;
      readonly enabled: boolean;
      /** The host's doorbell page. */
      readonly page: SharedArrayBuffer;
      /** See PageWord. */
      readonly seen: SharedArrayBuffer;
    }
  /** REGIONS_PER_MESSAGE at most. */
  | { readonly kind: 'map'; readonly controller: number; readonly regions: readonly GuestRegion[] }
  /** All regions in the range, which cuts none. */
  | {
      readonly kind: 'unmap';
      readonly controller: number;
      readonly iova: number;
      readonly size: number;
    }
  | ({ readonly kind: 'create-cq'; readonly controller: number } & CqDescriptor)
  | ({ readonly kind: 'create-sq'; readonly controller: number } & SqDescriptor)
  | { readonly kind: 'delete-cq'; readonly controller: number; readonly qid: number }
  | { readonly kind: 'delete-sq'; readonly controller: number; readonly qid: number }
  /**
   * A completion queue and its submission queues are to go to another reactor: no command of theirs is taken any more. Answered when
   * those in flight have been completed, the queues are forgotten here, and how far they are is written down (QueueWord); or with
   * ABORTED_BY_REQUEST, if `keep-queues` comes first.
   */
  | { readonly kind: 'release-queues'; readonly controller: number; readonly cqid: number }
  /** If they are still here, they stay and go on. */
  | { readonly kind: 'keep-queues'; readonly controller: number; readonly cqid: number }
  /** Queues that another reactor has released: they go on where it left them. */
  | {
      readonly kind: 'adopt-queues';
      readonly controller: number;
      readonly cq: CqDescriptor;
      readonly sqs: readonly SqDescriptor[];
    }
  /** Drops all queues; commands in flight are waited for and not completed to the host. */
  | { readonly kind: 'reset'; readonly controller: number }
  /** Where to signal each vector (-1: nowhere). Queues with unseen completions are signalled again. */
  | { readonly kind: 'eventfds'; readonly controller: number; readonly fds: readonly number[] }
  | {
      readonly kind: 'add-namespace';
      readonly controller: number;
      readonly namespace: NamespaceDescriptor;
    }
  /** The rate limits of a namespace's bdev were made, or lifted. */
  | {
      readonly kind: 'limit';
      readonly controller: number;
      readonly nsid: number;
      readonly limits: SharedArrayBuffer | undefined;
    }
  /**
   * What commands may do to a namespace, from now on. Answered when none of this controller is under way there that may not be carried out any
   * more. With `abort` those end with that status, as far as they need not be waited for.
   */
  | ({ readonly kind: 'access'; readonly controller: number } & NamespaceAccess)
  /**
   * Main's own: an operation without data on bytes of a namespace, which need not be for its commands to have. Answered with the status that it
   * ends with.
   */
  | ({
      readonly kind: 'operate';
      readonly controller: number;
      readonly nsid: number;
    } & Operation)
  | { readonly kind: 'remove-namespace'; readonly controller: number; readonly nsid: number }
  /** The host writes its doorbells there, too. */
  | { readonly kind: 'shadow'; readonly controller: number; readonly shadow: ShadowPages }
  /**
   * A command is to end, if it has not begun: one that waits, for a rate limit or its turn. Answered when its completion was published, with
   * Success; or with NOT_ABORTED.
   */
  | {
      readonly kind: 'abort';
      readonly controller: number;
      readonly qid: number;
      readonly cid: number;
    }
  /** Main has carried out a command that was passed on to it. */
  | {
      readonly kind: 'complete';
      readonly controller: number;
      readonly id: number;
      readonly status: number;
      readonly data?: Uint8Array;
    }
  /** When hosts are interrupted, from now on. */
  | {
      readonly kind: 'coalesce';
      readonly controller: number;
      readonly coalescing: Coalescing;
    }
  | { readonly kind: 'copy-formats'; readonly controller: number; readonly formats: number }
  | { readonly kind: 'write-through'; readonly controller: number; readonly enabled: boolean };

/** What the plane tells a controller. */
export type NvmeEvent =
  /** A command that main carries out, and its data. To be answered by `complete`. */
  | {
      readonly kind: 'command';
      readonly controller: number;
      readonly id: number;
      readonly qid: number;
      /** Of the queue: what is answered when it is another is forgotten. */
      readonly generation: number;
      readonly words: Int32Array;
      readonly data: Uint8Array;
    }
  /** The host rang an admin doorbell. */
  | { readonly kind: 'admin'; readonly controller: number }
  /** The host has written doorbells of a page that is watched. */
  | { readonly kind: 'rung'; readonly controller: number }
  /** The host wrote a tail that lies outside its queue. */
  | { readonly kind: 'bad-doorbell'; readonly controller: number; readonly qid: number }
  /** A disk reported an error. */
  | { readonly kind: 'io-failed'; readonly controller: number; readonly failure: IoFailure };
