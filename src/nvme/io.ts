/**
 * The I/O engine of a reactor: takes commands from submission queues, checks them, maps their buffers, hands them to the namespace's
 * backend, and stages their completions. Hot: nothing here allocates per command.
 *
 * Every dword of an SQE is read once; of a command that is parked once more, when it is copied, and the copy is checked anew. Every command
 * taken ends in exactly one completion (or none, if its controller is reset meanwhile).
 */

import { PENDING } from '../bdev/backend.ts';
import type { BackendContext } from '../bdev/context.ts';
import { Op } from '../bdev/op.ts';
import { mapPrps } from '../memory/prp.ts';
import { CDW12_FUA, CDW12_NLB_MASK, NvmOpcode } from '../spec/nvm.ts';
import { SQE_FUSE_MASK, SQE_PSDT_MASK, Sqe, Status } from '../spec/nvme.ts';
import { BatchSampler } from './batch-sampler.ts';
import { BUSY, Inflight } from './inflight.ts';
import { type IoFailure, IoFailures } from './io-failures.ts';
import type { IoController, IoNamespace, IoQueue } from './io-view.ts';
import { ParkedCommands } from './parked.ts';
import { SQE_WORDS, type SubmissionQueue } from './queue.ts';
import { RoundClock } from './round-clock.ts';

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

export class IoEngine {
  readonly #context: BackendContext;
  readonly clock = new RoundClock();
  readonly inflight = new Inflight();
  readonly #sampler = new BatchSampler(this.clock);
  readonly #failures: IoFailures;
  readonly #parked: ParkedCommands;
  /** Told of each queue whose parked commands get completions, to be published after this. */
  readonly #completed: (sq: SubmissionQueue) => void;
  /** When a command came that is carried out now, at index 0. */
  readonly #since = new Float64Array(1);

  /** `failed`: see {@link IoFailures}. `completed` is called with each queue to which `release` adds a completion, to be published after it. */
  constructor(
    context: BackendContext,
    failed: (failure: IoFailure) => void,
    completed: (sq: SubmissionQueue) => void,
  ) {
    this.#context = context;
    this.#failures = new IoFailures(context.request, this.clock, failed);
    this.#parked = new ParkedCommands(this.inflight, this.clock, this.#unpark);
    this.#completed = completed;
  }

