/**
 * Whether memory that a client has sent a descriptor of is its guest's. A descriptor is no proof: of a file that QEMU has mapped for itself alone
 * (share=off) the guest sees a copy, and what is mapped here never changes. Owned by main.
 *
 * Clients are asked only where there is reason to: most know no messages of ours. The last entry of the admin completion queue is the controller's to write, and no host reads it before its phase tag turns: a number in its
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

  /** Whether the guest is known to see something else than what is mapped of its admin queue. */
  isPrivate({ acq }: AdminPlace): boolean {
    const region = this.#memory.regionAt(acq);
    return region !== undefined && this.#known.get(region) === false;
  }

  /** Whether the guest sees what is mapped of its admin queue, where that is not known yet and can be found out. */
  ask({ acq, cqSize }: AdminPlace): Promise<boolean> | undefined {
    const last = acq + (cqSize - 1) * CQE_SIZE;
    const region = this.#memory.regionAt(last);
    return region === undefined || this.#silent || this.#known.has(region)
      ? undefined
      : this.#ask(region, last);
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
