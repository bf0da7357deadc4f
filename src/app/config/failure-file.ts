/**
 * The files whose write-back has failed, kept in the state folder: what a guest was told is not durable does not become so by a restart.
 * A file of its own beside the configuration, for it is written also while the target ends. Owned by main.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import type { FailedFile, FailedFiles } from '../../bdev/failed-files.ts';
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { replaceFile } from '../../native/paths.ts';
import { describeError, FailedError, withErrnoDetail } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { Serial } from '../../util/serial.ts';

const FORMAT = 1;
const HINT = 'restore it from a backup, or move it away to start without it';

/** Fields of FailedFile that are texts. */
const TEXTS = ['device', 'inode', 'born', 'path', 'time'] as const;

export class FailureFile {
  readonly path: string;
  readonly #log: Logger;
  readonly #calls = new BlockingCalls({ limit: 1 });
  readonly #writes = new Serial();
  #waits = false;
  #list: () => readonly FailedFile[] = () => [];

  /** In the state folder, which is locked. */
  constructor(folder: string, log: Logger) {
    this.path = join(resolve(folder), 'write-back.json');
    this.#log = log;
  }

  /** What was written last. Throws FailedError if it cannot be understood, and what the system says. */
  read(): readonly FailedFile[] {
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
  follow(files: FailedFiles): void {
    this.#list = () => files.list();
    files.onChange = () => this.#save();
  }

  #save(): void {
    if (this.#waits) {
      return;
    }
    this.#waits = true;
    void this.#writes.run(async () => {
      this.#waits = false;
      try {
        const text = JSON.stringify({ version: FORMAT, files: this.#list() }, null, 1);
        await replaceFile(this.#calls, this.path, text, 0o600);
      } catch (error) {
        this.#log.error(
          { err: error, file: this.path },
          'a failed write-back could not be kept: after a restart it will not be known',
        );
      }
    });
  }

  /** Resolves when all is kept that was known when it was called, or could not be. */
  settled(): Promise<void> {
    return this.#writes.run(() => {});
  }
}

/** Throws if it is something else. */
function parse(text: string): readonly FailedFile[] {
  const { version, files } = JSON.parse(text) as { version?: unknown; files?: unknown };
  if (version !== FORMAT || !Array.isArray(files)) {
    throw new Error(`not of version ${FORMAT}`);
  }
  for (const file of files as Partial<Record<keyof FailedFile, unknown>>[]) {
    if (
      (file.kind !== 'file' && file.kind !== 'device') ||
      !Number.isInteger(file.errno) ||
      Number(file.errno) <= 0 ||
      TEXTS.some((key) => typeof file[key] !== 'string')
    ) {
      throw new Error('not a file');
    }
  }
  return files as FailedFile[];
}
