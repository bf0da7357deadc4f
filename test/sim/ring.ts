/** One io_uring of a simulated kernel: reads the SQEs that `Ring` wrote, carries them out in virtual time, and posts CQEs when it is entered. */
import type { UringRegion } from '../../src/native/types.ts';
import {
  CQE_F_MORE,
  IOSQE_ASYNC,
  IOSQE_CQE_SKIP_SUCCESS,
  IOSQE_FIXED_FILE,
  Iovec,
  POLL_ADD_MULTI,
  RWF_DSYNC,
  Timespec,
  UringCqe,
  UringOp,
  UringSqe,
  UringSqFlags,
} from '../../src/spec/uring.ts';
import { type OpenDisk, SECTOR } from './disk.ts';
import type { SimKernel } from './kernel.ts';
import { Violation } from './violation.ts';

const TWO_32 = 0x1_0000_0000;
const ENOENT = 2;
const EINTR = 4;
const EIO = 5;
const EAGAIN = 11;
const EBUSY = 16;
const ETIME = 62;
const ECANCELED = 125;

/** Words of the rings. */
const SQ_TAIL = 1;
const SQ_MASK = 2;
const SQ_FLAGS = 3;
const CQ_HEAD = 5;
const CQ_TAIL = 6;
const CQ_MASK = 7;
const SQ_ARRAY = 16;
const SQE_WORDS = UringSqe.size / 4;
const CQE_WORDS = UringCqe.size / 4;

interface Piece {
  readonly address: number;
  readonly length: number;
}

/** A read, write or sync that is under way. */
export interface Transfer {
  readonly userData: number;
  readonly file: OpenDisk;
  readonly pieces: readonly Piece[];
  readonly offset: number;
  readonly kind: 'read' | 'write' | 'sync';
  readonly durable: boolean;
}

export class SimRing {
  readonly region: UringRegion;
  readonly #kernel: SimKernel;
  readonly #rings: Int32Array;
  readonly #sqes: Int32Array;
  readonly #cqes: number;
  #sqHead = 0;
  /** Completions that are not posted yet: user data, result, flags. */
  readonly #done: [number, number, number][] = [];
  readonly #files: number[] = [];
  readonly under = new Set<Transfer>();
  readonly #timeouts = new Map<number, () => void>();
  /** Polls by descriptor. */
  readonly #polls = new Map<number, { userData: number; multi: boolean }[]>();
  /** The reactor sleeps until there are so many completions, or until then. */
  #sleep: { readonly completions: number; readonly until: number } | undefined;
  /** The kernel refuses all further calls. */
  broken = false;

  constructor(kernel: SimKernel, fd: number, entries: number, cqEntries: number) {
    this.#kernel = kernel;
    const sqArray = SQ_ARRAY * 4;
    const cqes = sqArray + entries * 4;
    const rings = new SharedArrayBuffer(cqes + cqEntries * UringCqe.size);
    const sqes = new SharedArrayBuffer(entries * UringSqe.size);
    this.#rings = new Int32Array(rings);
    this.#sqes = new Int32Array(sqes);
    this.#cqes = cqes / 4;
    this.#rings[SQ_MASK] = entries - 1;
    this.#rings[CQ_MASK] = cqEntries - 1;
    this.region = {
      fd,
      features: 0,
      sqEntries: entries,
      cqEntries,
      rings,
      sqes,
      sqHead: 0,
      sqTail: SQ_TAIL * 4,
      sqMask: SQ_MASK * 4,
      sqFlags: SQ_FLAGS * 4,
      sqDropped: 16,
      sqArray,
      cqHead: CQ_HEAD * 4,
      cqTail: CQ_TAIL * 4,
      cqMask: CQ_MASK * 4,
      cqOverflow: 32,
      cqes,
    };
  }

  setFile(index: number, fd: number): void {
    this.#files[index] = fd;
  }

  /** Whether a call of the reactor's has not returned yet. */
  get sleeps(): boolean {
    if (this.#sleep === undefined) {
      return false;
    }
    const { completions, until } = this.#sleep;
    if (this.#posted + this.#done.length >= completions || this.#kernel.timeline.now >= until) {
      this.#sleep = undefined;
      this.#post();
      return false;
    }
    return true;
  }

  /** When it ends by itself. */
  get wakesAt(): number {
    return this.#sleep?.until ?? this.#kernel.timeline.now;
  }

  get #posted(): number {
    return (this.#rings[CQ_TAIL] - this.#rings[CQ_HEAD]) | 0;
  }

