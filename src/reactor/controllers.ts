/**
 * The controllers of a reactor, and the requests main makes about them. Owned by one reactor.
 *
 * A request that takes something away (memory, a queue, a namespace) first drains its controller: no command is taken, those in flight
 * finish, then it is carried out and answered. Requests of one controller never overtake each other.
 */
import type { BackendContext } from '../bdev/context.ts';
import { Counters } from '../bdev/counters.ts';
import { Limiter } from '../bdev/limiter.ts';
import { openBackend } from '../bdev/open.ts';
import { UNHEARD } from '../io/ring.ts';
import { GuestMemory } from '../memory/guest.ts';
import type { Drain, IoController, IoNamespace, IoQueue } from '../nvme/io-view.ts';
import { Status } from '../spec/nvme.ts';
import { AdminWord, type ControllerRequest, type NamespaceDescriptor } from './control.ts';
import { ControllerQueues } from './controller-queues.ts';
import { DRAINS, drainFor } from './drains.ts';

interface ControllerState {
  readonly io: IoController;
  readonly queues: ControllerQueues;
  readonly doorbells: Int32Array;
  /** The client cannot map the doorbells: each write that matters wakes the reactor. */
  readonly trapped: boolean;
  /** The client's socket, and whether a poll on it is armed. */
  readonly socket: number;
  listening: boolean;
  /** Requests that wait for the commands in flight. */
  readonly waiting: Waiting[];
}

interface Waiting {
  readonly id: number;
  readonly request: ControllerRequest;
  /** What it takes away, once it is its turn. */
  drain?: Drain;
}

/** The admin doorbells of a controller, watched for main. */
export interface AdminWatch {
  readonly controller: number;
  readonly doorbells: Int32Array;
  /** See AdminWord. */
  readonly seen: Int32Array;
  /** `admin` messages sent; counted from what main had taken at the start. */
  sent: number;
}

/** Polls on clients' sockets that are armed at a time. */
const MAX_LISTENING = 1024;
/** Controller → user data of the poll on its client's socket, and back: below UNHEARD, slots are above. */
function listenData(id: number): number {
  return UNHEARD - id;
}

/** In place of a status: the request is answered later. */
const LATER = -1;

const NEEDS_CONTROLLER = new Set<ControllerRequest['kind']>([
  'create-cq',
  'create-sq',
  'release-queues',
  'adopt-queues',
]);

export class Controllers {
  readonly #context: BackendContext;
  readonly #counters: SharedArrayBuffer;
  readonly #post: (id: number, status: number) => void;
  readonly #drain: (controller: IoController, drain: Drain) => number;
  readonly #controllers = new Map<number, ControllerState>();
  /** Submission queues to poll: those of controllers that are not draining. */
  polled: IoQueue[] = [];
  watches: AdminWatch[] = [];
  /** Some doorbells change without a word to anyone: the reactor has to look at them from time to time. */
  unheard = false;
  /** Something waits for commands in flight. */
  draining = false;

  constructor(
    context: BackendContext,
    counters: SharedArrayBuffer,
    answer: (id: number, status: number) => void,
    /** Something waits for the commands in flight of this one. Returns how many are to be waited for. */
    drain: (controller: IoController, drain: Drain) => number,
  ) {
    this.#context = context;
    this.#counters = counters;
    this.#post = answer;
    this.#drain = drain;
  }

  /** Carries out a request, now or when its controller has drained. */
  handle(id: number, request: ControllerRequest): void {
    const state = this.#controllers.get(request.controller);
    if (state !== undefined && (state.waiting.length > 0 || DRAINS.has(request.kind))) {
      if (request.kind === 'reset' || request.kind === 'detach') {
        state.queues.discard();
      }
      state.waiting.push({ id, request });
      this.advance();
    } else {
      this.#answer(id, this.#carryOut(state, request, id));
    }
    this.#choosePolled();
  }