  /** Commands that wait for a rate limit: `release` is to be called at least once a slice. */
  get parked(): number {
    return this.#parked.count;
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
    this.#sampler.begin();
    while (head !== tail && taken < room && bytes < BATCH_BYTES) {
      const base = head * SQE_WORDS;
      const cdw0 = words[base + CDW0];
      const nsid = words[base + NSID];
      const status = this.#execute(queue, words, base, cdw0, nsid, true);
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
        this.#refuse(queue.controller, nsid, status);
      }
      cq.stage(0, sq.qid, head, cdw0 >>> 16, status);
      bytes += request.length;
      if (taken % PUBLISH_EVERY === 0 || copies.bytes >= PUBLISH_BYTES) {
        copies.flush();
        cq.publish();
        this.#sampler.published();
      }
    }
    sq.head = head;
    sq.hush();
    if (copies.pending) {
      copies.flush();
    }
    this.#sampler.end();
    return taken;
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
    nsid: number,
    limited: boolean,
  ): number {
    const controller = queue.controller;
    const opcode = cdw0 & 0xff;
    const request = this.#context.request;
    request.length = 0;
    if ((cdw0 & (SQE_FUSE_MASK | SQE_PSDT_MASK)) !== 0) {
      return Status.INVALID_FIELD;
    }
    const index = nsid - 1;
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
    const { limiter } = namespace;
    if (limiter !== undefined && limited && op !== Op.FLUSH) {
      const cid = cdw0 >>> 16;
      return this.#parked.admit(namespace, limiter, op, request.length)
        ? this.#startTimed(queue, namespace, op, cid)
        : this.#parked.park(queue, namespace, op, cid, words, base);
    }
    const status = this.#start(queue, namespace, op, cdw0 >>> 16);
    if (status === Status.SUCCESS) {
      this.#sampler.took(namespace, op);
    }
    return status;
  }

  /** Hands the request to the backend. What completes later holds a slot and a CQ entry until then. */
  #start(queue: IoQueue, namespace: IoNamespace, op: Op, cid: number): number {
    const { backend } = namespace;
    const { length } = this.#context.request;
    let slot = -1;
    if (backend.async) {
      if (this.inflight.full(queue.controller)) {
        return BUSY;
      }
      this.clock.need();
      slot = this.inflight.next;
    }
    const status = backend.submit(op, slot);
    if (status === Status.SUCCESS) {
      namespace.counters.count(op, length);
    } else if (status === PENDING) {
      this.inflight.take(queue, namespace, op, cid, length);
      this.inflight.start[slot] = this.clock.now[0];
    } else {
      namespace.counters.failBackend();
    }
    return status;
  }

  /** Every command of a bdev with limits is timed, as those that wait are: samples of the others would not go with them. */
  #startTimed(queue: IoQueue, namespace: IoNamespace, op: Op, cid: number): number {
    this.#since[0] = this.clock.now[0];
    return this.#timed(namespace, op, this.#start(queue, namespace, op, cid));
  }

  /** Adds the time since `#since` of a command that has completed at once. */
  #timed(namespace: IoNamespace, op: Op, status: number): number {
    if (status === Status.SUCCESS) {
      this.#context.copies.flush();
      this.clock.read();
      namespace.counters.time(op, this.clock.now, this.#since, 0);
    }
    return status;
  }

  /** Carries out parked commands that may go by now. Returns how many. `draining`: some wait for them. */
  release(draining: boolean): number {
    const count = this.#parked.release(draining);
    this.#context.copies.flush();
    return count;
  }

  readonly #unpark = (slot: number, queue: IoQueue, sqes: Int32Array, base: number): void => {
    const { sq } = queue;
    const namespace = this.inflight.namespace[slot]!;
    const cdw0 = sqes[base + CDW0];
    const nsid = sqes[base + NSID];
    this.#since[0] = this.inflight.start[slot];
    this.inflight.give(slot, queue);
    if (sq.discarded) {
      return;
    }
    // A slot and a CQ entry have just become free: it cannot be BUSY, and if it takes a slot it is this one. Its wait counts.
    const status = this.#execute(queue, sqes, base, cdw0, nsid, false);
    if (status === PENDING) {
      this.inflight.start[slot] = this.#since[0];
      return;
    }
    this.#timed(namespace, this.inflight.op(slot), status);
    if (status !== Status.SUCCESS) {
      this.#refuse(queue.controller, nsid, status);
    }
    sq.cq.stage(0, sq.qid, sq.head, cdw0 >>> 16, status);
    this.#completed(sq);
  };

  /**
   * The ring finished an operation of a slot. Stages the command's completion and returns its queue, or undefined if there is
   * nothing to publish: the command goes on, or its controller is being reset.
   */
  finish(slot: number, result: number): SubmissionQueue | undefined {
    const inflight = this.inflight;
    const queue = inflight.queue[slot];
    const namespace = inflight.namespace[slot];
    if (queue === undefined || namespace === undefined) {
      throw new Error(`slot ${slot} has no command`);
    }
    const op = inflight.op(slot);
    const status = namespace.backend.complete(slot, result);
    if (status === PENDING) {
      // A delay bdev holds it back.
      this.#failures.look(queue.controller, namespace, op);
      return undefined;
    }
    inflight.give(slot, queue);
    if (status === Status.SUCCESS) {
      namespace.counters.count(op, inflight.bytes(slot));
    } else {
      namespace.counters.fail(status);
      namespace.counters.failBackend();
      this.#failures.look(queue.controller, namespace, op);
    }
    namespace.counters.time(op, this.clock.now, inflight.start, slot);
    const { sq } = queue;
    if (sq.discarded) {
      return undefined;
    }
    sq.cq.stage(0, sq.qid, sq.head, inflight.cid(slot), status);
    return sq;
  }
}
