/** A namespace as the host sees it: geometry and identifiers. Owned by main. */

export interface Namespace {
  readonly nsid: number;
  /** Bytes, a power of two. */
  readonly blockSize: number;
  readonly numBlocks: number;
  /** By its bdev, or as it is write protected. */
  readonly readonly: boolean;
  /** A format or a sanitize operation has it for itself, or has failed. */
  readonly occupied: boolean;
  /** A reservation keeps this controller's host from writing. */
  readonly conflicts: boolean;
  /** Reservations can be kept through power loss. */
  readonly keepsReservations: boolean;
  /** What is left of a format that is under way. Percent. */
  readonly formatLeft: number;
  /** One of WriteProtectionState. */
  readonly writeProtection: number;
  /** Writes and deallocations of whole pieces of this size, aligned to it, are best. Bytes, a multiple of the block size. */
  readonly granularity: number;
  /** Deallocated blocks read as zeroes. */
  readonly readsZeroes: boolean;
  /** Lower-case with dashes. */
  readonly uuid: string;
  /** 32 hex digits. */
  readonly nguid: string | undefined;
  /** 16 hex digits. */
  readonly eui64: string | undefined;
}
