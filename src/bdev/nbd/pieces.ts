/**
 * Which parts of the range of each read have come, in chunks: none may come twice, or as many bytes as were asked for would not be all of them, and the rest of the
 * memory would go on to the guest as it was. Hot.
 */
import { MAX_INFLIGHT } from '../../limits.ts';

/** So many parts with gaps between them: servers send chunks in order, but for few. */
const MAX_PIECES = 16;

export class Pieces {
  readonly #count = new Uint8Array(MAX_INFLIGHT);
  /** Of each piece its beginning and its end, in any order; no two of them touch. */
  readonly #from = new Int32Array(MAX_INFLIGHT * MAX_PIECES);
  readonly #to = new Int32Array(MAX_INFLIGHT * MAX_PIECES);

  /** Nothing has come. */
  clear(slot: number): void {
    this.#count[slot] = 0;
  }

  /** Bytes from `from` to `to` (not included) come. False if some of them have come already, or there are too many gaps. */
  add(slot: number, from: number, to: number): boolean {
    const first = slot * MAX_PIECES;
    let end = first + this.#count[slot];
    let begins = from;
    let ends = to;
    for (let at = first; at < end; ) {
      const otherFrom = this.#from[at];
      const otherTo = this.#to[at];
      if (from < otherTo && otherFrom < to) {
        return false;
      }
      if (otherTo === from || otherFrom === to) {
        // They are one piece: the last takes the place of the other.
        begins = Math.min(begins, otherFrom);
        ends = Math.max(ends, otherTo);
        end -= 1;
        this.#from[at] = this.#from[end];
        this.#to[at] = this.#to[end];
      } else {
        at += 1;
      }
    }
    if (end === first + MAX_PIECES) {
      return false;
    }
    this.#from[end] = begins;
    this.#to[end] = ends;
    this.#count[slot] = end + 1 - first;
    return true;
  }
}
