/**
 * The blocks that guests have marked uncorrectable, kept in the state folder: they stay so until they are written, over any end of the
 * process. Owned by main.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type {
  UncorrectableFile as File,
  UncorrectableFiles,
} from '../../bdev/uncorrectable-files.ts';
import { MAX_UNCORRECTABLE_RANGES } from '../../limits.ts';
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { replaceFile } from '../../native/paths.ts';
import { describeError, FailedError, withErrnoDetail } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { Serial } from '../../util/serial.ts';

const FORMAT = 1;
const HINT = 'restore it from a backup, or move it away to start without it';

/** Fields of a file's identity that are texts. */
const TEXTS = ['device', 'inode', 'born', 'path'] as const;

export class UncorrectableFile {
  readonly path: string;
  readonly #log: Logger;
  readonly #calls = new BlockingCalls({ limit: 1 });
  readonly #writes = new Serial();

  /** In the state folder, which is locked. */
  constructor(folder: string, log: Logger) {
    this.path = join(resolve(folder), 'uncorrectable.json');
    this.#log = log;
  }

  /** What was written last. Throws FailedError if it cannot be understood, and what the system says. */
  read(): readonly File[] {
    let text: string;
    try {
      text = readFileSync(this.path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
        return [];
      }
      throw withErrnoDetail(error, this.path);
    }
    try {
      return parse(text);
    } catch (error) {
      throw new FailedError(`${this.path} is damaged: ${describeError(error)} (${HINT})`);
    }
  }

  /** Keeps what `files` have from now on. */
  follow(files: UncorrectableFiles): void {
    files.keep = () => this.#writes.run(() => this.#save(files.list()));
  }

  async #save(files: readonly File[]): Promise<void> {
    try {
      const text = JSON.stringify({ version: FORMAT, files }, null, 1);
      await replaceFile(this.#calls, this.path, text, 0o600);
    } catch (error) {
      this.#log.error(
        { err: error, file: this.path },
        'blocks marked uncorrectable could not be kept: the commands of guests about them fail',
      );
      throw error;
    }
  }

  /** Resolves when nothing is being written any more. */
  settled(): Promise<void> {
    return this.#writes.run(() => {});
  }
}

/** Throws if it is something else. */
function parse(text: string): readonly File[] {
  const { version, files } = JSON.parse(text) as { version?: unknown; files?: unknown };
  if (version !== FORMAT || !Array.isArray(files)) {
    throw new Error(`not of version ${FORMAT}`);
  }
  for (const file of files as Partial<Record<keyof File, unknown>>[]) {
    if (
      (file.kind !== 'file' && file.kind !== 'device') ||
      !areRanges(file.ranges) ||
      TEXTS.some((key) => typeof file[key] !== 'string')
    ) {
      throw new Error('not a file');
    }
  }
  return files as File[];
}

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
