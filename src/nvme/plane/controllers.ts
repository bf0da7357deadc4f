/**
 * The controllers of a reactor, and what main asks about them. Owned by one reactor.
 *
 * What takes something away (memory, a queue, a namespace) waits for the commands that are in its way, and for no others: they are counted
 * when it begins, nothing new comes in its way, and when the last has ended it is carried out and answered. Meanwhile all else goes on.
 */
import { Counters } from '../../bdev/counters.ts';
import { Limiter } from '../../bdev/limiter.ts';
import type { Scope } from '../../bdev/requests/drain.ts';
import { protocolResult, Result } from '../../bdev/result.ts';
import { UNHEARD } from '../../io/ring.ts';
import type { PlaneParts } from '../../reactor/plane.ts';
import { Status } from '../../spec/nvme.ts';
import { findNamespace, placeNamespace, setAccess, takeNamespace } from './access.ts';
import { ControllerQueues } from './controller-queues.ts';
import {
  EVERYTHING,
  NOTHING,
  ofAccess,
  ofMemory,
  ofNamespace,
  ofQueue,
  ofWrites,
} from './drains.ts';
import { MainCommands } from './main-commands.ts';
import { MainOperations } from './main-operations.ts';
import {
  type NamespaceDescriptor,
  NOT_ABORTED,
  type NvmeEvent,
  type NvmeRequest,
} from './messages.ts';
import { type CommandEngine, IoController, IoNamespace } from './view.ts';

export interface ControllerState {
  readonly io: IoController;
  readonly queues: ControllerQueues;
  readonly operations: MainOperations;
  readonly forwarded: MainCommands;
  readonly doorbells: Int32Array;
  /** The client cannot map the doorbells: each write that matters wakes the reactor. */
  readonly trapped: boolean;
  /** The client's socket, and whether a poll on it is armed. */
  readonly socket: number;
  listening: boolean;
  /** What could not begin to wait, as too much waits already. */
  readonly backlog: (() => void)[];
}

/** Controller → user data of the poll on its client's socket, and back: below UNHEARD, slots are above. */
export function listenData(id: number): number {
  return UNHEARD - id;
}

/** In place of a status: the request is answered later. */
const LATER = -1;

const NEEDS_CONTROLLER = new Set<NvmeRequest['kind']>([
  'operate',
  'create-cq',
  'create-sq',
  'release-queues',
  'adopt-queues',
]);

export class Controllers {
  readonly #parts: PlaneParts;
  readonly #engine: CommandEngine;
  readonly #states = new Map<number, ControllerState>();

  constructor(parts: PlaneParts, engine: CommandEngine) {
    this.#parts = parts;
    this.#engine = engine;
  }

  get(id: number): ControllerState | undefined {
    return this.#states.get(id);
  }

  all(): IterableIterator<ControllerState> {
    return this.#states.values();
  }

  /** Carries out a request, now or when nothing is in its way any more. One that the system refuses (no memory, for example) fails alone. */
  handle(id: number, request: NvmeRequest): void {
    let status: number;
    try {
      status = this.#perform(id, request);
    } catch {
      status = Status.INTERNAL_ERROR;
    }
    if (status !== LATER) {
      this.#parts.answer(id, status);
    }
  }

