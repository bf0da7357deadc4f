/** Pieces of a bdev, of one request: parallel to nothing, allocated once, and overwritten by each. */
import { MAX_RANGES } from '../limits.ts';

export class Ranges {
  /** Bytes. */
  readonly offset = new Float64Array(MAX_RANGES);
  readonly length = new Float64Array(MAX_RANGES);
  count = 0;

  copy(other: Ranges): void {
    this.count = other.count;
    this.offset.set(other.offset);
    this.length.set(other.length);
  }
}
