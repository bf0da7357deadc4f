/** What a client has mapped. */

/** Ranges of IOVAs that do not overlap, in ascending order: found by binary search, and taken out all at once. */
export class DmaTable {
  /** First addresses, sorted, and the bytes of each range. */
  readonly #starts: number[] = [];
  readonly #sizes: number[] = [];

  get count(): number {
    return this.#starts.length;
  }

  /** Index of the first range that starts at or after an address. */
  #search(address: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#starts[middle] < address) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Whether an address lies in a range, but is not its first. */
  #isInside(address: number): boolean {
    const before = this.#search(address) - 1;
    return before >= 0 && this.#starts[before] + this.#sizes[before] > address;
  }

  overlaps(start: number, size: number): boolean {
    const at = this.#search(start);
    return this.#isInside(start) || (at < this.#starts.length && this.#starts[at] < start + size);
  }

  /** Whether some range lies partly in [start, end) and partly outside. */
  cuts(start: number, end: number): boolean {
    return this.#isInside(start) || this.#isInside(end);
  }

  /** Adds a range that overlaps none. */
  add(start: number, size: number): void {
    const at = this.#search(start);
    this.#starts.splice(at, 0, start);
    this.#sizes.splice(at, 0, size);
  }

  /** Removes the ranges in [start, end), which cuts none. Returns their bytes. */
  remove(start: number, end: number): number {
    const from = this.#search(start);
    const count = this.#search(end) - from;
    this.#starts.splice(from, count);
    return this.#sizes.splice(from, count).reduce((bytes, size) => bytes + size, 0);
  }
}
