/**
 * A backend that talks to somebody over a socket, as one for a network disk would: requests go out and answers come back in any order, by
 * operations in the ring that belong to no slot. And the somebody.
 *
 * Request: operation, slot, byte offset (a float of 64 bits), bytes; then the data of a write. Answer: slot, result; then the data of a read.
 */
import { type Backend, Detached, PENDING, type Request } from '../../src/bdev/backend.ts';
import type { BackendContext } from '../../src/bdev/context.ts';
import { Op, opSet } from '../../src/bdev/op.ts';
import { Result } from '../../src/bdev/result.ts';
import type { RingTag } from '../../src/io/tags.ts';
import { MAX_INFLIGHT } from '../../src/limits.ts';
import { native } from '../../src/native/index.ts';
import { POLLIN, POLLOUT } from '../../src/spec/uring.ts';
import type { Random } from './random.ts';

const REQUEST_BYTES = 24;
const ANSWER_BYTES = 8;
const BUFFER_BYTES = 4 * 1024 * 1024;
const EAGAIN = -11;
const ECANCELED = -125;

export class RemoteBackend implements Backend {
  readonly async = true;
  readonly operations = opSet(Op.READ, Op.WRITE, Op.FLUSH);
  readonly #fd: number;
  readonly #file: number;
  readonly #context: BackendContext;
  readonly #request: Request;
  readonly #reader: RingTag;
  readonly #writer: RingTag;
  readonly #in = Buffer.from(native.mapAnonymous(BUFFER_BYTES));
  readonly #out = Buffer.from(native.mapAnonymous(BUFFER_BYTES));
  /** Host addresses: of the first byte of each, and of what is moved next. */
  readonly #inBase = native.addressOf(this.#in);
  readonly #outBase = native.addressOf(this.#out);
  readonly #address = new Float64Array(1);
  #inFilled = 0;
  #outFilled = 0;
  #outDone = 0;
  #reads = false;
  #lost = false;
  // By slot.
  readonly #alone = new Uint8Array(MAX_INFLIGHT);
  readonly #waits = new Uint8Array(MAX_INFLIGHT);
  closed = false;

  constructor(fd: number, context: BackendContext) {
    this.#fd = fd;
    this.#file = context.files.add(fd);
    this.#context = context;
    this.#request = context.request;
    this.#reader = context.tags.take((result) => this.#readable(result));
    this.#writer = context.tags.take((result) => this.#written(result));
    this.#reader.poll(fd, POLLIN);
  }

  submit(op: Op, slot: number): number {
    if (this.#lost) {
      return Result.PATH_LOST;
    }
    const { offset, length, segments } = this.#request;
    const { transfers, copies } = this.#context;
    const bytes = op === Op.FLUSH ? 0 : length;
    transfers.start(slot, op, segments);
    const at = this.#outFilled;
    this.#out.writeInt32LE(op, at);
    this.#out.writeInt32LE(slot, at + 4);
    this.#out.writeDoubleLE(offset[0], at + 8);
    this.#out.writeInt32LE(bytes, at + 16);
    this.#outFilled += REQUEST_BYTES;
    if (op === Op.WRITE) {
      this.#address[0] = this.#outBase + this.#outFilled;
      let done = 0;
      for (let i = 0; i < segments.count; i++) {
        copies.push(this.#address, 0, done, segments.address, i, 0, segments.length[i]);
        done += segments.length[i];
      }
      copies.flush();
      this.#outFilled += bytes;
    }
    transfers.rest[slot] = bytes;
    this.#alone[slot] = 0;
    this.#waits[slot] = 1;
    if (!this.#writer.busy) {
      this.#writer.poll(this.#fd, POLLOUT);
    }
    return PENDING;
  }

  /** The writer's poll, or its write, has ended: of the two, only the latter can have moved anything. */
  #isPolling = true;
  #written(result: number): void {
    if (this.#isPolling) {
      this.#isPolling = false;
      this.#address[0] = this.#outBase + this.#outDone;
      this.#writer.write(this.#file, this.#address, 0, this.#outFilled - this.#outDone);
      return;
    }
    this.#isPolling = true;
    if (result < 0 && result !== EAGAIN) {
      this.#lose();
      return;
    }
    this.#outDone += Math.max(0, result);
    if (this.#outDone < this.#outFilled) {
      this.#writer.poll(this.#fd, POLLOUT);
    } else {
      this.#outDone = 0;
      this.#outFilled = 0;
    }
  }

