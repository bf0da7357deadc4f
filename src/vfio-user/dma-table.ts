/** What a client has mapped. */

/** Ranges of IOVAs that do not overlap. */
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

  overlaps(start: number, size: number): boolean {
    const at = this.#search(start);
    if (at < this.#starts.length && this.#starts[at] < start + size) return true;
    return at > 0 && this.#starts[at - 1] + this.#sizes[at - 1] > start;
  }

  /** Whether exactly this range is mapped. */
  has(start: number, size: number): boolean {
    const at = this.#search(start);
    return this.#starts[at] === start && this.#sizes[at] === size;
  }

  /** Adds a range that overlaps none. */
  add(start: number, size: number): void {
    const at = this.#search(start);
    this.#starts.splice(at, 0, start);
    this.#sizes.splice(at, 0, size);
  }

  /** Removes a range that there is. */
  remove(start: number): void {
    const at = this.#search(start);
    this.#starts.splice(at, 1);
    this.#sizes.splice(at, 1);
  }

  clear(): void {
    this.#starts.length = 0;
    this.#sizes.length = 0;
  }
}
