/**
 * Queues of a host whose memory is reached by messages, and those of ours that stand for them before the controller: of each queue the host
 * has one, and the controller has one of the same id and size. Owned by main.
 *
 * What is taken, and when there is room, is decided as for any queue (`nvme/queue.ts`): the host's CQ is written here first, and sent then.
 */
import { MAX_REMOTE_ADMIN_COMMANDS } from '../../limits.ts';
import { CQE_SIZE, Cqe, CqeDword3 } from '../../spec/nvme.ts';
import { CompletionQueue, SQE_WORDS, SubmissionQueue } from '../queue.ts';
import type { RemoteCommand } from './command.ts';
import type { StagedQueue } from './staging.ts';

const CQE_WORDS = CQE_SIZE / 4;
const DW0 = Cqe.word('dw0');
const SQID_SQHD = Cqe.word('sqhd');
const DW3 = Cqe.word('cid');
const { p: PHASE } = CqeDword3.mask;
const NOTHING = new Int32Array(0);

/** A completion of the controller's. */
export interface StagedCompletion {
  readonly sqid: number;
  readonly cid: number;
  readonly status: number;
  readonly dw0: number;
}

/** Completions on their way to the host: all of them, the first with the phase tag that it still has there, and then its last dword. */
export interface CompletionBatch {
  readonly entries: Uint8Array;
  readonly iova: number;
  readonly last: Uint8Array;
  readonly lastIova: number;
  readonly count: number;
}

export interface RemoteCqOptions {
  readonly qid: number;
  /** Entries. */
  readonly size: number;
  /** Of the host's queue. */
  readonly iova: number;
  readonly interrupts: boolean;
  readonly vector: number;
  /** The host's doorbells. */
  readonly doorbells: Int32Array;
  /** The controller's queue. */
  readonly staged: StagedQueue;
}

export class RemoteCq {
  readonly qid: number;
  /** The host's queue: what is in it by now, or soon will be. */
  readonly host: CompletionQueue;
  /** Commands that hold no entry, and found none free when they were over. */
  readonly late: RemoteCommand[] = [];
  readonly #iova: number;
  readonly #copy: Int32Array;
  /** The next entry to send. */
  #sent = 0;
  readonly #staged: Int32Array;
  /** Entries of the controller's queue. */
  readonly #stagedSize: number;
  #head = 0;
  #phase = 1;
  /** A message with completions is under way; none can be sent until the host's memory is there again. */
  sending = false;
  stopped = false;

  constructor({ qid, size, iova, interrupts, vector, doorbells, staged }: RemoteCqOptions) {
    this.qid = qid;
    this.#iova = iova;
    this.#copy = new Int32Array(size * CQE_WORDS);
    this.host = new CompletionQueue(qid, size, this.#copy, doorbells, interrupts, vector);
    this.#staged = staged.words;
    this.#stagedSize = staged.words.length / CQE_WORDS;
  }

  /** The controller's next completion, if there is one. */
  take(): StagedCompletion | undefined {
    const words = this.#staged;
    const at = this.#head * CQE_WORDS;
    const { p, cid, status } = CqeDword3.decode(Atomics.load(words, at + DW3));
    if (Number(p) !== this.#phase) {
      return undefined;
    }
    this.#head += 1;
    if (this.#head === this.#stagedSize) {
      this.#head = 0;
      this.#phase ^= 1;
    }
    return { sqid: words[at + SQID_SQHD] >>> 16, cid, status, dw0: words[at + DW0] };
  }

  /** What the controller is to find at its head doorbell. */
  get head(): number {
    return this.#head;
  }

  /** What is to be sent next: neighbours in the host's memory. */
  next(): CompletionBatch | undefined {
    if (this.host.hasStaged) {
      this.host.publish();
    }
    const { tail } = this.host.progress;
    if (tail === this.#sent) {
      return undefined;
    }
    const count = (tail > this.#sent ? tail : this.host.size) - this.#sent;
    const from = this.#sent * CQE_WORDS;
    const words = this.#copy.slice(from, from + count * CQE_WORDS);
    const last = words.slice(DW3, DW3 + 1);
    words[DW3] ^= PHASE;
    const iova = this.#iova + from * 4;
    return {
      entries: new Uint8Array(words.buffer),
      iova,
      last: new Uint8Array(last.buffer),
      lastIova: iova + DW3 * 4,
      count,
    };
  }

  /** The host has these. */
  sent({ count }: CompletionBatch): void {
    this.#sent = (this.#sent + count) % this.host.size;
  }
}

export interface RemoteSqOptions {
  readonly qid: number;
  /** Entries. */
  readonly size: number;
  /** Of the host's queue. */
  readonly iova: number;
  readonly cq: RemoteCq;
  readonly doorbells: Int32Array;
  readonly staged: StagedQueue;
}

export class RemoteSq {
  readonly qid: number;
  readonly iova: number;
  readonly cq: RemoteCq;
  readonly host: SubmissionQueue;
  /** Commands taken and not completed, by their id. */
  readonly commands = new Map<number, RemoteCommand>();
  /** Commands that were taken, and that the controller does not have yet: it gets them in the order that the host gave them. */
  readonly order: RemoteCommand[] = [];
  /**
   * Commands that may be under way. The controller's queue never has more than it has entries for, though nobody tells when an entry is free
   * but completions.
   */
  readonly limit: number;
  readonly #staged: Int32Array;
  readonly #size: number;
  #tail = 0;
  /** Entries are being fetched; the memory was not there; the queue is about to go. */
  fetching = false;
  stopped = false;
  closing = false;
  /** Told when one of its commands is over: the command that deletes it waits for the last. */
  deletion: (() => void) | undefined;

  constructor({ qid, size, iova, cq, doorbells, staged }: RemoteSqOptions) {
    this.qid = qid;
    this.iova = iova;
    this.cq = cq;
    this.host = new SubmissionQueue(qid, size, NOTHING, doorbells, cq.host);
    this.#staged = staged.words;
    this.#size = staged.words.length / SQE_WORDS;
    this.limit = qid === 0 ? MAX_REMOTE_ADMIN_COMMANDS : size - 1;
  }

  /** Gives the controller a command. It looks when it is rung with `tail`. */
  push(words: Int32Array): void {
    this.#staged.set(words, this.#tail * SQE_WORDS);
    this.#tail = (this.#tail + 1) % this.#size;
  }

  get tail(): number {
    return this.#tail;
  }
}
