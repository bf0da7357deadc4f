/** Sanitize operations, kept in the state folder: one that was under way goes on after any end of the process. Owned by main. */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { replaceFile } from '../../native/paths.ts';
import type { KeptOperation, KeptSanitize } from '../../target/kept-sanitize.ts';
import { describeError, FailedError, withErrnoDetail } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { Serial } from '../../util/serial.ts';

const FORMAT = 1;
const HINT = 'restore it from a backup, or move it away to start without it';
/** Fields of a request that are numbers, and flags. */
const NUMBERS = ['action', 'dw10', 'passes', 'pattern'] as const;
const FLAGS = ['unrestricted', 'noDeallocate', 'invert'] as const;

export class SanitizeFile {
  readonly path: string;
  readonly #log: Logger;
  readonly #calls = new BlockingCalls({ limit: 1 });
  readonly #writes = new Serial();

  /** In the state folder, which is locked. */
  constructor(folder: string, log: Logger) {
    this.path = join(resolve(folder), 'sanitize.json');
    this.#log = log;
  }

  /** What was written last. Throws FailedError if it cannot be understood, and what the system says. */
  read(): readonly KeptOperation[] {
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

  /** Keeps what `kept` has from now on. */
  follow(kept: KeptSanitize, before: readonly KeptOperation[]): void {
    kept.follow(before, () => this.#writes.run(() => this.#save(kept.list())));
  }

  async #save(operations: readonly KeptOperation[]): Promise<void> {
    try {
      const text = JSON.stringify({ version: FORMAT, operations }, null, 1);
      await replaceFile(this.#calls, this.path, text, 0o600);
    } catch (error) {
      this.#log.error(
        { err: error, file: this.path },
        'a sanitize operation could not be kept: after a restart it will not be known',
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
function parse(text: string): readonly KeptOperation[] {
  const { version, operations } = JSON.parse(text) as { version?: unknown; operations?: unknown };
  if (version !== FORMAT || !Array.isArray(operations)) {
    throw new Error(`not of version ${FORMAT}`);
  }
  for (const each of operations as {
    nqn?: unknown;
    state?: unknown;
    request?: unknown;
    uuids?: unknown;
  }[]) {
    const request = (each.request ?? {}) as Readonly<Record<string, unknown>>;
    if (
      typeof each.nqn !== 'string' ||
      !Number.isInteger(each.state) ||
      NUMBERS.some((key) => !Number.isInteger(request[key])) ||
      FLAGS.some((key) => typeof request[key] !== 'boolean') ||
      !isUuids(each.uuids)
    ) {
      throw new Error('not an operation');
    }
  }
  return operations as KeptOperation[];
}

/** Of the namespaces of an operation; those before there were any were about all. */
function isUuids(value: unknown): boolean {
  return (
    value === undefined || (Array.isArray(value) && value.every((each) => typeof each === 'string'))
  );
}
