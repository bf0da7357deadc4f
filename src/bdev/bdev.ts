/**
 * A bdev as the control plane knows it, and the plain data from which a reactor opens its own way to it.
 * Owned by main. How a reactor does I/O on it is in `backend.ts`.
 */

/**
 * What a reactor needs to do I/O on a bdev: plain data of its kind, which the kind's `open` knows. Sent to workers by structured clone;
 * descriptors are process-wide.
 */
export interface BackendDescriptor {
  readonly kind: string;
  readonly [key: string]: unknown;
}

export interface BdevDescriptor {
  /** No two bdevs ever have the same, nor a bdev before and after it was opened anew. */
  readonly generation: number;
  /** Writes that nobody waits for any more. See `requests/stale-writes.ts`. */
  readonly stale: SharedArrayBuffer;
  /** What is special about blocks: of the file, if the bdev has one. See `block-states.ts`. */
  readonly blocks: SharedArrayBuffer;
  /** Index of the bdev in the counters; unique among live bdevs, below MAX_BDEVS. */
  readonly index: number;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly readonly: boolean;
  readonly backend: BackendDescriptor;
}

/** Data that was written may be lost. */
export interface DiskFailure {
  /** Positive. */
  readonly errno: number;
}

/** Of a bdev whose data is on a server. */
export interface ServerTally {
  /** Connections in use; and made anew, since the bdev was made. */
  readonly connections: number;
  readonly reconnects: number;
  /** Requests sent, and those not answered. */
  readonly requests: number;
  readonly inFlight: number;
}

/** What hosts may want to know of the disk below. */
export interface BdevHints {
  /** Writes and discards of whole pieces of this size, aligned to it, are best. Bytes, a power of two, no less than a block. */
  readonly granularity: number;
  /** Discarded blocks read as zeroes. */
  readonly readsZeroes: boolean;
}

export interface Bdev extends BdevDescriptor {
  readonly name: string;
  readonly aliases: readonly string[];
  /** As SPDK names it: "AIO disk", "URING bdev", "Malloc disk", "Null disk", "delay", "Error Injection Disk". */
  readonly productName: string;
  readonly uuid: string;
  /** `driver_specific` of bdev_get_bdevs. */
  readonly driverSpecific: Readonly<Record<string, unknown>>;
  /** Its kind: `BdevKind.name`. */
  readonly module: string;
  /** Rate limits as reactors read them (`limiter.ts`), or undefined if nothing is limited. */
  readonly limits: SharedArrayBuffer | undefined;
  /** Its file, if a write-back of it has failed: until it is opened again no Flush succeeds. */
  readonly failure: DiskFailure | undefined;
  readonly server: ServerTally | undefined;
  readonly hints: BdevHints;
  /** Makes all that was completed durable (fdatasync). */
  sync(): Promise<void>;
  /** Frees descriptors and memory. No reactor uses the bdev any more. */
  close(): void;
}
