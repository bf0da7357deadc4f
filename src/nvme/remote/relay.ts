/**
 * Serves a host whose memory is reached by messages: takes its commands and their data into memory of ours, where the controller finds them as
 * it finds those of any host, and brings back completions and data. Neither the controller nor a reactor knows of it. Owned by main; made when
 * the host enables the controller, and stopped when it disables it.
 *
 *   host's SQ ──DMA_READ──▶ command ──DMA_READ: PRP lists, data──▶ our SQ ─▶ controller, reactor
 *   host's CQ ◀─DMA_WRITE── completion ◀──DMA_WRITE: data── our CQ ◀────────────┘
 *
 * A client answers when it likes, or never: each command waits for its own messages, and all that is kept is bounded.
 */
import { MAX_REMOTE_COMMANDS, MAX_REMOTE_FETCH, REMOTE_ADMIN_ENTRIES } from '../../limits.ts';
import { AdminOpcode } from '../../spec/admin.ts';
import { SQE_SIZE, Sqe, Status } from '../../spec/nvme.ts';
import { describeError } from '../../util/errors.ts';
import type { AdminPlace } from '../admin-pair.ts';
import type { CqRequest, SqRequest } from '../host.ts';
import { SQE_WORDS } from '../queue.ts';
import { type CommandData, RemoteCommand } from './command.ts';
import { ioDataOf } from './io-data.ts';
import type { RemoteMemory } from './memory.ts';
import { findPieces } from './prps.ts';
import { prepareQueueCommand, type QueueChanges } from './queue-commands.ts';
import { RemoteCq, RemoteSq, type StagedCompletion } from './queues.ts';
import { StagedPages, type Staging } from './staging.ts';

const PRP1 = Sqe.word('prp1');
const PRP2 = Sqe.word('prp2');
const TWO_32 = 0x1_0000_0000;
/** Errors of messages that say only that the memory is not there at the moment, or that the function may not reach it. */
const ABSENT = new Set(['EFAULT', 'ECANCELED', 'ENODEV', 'EPERM']);

/** What a relay needs of the place that it is in. */
export interface RelayParts {
  readonly memory: RemoteMemory;
  readonly staging: Staging;
  /** Doorbells as 32-bit words: the host's, and the controller's, which the relay rings. */
  readonly doorbells: Int32Array;
  readonly stagedDoorbells: Int32Array;
  /** A new queue of the host's begins at 0. */
  readonly clearDoorbell: (index: number) => void;
  /** Largest transfer of a command. Bytes. */
  readonly maxTransferBytes: number;
  /** Of a namespace; undefined if there is none of that id. */
  readonly blockSize: (nsid: number) => number | undefined;
  /** A doorbell of the controller's queue was written. */
  readonly ring: (qid: number) => void;
  /** Interrupts the host. */
  readonly signal: (vector: number) => void;
  readonly badDoorbell: () => void;
  /** The host cannot be served any more. `code`: what its VMM said. */
  readonly fail: (code: string) => void;
}

export class Relay implements QueueChanges {
  readonly staging: Staging;
  readonly memory: RemoteMemory;
  readonly sqs = new Map<number, RemoteSq>();
  readonly cqs = new Map<number, RemoteCq>();
  readonly #parts: RelayParts;
  readonly #pages = new StagedPages();
  /** I/O commands taken and not completed. */
  #commands = 0;
  /** The controller takes commands; the host has left. */
  #open = false;
  #stopped = false;
  #scheduled = false;
  /** The SQ that is the first to be looked at. */
  #first = 0;

  /** `place`: the host's admin queues. */
  constructor(parts: RelayParts, place: AdminPlace) {
    this.#parts = parts;
    this.staging = parts.staging;
    this.memory = parts.memory;
    this.staging.clear();
    this.addCq({ qid: 0, size: place.cqSize, iova: place.acq, interrupts: true, vector: 0 });
    this.addSq({ qid: 0, size: place.sqSize, iova: place.asq, cqid: 0 });
  }

