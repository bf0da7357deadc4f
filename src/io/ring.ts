/**
 * An io_uring whose rings and SQEs TypeScript writes itself, in shared memory: one system call a batch. Owned by one reactor.
 *
 * The verbs are liburing's: prepare SQEs, `submit`, look at what is `ready`, `advance`. User data is a small integer of the caller's.
 */
import type { System } from '../native/system.ts';
import {
  CQE_F_MORE,
  FSYNC_DATASYNC,
  IOSQE_CQE_SKIP_SUCCESS,
  IOSQE_FIXED_FILE,
  POLL_ADD_MULTI,
  POLLIN,
  UringCqe,
  UringEnter,
  UringOp,
  UringSetup,
  UringSqe,
  UringSqFlags,
} from '../spec/uring.ts';

const OPCODE = UringSqe.word('opcode');
const FD = UringSqe.word('fd');
const OFF = UringSqe.word('off');
const ADDR = UringSqe.word('addr');
const LEN = UringSqe.word('len');
const OP_FLAGS = UringSqe.word('opFlags');
const USER_DATA = UringSqe.word('userData');
const SQE_WORDS = UringSqe.size / 4;
const CQE_WORDS = UringCqe.size / 4;
const CQE_USER_DATA = UringCqe.word('userData');
const CQE_RES = UringCqe.word('res');
const CQE_FLAGS = UringCqe.word('flags');
const TWO_32 = 0x1_0000_0000;

// Only this thread submits and it enters the kernel often: completions need no interrupt, and SQEs no flush in between.
const SETUP_FLAGS =
  UringSetup.SUBMIT_ALL |
  UringSetup.SINGLE_ISSUER |
  UringSetup.DEFER_TASKRUN |
  UringSetup.TASKRUN_FLAG;

/** User data of the poll on a reactor's own eventfd. Slots are above it, and above these the tags of backends; a plane's polls are below. */
export const WAKE = -1;
/** User data of a completion that nobody waits for: of something taken back too late. */
export const UNHEARD = -2;

export class Ring {
  readonly fd: number;
  readonly #system: System;
  readonly #rings: Int32Array;
  readonly #sqes: Int32Array;
  readonly #sqMask: number;
  readonly #cqMask: number;
  readonly #sqTailWord: number;
  readonly #sqFlagsWord: number;
  readonly #cqHeadWord: number;
  readonly #cqTailWord: number;
  readonly #cqesWord: number;
  #sqTail: number;
  #cqHead: number;
  /** How often the kernel was entered. What was prepared since is not under way. */
  entered = 0;
  /** SQEs prepared and not yet handed to the kernel. */
  prepared = 0;
  /** Operations handed to the kernel that have not completed, multishot polls excepted. */
  inflight = 0;

  /**
   * `entries` bounds the SQEs prepared at a time; the completion ring is twice as large. `workerCpus`: where the kernel may run operations
   * that block; `maxWorkers`: on how many threads at a time. Throws if io_uring is not to be had.
   */
  constructor(entries: number, workerCpus: readonly number[], maxWorkers: number, system: System) {
    this.#system = system;
    const region = system.uringSetup(entries, 2 * entries, SETUP_FLAGS);
    this.fd = region.fd;
    system.uringRegisterWorkerCpus(region.fd, workerCpus);
    // By default four a processor, for all disks together: those of a disk that hangs would leave none to the others.
    system.uringRegisterMaxWorkers(region.fd, maxWorkers);
    this.#rings = new Int32Array(region.rings);
    this.#sqes = new Int32Array(region.sqes);
    this.#sqMask = this.#rings[region.sqMask / 4];
    this.#cqMask = this.#rings[region.cqMask / 4];
    this.#sqTailWord = region.sqTail / 4;
    this.#sqFlagsWord = region.sqFlags / 4;
    this.#cqHeadWord = region.cqHead / 4;
    this.#cqTailWord = region.cqTail / 4;
    this.#cqesWord = region.cqes / 4;
    this.#sqTail = this.#rings[this.#sqTailWord];
    this.#cqHead = this.#rings[this.#cqHeadWord];
    for (let i = 0; i <= this.#sqMask; i++) {
      this.#rings[region.sqArray / 4 + i] = i;
    }
  }