  enter(toSubmit: number, minComplete: number, timeoutUs: number): number {
    const { random, timeline } = this.#kernel;
    if (this.broken) {
      return -EIO;
    }
    if (random.chance(0.005)) {
      return -random.pick([EINTR, EAGAIN, EBUSY]);
    }
    const waiting = (this.#rings[SQ_TAIL] - this.#sqHead) | 0;
    if (toSubmit > waiting) {
      throw new Violation(`${toSubmit} SQEs are submitted, and ${waiting} are there`);
    }
    for (let i = 0; i < toSubmit; i++) {
      this.#start((this.#sqHead & this.#rings[SQ_MASK]) * SQE_WORDS);
      this.#sqHead = (this.#sqHead + 1) | 0;
    }
    this.#post();
    if (minComplete > this.#posted) {
      const until = timeoutUs < 0 ? Number.POSITIVE_INFINITY : timeline.now + timeoutUs * 1000;
      this.#sleep = { completions: minComplete, until };
    }
    return toSubmit;
  }

  #post(): void {
    const rings = this.#rings;
    for (const [userData, result, flags] of this.#done.splice(0)) {
      const at = this.#cqes + (rings[CQ_TAIL] & rings[CQ_MASK]) * CQE_WORDS;
      rings[at + UringCqe.word('userData')] = userData;
      rings[at + UringCqe.word('userData') + 1] = userData < 0 ? -1 : 0;
      rings[at + UringCqe.word('res')] = result;
      rings[at + UringCqe.word('flags')] = flags;
      rings[CQ_TAIL] = (rings[CQ_TAIL] + 1) | 0;
    }
    rings[SQ_FLAGS] = 0;
  }

