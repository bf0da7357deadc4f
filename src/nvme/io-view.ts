/** Controllers, namespaces and queues as a reactor's I/O engine sees them. */
import type { Backend } from '../bdev/backend.ts';
import type { Counters } from '../bdev/counters.ts';
import type { Limiter } from '../bdev/limiter.ts';
import type { GuestMemory } from '../memory/guest.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import type { SubmissionQueue } from './queue.ts';

/** A namespace as a reactor sees it. */
export interface IoNamespace {
  readonly nsid: number;
  readonly backend: Backend;
  readonly blockShift: number;
  readonly numBlocks: number;
  readonly readonly: boolean;
  readonly counters: Counters;
  /** Of its bdev, if there are any. */
  limiter: Limiter | undefined;
  /** Commands that wait for it; and the slice in which one last did. */
  parked: number;
  waiting: number;
  /** Failures that were not told of yet, and when one last was (ns). */
  failures: number;
  toldAt: number;
}

/** A controller as a reactor sees it. */
export interface IoController {
  readonly id: number;
  readonly memory: GuestMemory;
  /** By NSID − 1. */
  namespaces: (IoNamespace | undefined)[];
  /** Largest transfer of a command, in bytes. */
  readonly maxTransferBytes: number;
  /** The host turned the volatile write cache off: each write is made durable. */
  writeThrough: boolean;
  /** Commands in flight. */
  inflight: number;
  /** Something waits for all of them: rate limits hold no command up. */
  draining: boolean;
  /** Commands that were refused before a namespace was asked. */
  readonly counters: Counters;
}

/** A queue and the controller it belongs to. */
export interface IoQueue {
  readonly sq: SubmissionQueue;
  readonly controller: IoController;
}

/** Why the commands of a controller are waited for. */
export interface Drain {
  /** Memory that goes. */
  readonly memory: HostRanges;
  /** Whether a command has to end, as its queue or namespace goes. */
  readonly ends: (queue: IoQueue, namespace: IoNamespace) => boolean;
}
