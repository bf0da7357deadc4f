/**
 * The data of admin commands: to and from the buffer that PRP1 and PRP2 describe. Owned by main.
 *
 * Memory that is mapped is copied at once. Where messages are needed, a command is carried out as ever, and its data is moved before or after:
 * what it sends is kept until it is over; one that asks for data which is not here yet begins anew when it is. So a command asks for its data
 * before it changes anything.
 */
import { Segments } from '../../memory/segments.ts';
import { Status } from '../../spec/nvme.ts';
import type { ControllerHost } from '../host.ts';
import { mapPrps } from '../prp.ts';
import type { RemoteMemory } from '../remote/memory.ts';
import { findPieces } from '../remote/prps.ts';
import { type Command, done, type Outcome } from './command.ts';
import { receiveFromGuest, sendToGuest } from './guest-data.ts';

const TWO_32 = 0x1_0000_0000;

/** Thrown through a command: it cannot go on without so many bytes of its host's. */
class DataWanted extends Error {
  override readonly name = 'DataWanted';
  readonly bytes: number;

  constructor(bytes: number) {
    super(`${bytes} bytes of the host are wanted`);
    this.bytes = bytes;
  }
}

export class AdminData {
  readonly #host: Pick<ControllerHost, 'memory' | 'remote'>;
  readonly #segments = new Segments();
  /** What came of the host, and what it is to get, of commands that are under way. */
  readonly #received = new WeakMap<Command, Uint8Array>();
  readonly #sent = new WeakMap<Command, Uint8Array>();

  constructor(host: Pick<ControllerHost, 'memory' | 'remote'>) {
    this.#host = host;
  }

  /** Carries out a command, with its data moved when its outcome is there. */
  carryOut(command: Command, run: () => Outcome | Promise<Outcome>): Outcome | Promise<Outcome> {
    const { remote } = this.#host;
    return remote === undefined ? run() : this.#carryOut(remote, command, run);
  }

  async #carryOut(
    remote: RemoteMemory,
    command: Command,
    run: () => Outcome | Promise<Outcome>,
  ): Promise<Outcome> {
    let outcome: Outcome;
    try {
      outcome = await run();
    } catch (error) {
      if (!(error instanceof DataWanted) || this.#received.has(command)) {
        throw error;
      }
      const data = new Uint8Array(error.bytes);
      const status = await this.#move(remote, command, data, false);
      if (status !== Status.SUCCESS) {
        return done(status);
      }
      this.#received.set(command, data);
      outcome = await run();
    }
    const data = this.#sent.get(command);
    if (data === undefined || outcome === 'parked' || outcome.status !== Status.SUCCESS) {
      return outcome;
    }
    const status = await this.#move(remote, command, data, true);
    return status === Status.SUCCESS ? outcome : done(status);
  }

  /** A status. */
  async #move(
    remote: RemoteMemory,
    { prp1, prp2 }: Command,
    data: Uint8Array,
    toHost: boolean,
  ): Promise<number> {
    const pieces = await findPieces(remote, prp1, prp2, data.length, toHost);
    if (typeof pieces === 'number') {
      return pieces;
    }
    try {
      await (toHost ? remote.writePieces(pieces, data) : remote.readPieces(pieces, data));
      return Status.SUCCESS;
    } catch {
      return Status.DATA_TRANSFER_ERROR;
    }
  }

  /** Sends data to the host. Returns a status. */
  send(command: Command, data: Uint8Array): number {
    if (this.#host.remote !== undefined) {
      this.#sent.set(command, data);
      return Status.SUCCESS;
    }
    const status = this.#map(command, data.length, true);
    if (status === Status.SUCCESS) {
      sendToGuest(data, this.#segments);
    }
    return status;
  }

  /** A copy of the host's data, or a status. `length`: bytes, MDTS at most. To be called before the command changes anything. */
  receive(command: Command, length: number): Uint8Array | number {
    if (this.#host.remote !== undefined) {
      const received = this.#received.get(command);
      if (received?.length !== length) {
        throw new DataWanted(length);
      }
      return received;
    }
    const status = this.#map(command, length, false);
    return status === Status.SUCCESS ? receiveFromGuest(length, this.#segments) : status;
  }

  #map({ prp1, prp2 }: Command, length: number, toHost: boolean): number {
    if (prp1 > Number.MAX_SAFE_INTEGER || prp2 > Number.MAX_SAFE_INTEGER) {
      return Status.DATA_TRANSFER_ERROR;
    }
    return mapPrps(
      this.#host.memory,
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