  #complete(userData: number, result: number, flags = 0): void {
    this.#done.push([userData, result, flags]);
    this.#rings[SQ_FLAGS] = UringSqFlags.TASKRUN;
  }

  /** A descriptor can be read. */
  readable(fd: number): void {
    const polls = this.#polls.get(fd) ?? [];
    for (const { userData, multi } of polls) {
      this.#complete(userData, 1, multi ? CQE_F_MORE : 0);
    }
    this.#polls.set(
      fd,
      polls.filter(({ multi }) => multi),
    );
  }

  // --- operations -------------------------------------------------------------------------------------------------------

  #start(at: number): void {
    const sqes = this.#sqes;
    const word = (name: Parameters<typeof UringSqe.word>[0]): number =>
      sqes[at + UringSqe.word(name)];
    const opcode = word('opcode') & 0xff;
    const flags = (word('opcode') >>> 8) & 0xff;
    const userData = word('userData');
    const length = word('len');
    const address = this.#wide(sqes, at + UringSqe.word('addr'));
    switch (opcode) {
      case UringOp.READ:
      case UringOp.WRITE:
        this.#transfer(opcode === UringOp.READ ? 'read' : 'write', at, flags, [
          { address, length },
        ]);
        break;
      case UringOp.READV:
      case UringOp.WRITEV:
        this.#transfer(
          opcode === UringOp.READV ? 'read' : 'write',
          at,
          flags,
          this.#iovecs(address, length),
        );
        break;
      case UringOp.FSYNC:
        this.#transfer('sync', at, flags, []);
        break;
      case UringOp.NOP:
        this.#complete(userData, 0);
        break;
      case UringOp.TIMEOUT:
        this.#timeout(userData, address);
        break;
      case UringOp.TIMEOUT_REMOVE:
        this.#cancel(address | 0, userData, (flags & IOSQE_CQE_SKIP_SUCCESS) !== 0);
        break;
      case UringOp.POLL_ADD:
        this.#poll(word('fd'), userData, (length & POLL_ADD_MULTI) !== 0);
        break;
      case UringOp.POLL_REMOVE:
        this.#complete(userData, this.#unpoll(word('addr')) ? 0 : -ENOENT);
        break;
      default:
        throw new Violation(`opcode ${opcode} is submitted`);
    }
  }

  #wide(words: Int32Array, at: number): number {
    return (words[at + 1] >>> 0) * TWO_32 + (words[at] >>> 0);
  }

  /** The kernel reads them when they are submitted. */
  #iovecs(address: number, count: number): Piece[] {
    const bytes = this.#kernel.memory.bytes(address, count * Iovec.size, 'iovecs');
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
    return Array.from({ length: count }, (_, i) => {
      const at = (i * Iovec.size) / 4;
      return {
        address: this.#wide(words, at + Iovec.word('base')),
        length: words[at + Iovec.word('len')],
      };
    });
  }

  #timeout(userData: number, address: number): void {
    const bytes = this.#kernel.memory.bytes(address, Timespec.size, 'a timeout');
    const words = new Int32Array(bytes.buffer, bytes.byteOffset, Timespec.size / 4);
    const ns = words[Timespec.word('seconds')] * 1e9 + words[Timespec.word('nanoseconds')];
    const cancel = this.#kernel.timeline.after(ns, () => {
      this.#timeouts.delete(userData);
      this.#complete(userData, -ETIME);
    });
    this.#timeouts.set(userData, cancel);
  }

  #cancel(target: number, userData: number, quiet: boolean): void {
    const cancel = this.#timeouts.get(target);
    if (cancel === undefined) {
      this.#complete(userData, -ENOENT);
      return;
    }
    cancel();
    this.#timeouts.delete(target);
    this.#complete(target, -ECANCELED);
    if (!quiet) {
      this.#complete(userData, 0);
    }
  }

  #poll(fd: number, userData: number, multi: boolean): void {
    const polls = this.#polls.get(fd) ?? [];
    polls.push({ userData, multi });
    this.#polls.set(fd, polls);
  }

  #unpoll(target: number): boolean {
    for (const [fd, polls] of this.#polls) {
      const left = polls.filter(({ userData }) => userData !== target);
      if (left.length < polls.length) {
        this.#polls.set(fd, left);
        this.#complete(target, -ECANCELED);
        return true;
      }
    }
    return false;
  }

  #transfer(kind: Transfer['kind'], at: number, flags: number, pieces: readonly Piece[]): void {
    const sqes = this.#sqes;
    if ((flags & IOSQE_FIXED_FILE) === 0) {
      throw new Violation('an operation on a file that is not registered');
    }
    const file = this.#kernel.file(this.#files[sqes[at + UringSqe.word('fd')]] ?? -1);
    const { disk } = file;
    if (disk.kind === 'blocking' && kind !== 'sync' && (flags & IOSQE_ASYNC) === 0) {
      throw new Violation('a file system that may block is asked within the submission');
    }
    const transfer: Transfer = {
      userData: sqes[at + UringSqe.word('userData')],
      file,
      pieces,
      offset: this.#wide(sqes, at + UringSqe.word('off')),
      kind,
      durable: (sqes[at + UringSqe.word('opFlags')] & RWF_DSYNC) !== 0 && kind === 'write',
    };
    this.under.add(transfer);
    this.#schedule(transfer);
  }

  #schedule(transfer: Transfer): void {
    const { timeline, random } = this.#kernel;
    const { disk } = transfer.file;
    // What a sync covers is what was there when it began.
    const synced = transfer.kind === 'sync' ? disk.sync(transfer.file) : 0;
    // A write may land long before anybody hears of it, also on a disk that hangs.
    const early = transfer.kind === 'write' && random.chance(0.3) ? this.#perform(transfer) : 1;
    const finish = (): void => {
      const result =
        transfer.kind === 'sync' ? synced : early !== 1 ? early : this.#perform(transfer);
      this.under.delete(transfer);
      this.#complete(transfer.userData, result);
    };
    if (disk.mood === 'hung') {
      disk.held.push(() => timeline.after(random.below(200_000), finish));
    } else if (disk.mood === 'slow') {
      timeline.after(500_000 + random.below(10_000_000), finish);
    } else if (disk.kind === 'local' && transfer.kind !== 'sync' && random.chance(0.6)) {
      finish();
    } else {
      timeline.after(1000 + random.below(80_000), finish);
    }
  }

  /** Moves the data. A count of bytes, or -errno. */
  #perform({ kind, file, pieces, offset, durable }: Transfer): number {
    const { random, memory } = this.#kernel;
    const { disk } = file;
    if (random.chance(0.02)) {
      return -random.pick([EINTR, EAGAIN]);
    }
    const error = disk.error();
    if (error !== 0) {
      return error;
    }
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    let left = Math.min(length, disk.sectors * SECTOR - offset);
    if (length > SECTOR && random.chance(0.05)) {
      left = SECTOR * (1 + random.below(length / SECTOR - 1));
    }
    const moved = left;
    let at = offset;
    for (const piece of pieces) {
      const count = Math.min(left, piece.length);
      if (count > 0) {
        const bytes = memory.bytes(
          piece.address,
          count,
          `the kernel's ${kind} of a ${disk.kind} disk`,
        );
        if (kind === 'read') {
          disk.read(at, bytes);
        } else {
          disk.write(at, bytes);
        }
      }
      at += count;
      left -= count;
    }
    if (durable) {
      disk.store(offset, moved);
    }
    return moved;
  }

  /** Whether something is under way in memory of this host, at a disk that does not answer. */
  hangsIn(owner: number): boolean {
    return [...this.under].some(
      ({ file, pieces }) =>
        file.disk.mood === 'hung' &&
        pieces.some(({ address }) => this.#kernel.memory.ownerOf(address) === owner),
    );
  }
}
