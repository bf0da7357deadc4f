/** Memory of a device that clients map: what a BAR's `mmap` names. Owned by main. */
import { closeSync } from 'node:fs';
import { native } from '../native/index.ts';
import type { DeviceRegion } from '../vfio-user/device.ts';

export class RegionMemory {
  /** What clients see, too. Zeros at first. */
  readonly bytes: Uint8Array;
  readonly #fd: number;

  /** `size`: bytes, whole pages of 4096, at most 1 GiB. Throws ENOMEM, EMFILE, … */
  constructor(size: number) {
    if (!Number.isInteger(size / 4096) || size < 4096 || size > 2 ** 30) {
      throw new RangeError(`memory of ${size} bytes`);
    }
    this.#fd = native.memfdCreate('pci-region', size);
    try {
      this.bytes = new Uint8Array(native.mapFile(this.#fd, 0, size, true));
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  /** A BAR's `mmap`: `areas` (offsets and bytes, whole pages) may be mapped, by default all of it. Accesses to the rest come as messages. */
  map(areas: NonNullable<DeviceRegion['mmap']>['areas'] = []): NonNullable<DeviceRegion['mmap']> {
    return { fd: this.#fd, areas };
  }

  /** To be called once, when no function uses it any more. Clients keep what they have mapped; `bytes` reads as zeros. */
  close(): void {
    native.revoke(this.bytes);
    closeSync(this.#fd);
  }
}
