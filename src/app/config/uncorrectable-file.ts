/**
 * The blocks that guests have marked uncorrectable, kept in the state folder: they stay so until they are written, over any end of the
 * process. Owned by main.
 */
import type {
  UncorrectableFile as File,
  UncorrectableFiles,
} from '../../bdev/uncorrectable-files.ts';
import { MAX_UNCORRECTABLE_RANGES } from '../../limits.ts';
import type { Logger } from '../../util/log.ts';
import { KeptFile } from './kept-file.ts';

/** Fields of a file's identity that are texts. */
const TEXTS = ['device', 'inode', 'born', 'path'] as const;

export class UncorrectableFile extends KeptFile<File> {
  constructor(folder: string, log: Logger) {
    const complaint =
      'blocks marked uncorrectable could not be kept: the commands of guests about them fail';
    super(folder, { name: 'uncorrectable.json', key: 'files', isEntry, complaint }, log);
  }

  /** Keeps what `files` have from now on. */
  follow(files: UncorrectableFiles): void {
    files.keep = () => this.save(() => files.list());
  }
}

const isEntry = (file: Readonly<Record<string, unknown>>): boolean =>
  (file.kind === 'file' || file.kind === 'device') &&
  areRanges(file.ranges) &&
  TEXTS.every((key) => typeof file[key] === 'string');

/** Ascending, and apart. */
function areRanges(ranges: unknown): boolean {
  let least = 0;
  return (
    Array.isArray(ranges) &&
    ranges.length <= MAX_UNCORRECTABLE_RANGES &&
    ranges.every((range: unknown) => {
      const [offset, end] = (Array.isArray(range) ? range : []) as unknown[];
      if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(end)) {
        return false;
      }
      const isAbove = Number(offset) >= least && Number(offset) < Number(end);
      least = Number(end) + 1;
      return isAbove;
    })
  );
}
