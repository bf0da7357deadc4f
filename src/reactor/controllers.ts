/**
 * The controllers of a reactor, and the requests main makes about them. Owned by one reactor.
 *
 * A request that takes something away (memory, a queue, a namespace) first drains its controller: no command is taken, those in flight
 * finish, then it is carried out and answered. Requests of one controller never overtake each other.
 */
import type { BackendContext } from '../bdev/backend.ts';
import { Counters } from '../bdev/counters.ts';
import { Limiter } from '../bdev/limiter.ts';
import { openBackend } from '../bdev/open.ts';
import { UNHEARD } from '../io/ring.ts';
import { GuestMemory } from '../memory/guest.ts';
import { native } from '../native/index.ts';
import type { IoController, IoNamespace, IoQueue } from '../nvme/io.ts';
import { CompletionQueue, NO_EVENT_INDEXES, SubmissionQueue } from '../nvme/queue.ts';
import { ShadowDoorbells } from '../nvme/shadow.ts';
import { CQE_SIZE, SQE_SIZE, Status } from '../spec/nvme.ts';
import {
  AdminWord,
  type ControllerRequest,
  type NamespaceDescriptor,
  QUEUE_WORDS,
  QueueWord,
} from './control.ts';

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

interface ControllerState {
  readonly io: IoController;
  readonly doorbells: Int32Array;
  /** The client cannot map the doorbells: each write that matters wakes the reactor. */
  readonly trapped: boolean;
  shadow: ShadowDoorbells | undefined;
  /** The client's socket, and whether a poll on it is armed. */
  readonly socket: number;
  listening: boolean;
  /** See QueueWord. */
  readonly progress: Int32Array;
  readonly cqs: Map<number, { cq: CompletionQueue; placement: Placement }>;
  readonly sqs: Map<number, IoQueue & { placement: Placement }>;
  /** Requests that wait for the commands in flight. */
  readonly waiting: { id: number; request: ControllerRequest }[];
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

const DRAINS = new Set<ControllerRequest['kind']>([
  'detach',
  'unmap',
  'delete-sq',
  'reset',
  'remove-namespace',
  // What completes after it is to be durable.
  'write-through',
  // Replacing a namespace (its size changed) is a removal, too.
  'add-namespace',
]);

export class Controllers {
  readonly #context: BackendContext;
  readonly #counters: SharedArrayBuffer;
  readonly #answer: (id: number, status: number) => void;
  readonly #hurry: (controller: IoController) => void;
  readonly #controllers = new Map<number, ControllerState>();
  /** Submission queues to poll: those of controllers that are not draining. */
  polled: IoQueue[] = [];
  watches: AdminWatch[] = [];
  /** Some doorbells change without a word to anyone: the reactor has to look at them from time to time. */
  unheard = false;
  /** Some controller waits for its commands in flight. */
  draining = false;

  constructor(
    context: BackendContext,
    counters: SharedArrayBuffer,
    answer: (id: number, status: number) => void,
    /** Something waits for the commands in flight of this one. */
    hurry: (controller: IoController) => void,
  ) {
    this.#context = context;
    this.#counters = counters;
    this.#answer = answer;
    this.#hurry = hurry;
  }

  /** Carries out a request, now or when its controller has drained. */
  handle(id: number, request: ControllerRequest): void {
    const state = this.#controllers.get(request.controller);
    if (state !== undefined && (state.waiting.length > 0 || DRAINS.has(request.kind))) {
      if (request.kind === 'reset' || request.kind === 'detach') {
        for (const { sq } of state.sqs.values()) {
          sq.discarded = true;
        }
      }
      state.waiting.push({ id, request });
      this.advance();
    } else {
      this.#answer(id, this.#carryOut(state, request));
    }
    this.#choosePolled();
  }