  #readable(result: number): void {
    this.#reads = !this.#reads;
    if (this.#reads) {
      this.#address[0] = this.#inBase + this.#inFilled;
      this.#reader.read(this.#file, this.#address, 0, BUFFER_BYTES - this.#inFilled);
      return;
    }
    if (result === EAGAIN || result > 0) {
      this.#inFilled += Math.max(0, result);
      this.#take();
      this.#reader.poll(this.#fd, POLLIN);
    } else {
      this.#lose();
    }
  }

  /** Answers that have come whole. */
  #take(): void {
    const { transfers, copies, ended } = this.#context;
    let at = 0;
    while (this.#inFilled - at >= ANSWER_BYTES) {
      const slot = this.#in.readInt32LE(at);
      const isRead = transfers.op[slot] === Op.READ;
      const bytes = isRead ? transfers.rest[slot] : 0;
      if (this.#inFilled - at < ANSWER_BYTES + bytes) {
        break;
      }
      if (isRead && this.#alone[slot] === 0) {
        const from = new Float64Array(MAX_INFLIGHT);
        from[slot] = this.#inBase + at + ANSWER_BYTES;
        transfers.copy(slot, bytes, copies, from, false);
        copies.flush();
      }
      this.#waits[slot] = 0;
      ended.push(slot, this.#in.readInt32LE(at + 4));
      at += ANSWER_BYTES + bytes;
    }
    this.#in.copyWithin(0, at, this.#inFilled);
    this.#inFilled -= at;
  }

  /** All that waits ends, and nothing new begins. */
  #lose(): void {
    this.#lost = true;
    for (const [slot, waits] of this.#waits.entries()) {
      if (waits === 1) {
        this.#waits[slot] = 0;
        this.#context.ended.push(slot, Result.PATH_LOST);
      }
    }
  }

  complete(_slot: number, reported: number): number {
    return reported === ECANCELED ? Result.ABORTED : reported;
  }

  /** What is on its way uses our memory. */
  detach(slot: number): Detached {
    this.#alone[slot] = 1;
    return Detached.ALONE;
  }

  close(): void {
    this.closed = true;
    this.#reader.retire();
    this.#writer.retire();
    this.#context.files.release(this.#file);
  }
}

/** The other end: a disk in memory that answers when it is asked to, in any order. */
export class RemoteServer {
  readonly disk: Buffer;
  readonly #fd: number;
  readonly #random: Random;
  #received = Buffer.alloc(0);
  #answers: Buffer[] = [];
  #sending = Buffer.alloc(0);

  constructor(fd: number, bytes: number, random: Random) {
    this.#fd = fd;
    this.disk = Buffer.alloc(bytes);
    this.#random = random;
  }

  /** Requests that were carried out and not answered. */
  get held(): number {
    return this.#answers.length;
  }

  /** Reads what has come, and carries it out. */
  receive(): void {
    const buffer = Buffer.alloc(65_536);
    const fds = new Int32Array(254);
    for (;;) {
      const count = native.socketReceive(this.#fd, buffer, fds);
      if (count <= 0) {
        break;
      }
      this.#received = Buffer.concat([this.#received, buffer.subarray(0, count)]);
    }
    while (this.#received.length >= REQUEST_BYTES) {
      const [op, slot] = [this.#received.readInt32LE(0), this.#received.readInt32LE(4)];
      const [offset, bytes] = [this.#received.readDoubleLE(8), this.#received.readInt32LE(16)];
      const taken = REQUEST_BYTES + (op === Op.WRITE ? bytes : 0);
      if (this.#received.length < taken) {
        break;
      }
      const head = Buffer.alloc(ANSWER_BYTES);
      head.writeInt32LE(slot, 0);
      if (op === Op.WRITE) {
        this.#received.copy(this.disk, offset, REQUEST_BYTES, taken);
      }
      const data = op === Op.READ ? this.disk.subarray(offset, offset + bytes) : Buffer.alloc(0);
      this.#answers.push(Buffer.concat([head, data]));
      this.#received = this.#received.subarray(taken);
    }
  }

  /** Answers some of what is held, and as much of it as the socket takes. */
  answer(count = this.#answers.length): void {
    for (let i = 0; i < count && this.#answers.length > 0; i++) {
      const [answer] = this.#answers.splice(this.#random.below(this.#answers.length), 1);
      this.#sending = Buffer.concat([this.#sending, answer]);
    }
    while (this.#sending.length > 0) {
      const sent = native.socketSend(this.#fd, this.#sending.subarray(0, 65_536), []);
      if (sent < 0) {
        break;
      }
      this.#sending = this.#sending.subarray(sent);
    }
  }
}
