/**
 * The I/O queues of a controller as main knows them: what each was asked for with, which reactor has it, and how far it was when that last
 * reported. A queue is there if it is here. Owned by main.
 */
import type { CqRequest, SqRequest } from '../nvme/host.ts';
import {
  QUEUE_WORDS,
  QUEUE_WORDS_BYTES,
  QueueWord,
  type SqDescriptor,
} from '../nvme/plane/messages.ts';
import type { Placement } from '../reactor/placement.ts';
import type { QueuePairInfo } from './types.ts';

interface Placed<T> {
  readonly request: T;
  reactor: number;
}

export class QueueTable {
  /** A CQ is a reactor's load. */
  readonly #placement: Pick<Placement, 'load' | 'unload'>;
  readonly #cqs = new Map<number, Placed<CqRequest>>();
  readonly #sqs = new Map<number, Placed<SqDescriptor>>();
  #generation = 0;
  /** See QueueWord. */
  readonly progress = new SharedArrayBuffer(QUEUE_WORDS_BYTES);

  constructor(placement: Pick<Placement, 'load' | 'unload'>) {
    this.#placement = placement;
  }

  get size(): number {
    return this.#cqs.size + this.#sqs.size;
  }

  cq(qid: number): Readonly<Placed<CqRequest>> | undefined {
    return this.#cqs.get(qid);
  }

  sq(qid: number): Readonly<Placed<SqDescriptor>> | undefined {
    return this.#sqs.get(qid);
  }

  /** Submission queues and their reactors. */
  get submissionQueues(): { qid: number; reactor: number }[] {
    return [...this.#sqs].map(([qid, { reactor }]) => ({ qid, reactor }));
  }

  /** Those that complete to a CQ. */
  sqsOf(cqid: number): SqDescriptor[] {
    return [...this.#sqs.values()].flatMap(({ request }) =>
      request.cqid === cqid ? [request] : [],
    );
  }

  /** A queue that the reactor of a CQ was chosen for: it is counted there already. */
  addCq(request: CqRequest, reactor: number): void {
    this.#cqs.set(request.qid, { request, reactor });
    this.#clear(request.qid, QueueWord.CQ_HEAD, QUEUE_WORDS);
  }

  /** Returns the queue as its reactor makes it. */
  addSq(asked: SqRequest, reactor: number): SqDescriptor {
    this.#generation += 1;
    const request = { ...asked, generation: this.#generation };
    this.#sqs.set(request.qid, { request, reactor });
    this.#clear(request.qid, QueueWord.SQ_HEAD, QueueWord.CQ_HEAD);
    return request;
  }

  /** Words that an earlier queue of that id left; nobody else writes them before the queue is there. */
  #clear(qid: number, from: number, to: number): void {
    const row = qid * QUEUE_WORDS;
    new Int32Array(this.progress).fill(0, row + from, row + to);
  }

  removeCq(qid: number): void {
    const cq = this.#cqs.get(qid);
    if (cq !== undefined) {
      this.#placement.unload(cq.reactor);
      this.#cqs.delete(qid);
    }
  }

  removeSq(qid: number): void {
    this.#sqs.delete(qid);
  }

  /** A CQ with its SQs is elsewhere. */
  place(cqid: number, reactor: number): void {
    const cq = this.#cqs.get(cqid);
    if (cq !== undefined) {
      this.#placement.unload(cq.reactor);
      this.#placement.load(reactor);
      cq.reactor = reactor;
    }
    for (const { qid } of this.sqsOf(cqid)) {
      this.#sqs.get(qid)!.reactor = reactor;
    }
  }

  /** A reactor is gone with its queues. True if it had any. */
  lose(reactor: number): boolean {
    const before = this.size;
    for (const [qid, sq] of this.#sqs) {
      if (sq.reactor === reactor) {
        this.removeSq(qid);
      }
    }
    for (const [qid, cq] of this.#cqs) {
      if (cq.reactor === reactor) {
        this.removeCq(qid);
      }
    }
    return this.size < before;
  }

  clear(): void {
    for (const qid of this.#cqs.keys()) {
      this.removeCq(qid);
    }
    this.#sqs.clear();
  }

  /** How far the queues were when their reactors last reported. */
  describe(): QueuePairInfo[] {
    const words = new Int32Array(this.progress);
    return [...this.#sqs].flatMap(([qid, { request: sq, reactor }]) => {
      const cq = this.#cqs.get(sq.cqid)?.request;
      if (cq === undefined) {
        return [];
      }
      const ofSq = (word: number): number => words[qid * QUEUE_WORDS + word];
      const ofCq = (word: number): number => words[cq.qid * QUEUE_WORDS + word];
      const head = ofSq(QueueWord.SQ_HEAD);
      const tail = ofSq(QueueWord.SQ_TAIL);
      const inFlight = ofSq(QueueWord.INFLIGHT);
      return {
        qid,
        cqid: cq.qid,
        reactor,
        size: sq.size,
        head,
        tail,
        outstanding: ((tail - head + sq.size) % sq.size) + inFlight,
        inFlight,
        stopped: ofSq(QueueWord.STOPPED) === 1,
        cqSize: cq.size,
        cqHead: ofCq(QueueWord.CQ_HEAD),
        cqTail: ofCq(QueueWord.CQ_TAIL),
        phase: ofCq(QueueWord.PHASE),
        interrupts: cq.interrupts,
        vector: cq.vector,
      };
    });
  }
}
