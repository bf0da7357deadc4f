/** Memory of this process, in pieces: what a DMA_UNMAP takes away. */

/** Host addresses, `to` not included. */
export interface HostRange {
  readonly from: number;
  readonly to: number;
}

/** Ranges that do not overlap, found by binary search. */
export class HostRanges {
  /** Sorted, and as many. */
  readonly #from: Float64Array;
  readonly #to: Float64Array;

  constructor(ranges: readonly HostRange[]) {
    const sorted = [...ranges].sort((a, b) => a.from - b.from);
    this.#from = Float64Array.from(sorted, ({ from }) => from);
    this.#to = Float64Array.from(sorted, ({ to }) => to);
  }

  /** Whether any of [from, to) is in one of them. */
  overlaps(from: number, to: number): boolean {
    let low = 0;
    let high = this.#from.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#from[middle] < to) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low > 0 && this.#to[low - 1] > from;
  }
}
