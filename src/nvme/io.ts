/**
 * The I/O engine of a reactor: takes commands from submission queues, checks them, maps their buffers, hands them to the namespace's
 * backend, and stages their completions. Hot: nothing here allocates per command.
 *
 * Every dword of an SQE is read once. Every command taken ends in exactly one completion (or none, if its controller is reset meanwhile).
 */

import { type Backend, type BackendContext, type HostRange, PENDING } from '../bdev/backend.ts';
import type { Counters } from '../bdev/counters.ts';
import { type Limiter, SLICE_MS } from '../bdev/limiter.ts';
import { Op } from '../bdev/op.ts';
import { MAX_CONTROLLER_INFLIGHT, MAX_INFLIGHT } from '../limits.ts';
import type { GuestMemory } from '../memory/guest.ts';
import { mapPrps } from '../memory/prp.ts';
import { native } from '../native/index.ts';
import { CDW12_FUA, CDW12_NLB_MASK, NvmOpcode } from '../spec/nvm.ts';
import { SQE_FUSE_MASK, SQE_PSDT_MASK, Sqe, Status } from '../spec/nvme.ts';
import { SQE_WORDS, type SubmissionQueue } from './queue.ts';

const CDW0 = Sqe.word('cdw0');
const NSID = Sqe.word('nsid');
const PRP1 = Sqe.word('prp1');
const PRP2 = Sqe.word('prp2');
const SLBA = Sqe.word('cdw10');
const CDW12 = Sqe.word('cdw12');
const TWO_32 = 0x1_0000_0000;
/** Above this in the upper half, an LBA is not exact as a number; no bdev is that large. */
const MAX_LBA_HI = 0x1f_ffff;

/** Commands, and bytes copied for them, after which the next queue has its turn. */
const BATCH = 64;
const BATCH_BYTES = 1024 * 1024;
/**
 * Completions, and copied bytes, after which completions are published before the batch is through: the host can go on while the rest is
 * worked on. At depth 32 this doubles the rate; each publication costs an ordered store, so fewer are not better.
 */
const PUBLISH_EVERY = 8;
const PUBLISH_BYTES = 64 * 1024;
/** Batches of which one is timed, where commands complete within the batch: the clock costs as much as some commands. */
const BATCHES_PER_SAMPLE = 64;
/** Between two failures of a namespace that are told of. Nanoseconds. */
const TELL_NS = 1e9;
/** The command could not be taken now: it stays in the queue. Beside PENDING and the NVMe statuses. */
const BUSY = -2;

/** A namespace as a reactor sees it. */
export interface IoNamespace {
  readonly nsid: number;
  readonly backend: Backend;
  readonly blockShift: number;
  readonly numBlocks: number;
  readonly readonly: boolean;
  readonly counters: Counters;
  /** Of its bdev, if there are any. */
  limiter: Limiter | undefined;
  /** Commands that wait for it; and the slice in which one last did. */
  parked: number;
  waiting: number;
  /** Failures that were not told of yet, and when one last was (ns). */
  failures: number;
  toldAt: number;
}

/** A controller as a reactor sees it. */
export interface IoController {
  readonly id: number;
  readonly memory: GuestMemory;
  /** By NSID − 1. */
  namespaces: (IoNamespace | undefined)[];
  /** Largest transfer of a command, in bytes. */
  readonly maxTransferBytes: number;
  /** The host turned the volatile write cache off: each write is made durable. */
  writeThrough: boolean;
  /** Commands in flight. */
  inflight: number;
  /** Something waits for all of them: rate limits hold no command up. */
  draining: boolean;
  /** Commands that were refused before a namespace was asked. */
  readonly counters: Counters;
}

/** A command that failed because the system said so. */
export interface IoFailure {
  /** Its id. */
  readonly controller: number;
  readonly nsid: number;
  readonly op: Op;
  /** Or END_OF_FILE. */
  readonly errno: number;
  /** Where it failed; of no meaning for a Flush. */
  readonly lba: number;
  /** Failures of the namespace since the last that was told of, with this one. */
  readonly count: number;
}

/** Why the commands of a controller are waited for. */
export interface Drain {
  /** Memory that goes. */
  readonly memory: HostRange;
  /** Whether a command has to end, as its queue or namespace goes. */
  readonly ends: (queue: IoQueue, namespace: IoNamespace) => boolean;
}

/** A queue and the controller it belongs to. */
export interface IoQueue {
  readonly sq: SubmissionQueue;
  readonly controller: IoController;
}

