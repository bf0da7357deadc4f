/**
 * Files and block devices through the reactor's io_uring: READ/WRITE for one segment, READV/WRITEV for several, FSYNC for Flush. FUA is
 * RWF_DSYNC past the page cache; through it, a write and a sync after it, which others share (`requests/syncs.ts`);
 * Flush and FUA only while no write-back of the file has failed (`write-back.ts`). Buffers that O_DIRECT does
 * not take, and those of file systems that may block, go by way of `bounce.ts`. A short transfer is continued; at the end of the file it is a
 * media error.
 */
import type { RegisteredFiles } from '../io/files.ts';
import type { Ring } from '../io/ring.ts';
import type { Timers } from '../io/timers.ts';
import { MAX_BLOCKING_OPS } from '../limits.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import {
  FALLOCATE_HOLE,
  FALLOCATE_ZEROES,
  IOSQE_ASYNC,
  RWF_DSYNC,
  UringOp,
} from '../spec/uring.ts';
import { type Backend, Detached, END_OF_FILE, PENDING, type Request } from './backend.ts';
import type { BackendContext } from './context.ts';
import type { FileDescriptor } from './file.ts';
import { Op, opSet } from './op.ts';
import { type SyncLinks, Syncs } from './requests/syncs.ts';
import { Result } from './result.ts';
import type { Transfers } from './transfers.ts';
import { syncLost, WriteBack, writeLost } from './write-back.ts';

const TWO_32 = 0x1_0000_0000;
/** In place of an operation: its sync succeeded, and is believed when those of a reactor that has died have ended; how often that is looked at. */
const BELIEVES_LATER = 0xff;
const LOOK_AGAIN_US = 10_000;

const EAGAIN = 11;
const EINTR = 4;
const ENOMEM = 12;
const EFAULT = 14;
const EFBIG = 27;
const ENOSPC = 28;
const EROFS = 30;
const EPERM = 1;
const EBADF = 9;
const EDQUOT = 122;
const ENOSYS = 38;
const EOPNOTSUPP = 95;

export class UringBackend implements Backend {
  readonly async = true;
  readonly depth: number | undefined;
  /** Registered index. */
  readonly #file: number;
  readonly #ring: Ring;
  readonly #files: RegisteredFiles;
  readonly #request: Request;
  readonly #transfers: Transfers;
  readonly #syncs: Syncs;
  readonly #links: SyncLinks;
  readonly #timers: Timers;
  readonly #writeBack: WriteBack;
  /** Of each operation, in its place beside the opcode: ASYNC where the submission itself might block. */
  readonly #sqeFlags: number;
  /** Writes go past the page cache, and RWF_DSYNC costs least. */
  readonly #direct: boolean;
  /** Whether the file system, or the device, makes holes, and zeroes that hold their blocks: until it turns out that it does not. */
  #holes = true;
  #zeroes = true;

  constructor(descriptor: FileDescriptor, context: BackendContext) {
    this.#files = context.files;
    this.#file = context.files.add(descriptor.fds[context.reactor]);
    this.#writeBack = new WriteBack(descriptor.writeBack);
    this.#ring = context.ring;
    this.#request = context.request;
    this.#transfers = context.transfers;
    this.#links = context.syncs;
    this.#timers = context.timers;
    this.#syncs = new Syncs(context.ring, this.#file, context.syncs, context.ended);
    this.#sqeFlags = descriptor.mayBlock ? IOSQE_ASYNC << 8 : 0;
    this.#direct = descriptor.alignment > 1;
    this.depth = descriptor.mayBlock ? MAX_BLOCKING_OPS : undefined;
  }

  get operations(): number {
    const zeroing = this.#zeroes || this.#holes ? opSet(Op.WRITE_ZEROES) : 0;
    const discarding = this.#holes ? opSet(Op.DISCARD) : 0;
    return opSet(Op.READ, Op.WRITE, Op.FLUSH) | zeroing | discarding;
  }

