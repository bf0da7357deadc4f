/** What a reactor needs to do I/O on an NBD bdev. */
import type { BackendDescriptor } from '../bdev.ts';

export interface NbdDescriptor extends BackendDescriptor {
  readonly kind: 'nbd';
  /** See `words.ts`. */
  readonly words: SharedArrayBuffer;
  /** By reactor: an eventfd that says that the words have changed for it. */
  readonly wakes: readonly number[];
  /** The same for main. */
  readonly tell: number;
  /** ExportFlag: what every connection can do. */
  readonly flags: number;
  /** Everything that is written is to be on stable storage when it completes. */
  readonly fua: boolean;
  /** How long a request waits for its answer; 0: for ever. Milliseconds. */
  readonly timeoutMs: number;
}

/** What is made of a server that was lost and has come back. */
export const ON_RECONNECT = ['fail-flush', 'fua', 'trust'] as const;
export type OnReconnect = (typeof ON_RECONNECT)[number];