  #perform(id: number, request: NvmeRequest): number {
    if (request.kind === 'attach') {
      return this.#attach(request);
    }
    const state = this.#states.get(request.controller);
    if (state === undefined) {
      // Detached, or never there: nothing is left to change or take away, and no queue can be made or handed over.
      return NEEDS_CONTROLLER.has(request.kind) ? Status.INTERNAL_ERROR : Status.SUCCESS;
    }
    const { io, queues } = state;
    switch (request.kind) {
      case 'detach':
        return this.#end(state, () => {
          this.#forget(state);
          this.#parts.reclaim();
          this.#parts.answer(id, Status.SUCCESS);
        });
      case 'reset':
        return this.#end(state, () => this.#parts.answer(id, Status.SUCCESS));
      case 'map':
        queues.map(request.regions);
        this.#parts.requests.waiting.lookAgain();
        state.forwarded.lookAgain();
        return Status.SUCCESS;
      case 'unmap':
        return this.#unmap(state, request, () => this.#parts.answer(id, Status.SUCCESS));
      case 'create-cq':
        return queues.createCq(request);
      case 'create-sq':
        return queues.createSq(request);
      case 'delete-cq':
        queues.deleteCq(request.qid);
        return Status.SUCCESS;
      case 'delete-sq':
        return this.#deleteSq(state, request.qid, () => this.#parts.answer(id, Status.SUCCESS));
      case 'release-queues':
        return queues.leave(request.cqid, id) ? LATER : Status.COMPLETION_QUEUE_INVALID;
      case 'keep-queues': {
        const kept = queues.stay(request.cqid);
        if (kept !== undefined) {
          this.#parts.answer(kept, Status.ABORTED_BY_REQUEST);
        }
        return Status.SUCCESS;
      }
      case 'adopt-queues':
        return queues.adopt(request.cq, request.sqs);
      case 'eventfds':
        queues.connect(request.fds);
        return Status.SUCCESS;
      case 'add-namespace':
        return this.#replaceNamespace(state, request.namespace, () =>
          this.#parts.answer(id, Status.SUCCESS),
        );
      case 'access':
        return this.#access(state, request, () => this.#parts.answer(id, Status.SUCCESS));
      case 'operate':
        state.operations.begin(id, request.nsid, request);
        return LATER;
      case 'remove-namespace':
        return this.#removeNamespace(state, request.nsid, () =>
          this.#parts.answer(id, Status.SUCCESS),
        );
      case 'limit': {
        const namespace = findNamespace(io, request.nsid);
        if (namespace !== undefined) {
          namespace.limiter = request.limits && new Limiter(request.limits);
          this.#parts.requests.waiting.lookAgain();
        }
        return Status.SUCCESS;
      }
      case 'shadow':
        queues.setShadow(request.shadow);
        state.forwarded.lookAgain();
        return Status.SUCCESS;
      case 'copy-formats':
        io.copyFormats = request.formats;
        return Status.SUCCESS;
      case 'write-through':
        io.writeThrough = request.enabled;
        return this.#drain(state, ofWrites(this.#parts.requests.slots), () =>
          this.#parts.answer(id, Status.SUCCESS),
        );
      case 'abort':
        return this.#abort(state, request, (status) => this.#parts.answer(id, status));
      case 'complete':
        state.forwarded.answered(request.id, request.status, request.data);
        return Status.SUCCESS;
      case 'coalesce':
        queues.coalesce(request.coalescing);
        return Status.SUCCESS;
      case 'watch-admin':
      case 'watch-page':
        return Status.SUCCESS;
    }
  }

  /** Calls `done` when the commands in scope have ended. Always LATER. */
  #drain(state: ControllerState, scope: Scope, done: () => void): number {
    const { requests } = this.#parts;
    const begun = requests.flight.drain(state.io, scope, () => {
      done();
      state.backlog.shift()?.();
    });
    if (!begun) {
      state.backlog.push(() => this.#drain(state, scope, done));
    }
    return LATER;
  }

  // --- controllers --------------------------------------------------------------------------------------------------

  /** Whatever comes of its namespaces, the controller is there: one that cannot be opened is missing. */
  #attach(request: NvmeRequest & { kind: 'attach' }): number {
    const { counters, tell, context } = this.#parts;
    const { controller, maxTransferBytes, writeThrough, copyFormats } = request;
    const io = new IoController({
      id: controller,
      system: context.system,
      maxTransferBytes,
      writeThrough,
      copyFormats,
      counters: new Counters(counters, request.row),
      failed: (failure) => {
        const event: NvmeEvent = { kind: 'io-failed', controller, failure };
        tell(event);
      },
    });
    const forwarded = new MainCommands(io, context, tell);
    io.forward = (queue, words, base) => forwarded.forward(queue, words, base);
    const doorbells = new Int32Array(request.doorbells);
    const progress = new Int32Array(request.progress);
    this.#states.set(controller, {
      io,
      queues: new ControllerQueues(
        io,
        context.system,
        this.#engine,
        doorbells,
        request.shadow,
        progress,
      ),
      forwarded,
      operations: new MainOperations(io, context, this.#parts.requests, this.#parts.answer),
      doorbells,
      trapped: request.trapped,
      socket: request.socket,
      listening: false,
      backlog: [],
    });
    this.#states.get(controller)!.queues.coalesce(request.coalescing);
    let status: number = Status.SUCCESS;
    for (const namespace of request.namespaces) {
      try {
        this.#openNamespace(io, namespace);
      } catch {
        status = Status.INTERNAL_ERROR;
      }
    }
    return status;
  }

  /** All queues go: of the commands that use memory of the guest, none is left when `done` is called. None is completed to the host. */
  #end(state: ControllerState, done: () => void): number {
    const { io, queues } = state;
    queues.discard();
    this.#parts.requests.waiting.endWaitingOf(io, undefined, Result.ABORTED);
    state.forwarded.forget(undefined, Result.ABORTED);
    return this.#drain(state, EVERYTHING, () => {
      for (const id of queues.reset()) {
        this.#parts.answer(id, Status.ABORTED_BY_REQUEST);
      }
      done();
    });
  }

  #forget(state: ControllerState): void {
    const { io } = state;
    for (const namespace of [...io.namespaces, ...io.barred.values()]) {
      if (namespace !== undefined) {
        this.#parts.requests.close(namespace);
      }
    }
    if (state.listening) {
      // The poll would keep the socket open.
      this.#parts.context.ring.preparePollRemove(listenData(io.id), UNHEARD);
    }
    this.#states.delete(io.id);
  }

  // --- queues and memory --------------------------------------------------------------------------------------------

  #deleteSq(state: ControllerState, qid: number, done: () => void): number {
    const { io, queues } = state;
    const queue = queues.close(qid);
    if (queue === undefined) {
      return Status.SUCCESS;
    }
    this.#parts.requests.waiting.endWaitingOf(io, queue, Result.QUEUE_GONE);
    state.forwarded.forget(queue, Result.QUEUE_GONE);
    return this.#drain(state, ofQueue(queue), () => {
      queues.deleteSq(qid);
      done();
    });
  }

  /** No command that comes from now on finds the memory. */
  #unmap(
    state: ControllerState,
    range: { readonly iova: number; readonly size: number },
    done: () => void,
  ): number {
    const { io, queues } = state;
    const end = range.iova + range.size;
    const memory = io.memory.hostRanges(range.iova, end);
    io.memory.remove(range.iova, end);
    queues.suspend(range);
    const scope = ofMemory(memory, this.#parts.requests.slots, (queue) =>
      queues.completesIn(queue, range),
    );
    return this.#drain(state, scope, () => {
      queues.letGo(range);
      this.#parts.reclaim();
      done();
    });
  }

  #abort(
    state: ControllerState,
    { qid, cid }: { readonly qid: number; readonly cid: number },
    done: (status: number) => void,
  ): number {
    const queue = state.queues.find(qid);
    const aborted =
      queue !== undefined && this.#parts.requests.waiting.endOne(queue, cid, Result.ABORTED);
    return this.#drain(state, NOTHING, () => done(aborted ? Status.SUCCESS : NOT_ABORTED));
  }

  // --- namespaces ---------------------------------------------------------------------------------------------------

  #openNamespace(
    io: IoController,
    { nsid, row, limits, access, bdev }: NamespaceDescriptor,
  ): IoNamespace {
    const { requests, counters } = this.#parts;
    const { blockSize, numBlocks } = bdev;
    const namespace = new IoNamespace(
      { nsid, blockSize, numBlocks },
      io,
      requests.channels.open(bdev),
      new Counters(counters, row),
      limits && new Limiter(limits),
      access,
    );
    requests.open(namespace);
    placeNamespace(io, namespace);
    return namespace;
  }

  /** Adds a namespace, or changes the size of one that there is. If its NSID is another bdev's, commands wait until that one is free. */
  #replaceNamespace(
    state: ControllerState,
    descriptor: NamespaceDescriptor,
    done: () => void,
  ): number {
    const { io } = state;
    const before = findNamespace(io, descriptor.nsid);
    if (before?.channel.generation === descriptor.bdev.generation) {
      before.numBlocks = descriptor.bdev.numBlocks;
      return Status.SUCCESS;
    }
    const namespace = this.#openNamespace(io, descriptor);
    if (before === undefined) {
      return Status.SUCCESS;
    }
    namespace.held = true;
    return this.#retire(state, before, () => {
      this.#parts.requests.waiting.letGo(namespace);
      done();
    });
  }

  #removeNamespace(state: ControllerState, nsid: number, done: () => void): number {
    const namespace = findNamespace(state.io, nsid);
    if (namespace === undefined) {
      return Status.SUCCESS;
    }
    // What waits for a rate limit was sent in time: it goes now, as far as there is room.
    this.#parts.requests.waiting.resumeAll(namespace);
    takeNamespace(state.io, nsid);
    return this.#retire(state, namespace, done);
  }

  /** Commands that wait are refused when their turn comes, or at once. */
  #access(
    state: ControllerState,
    { nsid, access, abort }: NvmeRequest & { kind: 'access' },
    done: () => void,
  ): number {
    const namespace = findNamespace(state.io, nsid);
    if (namespace === undefined) {
      return Status.SUCCESS;
    }
    setAccess(state.io, namespace, access);
    const { requests } = this.#parts;
    if (abort !== undefined) {
      requests.waiting.endWaiting(namespace, undefined, protocolResult(abort));
    }
    const reads = access.read !== Status.SUCCESS || abort !== undefined;
    return namespace.readonly || abort !== undefined
      ? this.#drain(state, ofAccess(requests.slots, namespace, reads, abort), done)
      : Status.SUCCESS;
  }

  /** No command finds the namespace any more. */
  #retire(state: ControllerState, namespace: IoNamespace, done: () => void): number {
    const { requests } = this.#parts;
    requests.waiting.endWaiting(namespace, undefined, Result.BDEV_GONE);
    return this.#drain(state, ofNamespace(namespace, requests.slots), () => {
      requests.close(namespace);
      done();
    });
  }
}
