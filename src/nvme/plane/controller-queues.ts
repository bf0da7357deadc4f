/**
 * The I/O queues of a controller, as far as one reactor has them: where they lie in guest memory, where their doorbells are, and how they
 * come from another reactor and go to one. Owned by the reactor. Whatever takes something away is called when nothing of it is in flight.
 */
import type { GuestRegion, QueueMemory } from '../../memory/guest.ts';
import type { System } from '../../native/system.ts';
import { CQE_SIZE, SQE_SIZE, Status } from '../../spec/nvme.ts';
import { type Coalescing, NO_COALESCING } from '../features/coalescing.ts';
import { CompletionQueue, NO_EVENT_INDEXES, SubmissionQueue } from '../queue.ts';
import { ShadowDoorbells, type ShadowPages } from '../shadow.ts';
import { type CqDescriptor, QUEUE_WORDS, QueueWord, type SqDescriptor } from './messages.ts';
import { type CommandEngine, type IoController, IoQueue } from './view.ts';

/** A queue's place in guest memory. */
interface Placement {
  readonly iova: number;
  readonly bytes: number;
  readonly writable: boolean;
  /** An extra mapping over several regions, or undefined. */
  alias: Uint8Array | undefined;
  /** Part of the memory is unmapped: the queue rests until it is back. */
  suspended: boolean;
}

/** In place of memory that is unmapped. */
const NO_MEMORY = new Int32Array(0);

/** Bytes from an IOVA on. */
interface IovaRange {
  readonly iova: number;
  readonly size: number;
}

export class ControllerQueues {
  readonly #controller: IoController;
  readonly #system: System;
  readonly #engine: CommandEngine;
  readonly #doorbells: Int32Array;
  /** See QueueWord. */
  readonly #progress: Int32Array;
  readonly #cqs = new Map<number, { cq: CompletionQueue; placement: Placement }>();
  readonly #sqs = new Map<number, { queue: IoQueue; placement: Placement }>();
  /** CQs that go to another reactor when their commands have ended; and the ids of the requests to be answered then. */
  readonly #leaving = new Map<number, number>();
  #shadow: ShadowDoorbells | undefined;
  #coalescing = NO_COALESCING;
  /** All queues are about to go: none is made until they have. */
  #ends = false;

  constructor(
    controller: IoController,
    system: System,
    engine: CommandEngine,
    doorbells: Int32Array,
    shadow: ShadowPages | undefined,
    progress: Int32Array,
  ) {
    this.#controller = controller;
    this.#system = system;
    this.#engine = engine;
    this.#doorbells = doorbells;
    this.#shadow = shadow && new ShadowDoorbells(shadow, controller.memory);
    this.#progress = progress;
  }

  /** There are submission queues. */
  get used(): boolean {
    return this.#sqs.size > 0;
  }

  /** The host rings only when it is asked to. */
  get shadowed(): boolean {
    return this.#shadow !== undefined;
  }

  /** The submission queues of which commands are to be taken. */
  polled(): IoQueue[] {
    return [...this.#sqs.values()]
      .map(({ queue }) => queue)
      .filter(({ closing, sq }) => !closing && !this.#leaving.has(sq.cq.qid));
  }

  /** The submission queue of this id, if it is here. */
  find(qid: number): IoQueue | undefined {
    return this.#sqs.get(qid)?.queue;
  }

  /** The queue of this id takes no more commands: it is about to go. */
  close(qid: number): IoQueue | undefined {
    const queue = this.#sqs.get(qid)?.queue;
    if (queue !== undefined) {
      queue.closing = true;
    }
    return queue;
  }

  /** No command that is in flight is to be completed to the host, and none is taken. */
  discard(): void {
    this.#ends = true;
    for (const { queue } of this.#sqs.values()) {
      queue.closing = true;
      queue.sq.discarded = true;
    }
  }

  /** Writes down how far every queue is, with no commands in flight. */
  report(): void {
    for (const { cq } of this.#cqs.values()) {
      this.#reportCq(cq);
    }
    for (const { queue } of this.#sqs.values()) {
      this.#reportSq(queue.sq);
    }
  }

  /** Adds a command in flight to what was written down. */
  reportInflight({ qid }: SubmissionQueue): void {
    this.#progress[qid * QUEUE_WORDS + QueueWord.INFLIGHT] += 1;
  }

  #reportCq(cq: CompletionQueue): void {
    const { head, tail, phase } = cq.progress;
    const row = cq.qid * QUEUE_WORDS;
    this.#progress[row + QueueWord.CQ_HEAD] = head;
    this.#progress[row + QueueWord.CQ_TAIL] = tail;
    this.#progress[row + QueueWord.PHASE] = phase;
  }

  #reportSq(sq: SubmissionQueue): void {
    const row = sq.qid * QUEUE_WORDS;
    this.#progress[row + QueueWord.SQ_HEAD] = sq.head;
    this.#progress[row + QueueWord.SQ_TAIL] = sq.tail();
    this.#progress[row + QueueWord.INFLIGHT] = 0;
    this.#progress[row + QueueWord.STOPPED] = Number(sq.stopped);
  }

