/**
 * The I/O engine of a reactor: takes commands from submission queues, checks them, maps their buffers, hands them to the namespace's
 * backend, and stages their completions. Hot: nothing here allocates per command.
 *
 * Every dword of an SQE is read once; of a command that is parked once more, when it is copied, and the copy is checked anew. Every command
 * taken ends in exactly one completion (or none, if its controller is reset meanwhile).
 */

import { PENDING } from '../../bdev/backend.ts';
import type { BackendContext } from '../../bdev/context.ts';
import { Op } from '../../bdev/op.ts';
import type { Requests } from '../../bdev/requests/layer.ts';
import { BUSY } from '../../bdev/requests/waiting.ts';
import { Result } from '../../bdev/result.ts';
import { NvmOpcode, RangeDword12 } from '../../spec/nvm.ts';
import { Cdw0, NSID_ALL, Sqe, Status } from '../../spec/nvme.ts';
import { NO_OP, OP_OF_OPCODE } from '../io-commands.ts';
import { mapPrps } from '../prp.ts';
import { SQE_WORDS } from '../queue.ts';
import { statusOfMissing } from './access.ts';
import { FlushAll } from './flush-all.ts';
import type { Publisher } from './publisher.ts';
import { RareCommands } from './rare.ts';
import { statusOf } from './status.ts';
import type { CommandEngine, IoController, IoNamespace, IoQueue } from './view.ts';

const CDW0 = Sqe.word('cdw0');
const NSID = Sqe.word('nsid');
const PRP1 = Sqe.word('prp1');
const PRP2 = Sqe.word('prp2');
const SLBA = Sqe.word('cdw10');
const CDW12 = Sqe.word('cdw12');
/** Fused commands, which there are not, and SGLs, which are rare. */
const FLAGGED = Cdw0.mask.fuse | Cdw0.mask.psdt;
const FUSE = Cdw0.mask.fuse;
/** The values of PSDT that are reserved: both bits. */
const NO_PSDT = Cdw0.mask.psdt;
const NLB = RangeDword12.mask.nlbZ;
const FUA = RangeDword12.mask.fua;
const TWO_32 = 0x1_0000_0000;
/** Above this in the upper half, an LBA is not exact as a number; no bdev is that large. */
const MAX_LBA_HI = 0x1f_ffff;

/** Bytes moved for a controller after which the next has its turn. */
const TURN_BYTES = 1024 * 1024;
/**
 * Completions, and copied bytes, after which completions are published before the batch is through: the host can go on while the rest is
 * worked on. At depth 32 this doubles the rate; each publication costs an ordered store, so fewer are not better.
 */
const PUBLISH_EVERY = 8;
const PUBLISH_BYTES = 64 * 1024;

export class IoEngine implements CommandEngine {
  readonly #context: BackendContext;
  readonly #requests: Requests;
  readonly #publisher: Publisher;
  readonly #rare: RareCommands;
  /** Bytes moved in this turn of a controller. */
  #turnBytes = 0;

  constructor(context: BackendContext, requests: Requests, publisher: Publisher) {
    this.#context = context;
    this.#requests = requests;
    this.#publisher = publisher;
    this.#rare = new RareCommands(context);
  }

  /** It is the next controller's turn. */
  beginTurn(): void {
    this.#turnBytes = 0;
  }

