/**
 * A bdev as the control plane knows it, and the plain data from which a reactor opens its own way to it.
 * Owned by main. How a reactor does I/O on it is in `backend.ts`.
 */

import type { FailedFile } from './failed-files.ts';

/** What a reactor needs to do I/O on a bdev. Sent to workers by structured clone; descriptors are process-wide. */
export type BackendDescriptor =
  | { readonly kind: 'null' }
  | { readonly kind: 'malloc'; readonly memory: SharedArrayBuffer }
  | {
      readonly kind: 'uring';
      /** By reactor: an open file description for each (`descriptions.ts`). */
      readonly fds: readonly number[];
      /** What they ask of buffers, a power of two: 1 when buffered. Bytes. */
      readonly alignment: number;
      /** See `write-back.ts`. */
      readonly writeBack: SharedArrayBuffer;
      /** Its file system may wait for somebody in the middle of any call: FUSE, NFS and the like. */
      readonly mayBlock: boolean;
      /** Data goes through the reactor's own buffers, so that an operation that hangs can be left to itself. */
      readonly ownBuffers: boolean;
    }
  /** Another bdev's I/O, later (`delay.ts`) or with errors (`error.ts`). */
  | {
      readonly kind: 'delay';
      readonly latencies: SharedArrayBuffer;
      readonly base: BackendDescriptor;
    }
  | {
      readonly kind: 'error';
      readonly injections: SharedArrayBuffer;
      readonly base: BackendDescriptor;
    };

export interface BdevDescriptor {
  /** No two bdevs ever have the same, nor a bdev before and after it was opened anew. */
  readonly generation: number;
  /** Writes that nobody waits for any more. See `requests/stale-writes.ts`. */
  readonly stale: SharedArrayBuffer;
  /** Index of the bdev in the counters; unique among live bdevs, below MAX_BDEVS. */
  readonly index: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly readonly: boolean;
  readonly backend: BackendDescriptor;
}

export interface Bdev extends BdevDescriptor {
  readonly name: string;
  readonly aliases: readonly string[];
  /** As SPDK names it: "AIO disk", "URING bdev", "Malloc disk", "Null disk", "delay", "Error Injection Disk". */
  readonly productName: string;
  readonly uuid: string;
  /** `driver_specific` of bdev_get_bdevs. */
  readonly driverSpecific: Readonly<Record<string, unknown>>;
  /** Which delete method it belongs to. */
  readonly module: 'aio' | 'uring' | 'malloc' | 'null' | 'delay' | 'error';
  /** Rate limits as reactors read them (`limiter.ts`), or undefined if nothing is limited. */
  readonly limits: SharedArrayBuffer | undefined;
  /** Its file, if a write-back of it has failed: until it is opened again no Flush succeeds. */
  readonly failure: FailedFile | undefined;
  /** Makes all that was completed durable (fdatasync). */
  sync(): Promise<void>;
  /** Frees descriptors and memory. No reactor uses the bdev any more. */
  close(): void;
}