  /** Carries out what waited for commands that have finished by now. */
  advance(): void {
    this.draining = false;
    for (const state of [...this.#controllers.values()]) {
      while (state.waiting.length > 0) {
        if (state.io.inflight > 0 && DRAINS.has(state.waiting[0].request.kind)) {
          this.draining = true;
          this.#hurry(state.io);
          break;
        }
        const { id, request } = state.waiting.shift()!;
        this.#answer(id, this.#carryOut(state, request));
      }
    }
    this.#choosePolled();
  }

  /** Writes down how far every queue is, for main. `waiting`: the queue of each command in flight. */
  report(waiting: readonly IoQueue[]): void {
    for (const { cqs, sqs, progress } of this.#controllers.values()) {
      for (const { cq } of cqs.values()) {
        const { head, tail, phase } = cq.progress;
        const row = cq.qid * QUEUE_WORDS;
        progress[row + QueueWord.CQ_HEAD] = head;
        progress[row + QueueWord.CQ_TAIL] = tail;
        progress[row + QueueWord.PHASE] = phase;
      }
      for (const { sq } of sqs.values()) {
        const row = sq.qid * QUEUE_WORDS;
        progress[row + QueueWord.SQ_HEAD] = sq.head;
        progress[row + QueueWord.SQ_TAIL] = sq.tail();
        progress[row + QueueWord.INFLIGHT] = 0;
        progress[row + QueueWord.STOPPED] = Number(sq.stopped);
      }
    }
    for (const { sq, controller } of waiting) {
      const progress = this.#controllers.get(controller.id)?.progress;
      if (progress !== undefined) {
        progress[sq.qid * QUEUE_WORDS + QueueWord.INFLIGHT] += 1;
      }
    }
  }

  #choosePolled(): void {
    this.polled = [];
    this.unheard = this.watches.length > 0;
    for (const state of this.#controllers.values()) {
      state.io.draining = state.waiting.length > 0;
      if (state.waiting.length === 0) {
        this.polled.push(...state.sqs.values());
      }
      this.unheard ||= !state.trapped && state.sqs.size > 0;
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
      const rings = state.shadow !== undefined && state.sqs.size > 0 && state.socket >= 0;
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
  #carryOut(state: ControllerState | undefined, request: ControllerRequest): number {
    try {
      return this.#perform(state, request);
    } catch {
      return Status.INTERNAL_ERROR;
    }
  }

  #perform(state: ControllerState | undefined, request: ControllerRequest): number {
    if (request.kind === 'attach') {
      return this.#attach(request);
    }
    if (state === undefined) {
      // Detached, or never there: nothing is left to change or take away, and no queue can be made.
      const makesQueue = request.kind === 'create-cq' || request.kind === 'create-sq';
      return makesQueue ? Status.INTERNAL_ERROR : Status.SUCCESS;
    }
    switch (request.kind) {
      case 'detach':
        this.#reset(state);
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
        state.io.memory.add(request.region);
        this.#resume(state);
        break;
      case 'unmap':
        this.#unmap(state, request.iova);
        break;
      case 'create-cq':
        return this.#createCq(state, request);
      case 'create-sq':
        return this.#createSq(state, request);
      case 'delete-cq':
        this.#release(state.cqs.get(request.qid)?.placement);
        state.cqs.get(request.qid)?.cq.close();
        state.cqs.delete(request.qid);
        break;
      case 'delete-sq':
        this.#release(state.sqs.get(request.qid)?.placement);
        state.sqs.delete(request.qid);
        break;
      case 'reset':
        this.#reset(state);
        break;
      case 'eventfds':
        for (const { cq } of state.cqs.values()) {
          connect(cq, request.fds[cq.vector] ?? -1);
        }
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
        state.shadow = new ShadowDoorbells(request.shadow, state.io.memory);
        this.#copyDoorbells(state);
        this.#placeDoorbells(state);
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
    for (const region of request.regions) {
      memory.add(region);
    }
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
    this.#controllers.set(request.controller, {
      io,
      doorbells: new Int32Array(request.doorbells),
      trapped: request.trapped,
      shadow: request.shadow && new ShadowDoorbells(request.shadow, memory),
      socket: request.socket,
      listening: false,
      progress: new Int32Array(request.progress),
      cqs: new Map(),
      sqs: new Map(),
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

  #createCq(state: ControllerState, request: ControllerRequest & { kind: 'create-cq' }): number {
    const bytes = request.size * CQE_SIZE;
    const memory = state.io.memory.queueMemory(request.iova, bytes, true);
    if (memory === undefined) {
      return Status.DATA_TRANSFER_ERROR;
    }
    this.#clearDoorbell(state, 2 * request.qid + 1);
    const { qid, size, interrupts, vector } = request;
    const cq = new CompletionQueue(qid, size, memory.words, state.doorbells, interrupts, vector);
    cq.eventfd = request.eventfd;
    cq.adaptive = request.adaptive;
    cq.doorbells = state.shadow?.words?.doorbells ?? state.doorbells;
    const placement = { iova: request.iova, bytes, writable: true, alias: memory.alias };
    state.cqs.set(qid, { cq, placement: { ...placement, suspended: false } });
    return Status.SUCCESS;
  }

  #createSq(state: ControllerState, request: ControllerRequest & { kind: 'create-sq' }): number {
    const completion = state.cqs.get(request.cqid);
    const cq = completion?.cq;
    const bytes = request.size * SQE_SIZE;
    const memory = state.io.memory.queueMemory(request.iova, bytes, false);
    if (cq === undefined || memory === undefined) {
      return cq === undefined ? Status.COMPLETION_QUEUE_INVALID : Status.DATA_TRANSFER_ERROR;
    }
    const { qid, size } = request;
    this.#clearDoorbell(state, 2 * qid);
    const sq = new SubmissionQueue(qid, size, memory.words, state.doorbells, cq);
    const placement = { iova: request.iova, bytes, writable: false, alias: memory.alias };
    state.sqs.set(qid, {
      sq,
      controller: state.io,
      placement: { ...placement, suspended: false },
    });
    this.#placeDoorbells(state);
    sq.hushNow();
    return Status.SUCCESS;
  }