export class IoEngine {
  readonly #context: BackendContext;
  readonly #failed: (failure: IoFailure) => void;
  // In-flight commands of asynchronous backends, by slot.
  readonly #slotQueue: (IoQueue | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);
  readonly #slotNamespace: (IoNamespace | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);
  readonly #slotCid = new Int32Array(MAX_INFLIGHT);
  readonly #slotOp = new Int32Array(MAX_INFLIGHT);
  readonly #slotBytes = new Int32Array(MAX_INFLIGHT);
  readonly #slotStart = new Float64Array(MAX_INFLIGHT);
  readonly #freeSlots = new Int32Array(MAX_INFLIGHT);
  #freeCount = MAX_INFLIGHT;
  /** Time of the poll round in ns, at index 0. */
  readonly #now = new Float64Array(new SharedArrayBuffer(8));
  readonly #clock = native.bindClock(this.#now);
  #clockRead = false;
  /** Commands that wait for a rate limit hold a slot: in order, and their SQEs. */
  readonly #parked = new Int32Array(MAX_INFLIGHT);
  #parkedCount = 0;
  readonly #parkedSqes = new Int32Array(MAX_INFLIGHT * SQE_WORDS);
  /** When one came that is carried out now, at index 0. */
  readonly #since = new Float64Array(1);
  /** The slice in which they were last looked at. */
  #lastSlice = 0;
  /** Batches since the last that was timed; the time it began, and the first command of it that a namespace took. */
  #batches = 0;
  readonly #sampleStart = new Float64Array(1);
  #sampling = false;
  #sampled: IoNamespace | undefined;
  #sampledOp: Op = Op.READ;

  /** `failed` is told of failures, once a second and namespace at most. */
  constructor(context: BackendContext, failed: (failure: IoFailure) => void) {
    this.#context = context;
    this.#failed = failed;
    for (let i = 0; i < MAX_INFLIGHT; i++) {
      this.#freeSlots[i] = i;
    }
  }

  get inflight(): number {
    return MAX_INFLIGHT - this.#freeCount;
  }

  /** The queue of each command in flight: a queue as often as it has commands. For diagnosis. */
  waiting(): IoQueue[] {
    return this.#slotQueue.filter((queue) => queue !== undefined);
  }

  /** Commands that wait for a rate limit: `release` is to be called at least once a slice. */
  get parked(): number {
    return this.#parkedCount;
  }

  /** A new poll round: the clock is read anew when somebody needs it. */
  beginRound(): void {
    this.#clockRead = false;
  }

  /** Reads the clock, for latencies: once a round, not once a command. */
  readClock(): void {
    this.#clock(0);
    this.#clockRead = true;
  }

  /** Hot. Takes and starts what the host submitted, up to a batch. Returns how many commands it took. */
  poll(queue: IoQueue): number {
    const sq = queue.sq;
    const tail = sq.tail();
    let head = sq.head;
    if (tail === head || sq.stopped) {
      return 0;
    }
    const cq = sq.cq;
    const copies = this.#context.copies;
    const words = sq.words;
    const room = Math.min(BATCH, cq.room(BATCH));
    const request = this.#context.request;
    let taken = 0;
    let bytes = 0;
    this.#batches += 1;
    if (this.#batches === BATCHES_PER_SAMPLE) {
      this.#startSample();
    }
    while (head !== tail && taken < room && bytes < BATCH_BYTES) {
      const base = head * SQE_WORDS;
      const cdw0 = words[base + CDW0];
      const status = this.#execute(queue, words, base, cdw0, true);
      if (status === BUSY) {
        break;
      }
      head = head + 1 === sq.size ? 0 : head + 1;
      taken += 1;
      if (status === PENDING) {
        sq.head = head;
        continue;
      }
      if (status !== Status.SUCCESS) {
        this.#refuse(queue.controller, words[base + NSID], status);
      }
      cq.stage(0, sq.qid, head, cdw0 >>> 16, status);
      bytes += request.length;
      if (taken % PUBLISH_EVERY === 0 || copies.bytes >= PUBLISH_BYTES) {
        copies.flush();
        cq.publish();
        if (this.#sampled !== undefined) {
          this.#endSample();
        }
      }
    }
    sq.head = head;
    sq.hush();
    if (copies.pending) {
      copies.flush();
    }
    if (this.#sampling) {
      this.#endSample();
    }
    return taken;
  }