  /** All fields that are ever set are set by each operation, so an SQE needs no clearing. */
  #prepare(
    /** With the SQE's flags in bits 15:8. */
    opcode: number,
    fd: number,
    offLo: number,
    offHi: number,
    length: number,
    opFlags: number,
    userData: number,
  ): number {
    const sqes = this.#sqes;
    const at = (this.#sqTail & this.#sqMask) * SQE_WORDS;
    sqes[at + OPCODE] = opcode;
    sqes[at + FD] = fd;
    sqes[at + OFF] = offLo;
    sqes[at + OFF + 1] = offHi;
    sqes[at + LEN] = length;
    sqes[at + OP_FLAGS] = opFlags;
    sqes[at + USER_DATA] = userData;
    this.#sqTail = (this.#sqTail + 1) | 0;
    this.prepared += 1;
    return at;
  }

  /**
   * Hot. READ or WRITE at `addresses[index]`, READV or WRITEV of `length` iovecs there. The file offset comes in two halves; `file` is
   * the index of a registered file.
   * The caller keeps `prepared` + `inflight` within the ring's entries.
   */
  prepareTransfer(
    opcode: number,
    file: number,
    addresses: Float64Array,
    index: number,
    length: number,
    offLo: number,
    offHi: number,
    rwFlags: number,
    userData: number,
  ): void {
    const flags = IOSQE_FIXED_FILE << 8;
    const at = this.#prepare(opcode | flags, file, offLo, offHi, length, rwFlags, userData);
    const address = addresses[index];
    this.#sqes[at + ADDR] = address;
    this.#sqes[at + ADDR + 1] = address / TWO_32;
    this.inflight += 1;
  }

  /** fallocate of a registered file: `lengths[index]` bytes. `mode`: FALLOC_FL_…. A thread of the kernel carries it out. */
  prepareFallocate(
    file: number,
    mode: number,
    offLo: number,
    offHi: number,
    lengths: Float64Array,
    index: number,
    userData: number,
  ): void {
    this.prepareTransfer(UringOp.FALLOCATE, file, lengths, index, mode, offLo, offHi, 0, userData);
  }

  /** fdatasync of a registered file. */
  prepareSync(file: number, userData: number): void {
    const opcode = UringOp.FSYNC | (IOSQE_FIXED_FILE << 8);
    const at = this.#prepare(opcode, file, 0, 0, 0, FSYNC_DATASYNC, userData);
    this.#sqes[at + ADDR] = 0;
    this.#sqes[at + ADDR + 1] = 0;
    this.inflight += 1;
  }

  /** Completes at once. */
  prepareNop(userData: number): void {
    this.#prepare(UringOp.NOP, 0, 0, 0, 0, 0, userData);
    this.inflight += 1;
  }

  /** Completes after the time in the struct timespec at `addresses[index]`, which is read by `submit`; earlier if it is cancelled. */
  prepareTimeout(addresses: Float64Array, userData: number, index = 0): void {
    const at = this.#prepare(UringOp.TIMEOUT, -1, 0, 0, 1, 0, userData);
    this.#sqes[at + ADDR] = addresses[index];
    this.#sqes[at + ADDR + 1] = addresses[index] / TWO_32;
    this.inflight += 1;
  }

  /** Completes the timeout with that user data now. Has no completion of its own, but if it comes too late one with `ownUserData`. */
  cancelTimeout(userData: number, ownUserData: number): void {
    this.makeRoom();
    const opcode = UringOp.TIMEOUT_REMOVE | (IOSQE_CQE_SKIP_SUCCESS << 8);
    const at = this.#prepare(opcode, -1, 0, 0, 0, 0, ownUserData);
    this.#sqes[at + ADDR] = userData;
    this.#sqes[at + ADDR + 1] = 0;
  }

  /** Before what is prepared beyond the one SQE a slot that there is room for. */
  makeRoom(): void {
    if (this.prepared > this.#sqMask >> 1) {
      this.submit();
    }
  }

  /** Calls back the operation with that user data, if the kernel can: it ends soon. Has no completion of its own, but if it comes too late. */
  cancel(userData: number, ownUserData: number): void {
    this.makeRoom();
    const opcode = UringOp.ASYNC_CANCEL | (IOSQE_CQE_SKIP_SUCCESS << 8);
    const at = this.#prepare(opcode, -1, 0, 0, 0, 0, ownUserData);
    this.#sqes[at + ADDR] = userData;
    this.#sqes[at + ADDR + 1] = 0;
  }

  /** Completes each time the descriptor becomes readable, while `more` says so. */
  preparePoll(fd: number, userData: number): void {
    const at = this.#prepare(UringOp.POLL_ADD, fd, 0, 0, POLL_ADD_MULTI, POLLIN, userData);
    this.#sqes[at + ADDR] = 0;
    this.#sqes[at + ADDR + 1] = 0;
  }

  /** Completes once, when the descriptor is or becomes ready. */
  preparePollOnce(fd: number, userData: number, events = POLLIN): void {
    const at = this.#prepare(UringOp.POLL_ADD, fd, 0, 0, 0, events, userData);
    this.#sqes[at + ADDR] = 0;
    this.#sqes[at + ADDR + 1] = 0;
  }

  /** Takes back the poll with `target` as its user data, if it is still armed. */
  preparePollRemove(target: number, userData: number): void {
    const at = this.#prepare(UringOp.POLL_REMOVE, -1, 0, 0, 0, 0, userData);
    this.#sqes[at + ADDR] = target;
    this.#sqes[at + ADDR + 1] = 0;
  }

  /** True if entering the kernel would give something to do: SQEs wait, or completions wait to be posted. */
  get wantsEnter(): boolean {
    return (
      this.prepared > 0 ||
      (this.inflight > 0 &&
        (this.#rings[this.#sqFlagsWord] & (UringSqFlags.TASKRUN | UringSqFlags.CQ_OVERFLOW)) !== 0)
    );
  }

  /** Hands all prepared SQEs to the kernel and collects completions, without waiting. Throws on an error that a retry does not mend. */
  submit(): void {
    this.#enter(0, 0);
  }

  /** As `submit`, then waits for `completions`, `timeoutUs` at most (< 0: without bound). */
  wait(timeoutUs: number, completions = 1): void {
    this.#enter(completions, timeoutUs);
  }

  #enter(minComplete: number, timeoutUs: number): void {
    this.entered = (this.entered + 1) | 0;
    Atomics.store(this.#rings, this.#sqTailWord, this.#sqTail);
    const result = this.#system.uringEnter(
      this.fd,
      this.prepared,
      minComplete,
      UringEnter.GETEVENTS,
      timeoutUs,
    );
    if (result >= 0) {
      this.prepared -= result;
      return;
    }
    // EINTR, EAGAIN, EBUSY, ETIME: nothing is lost, the next round tries again. (With ETIME all SQEs had been consumed.)
    if (result === -ETIME) {
      this.prepared = 0;
    } else if (result !== -EINTR && result !== -EAGAIN && result !== -EBUSY) {
      throw new Error(`io_uring_enter failed with errno ${-result}`);
    }
  }

  /** Completions that wait to be looked at. */
  ready(): number {
    return (Atomics.load(this.#rings, this.#cqTailWord) - this.#cqHead) | 0;
  }

  /** User data of the i-th waiting completion. */
  userData(i: number): number {
    return this.#rings[this.#cqe(i) + CQE_USER_DATA];
  }

  /** Result of the i-th waiting completion: a count, or -errno. */
  result(i: number): number {
    return this.#rings[this.#cqe(i) + CQE_RES];
  }

  /** Whether the request behind the i-th waiting completion stays armed. */
  more(i: number): boolean {
    return (this.#rings[this.#cqe(i) + CQE_FLAGS] & CQE_F_MORE) !== 0;
  }

  #cqe(i: number): number {
    return this.#cqesWord + ((this.#cqHead + i) & this.#cqMask) * CQE_WORDS;
  }

  /** Gives the first `count` completions' entries back to the kernel. */
  advance(count: number): void {
    this.#cqHead = (this.#cqHead + count) | 0;
    Atomics.store(this.#rings, this.#cqHeadWord, this.#cqHead);
  }
}

const EINTR = 4;
const EAGAIN = 11;
const EBUSY = 16;
const ETIME = 62;