  #reset(state: ControllerState): void {
    for (const { placement } of [...state.sqs.values(), ...state.cqs.values()]) {
      this.#release(placement);
    }
    for (const { cq } of state.cqs.values()) {
      cq.close();
    }
    state.sqs.clear();
    state.cqs.clear();
    state.shadow = undefined;
  }

  /** A new queue begins at 0. */
  #clearDoorbell(state: ControllerState, index: number): void {
    Atomics.store(state.doorbells, index, 0);
    const shadow = state.shadow?.words;
    if (shadow !== undefined) {
      Atomics.store(shadow.doorbells, index, 0);
      Atomics.store(shadow.eventIdx, index, 0);
    }
  }

  /** The shadow of a queue that is there already begins with what the host rang. */
  #copyDoorbells(state: ControllerState): void {
    const shadow = state.shadow?.words?.doorbells;
    if (shadow !== undefined) {
      const qids = [
        ...[...state.sqs.keys()].map((q) => 2 * q),
        ...[...state.cqs.keys()].map((q) => 2 * q + 1),
      ];
      for (const index of qids) {
        Atomics.store(shadow, index, Atomics.load(state.doorbells, index));
      }
    }
  }

  /** Tells the queues where their doorbells are, and stops those that miss some of their memory. */
  #placeDoorbells(state: ControllerState): void {
    const { shadow, doorbells } = state;
    const lost = shadow !== undefined && shadow.words === undefined;
    for (const { cq } of state.cqs.values()) {
      cq.doorbells = shadow?.words?.doorbells ?? doorbells;
    }
    for (const { sq, placement } of state.sqs.values()) {
      sq.doorbells = shadow?.words?.doorbells ?? doorbells;
      sq.eventIdx = shadow?.words?.eventIdx ?? NO_EVENT_INDEXES;
      sq.stopped = lost || placement.suspended || state.cqs.get(sq.cq.qid)!.placement.suspended;
    }
  }

  #release(placement: Placement | undefined): void {
    if (placement?.alias !== undefined) {
      native.revoke(placement.alias);
      placement.alias = undefined;
    }
  }

  /** The region is no longer used when this returns; queues that lie in it rest until their memory is mapped again. */
  #unmap(state: ControllerState, iova: number): void {
    const region = state.io.memory.remove(iova);
    if (region === undefined) {
      return;
    }
    const hit = (placement: Placement): boolean =>
      placement.iova < region.iova + region.size && region.iova < placement.iova + placement.bytes;
    for (const { cq, placement } of state.cqs.values()) {
      if (hit(placement)) {
        this.#release(placement);
        placement.suspended = true;
        cq.memory = new Int32Array(0);
      }
    }
    for (const { sq, placement } of state.sqs.values()) {
      if (hit(placement)) {
        this.#release(placement);
        placement.suspended = true;
        sq.words = new Int32Array(0);
      }
    }
    state.shadow?.find(state.io.memory);
    this.#placeDoorbells(state);
  }

  /** Memory came: queues that rested for it go on. */
  #resume(state: ControllerState): void {
    const find = (placement: Placement): Int32Array | undefined => {
      const { iova, bytes, writable } = placement;
      const memory = state.io.memory.queueMemory(iova, bytes, writable);
      placement.suspended = memory === undefined;
      placement.alias = memory?.alias;
      return memory?.words;
    };
    for (const { cq, placement } of state.cqs.values()) {
      if (placement.suspended) {
        cq.memory = find(placement) ?? new Int32Array(0);
      }
    }
    for (const { sq, placement } of state.sqs.values()) {
      if (placement.suspended) {
        sq.words = find(placement) ?? new Int32Array(0);
      }
    }
    state.shadow?.find(state.io.memory);
    this.#placeDoorbells(state);
  }
}

/** Connects a queue to an eventfd; completions that the host has not seen are signalled there, as the old one may have lost them. */
function connect(cq: CompletionQueue, eventfd: number): void {
  cq.eventfd = eventfd;
  if (cq.interrupts && eventfd >= 0 && cq.pending) {
    native.eventfdSignal(eventfd);
  }
}