  /** Whether the completions of a queue go to this memory. */
  completesIn({ sq }: IoQueue, range: IovaRange): boolean {
    const found = this.#cqs.get(sq.cq.qid);
    return found !== undefined && overlaps(found.placement, range);
  }

  // --- queues come and go -------------------------------------------------------------------------------------------

  /** A status. */
  createCq(descriptor: CqDescriptor): number {
    const { qid, size, iova } = descriptor;
    const memory = this.#controller.memory.queueMemory(iova, size * CQE_SIZE, true);
    if (this.#ends) {
      return Status.ABORTED_BY_REQUEST;
    }
    if (memory === undefined) {
      return Status.DATA_TRANSFER_ERROR;
    }
    this.#clearDoorbell(2 * qid + 1);
    this.#addCq(descriptor, memory);
    return Status.SUCCESS;
  }

  /** The same. */
  createSq(descriptor: SqDescriptor): number {
    const { qid, size, iova, cqid } = descriptor;
    const cq = this.#cqs.get(cqid)?.cq;
    const memory = this.#controller.memory.queueMemory(iova, size * SQE_SIZE, false);
    if (this.#ends) {
      return Status.ABORTED_BY_REQUEST;
    }
    if (cq === undefined || memory === undefined) {
      return cq === undefined ? Status.COMPLETION_QUEUE_INVALID : Status.DATA_TRANSFER_ERROR;
    }
    this.#clearDoorbell(2 * qid);
    const sq = this.#addSq(descriptor, cq, memory);
    this.#placeDoorbells();
    sq.hushNow();
    return Status.SUCCESS;
  }