  #startSample(): void {
    this.#batches = 0;
    this.#sampling = true;
    this.readClock();
    this.#sampleStart[0] = this.#now[0];
  }

  /** The first command of a timed batch is about to be seen by the host. */
  #endSample(): void {
    const namespace = this.#sampled;
    this.#sampling = false;
    this.#sampled = undefined;
    if (namespace !== undefined) {
      this.readClock();
      namespace.counters.time(this.#sampledOp, this.#now, this.#sampleStart, 0);
    }
  }

  /** Counts an error, with the namespace it is about if there is one. */
  #refuse(controller: IoController, nsid: number, status: number): void {
    const index = nsid - 1;
    const { namespaces } = controller;
    const namespace = index >>> 0 < namespaces.length ? namespaces[index] : undefined;
    (namespace ?? controller).counters.fail(status);
  }

  /** An NVMe status, PENDING or BUSY. `limited`: rate limits may park the command. */
  #execute(
    queue: IoQueue,
    words: Int32Array,
    base: number,
    cdw0: number,
    limited: boolean,
  ): number {
    const controller = queue.controller;
    const opcode = cdw0 & 0xff;
    const request = this.#context.request;
    request.length = 0;
    if ((cdw0 & (SQE_FUSE_MASK | SQE_PSDT_MASK)) !== 0) {
      return Status.INVALID_FIELD;
    }
    const index = words[base + NSID] - 1;
    const namespaces = controller.namespaces;
    const namespace = index >>> 0 < namespaces.length ? namespaces[index] : undefined;
    let op: Op;
    if (opcode === NvmOpcode.READ) {
      op = Op.READ;
    } else if (opcode === NvmOpcode.WRITE) {
      op = Op.WRITE;
    } else if (opcode === NvmOpcode.FLUSH) {
      op = Op.FLUSH;
    } else {
      return Status.INVALID_OPCODE;
    }
    if (namespace === undefined) {
      return Status.INVALID_NAMESPACE;
    }
    if (op !== Op.FLUSH) {
      const lbaLo = words[base + SLBA];
      const lbaHi = words[base + SLBA + 1];
      const cdw12 = words[base + CDW12];
      const lba = (lbaHi >>> 0) * TWO_32 + (lbaLo >>> 0);
      const blocks = (cdw12 & CDW12_NLB_MASK) + 1;
      if (lbaHi >>> 0 > MAX_LBA_HI || lba + blocks > namespace.numBlocks) {
        return Status.LBA_OUT_OF_RANGE;
      }
      const length = blocks << namespace.blockShift;
      if (length > controller.maxTransferBytes) {
        return Status.INVALID_FIELD;
      }
      if (op === Op.WRITE && namespace.readonly) {
        return Status.NAMESPACE_WRITE_PROTECTED;
      }
      const mapped = mapPrps(
        controller.memory,
        words[base + PRP1],
        words[base + PRP1 + 1],
        words[base + PRP2],
        words[base + PRP2 + 1],
        length,
        op === Op.READ,
        request.segments,
      );
      if (mapped !== Status.SUCCESS) {
        return mapped;
      }
      request.offset[0] = lba * (1 << namespace.blockShift);
      request.length = length;
      request.fua = (cdw12 & CDW12_FUA) !== 0 || controller.writeThrough;
    }
    if (namespace.limiter !== undefined && limited && op !== Op.FLUSH) {
      if (!this.#admit(namespace, namespace.limiter, op, request.length)) {
        return this.#park(queue, namespace, words, base, cdw0 >>> 16);
      }
      return this.#startTimed(queue, namespace, op, cdw0 >>> 16);
    }
    const backend = namespace.backend;
    if (backend.async) {
      return this.#start(queue, namespace, op, cdw0 >>> 16, request.length);
    }
    const status = backend.submit(op, -1);
    if (status === Status.SUCCESS) {
      namespace.counters.count(op, request.length);
      if (this.#sampling && this.#sampled === undefined) {
        this.#sampled = namespace;
        this.#sampledOp = op;
      }
    } else {
      namespace.counters.failBackend();
    }
    return status;
  }

  /** Every command of a bdev with limits is timed, as those that wait are: samples of the others would not go with them. */
  #startTimed(queue: IoQueue, namespace: IoNamespace, op: Op, cid: number): number {
    const { length } = this.#context.request;
    this.#since[0] = this.#now[0];
    if (namespace.backend.async) {
      // One that completes at once is timed here, and is no sample.
      const sampled = this.#sampled;
      const status = this.#start(queue, namespace, op, cid, length);
      this.#sampled = sampled;
      return this.#timed(namespace, op, status);
    }
    const status = namespace.backend.submit(op, -1);
    if (status === Status.SUCCESS) {
      namespace.counters.count(op, length);
    } else {
      namespace.counters.failBackend();
    }
    return this.#timed(namespace, op, status);
  }

  /** Adds the time since `#since` of a command that has completed at once. */
  #timed(namespace: IoNamespace, op: Op, status: number): number {
    if (status === Status.SUCCESS) {
      this.#context.copies.flush();
      this.readClock();
      namespace.counters.time(op, this.#now, this.#since, 0);
    }
    return status;
  }

  /** Commands of a namespace go in the order they came. */
  #admit(namespace: IoNamespace, limiter: Limiter, op: Op, length: number): boolean {
    if (!this.#clockRead) {
      this.readClock();
    }
    return namespace.parked === 0 && limiter.admit(op, length, this.#now);
  }

  /** Keeps a command that is over its bdev's limit, with a slot and a CQ entry. */
  #park(
    queue: IoQueue,
    namespace: IoNamespace,
    words: Int32Array,
    base: number,
    cid: number,
  ): number {
    if (this.#freeCount === 0 || queue.controller.inflight >= MAX_CONTROLLER_INFLIGHT) {
      return BUSY;
    }
    const slot = this.#take(queue, namespace, cid);
    this.#slotStart[slot] = this.#now[0];
    for (let i = 0; i < SQE_WORDS; i++) {
      this.#parkedSqes[slot * SQE_WORDS + i] = words[base + i];
    }
    this.#parked[this.#parkedCount] = slot;
    this.#parkedCount += 1;
    namespace.parked += 1;
    return PENDING;
  }

  /**
   * Once a slice (and at once where something drains): carries out parked commands that may go by now, in their order. Returns the number of
   * commands that are not parked any more; `completed` is called with each queue that got a completion, to be published after this.
   */
  release(draining: boolean, completed: (sq: SubmissionQueue) => void): number {
    this.readClock();
    const slice = (this.#now[0] / (SLICE_MS * 1e6)) | 0;
    if (slice === this.#lastSlice && !draining) {
      return 0;
    }
    this.#lastSlice = slice;
    const count = this.#parkedCount;
    let kept = 0;
    for (let i = 0; i < count; i++) {
      const slot = this.#parked[i];
      const queue = this.#slotQueue[slot]!;
      const namespace = this.#slotNamespace[slot]!;
      if (this.#goes(slot, queue, namespace)) {
        namespace.parked -= 1;
        this.#unpark(slot, queue, completed);
      } else {
        namespace.waiting = slice;
        this.#parked[kept++] = slot;
      }
    }
    this.#parkedCount = kept;
    if (this.#context.copies.pending) {
      this.#context.copies.flush();
    }
    return count - kept;
  }

  /** Whether a parked command may go in this slice. */
  #goes(slot: number, { sq, controller }: IoQueue, namespace: IoNamespace): boolean {
    const { limiter } = namespace;
    if (sq.discarded || controller.draining || limiter === undefined) {
      return true;
    }
    const at = slot * SQE_WORDS;
    const op = (this.#parkedSqes[at + CDW0] & 0xff) === NvmOpcode.READ ? Op.READ : Op.WRITE;
    const blocks = (this.#parkedSqes[at + CDW12] & CDW12_NLB_MASK) + 1;
    return (
      namespace.waiting !== this.#lastSlice &&
      limiter.admit(op, blocks << namespace.blockShift, this.#now)
    );
  }

  #unpark(slot: number, queue: IoQueue, completed: (sq: SubmissionQueue) => void): void {
    const { sq } = queue;
    const namespace = this.#slotNamespace[slot]!;
    const base = slot * SQE_WORDS;
    const cdw0 = this.#parkedSqes[base + CDW0];
    this.#give(slot, queue);
    if (sq.discarded) {
      return;
    }
    // A slot and a CQ entry have just become free: it cannot be BUSY, and if it takes a slot it is this one. Its wait counts.
    this.#since[0] = this.#slotStart[slot];
    const status = this.#execute(queue, this.#parkedSqes, base, cdw0, false);
    if (status === PENDING) {
      this.#slotStart[slot] = this.#since[0];
    } else {
      this.#timed(namespace, (cdw0 & 0xff) === NvmOpcode.READ ? Op.READ : Op.WRITE, status);
      if (status !== Status.SUCCESS) {
        this.#refuse(queue.controller, this.#parkedSqes[base + NSID], status);
      }
      sq.cq.stage(0, sq.qid, sq.head, cdw0 >>> 16, status);
      completed(sq);
    }
  }

  /** Takes the slot that is on top of the free ones, and a CQ entry. */
  #take(queue: IoQueue, namespace: IoNamespace, cid: number): number {
    this.#freeCount -= 1;
    const slot = this.#freeSlots[this.#freeCount];
    this.#slotQueue[slot] = queue;
    this.#slotNamespace[slot] = namespace;
    this.#slotCid[slot] = cid;
    queue.sq.cq.reserve();
    queue.controller.inflight += 1;
    return slot;
  }

  /** Gives both back. */
  #give(slot: number, { sq, controller }: IoQueue): void {
    this.#slotQueue[slot] = undefined;
    this.#slotNamespace[slot] = undefined;
    this.#freeSlots[this.#freeCount] = slot;
    this.#freeCount += 1;
    controller.inflight -= 1;
    sq.cq.unreserve();
  }

  /** The reactor ends: what is only held up does not last. */
  hurry(): void {
    for (let slot = 0; slot < MAX_INFLIGHT; slot++) {
      this.#slotNamespace[slot]?.backend.hurry?.(slot, true);
    }
  }

  /** Has the commands of a controller go on that are only held up. Returns how many of its commands are to be waited for. */
  drain(controller: IoController, { memory, ends }: Drain): number {
    let count = 0;
    for (let slot = 0; slot < MAX_INFLIGHT; slot++) {
      const queue = this.#slotQueue[slot];
      const namespace = this.#slotNamespace[slot];
      if (queue?.controller === controller && namespace !== undefined) {
        const { backend } = namespace;
        const end = ends(queue, namespace);
        if (end || backend.stays?.(slot, memory) !== true) {
          backend.hurry?.(slot, end);
          count += 1;
        }
      }
    }
    return count;
  }

  /** Starts a command that completes later: it holds a slot and a CQ entry until then. */
  #start(queue: IoQueue, namespace: IoNamespace, op: Op, cid: number, length: number): number {
    if (this.#freeCount === 0 || queue.controller.inflight >= MAX_CONTROLLER_INFLIGHT) {
      return BUSY;
    }
    if (!this.#clockRead) {
      this.readClock();
    }
    const slot = this.#freeSlots[this.#freeCount - 1];
    const status = namespace.backend.submit(op, slot);
    if (status !== PENDING) {
      if (status === Status.SUCCESS) {
        namespace.counters.count(op, length);
        if (this.#sampling && this.#sampled === undefined) {
          this.#sampled = namespace;
          this.#sampledOp = op;
        }
      } else {
        namespace.counters.failBackend();
      }
      return status;
    }
    this.#take(queue, namespace, cid);
    this.#slotOp[slot] = op;
    this.#slotBytes[slot] = length;
    this.#slotStart[slot] = this.#now[0];
    return PENDING;
  }

  /**
   * The ring finished an operation of a slot. Stages the command's completion and returns its queue, or undefined if there is
   * nothing to publish: the command goes on, or its controller is being reset.
   */
  finish(slot: number, result: number): SubmissionQueue | undefined {
    const queue = this.#slotQueue[slot];
    const namespace = this.#slotNamespace[slot];
    if (queue === undefined || namespace === undefined) {
      throw new Error(`slot ${slot} has no command`);
    }
    const status = namespace.backend.complete(slot, result);
    if (status === PENDING) {
      // A delay bdev holds it back.
      this.#tellIfFailed(slot, queue.controller, namespace);
      return undefined;
    }
    const { sq } = queue;
    this.#give(slot, queue);
    if (status === Status.SUCCESS) {
      namespace.counters.count(this.#slotOp[slot], this.#slotBytes[slot]);
    } else {
      namespace.counters.fail(status);
      namespace.counters.failBackend();
      this.#tellIfFailed(slot, queue.controller, namespace);
    }
    namespace.counters.time(this.#slotOp[slot], this.#now, this.#slotStart, slot);
    if (sq.discarded) {
      return undefined;
    }
    sq.cq.stage(0, sq.qid, sq.head, this.#slotCid[slot], status);
    return sq;
  }

  /** Tells of a command that failed because the system said so. */
  #tellIfFailed(slot: number, { id }: IoController, namespace: IoNamespace): void {
    const { request } = this.#context;
    const { errno } = request;
    if (errno === 0) {
      return;
    }
    request.errno = 0;
    namespace.failures += 1;
    if (this.#now[0] - namespace.toldAt >= TELL_NS) {
      this.#failed({
        controller: id,
        nsid: namespace.nsid,
        op: this.#slotOp[slot] as Op,
        errno,
        lba: Math.floor(request.offset[0] / 2 ** namespace.blockShift),
        count: namespace.failures,
      });
      namespace.toldAt = this.#now[0];
      namespace.failures = 0;
    }
  }
}
