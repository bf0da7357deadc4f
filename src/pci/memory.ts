/**
 * The memory that a client lets its function reach: mapped into this process, or known to be out of reach. Owned by main.
 *
 * Memory that is taken away, by the client or by its loss (a file that was truncated), is unreachable before that is answered: whoever uses it
 * is told first, and zero pages replace it then.
 */
import { MAX_REGIONS } from '../limits.ts';
import { GuestMemory, type GuestRegion } from '../memory/guest.ts';
import { native } from '../native/index.ts';
import { IOVA_END } from '../spec/vfio-user.ts';
import type { Client, DmaRegion } from '../vfio-user/device.ts';
import type { DmaMessages } from '../vfio-user/dma-messages.ts';
import { Refusal } from '../vfio-user/refusal.ts';
import type { CloseDescriptors } from './interrupts.ts';
import { unwatchMemory, watchMemory } from './lost-memory.ts';
import { UnsharedMemory } from './unshared-memory.ts';

/** DMA regions mapped in the whole process. */
let mappedRegions = 0;

/** Who uses the memory. */
export interface MemoryUser {
  /** Resolves when it may be used everywhere; a guest may as soon as this is answered. Rejects if that cannot be: it is given up again. */
  memoryMapped(region: GuestRegion): Promise<void>;
  /** Resolves when the regions that lie in this range are no longer used. */
  memoryUnmapped(iova: number, size: number): Promise<void>;
  /** `regions` are others now. Also before `memoryMapped` and `memoryUnmapped`. */
  memoryChanged(): void;
  /** Memory was truncated or failed: zeros are where it was. All of it is taken away next. */
  memoryLost(): void;
  /** A file's memory is not mapped, since it may keep whoever touches it waiting for as long as it likes. */
  memorySkipped(iova: number, size: number): void;
  /** Something could not be given back, or taken away. */
  memoryFailed(error: unknown, what: string): void;
}

export class DeviceMemory {
  /** What is mapped. */
  readonly guest = new GuestMemory(native);
  readonly #unshared = new UnsharedMemory();
  readonly #user: MemoryUser;
  readonly #close: CloseDescriptors;
  readonly #mapFiles: boolean;
  readonly #messages: DmaMessages;
  /** Whom the addon names when memory of this client is lost. */
  readonly #owner: number;
  /** Settles when lost memory is out of use, and never rejects. */
  #losing = Promise.resolve();

  /** `mapFiles`: also files that are neither memfds nor on tmpfs or hugetlbfs. */
  constructor(user: MemoryUser, mapFiles: boolean, { close, messages }: Client) {
    this.#user = user;
    this.#mapFiles = mapFiles;
    this.#close = close;
    this.#messages = messages;
    this.#owner = watchMemory(() => {
      this.#losing = this.#lose();
    });
  }

  /** Bytes that the client mapped without a file that could be mapped. */
  get unsharedBytes(): number {
    return this.#unshared.bytes;
  }

  /** Whether the client has memory at this address that is not mapped here. */
  isUnshared(iova: number): boolean {
    return this.#unshared.find(iova) !== undefined;
  }

  /** Where the memory that is not mapped here, and holds an address, ends; undefined if none does. */
  unsharedEnd(iova: number): number | undefined {
    return this.#unshared.find(iova)?.end;
  }

  /** Whether the client has memory at all of these addresses, mapped here or not, which the device may `write` to if it is to. */
  holds(iova: number, size: number, write: boolean): boolean {
    for (let at = iova; at < iova + size; ) {
      const region = this.regionAt(at);
      const found =
        region === undefined
          ? this.#unshared.find(at)
          : { end: region.iova + region.size, writable: region.writable };
      if (found === undefined || (write && !found.writable)) {
        return false;
      }
      at = found.end;
    }
    return true;
  }

  /** The mapped region that holds an address. */
  regionAt(iova: number): GuestRegion | undefined {
    const { regions } = this.guest;
    let low = 0;
    let high = regions.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const { iova: start, size } = regions[middle];
      if (iova < start) {
        high = middle;
      } else if (iova >= start + size) {
        low = middle + 1;
      } else {
        return regions[middle];
      }
    }
    return undefined;
  }

  /** Whether a region is still mapped. */
  isMapped(region: GuestRegion): boolean {
    return this.regionAt(region.iova) === region;
  }

  async map({ iova, size, fd, offset, writable }: DmaRegion): Promise<void> {
    if (fd === undefined) {
      this.#unshared.add(iova, size, writable);
      this.#user.memoryChanged();
      return;
    }
    if (!this.#mapFiles && !native.isMemoryFile(fd)) {
      this.#close([fd]);
      this.#unshared.add(iova, size, writable);
      this.#user.memorySkipped(iova, size);
      return;
    }
    let buffer: SharedArrayBuffer;
    try {
      if (mappedRegions >= MAX_REGIONS) {
        throw new Refusal('ENOSPC', 'all clients together have too many DMA regions');
      }
      buffer = native.mapFile(fd, offset, size, writable, this.#owner);
    } finally {
      this.#close([fd]);
    }
    const region: GuestRegion = { iova, size, buffer, writable };
    mappedRegions += 1;
    this.guest.add(region);
    this.#user.memoryChanged();
    try {
      await this.#user.memoryMapped(region);
    } catch (error) {
      this.#revoke(this.guest.remove(iova, iova + size));
      this.#user.memoryChanged();
      throw error;
    }
  }

  async unmap(iova: number, size: number): Promise<void> {
    await this.#losing;
    await this.#takeAway(iova, size);
  }

  /** None of the client's memory is used any more, so that no zeros get to a disk, and no second fault comes. */
  async #lose(): Promise<void> {
    this.#user.memoryLost();
    try {
      await this.#takeAway(0, IOVA_END);
    } catch (error) {
      this.#user.memoryFailed(error, 'lost memory could not be taken out of use');
    }
  }

  /** Resolves when memory that is lost is out of use, or at once if none is. */
  settled(): Promise<void> {
    return this.#losing;
  }

  async #takeAway(iova: number, size: number): Promise<void> {
    this.#unshared.remove(iova, iova + size);
    this.#messages.abandon(iova, iova + size);
    // Out of the table first: who begins to use the memory meanwhile must not learn of the regions.
    const regions = this.guest.remove(iova, iova + size);
    if (regions.length > 0) {
      this.#user.memoryChanged();
      try {
        await this.#user.memoryUnmapped(iova, size);
      } finally {
        this.#revoke(regions);
        native.reclaim();
      }
    }
  }

  /** The client is gone, and nobody uses its memory. */
  release(): void {
    this.#revoke(this.guest.remove(0, IOVA_END));
    unwatchMemory(this.#owner);
    native.reclaim();
  }

  /** The memory is nobody's any more. What the kernel refuses to replace stays mapped, and unused, until the buffer is collected. */
  #revoke(regions: readonly GuestRegion[]): void {
    for (const { buffer } of regions) {
      mappedRegions -= 1;
      try {
        native.revoke(new DataView(buffer));
      } catch (error) {
        this.#user.memoryFailed(error, 'memory of the VM could not be given back yet');
      }
    }
  }
}