  /** Hot. Takes and starts what the host submitted, `most` commands at most. Returns how many commands it took. */
  poll(queue: IoQueue, most: number): number {
    const sq = queue.sq;
    const tail = sq.tail();
    let head = sq.head;
    if (tail === head || sq.stopped) {
      return 0;
    }
    const cq = sq.cq;
    const copies = this.#context.copies;
    const words = sq.words;
    const room = Math.min(most, cq.room(most));
    const request = this.#context.request;
    const { sampler } = this.#requests;
    let taken = 0;
    let bytes = this.#turnBytes;
    sampler.begin();
    while (head !== tail && taken < room && bytes < TURN_BYTES) {
      const base = head * SQE_WORDS;
      const cdw0 = words[base + CDW0];
      const nsid = words[base + NSID];
      const status = this.#execute(queue, words, base, cdw0, nsid, false);
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
        sampler.published();
      }
    }
    sq.head = head;
    this.#turnBytes = bytes;
    sq.hush();
    if (copies.pending) {
      copies.flush();
    }
    sampler.end();
    return taken;
  }

  /** Counts an error, with the namespace it is about if there is one. */
  #refuse(controller: IoController, nsid: number, status: number): void {
    const index = nsid - 1;
    const { namespaces } = controller;
    const namespace = index >>> 0 < namespaces.length ? namespaces[index] : undefined;
    (namespace ?? controller).counters.fail(status);
  }

  /** An NVMe status, PENDING or BUSY. `resumed`: the command has waited, and goes now. */
  #execute(
    queue: IoQueue,
    words: Int32Array,
    base: number,
    cdw0: number,
    nsid: number,
    resumed: boolean,
  ): number {
    const controller = queue.controller;
    const opcode = cdw0 & 0xff;
    const request = this.#context.request;
    request.length = 0;
    if ((cdw0 & FLAGGED) !== 0) {
      return this.#executeFlagged(queue, words, base, cdw0, nsid, resumed);
    }
    const index = nsid - 1;
    const namespaces = controller.namespaces;
    const namespace = index >>> 0 < namespaces.length ? namespaces[index] : undefined;
    if (opcode !== NvmOpcode.READ && opcode !== NvmOpcode.WRITE) {
      return this.#executeOther(queue, namespace, words, base, cdw0, nsid, resumed);
    }
    if (namespace === undefined) {
      return statusOfMissing(controller, nsid);
    }
    const op = opcode === NvmOpcode.READ ? Op.READ : Op.WRITE;
    const lbaLo = words[base + SLBA];
    const lbaHi = words[base + SLBA + 1];
    const cdw12 = words[base + CDW12];
    const lba = (lbaHi >>> 0) * TWO_32 + (lbaLo >>> 0);
    const blocks = (cdw12 & NLB) + 1;
    if (lbaHi >>> 0 > MAX_LBA_HI || lba + blocks > namespace.numBlocks) {
      return Status.LBA_OUT_OF_RANGE;
    }
    const length = blocks << namespace.blockShift;
    if (length > controller.maxTransferBytes) {
      return Status.INVALID_FIELD;
    }
    if (op === Op.WRITE && namespace.readonly) {
      return namespace.writeStatus;
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
    request.fua = (cdw12 & FUA) !== 0 || controller.writeThrough;
    const cid = cdw0 >>> 16;
    const result = this.#requests.submit(queue, namespace, op, cid, words, base, resumed);
    return result <= Result.OK ? result : statusOf(result);
  }

  /** A command with an SGL, or a fused one. Those that main carries out have PRPs. */
  #executeFlagged(
    queue: IoQueue,
    words: Int32Array,
    base: number,
    cdw0: number,
    nsid: number,
    resumed: boolean,
  ): number {
    const isRefused = (cdw0 & FUSE) !== 0 || (cdw0 & NO_PSDT) === NO_PSDT;
    if (isRefused || OP_OF_OPCODE[cdw0 & 0xff] === NO_OP) {
      return Status.INVALID_FIELD;
    }
    const index = nsid - 1;
    const { namespaces } = queue.controller;
    const namespace = index >>> 0 < namespaces.length ? namespaces[index] : undefined;
    return this.#executeOther(queue, namespace, words, base, cdw0, nsid, resumed);
  }

  /** A command that neither reads nor writes data, or is rare, or has an SGL. */
  #executeOther(
    queue: IoQueue,
    namespace: IoNamespace | undefined,
    words: Int32Array,
    base: number,
    cdw0: number,
    nsid: number,
    resumed: boolean,
  ): number {
    const found = OP_OF_OPCODE[cdw0 & 0xff];
    if (found === NO_OP) {
      return queue.controller.forward(queue, words, base);
    }
    if (namespace === undefined) {
      if (found === Op.FLUSH && nsid >>> 0 === NSID_ALL) {
        const flushes = new FlushAll(queue, this, this.#requests, cdw0 >>> 16);
        const result = flushes.begin(words, base);
        return result <= Result.OK ? result : statusOf(result);
      }
      return statusOfMissing(queue.controller, nsid);
    }
    const op = found as Op;
    if (op === Op.FLUSH && namespace.writeStatus === Status.RESERVATION_CONFLICT) {
      return Status.RESERVATION_CONFLICT;
    }
    if (op !== Op.FLUSH) {
      const status = this.#rare.prepare(op, queue.controller, namespace, words, base, cdw0);
      if (status !== Status.SUCCESS || this.#context.request.span[0] === 0) {
        return status;
      }
    }
    const cid = cdw0 >>> 16;
    const requests = this.#requests;
    const result =
      op <= Op.WRITE
        ? requests.submit(queue, namespace, op, cid, words, base, resumed)
        : requests.submitSlowly(queue, namespace, op, cid, words, base, resumed);
    return result <= Result.OK ? result : statusOf(result);
  }

  /** A command that waited goes, or gets its status. */
  resume(queue: IoQueue, sqes: Int32Array, base: number): void {
    const cdw0 = sqes[base + CDW0];
    const nsid = sqes[base + NSID];
    const status = this.#execute(queue, sqes, base, cdw0, nsid, true);
    if (status === PENDING) {
      return;
    }
    if (status !== Status.SUCCESS) {
      this.#refuse(queue.controller, nsid, status);
    }
    this.#stage(queue, cdw0 >>> 16, status, 0);
  }

  /** A command that was taken earlier is over. */
  completed(queue: IoQueue, cid: number, result: number): void {
    const { request } = this.#context;
    this.#stage(queue, cid, statusOf(result), request.detail);
    request.detail = 0;
  }

  #stage({ sq }: IoQueue, cid: number, status: number, dw0: number): void {
    sq.cq.stage(dw0, sq.qid, sq.head, cid, status);
    this.#publisher.touch(sq.cq);
  }
}
