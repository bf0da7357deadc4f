/** A controller's I/O queues, spread over the reactors: which reactor has which queue, and what each must be told. Owned by main. */
import type { GuestRegion } from '../memory/guest.ts';
import type { Coalescing } from '../nvme/features/coalescing.ts';
import type { CqRequest, SqRequest } from '../nvme/host.ts';
import type {
  CqDescriptor,
  NamespaceAccess,
  NamespaceDescriptor,
  NvmeEvent,
  NvmeRequest,
  SqDescriptor,
} from '../nvme/plane/messages.ts';
import type { MainResult } from '../nvme/reservation-commands.ts';
import type { ShadowPages } from '../nvme/shadow.ts';
import { Status } from '../spec/nvme.ts';
import { ErrnoError } from '../util/errors.ts';
import {
  type Ask,
  Attachments,
  type AttachmentsOptions,
  type AttachmentsPlace,
} from './attachments.ts';
import { QueueMoves } from './moves.ts';
import { QueueTable } from './queue-table.ts';
import { type RecentCommands, recentCommands } from './recent.ts';
import type { QueuePairInfo } from './types.ts';
import { VectorUpdates } from './vector-updates.ts';

export interface IoQueuesOptions extends AttachmentsOptions {
  readonly adaptiveInterrupts: boolean;
  /** See AdminWord. */
  readonly adminSeen: SharedArrayBuffer;
  /** Eventfd by vector, or -1. */
  readonly eventfds: () => number[];
}

/** Where queues are, and who rings: the host's memory and doorbells, or ours that stand for them. */
export type QueuesPlace = AttachmentsPlace &
  Pick<IoQueuesOptions, 'adaptiveInterrupts' | 'eventfds'> & {
    /** The host's doorbells are main's to look at: a reactor watches them for it. See `watch-page`. */
    readonly watch?: Pick<NvmeRequest & { kind: 'watch-page' }, 'page' | 'seen'>;
  };

export class IoQueues {
  readonly #options: IoQueuesOptions;
  #place: QueuesPlace;
  readonly #attachments: Attachments;
  readonly #table: QueueTable;
  /** Watches the admin doorbells, when they are to be watched. */
  #home: number | undefined;
  #watching = false;
  readonly #moves: QueueMoves;
  /** Changes by the guest that are under way: nothing is moved meanwhile. */
  #changing = 0;
  readonly #vectors: VectorUpdates;

