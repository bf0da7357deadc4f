/**
 * Whether memory that a client has sent a descriptor of is its guest's. A descriptor is no proof: of a file that QEMU has mapped for itself alone
 * (share=off) the guest sees a copy, and what is mapped here never changes. Owned by main.
 *
 * The last entry of the admin completion queue is the controller's to write, and no host reads it before its phase tag turns: a number in its
 * first dword must come back by a message, if the guest sees the same memory. It is taken out again.
 */
import { randomInt } from 'node:crypto';
import type { GuestRegion } from '../memory/guest.ts';
import type { AdminPlace } from '../nvme/admin-pair.ts';
import type { DeviceMemory } from '../pci/memory.ts';
import { CQE_SIZE } from '../spec/nvme.ts';
import type { DmaMessages } from '../vfio-user/dma-messages.ts';

const MAX_NUMBER = 2 ** 31 - 1;

export class SharedMemory {
  readonly #memory: DeviceMemory;
  readonly #messages: DmaMessages;
  /** What is known of regions: whether the guest sees them. */
  readonly #known = new WeakMap<GuestRegion, boolean>();
  /** The client answers nothing about its memory: it is not asked again. */
  #silent: boolean;

  /** `answers`: the client is known to answer messages. */
  constructor(memory: DeviceMemory, messages: DmaMessages, answers: boolean) {
    this.#memory = memory;
    this.#messages = messages;
    this.#silent = !answers;
  }

  /** Of the memory of the admin queue: true or false if that is known, or cannot be found out (true); else what resolves with it. */
  check({ acq, cqSize }: AdminPlace): boolean | Promise<boolean> {
    const last = acq + (cqSize - 1) * CQE_SIZE;
    const region = this.#memory.regionAt(last);
    if (region === undefined || this.#silent) {
      return true;
    }
    return this.#known.get(region) ?? this.#ask(region, last);
  }

  async #ask(region: GuestRegion, iova: number): Promise<boolean> {
    const words = new Int32Array(region.buffer, iova - region.iova, 1);
    const before = words[0];
    const number = randomInt(1, MAX_NUMBER);
    const seen = new Int32Array(1);
    Atomics.store(words, 0, number);
    try {
      await this.#messages.read(iova, new Uint8Array(seen.buffer));
    } catch (error) {
      // Nothing was found out. One that does not answer once is not waited for again.
      this.#silent = (error as { readonly code?: unknown }).code === 'ETIMEDOUT';
      return true;
    } finally {
      Atomics.compareExchange(words, 0, number, before);
    }
    const isShared = seen[0] === number;
    this.#known.set(region, isShared);
    return isShared;
  }
}
