/**
 * Files and block devices through the reactor's io_uring: READ/WRITE for one segment, READV/WRITEV for several, FSYNC for Flush. FUA is
 * RWF_DSYNC past the page cache; through it, a write and a sync after it, which others share (`requests/syncs.ts`);
 * Flush and FUA only while no write-back of the file has failed (`write-back.ts`). Buffers that O_DIRECT does
 * not take, and those of file systems that may block, go by way of `bounce.ts`. A short transfer is continued; at the end of the file it is a
 * media error.
 */
import type { RegisteredFiles } from '../io/files.ts';
import type { Ring } from '../io/ring.ts';
import { MAX_BLOCKING_OPS } from '../limits.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import { Status } from '../spec/nvme.ts';
import { IOSQE_ASYNC, RWF_DSYNC, UringOp } from '../spec/uring.ts';
import { type Backend, Detached, END_OF_FILE, PENDING, type Request } from './backend.ts';
import type { BackendDescriptor } from './bdev.ts';
import type { BackendContext } from './context.ts';
import { Op } from './op.ts';
import { Syncs } from './requests/syncs.ts';
import type { Transfers } from './transfers.ts';
import { syncLost, WriteBack, writeLost } from './write-back.ts';

const TWO_32 = 0x1_0000_0000;

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
  readonly #writeBack: WriteBack;
  /** Of each operation, in its place beside the opcode: ASYNC where the submission itself might block. */
  readonly #sqeFlags: number;
  /** Writes go past the page cache, and RWF_DSYNC costs least. */
  readonly #direct: boolean;

  constructor(descriptor: BackendDescriptor & { kind: 'uring' }, context: BackendContext) {
    this.#files = context.files;
    this.#file = context.files.add(descriptor.fds[context.reactor]);
    this.#writeBack = new WriteBack(descriptor.writeBack);
    this.#ring = context.ring;
    this.#request = context.request;
    this.#transfers = context.transfers;
    this.#syncs = new Syncs(context.ring, this.#file, context.syncs, context.ended);
    this.#sqeFlags = descriptor.mayBlock ? IOSQE_ASYNC << 8 : 0;
    this.#direct = descriptor.alignment > 1;
    this.depth = descriptor.mayBlock ? MAX_BLOCKING_OPS : undefined;
  }

  submit(op: Op, slot: number): number {
    const request = this.#request;
    const transfers = this.#transfers;
    if ((op === Op.FLUSH || request.fua) && op !== Op.READ && this.#writeBack.failed) {
      return Status.WRITE_FAULT_FOR_GOOD;
    }
    if (op === Op.FLUSH) {
      transfers.op[slot] = op;
      this.#syncs.join(slot);
      return PENDING;
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
    const transfers = this.#transfers;
    const op = transfers.op[slot];
    if (op === Op.FLUSH) {
      return this.#synced(slot, result);
    }
    const rest = transfers.rest[slot];
    const dsync = transfers.rwFlags[slot] !== 0;
    if (result === rest) {
      if (transfers.syncs[slot] === 0) {
        return dsync ? this.#durable() : Status.SUCCESS;
      }
      // From here on it is a flush.
      transfers.op[slot] = Op.FLUSH;
      this.#syncs.join(slot);
      return PENDING;
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
      return op === Op.READ ? Status.UNRECOVERED_READ_ERROR : Status.WRITE_FAULT;
    }
    if (dsync && writeLost(-result)) {
      this.#writeBack.fail(-result);
    }
    return transferStatus(op, -result);
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
      return Status.WRITE_FAULT_FOR_GOOD;
    }
    return this.#durable();
  }

  /** A sync succeeded: so it says, but another may have been told meanwhile that data is gone. */
  #durable(): number {
    return this.#writeBack.failed ? Status.WRITE_FAULT_FOR_GOOD : Status.SUCCESS;
  }

  touches(slot: number, memory: HostRanges): boolean {
    return this.#transfers.touches(slot, memory);
  }

  /** A flush uses no memory. Reads and writes use that of whoever asked for them, until they end. */
  detach(slot: number): Detached {
    if (this.#transfers.op[slot] !== Op.FLUSH) {
      return Detached.NO;
    }
    if (this.#syncs.leads(slot)) {
      return Detached.ALONE;
    }
    this.#syncs.leave(slot);
    return Detached.OVER;
  }

  close(): void {
    this.#files.release(this.#file);
  }
}

/** errno of a failed read or write → the NVMe status that tells the guest what happened. */
function transferStatus(op: number, errno: number): number {
  switch (errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Status.CAPACITY_EXCEEDED;
    case EROFS:
    case EPERM:
    case EBADF:
      return op === Op.READ ? Status.INTERNAL_ERROR : Status.NAMESPACE_WRITE_PROTECTED;
    case EFAULT:
      return Status.DATA_TRANSFER_ERROR;
    case ENOMEM:
      return Status.INTERNAL_ERROR;
    default:
      return op === Op.READ ? Status.UNRECOVERED_READ_ERROR : Status.WRITE_FAULT;
  }
}
