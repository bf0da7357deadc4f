/**
 * A controller's I/O queues, spread over the reactors: which reactor has which queue, and what each must be told. Owned by main.
 *
 * A reactor learns of the controller when it gets the first queue (or the watch over the admin doorbells), with all memory and namespaces of
 * that moment; from then on every change is sent to it. Requests to one reactor are carried out in the order sent.
 */
import { REGIONS_PER_MESSAGE } from '../limits.ts';
import type { GuestMemory, GuestRegion } from '../memory/guest.ts';
import type { CqRequest, SqRequest } from '../nvme/host.ts';
import {
  type CqDescriptor,
  type NamespaceDescriptor,
  type NvmeRequest,
  QUEUE_WORDS,
  QUEUE_WORDS_BYTES,
  QueueWord,
  type SqDescriptor,
} from '../nvme/plane/messages.ts';
import type { ShadowPages } from '../nvme/shadow.ts';
import { ReactorLostError, type ReactorPool } from '../reactor/pool.ts';
import { Status } from '../spec/nvme.ts';
import { ErrnoError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { QueueMoves } from './moves.ts';
import { type RecentCommands, recentCommands } from './recent.ts';
import type { QueuePairInfo } from './types.ts';

/** A request without the controller it is about. */
type Ask<T = NvmeRequest> = T extends NvmeRequest ? Omit<T, 'controller'> : never;

/** After these the guest may do as it likes with memory that it gave to commands. */
const TAKES_AWAY = new Set<NvmeRequest['kind']>(['detach', 'reset', 'unmap', 'delete-sq']);

export interface IoQueuesOptions {
  readonly controller: number;
  readonly pool: ReactorPool;
  readonly log: Logger;
  readonly doorbells: SharedArrayBuffer;
  /** The client cannot map the doorbells: what it writes comes through main. */
  readonly trapped: boolean;
  readonly adaptiveInterrupts: boolean;
  /** See AdminWord. */
  readonly adminSeen: SharedArrayBuffer;
  readonly memory: GuestMemory;
  /** Counter row of refused commands. */
  readonly row: number;
  readonly maxTransferBytes: number;
  readonly writeThrough: () => boolean;
  readonly namespaces: () => NamespaceDescriptor[];
  /** Eventfd by vector, or -1. */
  readonly eventfds: () => number[];
  /** Queues are gone that the guest still counts on. */
  readonly lost: (reason: string) => void;
}

export class IoQueues {
  readonly #options: IoQueuesOptions;
  /** Reactor → the status with which it got to know the controller. */
  readonly #attached = new Map<number, Promise<number>>();
  /** qid → reactor. */
  readonly #cqs = new Map<number, number>();
  readonly #sqs = new Map<number, number>();
  /** What each queue was asked for with, by qid; of a queue that is gone, too. */
  readonly #cqRequests = new Map<number, CqRequest>();
  readonly #sqRequests = new Map<number, SqRequest>();
  /** See QueueWord. */
  readonly #progress = new SharedArrayBuffer(QUEUE_WORDS_BYTES);
  /** Watches the admin doorbells, when they are to be watched. */
  #home: number | undefined;
  #watching = false;
  #shadow: ShadowPages | undefined;
  readonly #moves: QueueMoves;
  /** Changes by the guest that are under way: nothing is moved meanwhile. */
  #changing = 0;
  /** What reactors signal by vector; the message that tells them so, and the one after it. */
  #connected: readonly number[] = [];
  #connecting: Promise<void> | undefined;
  #connectNext: Promise<void> | undefined;
  /** Reactors that died, and have operations under way that use the guest's memory. */
  readonly #leaving = new Set<Promise<void>>();
  /** The client's, or -1. */
  socket = -1;

  constructor(options: IoQueuesOptions) {
    this.#options = options;
    this.#moves = new QueueMoves({
      reactorOf: (cqid) => this.#cqs.get(cqid),
      describe: (cqid) => this.#describe(cqid),
      attach: (reactor) => this.#attach(reactor),
      ask: (reactor, request) => this.#ask(reactor, request),
      placed: (cqid, reactor) => this.#placed(cqid, reactor),
      lost: (cqid) => this.#lost(cqid),
    });
  }

  /** Live I/O submission queues and their reactors. */
  get submissionQueues(): { qid: number; reactor: number }[] {
    return [...this.#sqs].map(([qid, reactor]) => ({ qid, reactor }));
  }

  /** Reactors that know of the controller. */
  get reactors(): number[] {
    return [...this.#attached.keys()];
  }

  /** How far the queues were when their reactors last reported. */
  queues(): QueuePairInfo[] {
    const words = new Int32Array(this.#progress);
    return [...this.#sqs].flatMap(([qid, reactor]) => {
      const sq = this.#sqRequests.get(qid);
      const cq = this.#cqRequests.get(sq?.cqid ?? 0);
      if (sq === undefined || cq === undefined) {
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

  /** What the guest did last, by its queues in its memory. */
  recent(): RecentCommands[] {
    return this.queues().flatMap((queue) => {
      const sq = this.#sqRequests.get(queue.qid);
      const cq = this.#cqRequests.get(queue.cqid);
      return sq === undefined || cq === undefined
        ? []
        : [recentCommands(this.#options.memory, sq, cq, queue)];
    });
  }

  #ask(reactor: number, ask: Ask): Promise<number> {
    const { pool, controller } = this.#options;
    return pool.request(reactor, { ...ask, controller } as NvmeRequest);
  }

  /** Asks a reactor that may have died: then what was to be taken away is gone, when its last operation is over. */
  async #tell(reactor: number, ask: Ask): Promise<number> {
    try {
      return await this.#ask(reactor, ask);
    } catch (error) {
      if (error instanceof ReactorLostError) {
        await this.#left(ask);
        return Status.SUCCESS;
      }
      throw error;
    }
  }

  /** Tells every reactor that knows the controller. Resolves as `firstFailure` does. */
  async #tellAll(ask: Ask): Promise<number> {
    const told = [...this.#attached.keys()].map((reactor) => this.#tell(reactor, ask));
    return firstFailure([...told, this.#left(ask)]);
  }

  /** Reactors that died are not asked, but waited for, where something is taken away that they may use. */
  async #left({ kind }: Ask): Promise<number> {
    if (TAKES_AWAY.has(kind)) {
      await Promise.all(this.#leaving);
    }
    return Status.SUCCESS;
  }

  /** Tells every reactor. A refusal may have left the controller changed by half there: it fails, and the call rejects. */
  async #mustTellAll(ask: Ask, what: string): Promise<void> {
    if ((await this.#tellAll(ask)) !== Status.SUCCESS) {
      const reason = `a reactor could not ${what}`;
      this.#options.lost(reason);
      throw new ErrnoError('EIO', reason);
    }
  }

  #attach(reactor: number): Promise<number> {
    const known = this.#attached.get(reactor);
    if (known !== undefined) {
      return known;
    }
    const { doorbells, trapped, memory, row, maxTransferBytes, writeThrough, namespaces } =
      this.#options;
    const attach = this.#tell(reactor, {
      kind: 'attach',
      doorbells,
      trapped,
      shadow: this.#shadow,
      socket: this.socket,
      row,
      maxTransferBytes,
      writeThrough: writeThrough(),
      namespaces: namespaces(),
      progress: this.#progress,
    });
    // In pieces, since the reactor has other controllers to serve.
    const { regions } = memory;
    const maps: Promise<number>[] = [];
    for (let i = 0; i < regions.length; i += REGIONS_PER_MESSAGE) {
      const some = regions.slice(i, i + REGIONS_PER_MESSAGE);
      maps.push(this.#tell(reactor, { kind: 'map', regions: some }));
    }
    const mapped = firstFailure(maps);
    const attached = firstFailure([attach, mapped]);
    this.#attached.set(reactor, attached);
    void attach.then((status) => {
      if (status !== Status.SUCCESS) {
        this.#options.log.error({ reactor }, 'a reactor could not open every namespace');
      }
    });
    void mapped.then((status) => {
      if (status !== Status.SUCCESS) {
        this.#options.lost(`reactor ${reactor} could not map the guest's memory`);
      }
    });
    return attached;
  }

  /** Puts the queue on the least loaded reactor. */
  async createCq(request: CqRequest): Promise<number> {
    const reactor = this.#options.pool.place();
    this.#cqs.set(request.qid, reactor);
    this.#cqRequests.set(request.qid, request);
    this.#forgetProgress(request.qid, QueueWord.CQ_HEAD, QUEUE_WORDS);
    void this.#attach(reactor);
    const status = await this.#ask(reactor, { kind: 'create-cq', ...this.#describeCq(request) });
    if (status !== Status.SUCCESS) {
      this.#forgetCq(request.qid);
    }
    return status;
  }

  #describeCq(request: CqRequest): CqDescriptor {
    const { eventfds, adaptiveInterrupts: adaptive } = this.#options;
    return { ...request, eventfd: eventfds()[request.vector] ?? -1, adaptive };
  }

  /** A submission queue lives where its completion queue does. */
  createSq(request: SqRequest): Promise<number> {
    return this.#change(() => this.#createSq(request));
  }

  async #createSq(request: SqRequest): Promise<number> {
    const reactor = this.#cqs.get(request.cqid);
    if (reactor === undefined) {
      return Status.COMPLETION_QUEUE_INVALID;
    }
    this.#sqs.set(request.qid, reactor);
    this.#sqRequests.set(request.qid, request);
    this.#forgetProgress(request.qid, QueueWord.SQ_HEAD, QueueWord.CQ_HEAD);
    const status = await this.#ask(reactor, { kind: 'create-sq', ...request });
    if (status === Status.SUCCESS) {
      this.#options.pool.countQueuePair(reactor);
    } else {
      this.#sqs.delete(request.qid);
    }
    return status;
  }

  deleteCq(qid: number): Promise<number> {
    return this.#change(() => this.#deleteCq(qid));
  }

  async #deleteCq(qid: number): Promise<number> {
    const reactor = this.#cqs.get(qid);
    const status =
      reactor === undefined
        ? Status.SUCCESS
        : await this.#tell(reactor, { kind: 'delete-cq', qid });
    if (status === Status.SUCCESS) {
      this.#forgetCq(qid);
    }
    return status;
  }

  deleteSq(qid: number): Promise<number> {
    return this.#change(() => this.#deleteSq(qid));
  }

  async #deleteSq(qid: number): Promise<number> {
    const reactor = this.#sqs.get(qid);
    const ask = { kind: 'delete-sq', qid } as const;
    const status = await (reactor === undefined ? this.#left(ask) : this.#tell(reactor, ask));
    if (status === Status.SUCCESS) {
      this.#sqs.delete(qid);
    }
    return status;
  }

  // --- moves ------------------------------------------------------------------------------------------------------

  /**
   * Moves a CQ with its SQs to another reactor, without the guest noticing more than a pause. Rejects as `QueueMoves.move` does, and with
   * EBUSY while the guest changes its queues.
   */
  move(cqid: number, reactor: number): Promise<number> {
    return this.#changing > 0
      ? Promise.reject(new ErrnoError('EBUSY', 'the guest changes its queues'))
      : this.#moves.move(cqid, reactor);
  }

  /** What the guest does to its queues: not while one is being moved. */
  async #change<T>(change: () => Promise<T>): Promise<T> {
    this.#changing += 1;
    try {
      if (this.#moves.underWay) {
        await this.#moves.settle();
      }
      return await change();
    } finally {
      this.#changing -= 1;
    }
  }

  #sqidsOf(cqid: number): number[] {
    return [...this.#sqs.keys()].filter((qid) => this.#sqRequests.get(qid)?.cqid === cqid);
  }

  /** A CQ and its SQs, as a reactor makes them. */
  #describe(cqid: number): { cq: CqDescriptor; sqs: SqDescriptor[] } {
    return {
      cq: this.#describeCq(this.#cqRequests.get(cqid)!),
      sqs: this.#sqidsOf(cqid).map((qid) => this.#sqRequests.get(qid)!),
    };
  }

  #placed(cqid: number, reactor: number): void {
    const { pool } = this.#options;
    pool.unload(this.#cqs.get(cqid)!);
    pool.load(reactor);
    this.#cqs.set(cqid, reactor);
    for (const qid of this.#sqidsOf(cqid)) {
      this.#sqs.set(qid, reactor);
    }
  }

  #lost(cqid: number): void {
    for (const qid of this.#sqidsOf(cqid)) {
      this.#sqs.delete(qid);
    }
    this.#forgetCq(cqid);
    this.#options.lost(`completion queue ${cqid} was lost on its way to another reactor`);
  }

  /** Words that an earlier queue of that id left; nobody else writes them before the queue is there. */
  #forgetProgress(qid: number, from: number, to: number): void {
    const row = qid * QUEUE_WORDS;
    new Int32Array(this.#progress).fill(0, row + from, row + to);
  }

  #forgetCq(qid: number): void {
    const reactor = this.#cqs.get(qid);
    if (reactor !== undefined) {
      this.#options.pool.unload(reactor);
      this.#cqs.delete(qid);
    }
  }

  /** Drops all queues; resolves when nothing of them is in flight. Rejects if a reactor cannot. */
  reset(): Promise<void> {
    return this.#change(() => this.#reset());
  }

  async #reset(): Promise<void> {
    this.#shadow = undefined;
    try {
      await this.#mustTellAll({ kind: 'reset' }, 'drop the queues');
    } finally {
      for (const qid of [...this.#cqs.keys()]) {
        this.#forgetCq(qid);
      }
      this.#sqs.clear();
    }
  }

  /** The host writes the doorbells of I/O queues into these pages from now on. */
  setShadow(shadow: ShadowPages): Promise<void> {
    return this.#change(async () => {
      this.#shadow = shadow;
      await this.#mustTellAll({ kind: 'shadow', shadow }, 'use the shadow doorbells');
    });
  }

  /** The same reactor watches for as long as it lives. Doorbells that come as messages need no watch. */
  watchAdmin(enabled: boolean): void {
    const { pool, adminSeen: seen, trapped } = this.#options;
    if (trapped) {
      return;
    }
    if (enabled !== this.#watching && pool.alive) {
      this.#watching = enabled;
      this.#home ??= pool.placeWatch();
      void this.#attach(this.#home);
      void this.#tell(this.#home, { kind: 'watch-admin', enabled, seen }).then((status) => {
        if (status !== Status.SUCCESS) {
          this.#options.lost('a reactor could not watch the admin doorbells');
        }
      });
    }
  }

  /** Resolves when every reactor that has to do with the controller knows the region. Rejects, and none knows it, if one cannot. */
  async map(region: GuestRegion): Promise<void> {
    if ((await this.#tellAll({ kind: 'map', regions: [region] })) !== Status.SUCCESS) {
      await this.unmap(region.iova, region.size);
      throw new ErrnoError('ENOMEM', 'a reactor could not map the region');
    }
  }

  /** Resolves when no reactor uses the regions in this range any more. */
  unmap(iova: number, size: number): Promise<void> {
    return this.#mustTellAll({ kind: 'unmap', iova, size }, 'let go of memory');
  }

  /**
   * Vectors were connected, disconnected, masked or unmasked: resolves when the old eventfds are no longer signalled. A guest can mask and
   * unmask as often as it likes: reactors get to know how it stands, one message at a time, and nothing if it stands as it did.
   */
  eventfdsChanged(): Promise<void> {
    if (this.#connecting === undefined) {
      this.#connecting = this.#connect().finally(() => {
        this.#connecting = undefined;
      });
      return this.#connecting;
    }
    this.#connectNext ??= this.#connecting
      .catch(() => {})
      .then(() => {
        this.#connectNext = undefined;
        return this.eventfdsChanged();
      });
    return this.#connectNext;
  }

  async #connect(): Promise<void> {
    const fds = this.#options.eventfds();
    if (fds.length !== this.#connected.length || fds.some((fd, i) => fd !== this.#connected[i])) {
      this.#connected = [];
      await this.#mustTellAll({ kind: 'eventfds', fds }, 'change its interrupts');
      this.#connected = fds;
    }
  }

  async addNamespace(namespace: NamespaceDescriptor): Promise<void> {
    const status = await this.#tellAll({ kind: 'add-namespace', namespace });
    if (status !== Status.SUCCESS) {
      throw new ErrnoError('ENOMEM', `no reactor could open namespace ${namespace.nsid}`);
    }
  }

  async limitNamespace(nsid: number, limits: SharedArrayBuffer | undefined): Promise<void> {
    if ((await this.#tellAll({ kind: 'limit', nsid, limits })) !== Status.SUCCESS) {
      throw new ErrnoError('EIO', `a reactor could not change the limits of namespace ${nsid}`);
    }
  }

  async removeNamespace(nsid: number): Promise<void> {
    await this.#mustTellAll({ kind: 'remove-namespace', nsid }, `let go of namespace ${nsid}`);
  }

  async setWriteThrough(enabled: boolean): Promise<void> {
    await this.#mustTellAll({ kind: 'write-through', enabled }, 'change the write cache');
  }

  /** The host wrote a doorbell through main: the reactor of that queue may sleep. */
  wake(qid: number): void {
    const { pool } = this.#options;
    for (const reactor of new Set([this.#sqs.get(qid), this.#cqs.get(qid)])) {
      if (reactor !== undefined) {
        pool.wake(reactor);
      }
    }
  }

  /** A reactor died: its queues are gone; the admin watch moves on. True if the controller had queues there. */
  reactorLost(reactor: number, left: Promise<void>): boolean {
    this.#attached.delete(reactor);
    const leaving = left.finally(() => this.#leaving.delete(leaving));
    this.#leaving.add(leaving);
    const before = this.#sqs.size + this.#cqs.size;
    for (const [qid, other] of this.#sqs) {
      if (other === reactor) {
        this.#sqs.delete(qid);
      }
    }
    for (const [qid, other] of this.#cqs) {
      if (other === reactor) {
        this.#forgetCq(qid);
      }
    }
    if (this.#home === reactor) {
      this.#leaveHome();
      if (this.#watching) {
        this.#watching = false;
        this.watchAdmin(true);
      }
    }
    return this.#sqs.size + this.#cqs.size < before;
  }

  #leaveHome(): void {
    if (this.#home !== undefined) {
      this.#options.pool.unwatch(this.#home);
      this.#home = undefined;
    }
  }

  /** The controller goes: resolves when no reactor knows it any more. */
  detach(): Promise<void> {
    return this.#change(() => this.#detach());
  }

  async #detach(): Promise<void> {
    this.#watching = false;
    if ((await this.#tellAll({ kind: 'detach' })) !== Status.SUCCESS) {
      this.#options.log.error('a reactor could not let go of the controller');
    }
    this.#attached.clear();
    this.#leaveHome();
    for (const qid of [...this.#cqs.keys()]) {
      this.#forgetCq(qid);
    }
    this.#sqs.clear();
  }
}

/** Resolves, when all have, with the first status that is not success, if there is one. */
async function firstFailure(statuses: readonly Promise<number>[]): Promise<number> {
  const all = await Promise.all(statuses);
  return all.find((status) => status !== Status.SUCCESS) ?? Status.SUCCESS;
}
