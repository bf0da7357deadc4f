/** What a reactor tells of an error that a disk reported. */
import type { Op } from '../../bdev/op.ts';

export interface IoFailure {
  readonly nsid: number;
  readonly op: Op;
  /** Or END_OF_FILE, or INJECTED. */
  readonly errno: number;
  /** What the command ends with. */
  readonly status: number;
  /** Where it failed; of no meaning for a Flush. */
  readonly lba: number;
  /** Failures of the namespace since the last that was told of, with this one. */
  readonly count: number;
}
