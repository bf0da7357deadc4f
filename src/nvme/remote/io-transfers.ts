/**
 * The data of I/O commands between a host whose memory is reached by messages and pages of ours, which the command's PRPs name when the controller
 * gets it. Owned by main.
 */
import { Cdw0, Sqe, Status } from '../../spec/nvme.ts';
import type { CommandData, RemoteCommand } from './command.ts';
import { ioDataOf } from './io-data.ts';
import type { RemoteMemory } from './memory.ts';
import { findPieces } from './prps.ts';
import { findSglPieces } from './sgls.ts';
import { StagedPages, type Staging } from './staging.ts';

const CDW0 = Sqe.word('cdw0');
const PSDT = Cdw0.mask.psdt;
const PRP1 = Sqe.word('prp1');
const PRP2 = Sqe.word('prp2');
const TWO_32 = 0x1_0000_0000;

export interface IoTransfersParts {
  readonly memory: RemoteMemory;
  readonly staging: Staging;
  /** Largest transfer of a command. Bytes. */
  readonly maxTransferBytes: number;
  /** Of a namespace; undefined if there is none of that id. */
  readonly blockSize: (nsid: number) => number | undefined;
}

export class IoTransfers {
  readonly #parts: IoTransfersParts;
  readonly #pages = new StagedPages();

  constructor(parts: IoTransfersParts) {
    this.#parts = parts;
  }

  /** Brings here what the controller needs of the host's memory. Resolves with a status; rejects as the messages do. */
  async prepare(command: RemoteCommand): Promise<number> {
    const { memory, staging, maxTransferBytes, blockSize } = this.#parts;
    const { values } = command;
    const wanted = ioDataOf(values, blockSize(values.nsid));
    const entry = command.words.slice();
    command.words.fill(0, PRP1, PRP2 + 2);
    if (wanted === undefined || wanted.length > maxTransferBytes) {
      return Status.SUCCESS;
    }
    const { length, toHost } = wanted;
    // In the order of the queue: whoever has pages is never behind one that waits for some.
    const page = await this.#pages.take(length);
    const data: CommandData = { pieces: [], page, length, toHost };
    command.data = data;
    const pieces =
      (entry[CDW0] & PSDT) === 0
        ? await findPieces(memory, values.prp1, values.prp2, length, toHost)
        : await findSglPieces(memory, entry, length, toHost);
    if (typeof pieces === 'number') {
      return pieces;
    }
    command.data = { ...data, pieces };
    if (!toHost) {
      await memory.readPieces(pieces, staging.data(page, length));
    }
    const { prp1, prp2 } = staging.prps(page, length);
    putAddress(command.words, PRP1, prp1);
    putAddress(command.words, PRP2, prp2);
    command.words[CDW0] &= ~PSDT;
    return Status.SUCCESS;
  }

  /** Takes what the controller has given to the host: a promise if there is something. Rejects as the messages do. */
  deliver({ data, status }: RemoteCommand): Promise<void> | undefined {
    if (data === undefined || !data.toHost || status !== Status.SUCCESS) {
      return undefined;
    }
    const { memory, staging } = this.#parts;
    return memory.writePieces(data.pieces, staging.data(data.page, data.length));
  }

  /** The command needs its pages no more. */
  release(command: RemoteCommand): void {
    const { data } = command;
    if (data !== undefined) {
      command.data = undefined;
      this.#pages.give(data.page, data.length);
    }
  }
}

function putAddress(words: Int32Array, at: number, address: number): void {
  words[at] = address;
  words[at + 1] = address / TWO_32;
}