  addCq(request: CqRequest): void {
    const { qid, size } = request;
    const { doorbells } = this.#parts;
    const staged = this.staging.cq(qid, stagedSize(qid, size));
    this.#parts.clearDoorbell(2 * qid + 1);
    this.cqs.set(qid, new RemoteCq({ ...request, doorbells, staged }));
  }

  addSq(request: SqRequest): void {
    const { qid, size, cqid } = request;
    const cq = this.cqs.get(cqid);
    if (cq !== undefined) {
      const { doorbells } = this.#parts;
      const staged = this.staging.sq(qid, stagedSize(qid, size));
      this.#parts.clearDoorbell(2 * qid);
      this.sqs.set(qid, new RemoteSq({ ...request, cq, doorbells, staged }));
    }
  }

  removeCq(qid: number): void {
    this.cqs.delete(qid);
    this.staging.clearCq(qid);
  }

  /** The controller takes commands from now on. */
  open(): void {
    this.#open = true;
    this.#fetchAll();
  }

  /** The host has left. Whatever is under way is forgotten; the controller drops its part of it by itself. */
  stop(): void {
    this.#stopped = true;
    this.memory.close();
    this.sqs.clear();
    this.cqs.clear();
  }

  /** The host has rung, or may have. */
  rung(): void {
    for (const sq of this.sqs.values()) {
      sq.stopped = false;
    }
    this.#schedule();
  }

  /** The host's memory came or went. */
  memoryChanged(): void {
    for (const cq of this.cqs.values()) {
      cq.stopped = false;
    }
    this.rung();
  }

  /** The controller may have completed something. */
  completed(): void {
    this.#schedule();
  }

  /** Vectors were connected or unmasked: interrupts the host once more for what it has not seen. */
  signalPending(): void {
    for (const { host } of this.cqs.values()) {
      if (host.interrupts && host.pending) {
        this.#parts.signal(host.vector);
      }
    }
  }