  constructor(options: IoQueuesOptions) {
    this.#options = options;
    this.#place = options;
    this.#table = new QueueTable(options.pool.placement);
    this.#attachments = new Attachments(options, this.#table.progress);
    this.#vectors = new VectorUpdates(
      () => this.#place.eventfds(),
      (fds) => this.#attachments.mustTellAll({ kind: 'eventfds', fds }, 'change its interrupts'),
    );
    this.#moves = new QueueMoves({
      reactorOf: (cqid) => this.#table.cq(cqid)?.reactor,
      describe: (cqid) => this.#describe(cqid),
      attach: (reactor) => this.#attachments.attach(reactor),
      ask: (reactor, request) => this.#attachments.ask(reactor, request),
      placed: (cqid, reactor) => this.#table.place(cqid, reactor),
      lost: (cqid) => this.#lost(cqid),
    });
  }

  /** The client's socket, or -1. */
  set socket(fd: number) {
    this.#attachments.socket = fd;
  }

  /** Live I/O submission queues and their reactors. */
  get submissionQueues(): { qid: number; reactor: number }[] {
    return this.#table.submissionQueues;
  }

  /** Reactors that know of the controller. */
  get reactors(): number[] {
    return this.#attachments.reactors;
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
        : [recentCommands(this.#place.memory, sq, cq, queue)];
    });
  }

  /** Puts the queue on the least loaded reactor. */
  async createCq(request: CqRequest): Promise<number> {
    const reactor = this.#options.pool.placement.place();
    this.#table.addCq(request, reactor);
    void this.#attachments.attach(reactor);
    const status = await this.#attachments.ask(reactor, {
      kind: 'create-cq',
      ...this.#describeCq(request),
    });
    if (status !== Status.SUCCESS) {
      this.#table.removeCq(request.qid);
    }
    return status;
  }

  #describeCq(request: CqRequest): CqDescriptor {
    const { eventfds, adaptiveInterrupts: adaptive } = this.#place;
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
    const sq = this.#table.addSq(request, reactor);
    const status = await this.#attachments.ask(reactor, { kind: 'create-sq', ...sq });
    if (status === Status.SUCCESS) {
      this.#options.pool.placement.count(reactor);
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
        : await this.#attachments.tell(reactor, { kind: 'delete-cq', qid });
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
    const status = await (reactor === undefined
      ? this.#attachments.left(ask)
      : this.#attachments.tell(reactor, ask));
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
    this.#attachments.shadow = undefined;
    try {
      await this.#attachments.mustTellAll({ kind: 'reset' }, 'drop the queues');
    } finally {
      this.#table.clear();
    }
  }

  /** The host writes the doorbells of I/O queues into these pages from now on. */
  setShadow(shadow: ShadowPages): Promise<void> {
    return this.#change(async () => {
      this.#attachments.shadow = shadow;
      await this.#attachments.mustTellAll({ kind: 'shadow', shadow }, 'use the shadow doorbells');
    });
  }

  /** The same reactor watches for as long as it lives. Doorbells that come as messages need no watch. */
  watchAdmin(enabled: boolean): void {
    const { pool, adminSeen: seen, trapped } = this.#options;
    const { watch } = this.#place;
    if (trapped) {
      return;
    }
    if (enabled !== this.#watching && pool.alive) {
      this.#watching = enabled;
      this.#home ??= pool.placement.placeWatch();
      void this.#attachments.attach(this.#home);
      const ask: Ask =
        watch === undefined
          ? { kind: 'watch-admin', enabled, seen }
          : { kind: 'watch-page', enabled, ...watch };
      void this.#attachments.tell(this.#home, ask).then((status) => {
        if (status !== Status.SUCCESS) {
          this.#options.lost('a reactor could not watch the admin doorbells');
        }
      });
    }
  }

  /** Resolves when every reactor that has to do with the controller knows the region. Rejects, and none knows it, if one cannot. */
  async map(region: GuestRegion): Promise<void> {
    if (this.#place !== this.#options) {
      return;
    }
    if ((await this.#attachments.tellAll({ kind: 'map', regions: [region] })) !== Status.SUCCESS) {
      await this.unmap(region.iova, region.size);
      throw new ErrnoError('ENOMEM', 'a reactor could not map the region');
    }
  }

  /** Resolves when no reactor uses the regions in this range any more. */
  async unmap(iova: number, size: number): Promise<void> {
    const ask = { kind: 'unmap', iova, size } as const;
    if (this.#place === this.#options) {
      await this.#attachments.mustTellAll(ask, 'let go of memory');
    } else {
      await this.#attachments.left(ask);
    }
  }

  /** Vectors were connected, disconnected, masked or unmasked: resolves when the old eventfds are no longer signalled. */
  eventfdsChanged(): Promise<void> {
    return this.#vectors.changed();
  }

  async addNamespace(namespace: NamespaceDescriptor): Promise<void> {
    const status = await this.#attachments.tellAll({ kind: 'add-namespace', namespace });
    if (status !== Status.SUCCESS) {
      throw new ErrnoError('ENOMEM', `no reactor could open namespace ${namespace.nsid}`);
    }
  }

  async limitNamespace(nsid: number, limits: SharedArrayBuffer | undefined): Promise<void> {
    if ((await this.#attachments.tellAll({ kind: 'limit', nsid, limits })) !== Status.SUCCESS) {
      throw new ErrnoError('EIO', `a reactor could not change the limits of namespace ${nsid}`);
    }
  }

  /** Resolves when nothing is under way that may not be carried out any more. */
  async changeAccess(change: NamespaceAccess): Promise<void> {
    const what = `change what may be done to namespace ${change.nsid}`;
    await this.#attachments.mustTellAll({ kind: 'access', ...change }, what);
  }

  async removeNamespace(nsid: number): Promise<void> {
    await this.#attachments.mustTellAll(
      { kind: 'remove-namespace', nsid },
      `let go of namespace ${nsid}`,
    );
  }

  async setWriteThrough(enabled: boolean): Promise<void> {
    await this.#attachments.mustTellAll(
      { kind: 'write-through', enabled },
      'change the write cache',
    );
  }

  /** Ends a command that waits. Resolves with whether there was one. */
  async abort(qid: number, cid: number): Promise<boolean> {
    const reactor = this.#table.sq(qid)?.reactor;
    return (
      reactor !== undefined &&
      (await this.#attachments.ask(reactor, { kind: 'abort', qid, cid })) === Status.SUCCESS
    );
  }

  /**
   * A command that came by this queue was carried out on main. If the queue is gone, or another, the reactor that sent the command has
   * forgotten it with the queue. A queue with such commands does not move.
   */
  async complete(
    { qid, generation, id }: NvmeEvent & { kind: 'command' },
    result: MainResult,
  ): Promise<void> {
    const sq = this.#table.sq(qid);
    if (sq?.request.generation === generation) {
      await this.#attachments.tell(sq.reactor, { kind: 'complete', id, ...result });
    }
  }

  async setCoalescing(coalescing: Coalescing): Promise<void> {
    await this.#attachments.mustTellAll(
      { kind: 'coalesce', coalescing },
      'change when the host is interrupted',
    );
  }

  async setCopyFormats(formats: number): Promise<void> {
    await this.#attachments.mustTellAll(
      { kind: 'copy-formats', formats },
      'change what Copy takes',
    );
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
    this.#attachments.lose(reactor, left);
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
      this.#options.pool.placement.unwatch(this.#home);
      this.#home = undefined;
    }
  }

  /** Queues are there from now on; undefined: where the options say. There is none at the moment. */
  relocate(place: QueuesPlace | undefined): Promise<void> {
    return this.#change(async () => {
      await this.#detach();
      this.#place = place ?? this.#options;
      this.#attachments.place = this.#place;
    });
  }

  /** The controller goes: resolves when no reactor knows it any more. */
  detach(): Promise<void> {
    return this.#change(() => this.#detach());
  }

  async #detach(): Promise<void> {
    this.#watching = false;
    if ((await this.#attachments.tellAll({ kind: 'detach' })) !== Status.SUCCESS) {
      this.#options.log.error('a reactor could not let go of the controller');
    }
    this.#attachments.clear();
    this.#leaveHome();
    this.#table.clear();
  }
}