  /** Carries out what waited for commands that have finished by now. */
  advance(): void {
    this.draining = false;
    let changed = false;
    for (const state of this.#controllers.values()) {
      if (state.queues.leaving) {
        changed = this.#handOver(state) || changed;
      }
      while (state.waiting.length > 0) {
        if (this.#mustWait(state, state.waiting[0])) {
          this.draining = true;
          break;
        }
        const { id, request } = state.waiting.shift()!;
        changed = true;
        this.#answer(id, this.#carryOut(state, request, id));
      }
    }
    if (changed) {
      this.#choosePolled();
    }
  }

  /** Has the commands in flight go on that would not end by themselves. True if there are any that the request has to wait for. */
  #mustWait({ io, queues }: ControllerState, waiting: Waiting): boolean {
    if (io.inflight === 0 || !DRAINS.has(waiting.request.kind)) {
      return false;
    }
    waiting.drain ??= drainFor(waiting.request, io, queues);
    return this.#drain(io, waiting.drain) > 0;
  }

  /** Lets go of the queues that can leave for another reactor by now. False if none can. */
  #handOver(state: ControllerState): boolean {
    const ids = state.queues.handOver();
    for (const id of ids) {
      this.#answer(id, Status.SUCCESS);
    }
    this.draining ||= state.queues.leaving;
    return ids.length > 0;
  }

  #answer(id: number, status: number): void {
    if (status !== LATER) {
      this.#post(id, status);
    }
  }

  /** Writes down how far every queue is, for main. `waiting`: the queue of each command in flight. */
  report(waiting: readonly IoQueue[]): void {
    for (const { queues } of this.#controllers.values()) {
      queues.report();
    }
    for (const { sq, controller } of waiting) {
      this.#controllers.get(controller.id)?.queues.reportInflight(sq);
    }
  }

  #choosePolled(): void {
    this.polled = [];
    this.unheard = this.watches.length > 0;
    for (const state of this.#controllers.values()) {
      state.io.draining = state.waiting.length > 0;
      if (state.waiting.length === 0) {
        state.queues.addPolled(this.polled);
      }
      this.unheard ||= !state.trapped && state.queues.used;
    }
  }

  /**
   * Before a sleep: hosts with shadow doorbells are to ring. That comes as a message, and so by way of main; the reactor listens to the
   * socket as well, and has found the command in the shadow page by the time main has read the message.
   */
  arm(): void {
    for (const { sq } of this.polled) {
      sq.arm();
    }
    const { ring } = this.#context;
    for (const state of this.#controllers.values()) {
      const rings = state.queues.shadowed && state.queues.used && state.socket >= 0;
      if (rings && !state.listening && ring.prepared < MAX_LISTENING) {
        state.listening = true;
        ring.preparePollOnce(state.socket, listenData(state.io.id));
      }
    }
  }

  /** The poll with this user data is over. */
  heard(userData: number): void {
    const state = this.#controllers.get(listenData(userData));
    if (state !== undefined) {
      state.listening = false;
    }
  }

  /** After it: they need not. */
  hush(): void {
    for (const { sq } of this.polled) {
      sq.hushNow();
    }
  }

  /** A request that the system refuses (no memory to map, for example) fails alone. */
  #carryOut(state: ControllerState | undefined, request: ControllerRequest, id: number): number {
    try {
      return this.#perform(state, request, id);
    } catch {
      return Status.INTERNAL_ERROR;
    }
  }

  #perform(state: ControllerState | undefined, request: ControllerRequest, id: number): number {
    if (request.kind === 'attach') {
      return this.#attach(request);
    }
    if (state === undefined) {
      // Detached, or never there: nothing is left to change or take away, and no queue can be made or handed over.
      return NEEDS_CONTROLLER.has(request.kind) ? Status.INTERNAL_ERROR : Status.SUCCESS;
    }
    switch (request.kind) {
      case 'detach':
        state.queues.reset();
        for (let nsid = 1; nsid <= state.io.namespaces.length; nsid++) {
          this.#closeNamespace(state.io, nsid);
        }
        if (state.listening) {
          // The poll would keep the socket open.
          this.#context.ring.preparePollRemove(listenData(state.io.id), UNHEARD);
        }
        this.#controllers.delete(state.io.id);
        this.#unwatch(state);
        break;
      case 'watch-admin':
        this.#unwatch(state);
        if (request.enabled) {
          const seen = new Int32Array(request.seen);
          const sent = Atomics.load(seen, AdminWord.TAKEN);
          const { doorbells, io } = state;
          this.watches.push({ controller: io.id, doorbells, seen, sent });
        }
        break;
      case 'map':
        state.queues.map(request.regions);
        break;
      case 'unmap':
        state.queues.unmap(request);
        break;
      case 'create-cq':
        return state.queues.createCq(request);
      case 'create-sq':
        return state.queues.createSq(request);
      case 'delete-cq':
        state.queues.deleteCq(request.qid);
        break;
      case 'delete-sq':
        state.queues.deleteSq(request.qid);
        break;
      case 'release-queues':
        if (!state.queues.leave(request.cqid, id)) {
          return Status.COMPLETION_QUEUE_INVALID;
        }
        this.#handOver(state);
        return LATER;
      case 'keep-queues': {
        const kept = state.queues.stay(request.cqid);
        if (kept !== undefined) {
          this.#answer(kept, Status.ABORTED_BY_REQUEST);
        }
        break;
      }
      case 'adopt-queues':
        state.queues.adopt(request.cq, request.sqs);
        break;
      case 'reset':
        state.queues.reset();
        break;
      case 'eventfds':
        state.queues.connect(request.fds);
        break;
      case 'add-namespace':
        this.#addNamespace(state.io, request.namespace);
        break;
      case 'clear-extremes':
        new Counters(this.#counters, request.row).clearExtremes();
        break;
      case 'limit': {
        const namespace = state.io.namespaces[request.nsid - 1];
        if (namespace !== undefined) {
          namespace.limiter = request.limits && new Limiter(request.limits);
        }
        break;
      }
      case 'remove-namespace':
        this.#closeNamespace(state.io, request.nsid);
        break;
      case 'shadow':
        state.queues.setShadow(request.shadow);
        break;
      case 'write-through':
        state.io.writeThrough = request.enabled;
        break;
    }
    return Status.SUCCESS;
  }

  /** Whatever comes of its namespaces, the controller is there: one that cannot be opened is missing. */
  #attach(request: ControllerRequest & { kind: 'attach' }): number {
    const memory = new GuestMemory();
    const io: IoController = {
      id: request.controller,
      memory,
      namespaces: [],
      maxTransferBytes: request.maxTransferBytes,
      writeThrough: request.writeThrough,
      inflight: 0,
      draining: false,
      counters: new Counters(this.#counters, request.row),
    };
    const doorbells = new Int32Array(request.doorbells);
    const progress = new Int32Array(request.progress);
    this.#controllers.set(request.controller, {
      io,
      queues: new ControllerQueues(io, doorbells, request.shadow, progress),
      doorbells,
      trapped: request.trapped,
      socket: request.socket,
      listening: false,
      waiting: [],
    });
    let status: number = Status.SUCCESS;
    for (const namespace of request.namespaces) {
      try {
        this.#addNamespace(io, namespace);
      } catch {
        status = Status.INTERNAL_ERROR;
      }
    }
    return status;
  }

  #addNamespace(io: IoController, { nsid, row, limits, bdev }: NamespaceDescriptor): void {
    const namespace: IoNamespace = {
      nsid,
      backend: openBackend(bdev.backend, this.#context),
      blockShift: Math.log2(bdev.blockSize),
      numBlocks: bdev.numBlocks,
      readonly: bdev.readonly,
      counters: new Counters(this.#counters, row),
      limiter: limits && new Limiter(limits),
      parked: 0,
      waiting: 0,
      failures: 0,
      toldAt: Number.NEGATIVE_INFINITY,
    };
    this.#closeNamespace(io, nsid);
    while (io.namespaces.length < nsid) {
      io.namespaces.push(undefined);
    }
    io.namespaces[nsid - 1] = namespace;
  }

  #closeNamespace(io: IoController, nsid: number): void {
    io.namespaces[nsid - 1]?.backend.close();
    if (nsid <= io.namespaces.length) {
      io.namespaces[nsid - 1] = undefined;
    }
  }

  #unwatch(state: ControllerState): void {
    this.watches = this.watches.filter((watch) => watch.controller !== state.io.id);
  }
}