  submit(op: Op, slot: number): number {
    const request = this.#request;
    const transfers = this.#transfers;
    if ((op === Op.FLUSH || request.fua) && op !== Op.READ && this.#writeBack.failed) {
      return Result.NOT_DURABLE;
    }
    if (op === Op.FLUSH) {
      transfers.op[slot] = op;
      this.#syncs.join(slot);
      return PENDING;
    }
    if (op > Op.FLUSH) {
      return this.#startZeroing(op, slot);
    }
    const fua = request.fua && op === Op.WRITE;
    transfers.start(slot, op, request.segments);
    transfers.rwFlags[slot] = fua && this.#direct ? RWF_DSYNC : 0;
    transfers.syncs[slot] = fua && !this.#direct ? 1 : 0;
    transfers.rest[slot] = request.length;
    const offset = request.offset[0];
    transfers.offset[slot] = offset;
    if (request.segments.count > 1) {
      this.#issue(slot);
      return PENDING;
    }
    this.#ring.prepareTransfer(
      (op === Op.READ ? UringOp.READ : UringOp.WRITE) | this.#sqeFlags,
      this.#file,
      request.segments.address,
      0,
      request.length,
      offset | 0,
      (offset / TWO_32) | 0,
      transfers.rwFlags[slot],
      slot,
    );
    return PENDING;
  }

  /** A discard or a write of zeroes, `request.length` bytes: a thread of the kernel does it. */
  #startZeroing(op: Op, slot: number): number {
    const request = this.#request;
    const transfers = this.#transfers;
    transfers.op[slot] = op;
    transfers.offset[slot] = request.offset[0];
    transfers.length[slot] = request.length;
    transfers.syncs[slot] = request.fua ? 1 : 0;
    const wantsHole = op === Op.DISCARD || request.deallocate;
    transfers.rwFlags[slot] = wantsHole && this.#holes ? FALLOCATE_HOLE : FALLOCATE_ZEROES;
    return this.#zero(slot);
  }

  #zero(slot: number): number {
    const { rwFlags, offset, length } = this.#transfers;
    const mode = rwFlags[slot];
    if (mode === FALLOCATE_ZEROES && !this.#zeroes) {
      return Result.UNSUPPORTED;
    }
    const at = offset[slot];
    this.#ring.prepareFallocate(this.#file, mode, at | 0, (at / TWO_32) | 0, length, slot, slot);
    return PENDING;
  }

  #zeroed(slot: number, op: Op, result: number): number {
    const transfers = this.#transfers;
    if (result === 0) {
      return transfers.syncs[slot] === 0 ? Result.OK : this.#sync(slot);
    }
    if (result === -EINTR || result === -EAGAIN) {
      return this.#zero(slot);
    }
    if (result === -EOPNOTSUPP || result === -ENOSYS) {
      if (transfers.rwFlags[slot] === FALLOCATE_HOLE) {
        this.#holes = false;
      } else {
        this.#zeroes = false;
      }
      if (op === Op.DISCARD) {
        return Result.UNSUPPORTED;
      }
      transfers.rwFlags[slot] = FALLOCATE_ZEROES;
      return this.#zero(slot);
    }
    this.#request.errno = -result;
    this.#request.offset[0] = transfers.offset[slot];
    return transferResult(op, -result);
  }

  /** From here on the slot is a flush's. */
  #sync(slot: number): number {
    this.#transfers.op[slot] = Op.FLUSH;
    if (this.#links.dead) {
      this.#links.leave(slot, this.#writeBack);
    }
    this.#syncs.join(slot);
    return PENDING;
  }

  /** (Re)issues what is left of a slot from its iovecs. */
  #issue(slot: number): void {
    const transfers = this.#transfers;
    const offset = transfers.offset[slot];
    this.#ring.prepareTransfer(
      (transfers.op[slot] === Op.READ ? UringOp.READV : UringOp.WRITEV) | this.#sqeFlags,
      this.#file,
      transfers.iovecs,
      slot,
      transfers.iovecCount[slot],
      offset | 0,
      (offset / TWO_32) | 0,
      transfers.rwFlags[slot],
      slot,
    );
  }

  complete(slot: number, result: number): number {
    const outcome = this.#complete(slot, result);
    if (this.#links.dead && outcome !== PENDING) {
      this.#links.ended(slot);
    }
    return outcome;
  }

  #complete(slot: number, result: number): number {
    const transfers = this.#transfers;
    if (transfers.op[slot] === BELIEVES_LATER) {
      return this.#durable(slot);
    }
    const op = transfers.op[slot] as Op;
    if (op > Op.WRITE) {
      return op === Op.FLUSH ? this.#synced(slot, result) : this.#zeroed(slot, op, result);
    }
    const rest = transfers.rest[slot];
    const dsync = transfers.rwFlags[slot] !== 0;
    if (result === rest) {
      if (transfers.syncs[slot] === 0) {
        return dsync ? this.#durable(slot) : Result.OK;
      }
      return this.#sync(slot);
    }
    if (result > 0 && result < rest) {
      transfers.advance(slot, result);
      this.#issue(slot);
      return PENDING;
    }
    if (result === -EINTR || result === -EAGAIN) {
      this.#issue(slot);
      return PENDING;
    }
    this.#request.errno = result < 0 ? -result : END_OF_FILE;
    this.#request.offset[0] = transfers.offset[slot];
    if (result >= 0) {
      // The file ended: it is shorter than it was when the bdev was made.
      return op === Op.READ ? Result.READ_ERROR : Result.WRITE_ERROR;
    }
    if (dsync && writeLost(-result)) {
      this.#writeBack.fail(-result);
    }
    return transferResult(op, -result);
  }

  /** The sync that a slot joined has ended. */
  #synced(slot: number, result: number): number {
    if (this.#syncs.leads(slot) && !this.#syncs.finish(slot, result)) {
      return PENDING;
    }
    if (result < 0) {
      this.#request.errno = -result;
      if (syncLost(-result)) {
        this.#writeBack.fail(-result);
      }
      return Result.NOT_DURABLE;
    }
    return this.#durable(slot);
  }

  /** A sync succeeded: so it says, but another may have been told meanwhile that data is gone. */
  #durable(slot: number): number {
    if (!this.#links.dead && this.#writeBack.syncsLeft) {
      this.#transfers.op[slot] = BELIEVES_LATER;
      this.#timers.start(slot, LOOK_AGAIN_US);
      return PENDING;
    }
    return this.#writeBack.failed ? Result.NOT_DURABLE : Result.OK;
  }

  /** A reactor that dies leaves syncs, and writes that sync, under way. */
  hurry(slot: number): void {
    const { op, rwFlags } = this.#transfers;
    const syncs = op[slot] === Op.FLUSH || (op[slot] === Op.WRITE && rwFlags[slot] !== 0);
    if (this.#links.dead && syncs) {
      this.#links.leave(slot, this.#writeBack);
    }
  }

  touches(slot: number, memory: HostRanges): boolean {
    return this.#transfers.touches(slot, memory);
  }

  /** Past the page cache, and without a sync. */
  quick(slot: number): boolean {
    const { op, rwFlags } = this.#transfers;
    return this.#direct && this.#sqeFlags === 0 && op[slot] <= Op.WRITE && rwFlags[slot] === 0;
  }

  /** Only reads and writes use memory of whoever asked for them, until they end. */
  detach(slot: number): Detached {
    const op = this.#transfers.op[slot];
    if (op !== Op.FLUSH) {
      return op > Op.FLUSH ? Detached.ALONE : Detached.NO;
    }
    if (this.#syncs.leads(slot)) {
      return Detached.ALONE;
    }
    this.#syncs.leave(slot);
    this.#links.ended(slot);
    return Detached.OVER;
  }

  close(): void {
    this.#files.release(this.#file);
  }
}

/** errno of a failed read or write → what happened. */
function transferResult(op: number, errno: number): number {
  switch (errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Result.NO_SPACE;
    case EROFS:
    case EPERM:
    case EBADF:
      return op === Op.READ ? Result.FAILED : Result.READ_ONLY;
    case EFAULT:
      return Result.BAD_MEMORY;
    case ENOMEM:
      return Result.FAILED;
    default:
      return op === Op.READ ? Result.READ_ERROR : Result.WRITE_ERROR;
  }
}
