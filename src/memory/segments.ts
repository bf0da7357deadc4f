/**
 * A scatter list in host addresses: parallel typed arrays, reused for every command, no object per piece.
 * Neighbouring pieces are merged, so that a guest buffer that is contiguous in host memory is one segment.
 */
import { SEGMENTS_CAPACITY } from '../limits.ts';

export class Segments {
  /** Host address of each piece. */
  readonly address = new Float64Array(SEGMENTS_CAPACITY);
  /** Bytes of each piece. */
  readonly length = new Int32Array(SEGMENTS_CAPACITY);
  count = 0;
}
