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
import { MAX_REMOTE_COMMANDS, MAX_REMOTE_FETCH } from '../../limits.ts';
import { AdminOpcode } from '../../spec/admin.ts';
import { SQE_SIZE, Status } from '../../spec/nvme.ts';
import { describeError } from '../../util/errors.ts';
import type { AdminPlace } from '../admin-pair.ts';
import { SQE_WORDS } from '../queue.ts';
import { RemoteCommand } from './command.ts';
import { IoTransfers, type IoTransfersParts } from './io-transfers.ts';
import type { RemoteMemory } from './memory.ts';
import { prepareQueueCommand } from './queue-commands.ts';
import { QueueSet, type QueueSetParts } from './queue-set.ts';
import type { RemoteCq, RemoteSq, StagedCompletion } from './queues.ts';

/** Errors of messages that say only that the memory is not there at the moment, or that the function may not reach it. */
const ABSENT = new Set(['EFAULT', 'ECANCELED', 'ENODEV', 'EPERM']);

/** What a relay needs of the place that it is in. */
export interface RelayParts extends IoTransfersParts, QueueSetParts {
  /** The doorbells of the controller's queues, which the relay rings. */
  readonly stagedDoorbells: Int32Array;
  /** A doorbell of the controller's queue was written. */
  readonly ring: (qid: number) => void;
  /** Interrupts the host. */
  readonly signal: (vector: number) => void;
  readonly badDoorbell: () => void;
  /** The host cannot be served any more. `code`: what its VMM said. */
  readonly fail: (code: string) => void;
}

export class Relay {
  readonly memory: RemoteMemory;
  readonly #parts: RelayParts;
  readonly #queues: QueueSet;
  readonly #transfers: IoTransfers;
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
    this.memory = parts.memory;
    this.#transfers = new IoTransfers(parts);
    this.#queues = new QueueSet(parts);
    const { asq, acq, sqSize, cqSize } = place;
    this.#queues.addCq({ qid: 0, size: cqSize, iova: acq, interrupts: true, vector: 0 });
    this.#queues.addSq({ qid: 0, size: sqSize, iova: asq, cqid: 0 });
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
    this.#queues.clear();
  }

  /** The host has rung, or may have. */
  rung(): void {
    for (const sq of this.#queues.sqs.values()) {
      sq.stopped = false;
    }
    this.#schedule();
  }

  /** The host's memory came or went. */
  memoryChanged(): void {
    for (const cq of this.#queues.cqs.values()) {
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
    for (const { host } of this.#queues.cqs.values()) {
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
    for (const cq of this.#queues.cqs.values()) {
      this.#takeCompletions(cq);
    }
    for (const cq of this.#queues.cqs.values()) {
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
      const sqs = [...this.#queues.sqs.values()];
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
        command.sq.qid === 0
          ? prepareQueueCommand(command, this.memory, this.#parts.staging, this.#queues)
          : await this.#transfers.prepare(command);
    } catch {
      command.status = Status.DATA_TRANSFER_ERROR;
    }
    command.ready = true;
    if (!this.#stopped) {
      this.#give(command.sq);
    }
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
    const command = this.#queues.sqs.get(sqid)?.commands.get(cid);
    if (command === undefined || !command.given || command.over) {
      return;
    }
    command.over = true;
    command.status = status;
    command.dw0 = dw0;
    const delivery = this.#transfers.deliver(command);
    if (delivery === undefined) {
      this.#end(command);
      return;
    }
    delivery
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
    this.#transfers.release(command);
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