  /** `memory`: undefined if it is unmapped, and the queue rests until it is back. */
  #addCq(
    { qid, size, iova, interrupts, vector, eventfd, adaptive }: CqDescriptor,
    memory: QueueMemory | undefined,
  ): CompletionQueue {
    const words = memory?.words ?? NO_MEMORY;
    const cq = new CompletionQueue(qid, size, words, this.#doorbells, interrupts, vector);
    cq.eventfd = eventfd;
    cq.adaptive = adaptive;
    cq.doorbells = this.#shadow?.words?.doorbells ?? this.#doorbells;
    this.#coalesce(cq);
    this.#cqs.set(qid, { cq, placement: place(iova, size * CQE_SIZE, true, memory) });
    return cq;
  }

  /** The same. */
  #addSq(
    { qid, size, iova, generation }: SqDescriptor,
    cq: CompletionQueue,
    memory: QueueMemory | undefined,
  ): SubmissionQueue {
    const words = memory?.words ?? NO_MEMORY;
    const sq = new SubmissionQueue(qid, size, words, this.#doorbells, cq, generation);
    const placement = place(iova, size * SQE_SIZE, false, memory);
    const queue = new IoQueue(sq, this.#controller, this.#engine);
    this.#sqs.set(qid, { queue, placement });
    return sq;
  }

  deleteCq(qid: number): void {
    this.#cqs.get(qid)?.cq.close();
    this.#release(this.#cqs.get(qid)?.placement);
    this.#cqs.delete(qid);
  }

  deleteSq(qid: number): void {
    this.#release(this.#sqs.get(qid)?.placement);
    this.#sqs.delete(qid);
  }

  /** Drops all queues, and the shadow of their doorbells. Returns the ids of `leave` of those that were about to leave. */
  reset(): number[] {
    this.#ends = false;
    const leaving = [...this.#leaving.values()];
    this.#leaving.clear();
    for (const qid of this.#sqs.keys()) {
      this.deleteSq(qid);
    }
    for (const qid of this.#cqs.keys()) {
      this.deleteCq(qid);
    }
    this.#shadow = undefined;
    return leaving;
  }

  // --- queues move from reactor to reactor --------------------------------------------------------------------------

  /** No command is taken from the SQs of a CQ any more. `id` is `handOver`'s to return. False if there is no such CQ. */
  leave(cqid: number, id: number): boolean {
    if (!this.#cqs.has(cqid) || this.#leaving.has(cqid)) {
      return false;
    }
    this.#leaving.set(cqid, id);
    return true;
  }

  /** Commands are taken again. Returns the id of `leave`, or undefined if the CQ is not leaving. */
  stay(cqid: number): number | undefined {
    const id = this.#leaving.get(cqid);
    this.#leaving.delete(cqid);
    return id;
  }

  /** Some CQ cannot leave yet. */
  get leaving(): boolean {
    return this.#leaving.size > 0;
  }

  /**
   * Lets CQs go of which nothing is in flight any more. Returns the ids of their `leave`. An interrupt that was held back is the other
   * reactor's to make up for.
   */
  handOver(): number[] {
    const ids: number[] = [];
    for (const [cqid, id] of this.#leaving) {
      const { cq } = this.#cqs.get(cqid)!;
      if (cq.idle) {
        for (const { sq } of [...this.#sqs.values()].map(({ queue }) => queue)) {
          if (sq.cq === cq) {
            this.#reportSq(sq);
            this.deleteSq(sq.qid);
          }
        }
        this.#reportCq(cq);
        this.deleteCq(cqid);
        this.#leaving.delete(cqid);
        ids.push(id);
      }
    }
    return ids;
  }

  /**
   * A CQ and its SQs that another reactor let go. The next poll finds what the host submitted meanwhile. Nothing tells whether the host was
   * interrupted for all that it has not seen (its vector may have changed on the way), so it is once more.
   * A status.
   */
  adopt(cqDescriptor: CqDescriptor, sqDescriptors: readonly SqDescriptor[]): number {
    if (this.#ends) {
      return Status.ABORTED_BY_REQUEST;
    }
    const { memory } = this.#controller;
    const progress = this.#progress;
    const { qid, size, iova, eventfd } = cqDescriptor;
    const cq = this.#addCq(cqDescriptor, memory.queueMemory(iova, size * CQE_SIZE, true));
    const row = qid * QUEUE_WORDS;
    cq.resume(progress[row + QueueWord.CQ_TAIL], progress[row + QueueWord.PHASE]);
    const sqs = sqDescriptors.map((descriptor) => {
      const { iova, size } = descriptor;
      const sq = this.#addSq(descriptor, cq, memory.queueMemory(iova, size * SQE_SIZE, false));
      sq.head = progress[sq.qid * QUEUE_WORDS + QueueWord.SQ_HEAD];
      return sq;
    });
    this.#placeDoorbells();
    for (const sq of sqs) {
      sq.hushNow();
    }
    this.#connect(cq, eventfd);
    return Status.SUCCESS;
  }

  // --- interrupts, doorbells, memory --------------------------------------------------------------------------------

  /** `fds`: eventfd by vector, or -1. */
  connect(fds: readonly number[]): void {
    for (const { cq } of this.#cqs.values()) {
      this.#connect(cq, fds[cq.vector] ?? -1);
    }
  }

  /** When the host is interrupted, from now on. */
  coalesce(coalescing: Coalescing): void {
    this.#coalescing = coalescing;
    for (const { cq } of this.#cqs.values()) {
      this.#coalesce(cq);
    }
  }

  #coalesce(cq: CompletionQueue): void {
    const { threshold, ns, except } = this.#coalescing;
    cq.coalescedNs = except.includes(cq.vector) ? 0 : ns;
    cq.threshold = threshold;
  }

  /** The host writes its doorbells there, too. */
  setShadow(pages: ShadowPages): void {
    this.#shadow = new ShadowDoorbells(pages, this.#controller.memory);
    this.#copyDoorbells();
    this.#placeDoorbells();
  }

  /** A new queue begins at 0. */
  #clearDoorbell(index: number): void {
    Atomics.store(this.#doorbells, index, 0);
    const shadow = this.#shadow?.words;
    if (shadow !== undefined) {
      Atomics.store(shadow.doorbells, index, 0);
      Atomics.store(shadow.eventIdx, index, 0);
    }
  }

  /** The shadow of a queue that is there already begins with what the host rang. */
  #copyDoorbells(): void {
    const shadow = this.#shadow?.words?.doorbells;
    if (shadow !== undefined) {
      const qids = [
        ...[...this.#sqs.keys()].map((q) => 2 * q),
        ...[...this.#cqs.keys()].map((q) => 2 * q + 1),
      ];
      for (const index of qids) {
        Atomics.store(shadow, index, Atomics.load(this.#doorbells, index));
      }
    }
  }

  /** Tells the queues where their doorbells are, and stops those that miss some of their memory. */
  #placeDoorbells(): void {
    const shadow = this.#shadow;
    const lost = shadow !== undefined && shadow.words === undefined;
    for (const { cq } of this.#cqs.values()) {
      cq.doorbells = shadow?.words?.doorbells ?? this.#doorbells;
    }
    for (const { queue, placement } of this.#sqs.values()) {
      const { sq } = queue;
      sq.doorbells = shadow?.words?.doorbells ?? this.#doorbells;
      sq.eventIdx = shadow?.words?.eventIdx ?? NO_EVENT_INDEXES;
      sq.stopped = lost || placement.suspended || this.#cqs.get(sq.cq.qid)!.placement.suspended;
    }
  }

  /**
   * The memory of this range is about to go, and is out of the table already: queues that lie in it take no more commands until their memory
   * is mapped again. Commands in flight still complete.
   */
  suspend(range: IovaRange): void {
    const placements = [...this.#cqs.values(), ...this.#sqs.values()];
    for (const { placement } of placements) {
      placement.suspended ||= overlaps(placement, range);
    }
    this.#shadow?.find(this.#controller.memory);
    this.#placeDoorbells();
  }

  /** Nothing uses the memory of suspended queues any more when this returns. */
  letGo(range: IovaRange): void {
    for (const { cq, placement } of this.#cqs.values()) {
      if (overlaps(placement, range)) {
        this.#release(placement);
        cq.memory = NO_MEMORY;
      }
    }
    for (const { queue, placement } of this.#sqs.values()) {
      if (overlaps(placement, range)) {
        this.#release(placement);
        queue.sq.words = NO_MEMORY;
      }
    }
  }

  /** Queues that rested for the regions go on. */
  map(regions: readonly GuestRegion[]): void {
    const { memory } = this.#controller;
    for (const region of regions) {
      memory.add(region);
    }
    const find = (placement: Placement): Int32Array => {
      const { iova, bytes, writable } = placement;
      const found = memory.queueMemory(iova, bytes, writable);
      placement.suspended = found === undefined;
      placement.alias = found?.alias;
      return found?.words ?? NO_MEMORY;
    };
    for (const { cq, placement } of this.#cqs.values()) {
      if (placement.suspended) {
        cq.memory = find(placement);
      }
    }
    for (const { queue, placement } of this.#sqs.values()) {
      if (placement.suspended) {
        queue.sq.words = find(placement);
      }
    }
    this.#shadow?.find(memory);
    this.#placeDoorbells();
  }

  #release(placement: Placement | undefined): void {
    if (placement?.alias !== undefined) {
      this.#system.revoke(placement.alias);
      placement.alias = undefined;
    }
  }

  /** Connects a queue to an eventfd; completions that the host has not seen are signalled there, as the old one may have lost them. */
  #connect(cq: CompletionQueue, eventfd: number): void {
    cq.eventfd = eventfd;
    if (cq.interrupts && eventfd >= 0 && cq.pending) {
      this.#system.eventfdSignal(eventfd);
    }
  }
}

function place(
  iova: number,
  bytes: number,
  writable: boolean,
  memory: QueueMemory | undefined,
): Placement {
  return { iova, bytes, writable, alias: memory?.alias, suspended: memory === undefined };
}

function overlaps({ iova, bytes }: Placement, range: IovaRange): boolean {
  return iova < range.iova + range.size && range.iova < iova + bytes;
}
