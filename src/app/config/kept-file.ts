/**
 * A list kept in the state folder, in a file of its own beside the configuration: it is replaced whole, one write after the other, also while
 * the target ends. Owned by main.
 */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { replaceFile } from '../../native/paths.ts';
import { describeError, FailedError, withErrnoDetail } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { Serial } from '../../util/serial.ts';

const FORMAT = 1;
const HINT = 'restore it from a backup, or move it away to start without it';

export interface KeptList {
  /** Of the file in the state folder. */
  readonly name: string;
  /** Of the list in the file. */
  readonly key: string;
  /** Whether something that was read is what the list is of. */
  readonly isEntry: (entry: Readonly<Record<string, unknown>>) => boolean;
  /** What is logged when it could not be kept: what that means. */
  readonly complaint: string;
}

export class KeptFile<T> {
  readonly path: string;
  readonly #kept: KeptList;
  readonly #log: Logger;
  readonly #calls = new BlockingCalls({ limit: 1 });
  readonly #writes = new Serial();

  /** `folder`: that of the state, which is locked. */
  constructor(folder: string, kept: KeptList, log: Logger) {
    this.path = join(resolve(folder), kept.name);
    this.#kept = kept;
    this.#log = log;
  }

  /** What was written last. Throws FailedError if it cannot be understood, and what the system says. */
  read(): readonly T[] {
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
      return this.#parse(text);
    } catch (error) {
      throw new FailedError(`${this.path} is damaged: ${describeError(error)} (${HINT})`);
    }
  }

  #parse(text: string): readonly T[] {
    const { key, isEntry } = this.#kept;
    const { version, [key]: list } = JSON.parse(text) as Record<string, unknown>;
    if (version !== FORMAT || !Array.isArray(list)) {
      throw new Error(`not of version ${FORMAT}`);
    }
    if (!list.every((entry: unknown) => isEntry(Object(entry)))) {
      throw new Error(`not all of its ${key} are such`);
    }
    return list as T[];
  }

  /** Resolves when what `list` gives in its turn is on stable storage. Rejects, after a line in the log, with what the system says. */
  save(list: () => readonly T[]): Promise<void> {
    return this.#writes.run(async () => {
      try {
        const text = JSON.stringify({ version: FORMAT, [this.#kept.key]: list() }, null, 1);
        await replaceFile(this.#calls, this.path, text, 0o600);
      } catch (error) {
        this.#log.error({ err: error, file: this.path }, this.#kept.complaint);
        throw error;
      }
    });
  }

  /** Resolves when all is kept that was to be when it was called, or could not be. */
  settled(): Promise<void> {
    return this.#writes.run(() => {});
  }
}
