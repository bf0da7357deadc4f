/**
 * Memory with made-up addresses: what has an address is in one mapping that is there, or the access is a violation. So nothing that was taken
 * away is ever touched unnoticed by a copy or by the kernel; what JavaScript reaches by a view is seen by `checkPoison`.
 */
import { Violation } from './violation.ts';

const PAGE = 4096;
const FIRST_ADDRESS = 0x7f00_0000_0000;
/** From so many bytes on a mapping is used again by the next simulation, as it would take long to clear: its beginning is. */
const LARGE = 1 << 20;
const CLEARED = 1 << 17;
/** Words that look like no entry of a queue, and like no data. */
const POISON = Buffer.from(new Int32Array(1 << 14).fill(0x7bad_7bad).buffer);

interface Mapping {
  readonly base: number;
  readonly bytes: Uint8Array;
  /** Whose it is, by host; 0: the target's own. */
  readonly owner: number;
}

const spare = new Map<number, SharedArrayBuffer[]>();

export class SimMemory {
  #next = FIRST_ADDRESS;
  /** By address. */
  readonly #live: Mapping[] = [];
  readonly #byBuffer = new Map<SharedArrayBuffer, Mapping>();
  readonly #large: SharedArrayBuffer[] = [];
  readonly #removed: Mapping[] = [];
  readonly #poisoned: Buffer[] = [];

  map(length: number, owner = 0): SharedArrayBuffer {
    let buffer = length >= LARGE ? spare.get(length)?.pop() : undefined;
    if (buffer === undefined) {
      // There is one thread only, and memory of its own is faster.
      buffer = new ArrayBuffer(length) as unknown as SharedArrayBuffer;
    } else {
      new Uint8Array(buffer, 0, CLEARED).fill(0);
    }
    if (length >= LARGE) {
      this.#large.push(buffer);
    }
    this.add(buffer, owner);
    return buffer;
  }

  /** Gives a buffer an address. */
  add(buffer: SharedArrayBuffer, owner: number): void {
    const mapping: Mapping = { base: this.#next, bytes: new Uint8Array(buffer), owner };
    // A page between two, so that no two are one segment.
    this.#next += Math.ceil(buffer.byteLength / PAGE) * PAGE + PAGE;
    this.#live.push(mapping);
    this.#byBuffer.set(buffer, mapping);
  }

  /** The memory is taken away: nobody may touch it from now on. */
  remove(buffer: SharedArrayBuffer): void {
    const mapping = this.#byBuffer.get(buffer);
    if (mapping === undefined) {
      throw new Violation('memory is taken away twice');
    }
    this.#byBuffer.delete(buffer);
    this.#live.splice(this.#live.indexOf(mapping), 1);
    this.#removed.push(mapping);
    const bytes = Buffer.from(buffer);
    bytes.set(POISON.subarray(0, bytes.length));
    this.#poisoned.push(bytes);
  }

  /** Nothing was written to memory that was taken away. */
  checkPoison(): void {
    for (const bytes of this.#poisoned) {
      if (!bytes.equals(POISON.subarray(0, bytes.length))) {
        throw new Violation('memory was written after it was taken away');
      }
    }
  }

  addressOf(view: ArrayBufferView): number {
    const mapping = this.#byBuffer.get(view.buffer as SharedArrayBuffer);
    if (mapping === undefined) {
      throw new Violation('the address of memory that has none is asked');
    }
    return mapping.base + view.byteOffset;
  }

  /** Who has the memory at an address: see `map`. */
  ownerOf(address: number): number {
    return this.#find(address)?.owner ?? 0;
  }

  #find(address: number): Mapping | undefined {
    let low = 0;
    let high = this.#live.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#live[middle].base <= address) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    const mapping = this.#live[low - 1];
    return mapping !== undefined && address < mapping.base + mapping.bytes.length
      ? mapping
      : undefined;
  }

  /** The bytes at an address. `why`: what is said if they are not there. */
  bytes(address: number, length: number, why: string): Uint8Array {
    const mapping = this.#find(address);
    if (mapping === undefined || address + length > mapping.base + mapping.bytes.length) {
      const gone = this.#removed.find(
        ({ base, bytes }) => base <= address && address < base + bytes.length,
      );
      const whose = gone === undefined ? 'nobody has' : `host ${gone.owner} took away`;
      throw new Violation(`${why}: ${length} bytes at 0x${address.toString(16)}, which ${whose}`);
    }
    return mapping.bytes.subarray(address - mapping.base, address - mapping.base + length);
  }

  copyBatch(list: Float64Array, count: number): void {
    for (let i = 0; i < count; i++) {
      const [to, from, length] = list.subarray(3 * i, 3 * i + 3);
      this.bytes(to, length, 'a copy to').set(this.bytes(from, length, 'a copy from'));
    }
  }

  compareBatch(list: Float64Array, count: number): boolean {
    for (let i = 0; i < count; i++) {
      const [one, other, length] = list.subarray(3 * i, 3 * i + 3);
      const bytes = this.bytes(one, length, 'a comparison of');
      if (!Buffer.from(bytes).equals(this.bytes(other, length, 'a comparison with'))) {
        return false;
      }
    }
    return true;
  }

  zero(range: Float64Array): void {
    this.bytes(range[0], range[1], 'zeroes to').fill(0);
  }

  /** The simulation is over. */
  dispose(): void {
    for (const buffer of this.#large) {
      const known = spare.get(buffer.byteLength) ?? [];
      known.push(buffer);
      spare.set(buffer.byteLength, known);
    }
  }
}
