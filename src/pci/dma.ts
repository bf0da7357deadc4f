/**
 * The guest's memory as a device reaches it, by its addresses on the bus. What the client shares is copied at once; the rest is reached by messages,
 * which need an answer of the client. Owned by main.
 */
import type { GuestRegion } from '../memory/guest.ts';
import type { DmaMessages } from '../vfio-user/dma-messages.ts';
import { Refusal } from '../vfio-user/refusal.ts';
import type { DirtyPages } from './dirty-pages.ts';
import type { DeviceMemory } from './memory.ts';

/** Typed arrays hold no more on every Node. Bytes. */
const MAX_VIEW_BYTES = 2 ** 30;

export class Dma {
  readonly #memory: DeviceMemory;
  readonly #messages: DmaMessages;
  readonly #dirty: DirtyPages;

  constructor(memory: DeviceMemory, messages: DmaMessages, dirty: DirtyPages) {
    this.#dirty = dirty;
    this.#memory = memory;
    this.#messages = messages;
  }

  /**
   * Fills `into` with the guest's memory from address `iova` on. Rejects with an error that has a `code`: EFAULT, the guest has no memory there;
   * where messages are needed also what `DmaMessages.read` says. Shared memory has been read when this returns; a client that waits for the
   * reply to its own command answers no message, so callbacks of regions must not wait for memory that is not shared.
   */
  async read(iova: number, into: Uint8Array): Promise<void> {
    await this.#walk(iova, into.length, false, (region, at, length, done) => {
      const piece = into.subarray(done, done + length);
      if (region === undefined) {
        return this.#messages.read(at, piece);
      }
      piece.set(new Uint8Array(region.buffer, at - region.iova, length));
      return undefined;
    });
  }

  /** Writes to the guest's memory from address `iova` on. As `read`, and EPERM: the device may only read that memory. */
  async write(iova: number, data: Uint8Array): Promise<void> {
    await this.#walk(iova, data.length, true, (region, at, length, done) => {
      const piece = data.subarray(done, done + length);
      if (region === undefined) {
        return this.#messages.write(at, piece);
      }
      new Uint8Array(region.buffer, at - region.iova, length).set(piece);
      this.#dirty.wrote(at, length);
      return undefined;
    });
  }

  /**
   * The guest's memory [iova, iova + size) as bytes that the guest sees change, and changes: each value is to be read once, checked, then used.
   * At most 1 GiB, in one region that the client shares and the device may write. Throws a Refusal: EFAULT, EPERM.
   */
  map(iova: number, size: number): DmaView {
    if (size > MAX_VIEW_BYTES) {
      throw new RangeError(`a view of ${size} bytes`);
    }
    const region = this.#memory.regionAt(iova);
    if (region === undefined || iova + size > region.iova + region.size) {
      throw new Refusal('EFAULT', `the client shares no ${size} bytes of memory at ${iova}`);
    }
    if (!region.writable) {
      throw new Refusal('EPERM', `the device may only read the memory at ${iova}`);
    }
    this.#dirty.viewed(iova, size);
    return new DmaView(this.#memory, region, iova, size);
  }

  /** Pieces of a range, each in one region; those without one are reached by messages. All is checked before the first is moved. */
  async #walk(
    iova: number,
    size: number,
    write: boolean,
    move: (
      region: GuestRegion | undefined,
      at: number,
      length: number,
      done: number,
    ) => Promise<void> | undefined,
  ): Promise<void> {
    const pieces: [GuestRegion | undefined, number, number, number][] = [];
    for (let done = 0; done < size; ) {
      const at = iova + done;
      const region = this.#memory.regionAt(at);
      const end = region ? region.iova + region.size : this.#memory.unsharedEnd(at);
      if (end === undefined) {
        throw new Refusal('EFAULT', `the guest has no memory at ${at}`);
      }
      if (write && region?.writable === false) {
        throw new Refusal('EPERM', `the device may only read the memory at ${at}`);
      }
      const length = Math.min(size - done, end - at);
      pieces.push([region, at, length, done]);
      done += length;
    }
    // Shared memory at once: the caller may count on it.
    const moves = pieces.map(([region, at, length, done]) => move(region, at, length, done));
    const results = await Promise.allSettled(moves);
    const failed = results.find(({ status }) => status === 'rejected');
    if (failed !== undefined) {
      throw (failed as PromiseRejectedResult).reason;
    }
  }
}

/** Memory of the guest that is mapped here, for as long as the client lets it. */
export class DmaView {
  readonly iova: number;
  /** Bytes. */
  readonly size: number;
  readonly #memory: DeviceMemory;
  readonly #region: GuestRegion;
  #bytes: Uint8Array | undefined;

  constructor(memory: DeviceMemory, region: GuestRegion, iova: number, size: number) {
    this.#memory = memory;
    this.#region = region;
    this.iova = iova;
    this.size = size;
  }

  /** False when the client has taken the memory back, for good. */
  get valid(): boolean {
    return this.#memory.isMapped(this.#region);
  }

  /**
   * Throws a Refusal, EFAULT, once the client has taken the memory back. An array from before that is no danger: it reads as zeros, and what is
   * written to it vanishes. So this is asked again after everything that waits.
   */
  get bytes(): Uint8Array {
    if (!this.valid) {
      this.#bytes = undefined;
      throw new Refusal('EFAULT', `the client has taken back its memory at ${this.iova}`);
    }
    this.#bytes ??= new Uint8Array(this.#region.buffer, this.iova - this.#region.iova, this.size);
    return this.#bytes;
  }
}
