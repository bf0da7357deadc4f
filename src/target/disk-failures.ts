/** What the system said when a guest's command failed, in words for an operator: which disk, where, and why. No data. */
import { END_OF_FILE, INJECTED } from '../bdev/backend.ts';
import { isRanged, OPERATIONS } from '../bdev/op.ts';
import type { IoFailure } from '../nvme/plane/failure.ts';
import { errnoName, strerror } from '../util/errors.ts';

export interface DescribedFailure {
  /** For a line of the log. */
  readonly fields: Readonly<Record<string, string | number>>;
  /** For an event. */
  readonly message: string;
}

export function describeFailure({ nsid, op, errno, lba, count }: IoFailure): DescribedFailure {
  const operation = OPERATIONS[op].name;
  const [reason, text] = explain(errno);
  // A Flush is about all that was written.
  const [place, where] = isRanged(op) ? [{ lba }, ` at LBA ${lba}`] : [{}, ''];
  const others = count > 1 ? `, the last of ${count} failures` : '';
  return {
    fields: { nsid, operation, ...place, reason, failures: count },
    message: `${operation}${where} failed: ${reason} (${text})${others}`,
  };
}

function explain(errno: number): [string, string] {
  switch (errno) {
    case END_OF_FILE:
      return ['EOF', 'the file has become shorter'];
    case INJECTED:
      return ['injected', 'an error bdev was asked for it'];
    default:
      return [errnoName(errno), strerror(errno)];
  }
}
