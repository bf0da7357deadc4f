/** The Error Information log: commands that failed, admin and I/O. NVMe Base 2.0 §5.16.1.2. Owned by main. */
import { MAX_ERROR_LOG_ENTRIES } from '../../limits.ts';
import type { ParameterPlace } from '../../spec/command.ts';
import { ErrorLogEntry, NO_LOCATION, ParameterLocation } from '../../spec/logs.ts';

/** A failed command. */
export interface LoggedError {
  /** Undefined for both: of no particular command that is known. */
  readonly sqid?: number;
  readonly cid?: number;
  readonly status: number;
  readonly nsid: number;
  /** The first block that failed. */
  readonly lba?: number;
  /** The parameter that is wrong. */
  readonly place?: ParameterPlace | undefined;
}

/** SQID and CID of an entry about no particular command. */
const NO_COMMAND = 0xffff;

export class ErrorLog {
  /** Newest first. */
  #entries: (LoggedError & { readonly count: number })[] = [];
  /** Errors since the controller is there. */
  count = 0;

  /** `errors`: so many of the kind, of which this was the last. */
  add(error: LoggedError, errors = 1): void {
    this.count += errors;
    this.#entries.unshift({ ...error, count: this.count });
    this.#entries.length = Math.min(this.#entries.length, MAX_ERROR_LOG_ENTRIES);
  }

  /** The newest errors, the newest first. */
  get entries(): readonly LoggedError[] {
    return this.#entries;
  }

  page(): Uint8Array {
    const out = new Uint8Array(MAX_ERROR_LOG_ENTRIES * ErrorLogEntry.size);
    const view = new DataView(out.buffer);
    for (const [i, { count, sqid, cid, status, nsid, lba, place }] of this.#entries.entries()) {
      ErrorLogEntry.write(view, i * ErrorLogEntry.size, {
        errorCount: count,
        sqid: sqid ?? NO_COMMAND,
        cid: cid ?? NO_COMMAND,
        // Above the phase tag, as in a completion.
        status: 2 * status,
        parameterLocation:
          place === undefined ? NO_LOCATION : ParameterLocation.encode({ ...place }),
        lba: lba ?? 0,
        nsid,
      });
    }
    return out;
  }
}
