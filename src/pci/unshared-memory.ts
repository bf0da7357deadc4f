/**
 * Ranges that a client mapped without a file descriptor: memory that nothing here can reach. Some are harmless (QEMU's firmware and
 * video memory); a guest's RAM is among them if the VM was started without shared memory. Owned by main.
 */
export class UnsharedMemory {
  /** Bytes of each range, by its first IOVA. */
  readonly #ranges = new Map<number, number>();

  add(iova: number, size: number): void {
    this.#ranges.set(iova, size);
  }

  /** Those that begin in [start, end). */
  remove(start: number, end: number): void {
    for (const iova of this.#ranges.keys()) {
      if (iova >= start && iova < end) {
        this.#ranges.delete(iova);
      }
    }
  }

  get bytes(): number {
    return [...this.#ranges.values()].reduce((bytes, size) => bytes + size, 0);
  }

  /** Where the range that holds an address ends; undefined if none does. */
  endOf(iova: number): number | undefined {
    for (const [start, size] of this.#ranges) {
      if (iova >= start && iova < start + size) {
        return start + size;
      }
    }
    return undefined;
  }
}
