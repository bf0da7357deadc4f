/**
 * MSI-X table and pending bits, as memory in a BAR. The client has its own table, which interrupts go by: what is written here is only kept.
 * No bit is ever pending, since what a vector signals while it is masked is the client's to remember.
 */
import { MSIX_ENTRY_SIZE } from '../spec/pci.ts';
import type { MsixPlacement } from './capabilities.ts';

const BITS_PER_WORD = 64;

export class MsixTable {
  readonly #placement: MsixPlacement;
  readonly #table: Uint8Array;

  constructor(placement: MsixPlacement) {
    this.#placement = placement;
    this.#table = new Uint8Array(placement.vectors * MSIX_ENTRY_SIZE);
  }

  /** Whether an access begins in the table or the pending bits. */
  holds(bar: number, offset: number): boolean {
    const { bar: own, vectors, tableOffset, pbaOffset } = this.#placement;
    const pbaBytes = Math.ceil(vectors / BITS_PER_WORD) * 8;
    return (
      bar === own &&
      ((offset >= tableOffset && offset < tableOffset + this.#table.length) ||
        (offset >= pbaOffset && offset < pbaOffset + pbaBytes))
    );
  }

  /** Pending bits, and what lies behind the table, read as zeros. */
  read(offset: number, into: Uint8Array): void {
    const at = offset - this.#placement.tableOffset;
    if (at >= 0) {
      into.set(this.#table.subarray(at, at + into.length));
    }
  }

  write(offset: number, data: Uint8Array): void {
    const at = offset - this.#placement.tableOffset;
    if (at >= 0 && at < this.#table.length) {
      this.#table.set(data.subarray(0, this.#table.length - at), at);
    }
  }
}
