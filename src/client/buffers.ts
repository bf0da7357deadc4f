/** Data buffers of a load generator: page aligned, described by PRPs, all in one DMA region or spread over many. */
import { ClientMemory } from './memory.ts';
import type { QueuePair } from './queue-pair.ts';
import type { VfioClient } from './vfio.ts';

const PAGE = 4096;
/** As far as one page of PRP list entries reaches. Bytes. */
export const MAX_BUFFER_BYTES = PAGE * (PAGE / 8);
/** Mapped between two regions: nothing, so that a server cannot make one of two. */
const GAP = PAGE;

export interface BufferOptions {
  readonly bytes: number;
  /** DMA regions: each has as many buffers as it takes. */
  readonly regions: number;
  /** In all; at least as many as regions. */
  readonly count: number;
  /** Where the first region begins, for the device. */
  readonly iova: number;
}

export class Buffers {
  readonly #memory: ClientMemory;
  readonly #bytes: number;
  /** Offsets in the memory, and addresses for the device, of each buffer and of its PRP list. */
  readonly #offsets: number[] = [];
  readonly #iovas: number[] = [];

  /** Makes the memory and has the device map it. Rejects with a VfioUserError if it refuses. */
  static async create(vfio: VfioClient, options: BufferOptions): Promise<Buffers> {
    const { bytes, regions, count, iova } = options;
    const each = Buffers.#each(bytes);
    const perRegion = Math.ceil(count / regions);
    const regionBytes = perRegion * each;
    const memory = new ClientMemory(regions * regionBytes, iova);
    const buffers = new Buffers(memory, bytes);
    try {
      for (let region = 0; region < regions; region++) {
        const at = iova + region * (regionBytes + GAP);
        const offset = region * regionBytes;
        await vfio.dmaMap({ iova: at, size: regionBytes, fd: memory.fd, offset });
      }
      for (let i = 0; i < count; i++) {
        // One buffer of each region after the other: neighbours in time are not neighbours in memory.
        const region = i % regions;
        const within = Math.floor(i / regions) * each;
        buffers.#offsets.push(region * regionBytes + within);
        buffers.#iovas.push(iova + region * (regionBytes + GAP) + within);
      }
    } catch (error) {
      memory.close();
      throw error;
    }
    // Its pages are made now, and not by the first commands.
    memory.bytes(0, memory.size).fill(0x5a);
    for (let i = 0; i < count; i++) {
      buffers.#writeList(i);
    }
    return buffers;
  }

  private constructor(memory: ClientMemory, bytes: number) {
    this.#memory = memory;
    this.#bytes = bytes;
  }

  /** Memory of a buffer: whole pages, and a page for the PRP list if it has more than two. */
  static #each(bytes: number): number {
    const pages = Math.ceil(bytes / PAGE);
    return (pages + (pages > 2 ? 1 : 0)) * PAGE;
  }

  #writeList(index: number): void {
    const pages = Math.ceil(this.#bytes / PAGE);
    if (pages > 2) {
      const list = new BigUint64Array(
        this.#memory.buffer,
        this.#offsets[index] + pages * PAGE,
        pages - 1,
      );
      for (let page = 1; page < pages; page++) {
        list[page - 1] = BigInt(this.#iovas[index] + page * PAGE);
      }
    }
  }

  /** Gives buffers `first`, `first` + 1, … to the commands of a queue pair. NVMe Base 2.0 §4.1.1: PRP entries. */
  assign(pair: QueuePair, first: number, count: number): void {
    const pages = Math.ceil(this.#bytes / PAGE);
    for (let cid = 0; cid < count; cid++) {
      const prp1 = this.#iovas[first + cid];
      pair.setBuffer(cid, prp1, pages < 2 ? 0 : prp1 + (pages === 2 ? PAGE : pages * PAGE));
    }
  }

  words(index: number): Int32Array {
    return new Int32Array(this.#memory.buffer, this.#offsets[index], this.#bytes / 4);
  }

  close(): void {
    this.#memory.close();
  }
}
