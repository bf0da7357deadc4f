/**
 * How a request ended, in no protocol's words: backends, wrappers and the request layer know these, and a plane translates them in one place
 * (NVMe: `nvme/plane/status.ts`). Beside them there is PENDING, which is below them all.
 */
export const Result = {
  OK: 0,
  /** Something went wrong that says nothing of the data. Another try may do. */
  FAILED: 1,
  /** The disk, or what it is stored on, is full. */
  NO_SPACE: 2,
  /** Writes are not allowed. */
  READ_ONLY: 3,
  /** The data cannot be read. */
  READ_ERROR: 4,
  /** It could not be written. Another try may do. */
  WRITE_ERROR: 5,
  /** What was completed before may be lost: nothing becomes durable any more, however often it is tried. */
  NOT_DURABLE: 6,
  /** Not all blocks are within the bdev. */
  OUT_OF_RANGE: 7,
  /** The owner's memory cannot be used: it is gone, or is not what it was said to be. */
  BAD_MEMORY: 8,
  /** Nobody wants it any more. */
  ABORTED: 9,
  /** The same, as the queue that it came by goes. */
  QUEUE_GONE: 10,
  /** The bdev was taken away before the request began. */
  BDEV_GONE: 11,
  /** The bdev cannot carry out such an operation. */
  UNSUPPORTED: 12,
  /** The bdev is there, but not yet of use. Another try will do. */
  NOT_READY: 13,
  /** The way to where the data is was lost: whether the request was carried out is unknown. Another path may do. */
  PATH_LOST: 14,
  /** The data is not what it was compared with. */
  MISCOMPARE: 15,
  /** A host has marked some of the blocks so that they cannot be read until they are written. */
  UNCORRECTABLE: 16,
} as const;
export type Result = (typeof Result)[keyof typeof Result];

/** Results from here on carry a status of the plane's own protocol, which an operator chose, in their lower bits. */
const PROTOCOL = 1 << 16;

/** `status`: below 2^16. */
export function protocolResult(status: number): number {
  return PROTOCOL | status;
}

/** The status that `protocolResult` was given. */
export function protocolStatus(result: number): number {
  return result & (PROTOCOL - 1);
}
