/** The data of admin commands: to and from the buffer that PRP1 and PRP2 describe. Owned by main. */
import type { GuestMemory } from '../../memory/guest.ts';
import { Segments } from '../../memory/segments.ts';
import { Status } from '../../spec/nvme.ts';
import { mapPrps } from '../prp.ts';
import type { Command } from './command.ts';
import { receiveFromGuest, sendToGuest } from './guest-data.ts';

const TWO_32 = 0x1_0000_0000;

export class AdminData {
  readonly #memory: GuestMemory;
  readonly #segments = new Segments();

  constructor(memory: GuestMemory) {
    this.#memory = memory;
  }

  /** Sends data to the host. Returns a status. */
  send(command: Command, data: Uint8Array): number {
    const status = this.#map(command, data.length, true);
    if (status === Status.SUCCESS) {
      sendToGuest(data, this.#segments);
    }
    return status;
  }

  /** A copy of the host's data, or a status. `length`: bytes, MDTS at most. */
  receive(command: Command, length: number): Uint8Array | number {
    const status = this.#map(command, length, false);
    return status === Status.SUCCESS ? receiveFromGuest(length, this.#segments) : status;
  }

  #map({ prp1, prp2 }: Command, length: number, toHost: boolean): number {
    if (prp1 > Number.MAX_SAFE_INTEGER || prp2 > Number.MAX_SAFE_INTEGER) {
      return Status.DATA_TRANSFER_ERROR;
    }
    return mapPrps(
      this.#memory,
      prp1 | 0,
      (prp1 / TWO_32) | 0,
      prp2 | 0,
      (prp2 / TWO_32) | 0,
      length,
      toHost,
      this.#segments,
    );
  }
}
