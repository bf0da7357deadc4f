/** Memory of a client that a server can map too: a memfd, mapped here, handed out piece by piece and never back. */
import { closeSync } from 'node:fs';
import { native } from '../native/index.ts';
import { DMA_PAGE_SIZE } from '../spec/vfio-user.ts';

export class ClientMemory {
  /** The address under which the device is to know it. */
  readonly iova: number;
  /** Bytes, whole pages. */
  readonly size: number;
  readonly fd: number;
  readonly buffer: SharedArrayBuffer;
  #used = 0;

  /** `size` is rounded up to whole pages. */
  constructor(size: number, iova = 0) {
    this.size = Math.ceil(size / DMA_PAGE_SIZE) * DMA_PAGE_SIZE;
    this.iova = iova;
    this.fd = native.memfdCreate('doorbell-client', this.size);
    try {
      this.buffer = native.mapFile(this.fd, 0, this.size, true);
    } catch (error) {
      closeSync(this.fd);
      throw error;
    }
  }

  /** Takes `length` bytes, aligned. Gives their offset in `buffer`; the IOVA is `iova` + offset. */
  allocate(length: number, alignment = DMA_PAGE_SIZE): number {
    const offset = Math.ceil(this.#used / alignment) * alignment;
    if (offset + length > this.size) {
      throw new RangeError(`no ${length} bytes left of ${this.size}`);
    }
    this.#used = offset + length;
    return offset;
  }

  bytes(offset: number, length: number): Uint8Array {
    return new Uint8Array(this.buffer, offset, length);
  }

  /** The bytes that the device knows by this address; undefined if they are not all of this memory. */
  at(iova: number, count: number): Uint8Array | undefined {
    const offset = iova - this.iova;
    return offset >= 0 && offset + count <= this.size ? this.bytes(offset, count) : undefined;
  }

  /** Closes the descriptor. The memory goes when the last view of it is collected. */
  close(): void {
    closeSync(this.fd);
  }
}
