/** A namespace as the host sees it: geometry and identifiers. Owned by main. */

export interface Namespace {
  readonly nsid: number;
  /** Bytes, a power of two. */
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly readonly: boolean;
  /** Lower-case with dashes. */
  readonly uuid: string;
  /** 32 hex digits. */
  readonly nguid: string | undefined;
  /** 16 hex digits. */
  readonly eui64: string | undefined;
}
