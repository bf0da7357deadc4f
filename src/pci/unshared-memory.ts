/**
 * Ranges that a client mapped without a file descriptor: memory that is reached by messages at most. Some are harmless (QEMU's firmware and
 * video memory); a guest's RAM is among them if the VM was started without shared memory. Owned by main.
 */
interface Range {
  /** First address, and the one behind the last. */
  readonly start: number;
  readonly end: number;
  /** The device may write to it. */
  readonly writable: boolean;
}

export class UnsharedMemory {
  /** They do not overlap, and are in ascending order. */
  readonly #ranges: Range[] = [];

  add(iova: number, size: number, writable: boolean): void {
    this.#ranges.splice(this.#position(iova), 0, { start: iova, end: iova + size, writable });
  }

  /** Those that begin in [start, end). */
  remove(start: number, end: number): void {
    const from = this.#position(start);
    this.#ranges.splice(from, this.#position(end) - from);
  }

  /** Index of the first range that begins at an address or above. */
  #position(iova: number): number {
    let low = 0;
    let high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ranges[middle].start < iova) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  get bytes(): number {
    return this.#ranges.reduce((bytes, { start, end }) => bytes + end - start, 0);
  }

  /** The range that holds an address. */
  find(iova: number): Readonly<Range> | undefined {
    const range = this.#ranges[this.#position(iova + 1) - 1];
    return range !== undefined && iova < range.end ? range : undefined;
  }
}
