/** A command of a host whose memory is reached by messages, on its way to the controller and back. Owned by main. */

import type { SqeValues } from '../../spec/command.ts';
import { Cdw0, Sqe, Status } from '../../spec/nvme.ts';
import type { Piece } from './memory.ts';
import type { RemoteSq } from './queues.ts';

/** Its data: pieces of the host's memory, and pages of ours. */
export interface CommandData {
  readonly pieces: readonly Piece[];
  readonly page: number;
  readonly length: number;
  /** The device writes to the host. */
  readonly toHost: boolean;
}

export class RemoteCommand {
  readonly sq: RemoteSq;
  readonly cid: number;
  /** A copy of the host's entry; as it is when the controller gets it. */
  readonly words: Int32Array;
  data: CommandData | undefined;
  /** What it ends with, if the controller does not get it at all; and in the end. */
  status: number = Status.SUCCESS;
  dw0 = 0;
  /** The controller may have it; it has it; it has completed it. */
  ready = false;
  given = false;
  over = false;
  /** It holds an entry of the host's CQ: all but an Asynchronous Event Request that waits. */
  reserved = true;
  /**
   * What follows when it is over, before the host learns of it. False: it is not to be completed yet, but by `resume`.
   */
  after: ((status: number, resume: () => void) => boolean) | undefined;

  constructor(sq: RemoteSq, words: Int32Array) {
    this.sq = sq;
    this.words = words;
    this.cid = Cdw0.decode(words[0]).cid;
  }

  get opcode(): number {
    return Cdw0.decode(this.words[0]).opcode;
  }

  get values(): SqeValues {
    return Sqe.read(new DataView(this.words.buffer, this.words.byteOffset, this.words.byteLength));
  }
}