  /** What happened in this turn is looked at once, after whoever tells of it is done. */
  #schedule(): void {
    if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => {
        this.#scheduled = false;
        if (!this.#stopped) {
          this.#look();
        }
      });
    }
  }

  #look(): void {
    for (const cq of this.cqs.values()) {
      this.#takeCompletions(cq);
    }
    for (const cq of this.cqs.values()) {
      while (cq.late.length > 0 && cq.host.room(1) > 0) {
        this.#complete(cq.late.shift()!);
      }
      this.#send(cq);
    }
    this.#fetchAll();
  }

  // --- from the host ------------------------------------------------------------------------------------------------

  /** Another queue comes first each time. */
  #fetchAll(): void {
    if (this.#open && !this.#stopped) {
      const sqs = [...this.sqs.values()];
      this.#first = (this.#first + 1) % sqs.length;
      for (let i = 0; i < sqs.length; i++) {
        this.#fetch(sqs[(this.#first + i) % sqs.length]);
      }
    }
  }

  #fetch(sq: RemoteSq): void {
    const { host, cq } = sq;
    const tail = host.tail();
    const room = cq.host.room(MAX_REMOTE_FETCH);
    this.#reportDoorbells(sq);
    if (tail === host.head || sq.fetching || sq.stopped || sq.closing) {
      return;
    }
    const end = tail > host.head ? tail : host.size;
    const count = Math.min(
      end - host.head,
      MAX_REMOTE_FETCH,
      room,
      sq.limit - sq.commands.size,
      sq.qid === 0 ? MAX_REMOTE_FETCH : MAX_REMOTE_COMMANDS - this.#commands,
    );
    if (count <= 0) {
      return;
    }
    this.#hold(sq, count);
    sq.fetching = true;
    const entries = new Uint8Array(count * SQE_SIZE);
    this.memory.read(sq.iova + host.head * SQE_SIZE, entries).then(
      () => this.#fetched(sq, new Int32Array(entries.buffer)),
      (error: unknown) => {
        sq.fetching = false;
        this.#letGo(sq, count);
        sq.stopped = true;
        this.#unreachable(error);
      },
    );
  }

  /** Commands take entries of the CQ, and I/O commands a part of what may be under way. */
  #hold(sq: RemoteSq, count: number): void {
    for (let i = 0; i < count; i++) {
      sq.cq.host.reserve();
    }
    this.#commands += sq.qid === 0 ? 0 : count;
  }

  #letGo(sq: RemoteSq, count: number): void {
    for (let i = 0; i < count; i++) {
      sq.cq.host.unreserve();
    }
    this.#commands -= sq.qid === 0 ? 0 : count;
  }

  #fetched(sq: RemoteSq, entries: Int32Array): void {
    sq.fetching = false;
    const count = entries.length / SQE_WORDS;
    if (this.#stopped || sq.closing) {
      this.#letGo(sq, count);
      sq.deletion?.();
      return;
    }
    const { host } = sq;
    for (let i = 0; i < count; i++) {
      host.head = (host.head + 1) % host.size;
      const command = new RemoteCommand(sq, entries.slice(i * SQE_WORDS, (i + 1) * SQE_WORDS));
      if (sq.commands.has(command.cid)) {
        command.status = Status.COMMAND_ID_CONFLICT;
        command.ready = true;
      } else {
        sq.commands.set(command.cid, command);
      }
      sq.order.push(command);
      if (!command.ready) {
        void this.#prepare(command);
      }
    }
    this.#give(sq);
    this.#fetch(sq);
  }

  /** Has what the command needs of the host's memory brought here. */
  async #prepare(command: RemoteCommand): Promise<void> {
    try {
      command.status =
        command.sq.qid === 0 ? prepareQueueCommand(command, this) : await this.#prepareIo(command);
    } catch {
      command.status = Status.DATA_TRANSFER_ERROR;
    }
    command.ready = true;
    if (!this.#stopped) {
      this.#give(command.sq);
    }
  }

  /** A status. The command's PRPs are those of our pages then. */
  async #prepareIo(command: RemoteCommand): Promise<number> {
    const { values } = command;
    const { maxTransferBytes, blockSize } = this.#parts;
    const wanted = ioDataOf(values, blockSize(values.nsid));
    command.words.fill(0, PRP1, PRP2 + 2);
    if (wanted === undefined || wanted.length > maxTransferBytes) {
      return Status.SUCCESS;
    }
    const { length, toHost } = wanted;
    // In the order of the queue: whoever has pages is never behind one that waits for some.
    const page = await this.#pages.take(length);
    const data: CommandData = { pieces: [], page, length, toHost };
    command.data = data;
    const pieces = await findPieces(this.memory, values.prp1, values.prp2, length, toHost);
    if (typeof pieces === 'number') {
      return pieces;
    }
    command.data = { ...data, pieces };
    if (!toHost) {
      await this.memory.readPieces(pieces, this.staging.data(page, length));
    }
    const { prp1, prp2 } = this.staging.prps(page, length);
    putAddress(command.words, PRP1, prp1);
    putAddress(command.words, PRP2, prp2);
    return Status.SUCCESS;
  }

  /** Gives the controller what is ready, in the order that the host gave it. */
  #give(sq: RemoteSq): void {
    let given = false;
    while (sq.order.length > 0 && sq.order[0].ready) {
      const command = sq.order.shift()!;
      if (command.status === Status.SUCCESS && sq.closing) {
        command.status = Status.ABORTED_SQ_DELETION;
      }
      if (command.status !== Status.SUCCESS) {
        this.#end(command);
        continue;
      }
      if (sq.qid === 0 && command.opcode === AdminOpcode.ASYNC_EVENT_REQUEST) {
        command.reserved = false;
        sq.cq.host.unreserve();
      }
      command.given = true;
      sq.push(command.words);
      given = true;
    }
    if (given) {
      Atomics.store(this.#parts.stagedDoorbells, 2 * sq.qid, sq.tail);
      this.#parts.ring(sq.qid);
    }
  }

  // --- from the controller ------------------------------------------------------------------------------------------

  #takeCompletions(cq: RemoteCq): void {
    let taken = false;
    for (let done = cq.take(); done !== undefined; done = cq.take()) {
      taken = true;
      this.#carriedOut(done);
    }
    if (taken) {
      Atomics.store(this.#parts.stagedDoorbells, 2 * cq.qid + 1, cq.head);
      if (cq.qid === 0) {
        this.#parts.ring(0);
      }
    }
  }

  #carriedOut({ sqid, cid, status, dw0 }: StagedCompletion): void {
    const command = this.sqs.get(sqid)?.commands.get(cid);
    if (command === undefined || !command.given || command.over) {
      return;
    }
    command.over = true;
    command.status = status;
    command.dw0 = dw0;
    const { data } = command;
    if (data === undefined || !data.toHost || status !== Status.SUCCESS) {
      this.#end(command);
      return;
    }
    this.memory
      .writePieces(data.pieces, this.staging.data(data.page, data.length))
      .catch(() => {
        command.status = Status.DATA_TRANSFER_ERROR;
      })
      .then(() => this.#end(command));
  }

  /** A command is over, and its data where it belongs. */
  #end(command: RemoteCommand): void {
    if (this.#stopped) {
      return;
    }
    const { data } = command;
    if (data !== undefined) {
      this.#pages.give(data.page, data.length);
      command.data = undefined;
    }
    const { after } = command;
    command.after = undefined;
    if (after?.(command.status, () => this.#complete(command)) ?? true) {
      this.#complete(command);
    }
  }

  #complete(command: RemoteCommand): void {
    const { sq, cid, status, dw0 } = command;
    const { host, late } = sq.cq;
    if (this.#stopped) {
      return;
    }
    if (command.reserved) {
      this.#letGo(sq, 1);
    } else if (host.room(1) < 1) {
      late.push(command);
      return;
    }
    if (sq.commands.get(cid) === command) {
      sq.commands.delete(cid);
    }
    host.stage(dw0, sq.qid, sq.host.head, cid, status);
    sq.deletion?.();
    this.#schedule();
  }

  /** Sends the host what is to be in its CQ, and interrupts it when it is there. */
  #send(cq: RemoteCq): void {
    const batch = cq.sending || cq.stopped ? undefined : cq.next();
    if (batch === undefined) {
      return;
    }
    cq.sending = true;
    const { iova, entries, lastIova, last } = batch;
    // A client carries messages out in the order that they come.
    const writes = [this.memory.write(iova, entries), this.memory.write(lastIova, last)];
    void Promise.allSettled(writes).then((results) => {
      cq.sending = false;
      const failed = results.find(({ status }) => status === 'rejected');
      if (failed !== undefined) {
        cq.stopped = true;
        this.#unreachable((failed as PromiseRejectedResult).reason);
      } else if (!this.#stopped) {
        cq.sent(batch);
        if (cq.host.interrupts) {
          this.#parts.signal(cq.host.vector);
        }
        this.#schedule();
      }
    });
  }

  // --- trouble ------------------------------------------------------------------------------------------------------

  /** A queue's memory cannot be reached: it rests until the host's memory changes, or it rings; or all ends. */
  #unreachable(error: unknown): void {
    const code = (error as { readonly code?: unknown } | null)?.code;
    if (!this.#stopped && !ABSENT.has(String(code))) {
      this.#parts.fail(typeof code === 'string' ? code : describeError(error));
    }
  }

  /** Once a queue. */
  #reportDoorbells({ host, cq }: RemoteSq): void {
    const news = (host.badTail && !host.reportedTail) || (cq.host.badHead && !cq.host.reportedHead);
    host.reportedTail ||= host.badTail;
    cq.host.reportedHead ||= cq.host.badHead;
    host.badTail = false;
    cq.host.badHead = false;
    if (news) {
      this.#parts.badDoorbell();
    }
  }
}

/** Entries of the controller's queue: the admin queues' are as many as the relay needs. */
function stagedSize(qid: number, size: number): number {
  return qid === 0 ? REMOTE_ADMIN_ENTRIES : size;
}

function putAddress(words: Int32Array, at: number, address: number): void {
  words[at] = address;
  words[at + 1] = address / TWO_32;
}
