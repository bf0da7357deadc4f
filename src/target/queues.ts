/**
 * A controller's I/O queues, spread over the reactors: which reactor has which queue, and what each must be told. Owned by main.
 *
 * A reactor learns of the controller when it gets the first queue (or the watch over the admin doorbells), with all memory and namespaces of
 * that moment; from then on every change is sent to it. Requests to one reactor are carried out in the order sent.
 */
import { REGIONS_PER_MESSAGE } from '../limits.ts';
import type { GuestMemory, GuestRegion } from '../memory/guest.ts';
import type { CqRequest, SqRequest } from '../nvme/host.ts';
import type {
  CqDescriptor,
  NamespaceDescriptor,
  NvmeRequest,
  SqDescriptor,
} from '../nvme/plane/messages.ts';
import type { ShadowPages } from '../nvme/shadow.ts';
import { ReactorLostError, type ReactorPool } from '../reactor/pool.ts';
import { Status } from '../spec/nvme.ts';
import { ErrnoError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { QueueMoves } from './moves.ts';
import { QueueTable } from './queue-table.ts';
import { type RecentCommands, recentCommands } from './recent.ts';
import type { QueuePairInfo } from './types.ts';
import { VectorUpdates } from './vector-updates.ts';

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
  readonly #table: QueueTable;
  /** Watches the admin doorbells, when they are to be watched. */
  #home: number | undefined;
  #watching = false;
  #shadow: ShadowPages | undefined;
  readonly #moves: QueueMoves;
  /** Changes by the guest that are under way: nothing is moved meanwhile. */
  #changing = 0;
  readonly #vectors: VectorUpdates;
  /** Reactors that died, and have operations under way that use the guest's memory. */
  readonly #leaving = new Set<Promise<void>>();
  /** The client's, or -1. */
  socket = -1;

  constructor(options: IoQueuesOptions) {
    this.#options = options;
    this.#table = new QueueTable(options.pool);
    this.#vectors = new VectorUpdates(options.eventfds, (fds) =>
      this.#mustTellAll({ kind: 'eventfds', fds }, 'change its interrupts'),
    );
    this.#moves = new QueueMoves({
      reactorOf: (cqid) => this.#table.cq(cqid)?.reactor,
      describe: (cqid) => this.#describe(cqid),
      attach: (reactor) => this.#attach(reactor),
      ask: (reactor, request) => this.#ask(reactor, request),
      placed: (cqid, reactor) => this.#table.place(cqid, reactor),
      lost: (cqid) => this.#lost(cqid),
    });
  }

  /** Live I/O submission queues and their reactors. */
  get submissionQueues(): { qid: number; reactor: number }[] {
    return this.#table.submissionQueues;
  }

  /** Reactors that know of the controller. */
  get reactors(): number[] {
    return [...this.#attached.keys()];
  }

  /** How far the queues were when their reactors last reported. */
  queues(): QueuePairInfo[] {
    return this.#table.describe();
  }

  /** What the guest did last, by its queues in its memory. */
  recent(): RecentCommands[] {
    return this.queues().flatMap((queue) => {
      const sq = this.#table.sq(queue.qid)?.request;
      const cq = this.#table.cq(queue.cqid)?.request;
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
      progress: this.#table.progress,
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
    this.#table.addCq(request, reactor);
    void this.#attach(reactor);
    const status = await this.#ask(reactor, { kind: 'create-cq', ...this.#describeCq(request) });
    if (status !== Status.SUCCESS) {
      this.#table.removeCq(request.qid);
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
    const reactor = this.#table.cq(request.cqid)?.reactor;
    if (reactor === undefined) {
      return Status.COMPLETION_QUEUE_INVALID;
    }
    this.#table.addSq(request, reactor);
    const status = await this.#ask(reactor, { kind: 'create-sq', ...request });
    if (status === Status.SUCCESS) {
      this.#options.pool.countQueuePair(reactor);
    } else {
      this.#table.removeSq(request.qid);
    }
    return status;
  }

  deleteCq(qid: number): Promise<number> {
    return this.#change(() => this.#deleteCq(qid));
  }

  async #deleteCq(qid: number): Promise<number> {
    const reactor = this.#table.cq(qid)?.reactor;
    const status =
      reactor === undefined
        ? Status.SUCCESS
        : await this.#tell(reactor, { kind: 'delete-cq', qid });
    if (status === Status.SUCCESS) {
      this.#table.removeCq(qid);
    }
    return status;
  }

  deleteSq(qid: number): Promise<number> {
    return this.#change(() => this.#deleteSq(qid));
  }

  async #deleteSq(qid: number): Promise<number> {
    const reactor = this.#table.sq(qid)?.reactor;
    const ask = { kind: 'delete-sq', qid } as const;
    const status = await (reactor === undefined ? this.#left(ask) : this.#tell(reactor, ask));
    if (status === Status.SUCCESS) {
      this.#table.removeSq(qid);
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

  /** A CQ and its SQs, as a reactor makes them. */
  #describe(cqid: number): { cq: CqDescriptor; sqs: SqDescriptor[] } {
    return {
      cq: this.#describeCq(this.#table.cq(cqid)!.request),
      sqs: this.#table.sqsOf(cqid),
    };
  }

  #lost(cqid: number): void {
    for (const { qid } of this.#table.sqsOf(cqid)) {
      this.#table.removeSq(qid);
    }
    this.#table.removeCq(cqid);
    this.#options.lost(`completion queue ${cqid} was lost on its way to another reactor`);
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
      this.#table.clear();
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

  /** Vectors were connected, disconnected, masked or unmasked: resolves when the old eventfds are no longer signalled. */
  eventfdsChanged(): Promise<void> {
    return this.#vectors.changed();
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
    for (const reactor of new Set([this.#table.sq(qid)?.reactor, this.#table.cq(qid)?.reactor])) {
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
    const had = this.#table.lose(reactor);
    if (this.#home === reactor) {
      this.#leaveHome();
      if (this.#watching) {
        this.#watching = false;
        this.watchAdmin(true);
      }
    }
    return had;
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
    this.#table.clear();
  }
}

/** Resolves, when all have, with the first status that is not success, if there is one. */
async function firstFailure(statuses: readonly Promise<number>[]): Promise<number> {
  const all = await Promise.all(statuses);
  return all.find((status) => status !== Status.SUCCESS) ?? Status.SUCCESS;
}
