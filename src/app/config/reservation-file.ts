/** Reservations that persist through power loss, kept in the state folder: over any end of the process. Owned by main. */
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { replaceFile } from '../../native/paths.ts';
import type { KeptNamespace, KeptReservations } from '../../target/kept-reservations.ts';
import { describeError, FailedError, withErrnoDetail } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import { Serial } from '../../util/serial.ts';

const FORMAT = 1;
const HINT = 'restore it from a backup, or move it away to start without it';
const MAX_TYPE = 6;

export class ReservationFile {
  readonly path: string;
  readonly #log: Logger;
  readonly #calls = new BlockingCalls({ limit: 1 });
  readonly #writes = new Serial();

  /** In the state folder, which is locked. */
  constructor(folder: string, log: Logger) {
    this.path = join(resolve(folder), 'reservations.json');
    this.#log = log;
  }

  /** What was written last. Throws FailedError if it cannot be understood, and what the system says. */
  read(): readonly KeptNamespace[] {
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
  follow(kept: KeptReservations, before: readonly KeptNamespace[]): void {
    kept.follow(before, () => this.#writes.run(() => this.#save(kept.list())));
  }

  async #save(namespaces: readonly KeptNamespace[]): Promise<void> {
    try {
      const text = JSON.stringify({ version: FORMAT, namespaces }, null, 1);
      await replaceFile(this.#calls, this.path, text, 0o600);
    } catch (error) {
      this.#log.error(
        { err: error, file: this.path },
        'reservations could not be kept: the commands of guests about them fail',
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
function parse(text: string): readonly KeptNamespace[] {
  const { version, namespaces } = JSON.parse(text) as { version?: unknown; namespaces?: unknown };
  if (version !== FORMAT || !Array.isArray(namespaces)) {
    throw new Error(`not of version ${FORMAT}`);
  }
  for (const each of namespaces as Partial<Record<keyof KeptNamespace, unknown>>[]) {
    const { uuid, generation, type, holder, registrants } = each;
    if (
      typeof uuid !== 'string' ||
      !Number.isInteger(generation) ||
      !Number.isInteger(type) ||
      Number(type) < 0 ||
      Number(type) > MAX_TYPE ||
      (holder !== undefined && typeof holder !== 'string') ||
      !areRegistrants(registrants)
    ) {
      throw new Error('not a reservation');
    }
  }
  return namespaces as KeptNamespace[];
}

/** Host identifiers of 8 or 16 bytes, and keys of 8. */
function areRegistrants(registrants: unknown): boolean {
  return (
    Array.isArray(registrants) &&
    registrants.every((each: unknown) => {
      const [host, key] = (Array.isArray(each) ? each : []) as unknown[];
      return /^(?:[0-9a-f]{16}){1,2}$/.test(String(host)) && /^[0-9a-f]{16}$/.test(String(key));
    })
  );
}
