/**
 * The formats of source ranges that Copy takes, and its limits: Identify tells of them, and they are checked. NVM Command Set 1.0 §3.2.2;
 * formats 2 and 3, of other namespaces: NVM Command Set 1.1 §3.3.2.
 */
import { MAX_COPY_BYTES, MAX_COPY_RANGE_BYTES, MAX_RANGES } from '../limits.ts';

interface CopyFormat {
  /** Of an entry. */
  readonly bytes: number;
  /** Each entry names a namespace: the host enables it first (Host Behavior Support). */
  readonly hasNamespace: boolean;
}

/** By number. The odd ones have larger fields for protection information, which there is none of. */
export const COPY_FORMATS: readonly CopyFormat[] = [
  { bytes: 32, hasNamespace: false },
  { bytes: 40, hasNamespace: false },
  { bytes: 32, hasNamespace: true },
  { bytes: 40, hasNamespace: true },
];

export const LARGEST_COPY_ENTRY = Math.max(...COPY_FORMATS.map(({ bytes }) => bytes));

const bitsOf = (which: (format: CopyFormat) => boolean): number =>
  COPY_FORMATS.reduce((bits, format, i) => bits | (which(format) ? 1 << i : 0), 0);

/** A bit a format: those there are, which a host can enable, and which it need not. */
export const ALL_COPY_FORMATS = bitsOf(() => true);
export const ENABLED_COPY_FORMATS = bitsOf(({ hasNamespace }) => hasNamespace);
export const PLAIN_COPY_FORMATS = bitsOf(({ hasNamespace }) => !hasNamespace);

/** MSSRL and MCL: blocks of a source range, and of all together. `blockSize`: bytes. */
export const mostBlocksOfRange = (blockSize: number): number => MAX_COPY_RANGE_BYTES / blockSize;
export const mostBlocksOfCopy = (blockSize: number): number => MAX_COPY_BYTES / blockSize;
/** MSRC + 1. */
export const MOST_COPY_RANGES = MAX_RANGES;
