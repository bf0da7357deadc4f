/**
 * A driver's side of a submission and completion queue pair. Two ways to use it: `execute`, a promise a command; or `push`, `ring` and
 * `poll`, which allocate nothing, for load generators.
 */
import type { CommandFields } from '../spec/command.ts';
import { Cqe, CqeDword3, SQE_SIZE, Sqe, StatusField } from '../spec/nvme.ts';

export interface QueuePairPlace {
  readonly qid: number;
  /** Entries of the submission queue, and of the completion queue if it has not as many. */
  readonly depth: number;
  readonly cqDepth?: number;
  readonly sqIova: number;
  readonly cqIova: number;
  readonly sq: Int32Array;
  readonly cq: Int32Array;
  /** Someone calls `poll` when an interrupt comes; else `execute` polls. */
  readonly interrupts: boolean;
  /** The mapped doorbells, or undefined: then `writeDoorbell` sends them. */
  readonly doorbells: Int32Array | undefined;
  /** Shadow doorbells, and the values the device wants to be told of by a real one; indexed as the doorbells. */
  readonly shadow?: { readonly doorbells: Int32Array; readonly eventIndexes: Int32Array };
  readonly writeDoorbell: (index: number, value: number) => void;
}

export interface Completion {
  /** Status field: SC, SCT << 8, DNR << 14. */
  readonly status: number;
  readonly dw0: number;
}

/** A status field as a person reads it: status code type and status code. NVMe Base 2.0 §3.3.3.2.1. */
export function describeStatus(status: number): string {
  const { sct, sc } = StatusField.decode(status);
  return `NVMe status ${sct}/0x${sc.toString(16)}`;
}

const SQE_WORDS = SQE_SIZE / 4;
const CQE_WORDS = Cqe.size / 4;
const CDW0 = Sqe.word('cdw0');
const NSID = Sqe.word('nsid');
const PRP1 = Sqe.word('prp1');
const PRP2 = Sqe.word('prp2');
const CDW10 = Sqe.word('cdw10');
const CDW12 = Sqe.word('cdw12');
const DW3 = Cqe.word('cid');
const CID = CqeDword3.mask.cid;
const PHASE_SHIFT = CqeDword3.fields.p.shift;
const STATUS_SHIFT = CqeDword3.fields.status.shift;
const TWO_32 = 0x1_0000_0000;

interface Waiter {
  readonly resolve: (completion: Completion) => void;
  readonly reject: (error: Error) => void;
}

/** A command that waits for a free entry. */
interface Queued extends Waiter {
  readonly submit: () => void;
}

export class QueuePair {
  readonly place: QueuePairPlace;
  readonly #view: DataView;
  readonly #cqDepth: number;
  /** Buffers by command id, as PRP1 and PRP2 halves. */
  readonly #prps: Int32Array;
  readonly #waiting = new Map<number, Waiter>();
  readonly #freeIds: number[] = [];
  readonly #queued: Queued[] = [];
  #sqTail = 0;
  #cqHead = 0;
  #phase = 1;
  #pumping = false;
  #abandoned = false;
  /** Commands submitted and not completed. */
  inflight = 0;
  /** Called when the queue's vector was signalled. */
  onInterrupt: () => void = () => this.poll();
  /** Completions of the last `poll`: command ids and status fields. */
  readonly doneIds: Int32Array;
  readonly doneStatus: Int32Array;

  constructor(place: QueuePairPlace) {
    this.place = place;
    this.#view = new DataView(place.sq.buffer, place.sq.byteOffset, place.sq.byteLength);
    this.#prps = new Int32Array(4 * place.depth);
    this.#cqDepth = place.cqDepth ?? place.depth;
    this.doneIds = new Int32Array(this.#cqDepth);
    this.doneStatus = new Int32Array(this.#cqDepth);
    this.reset();
  }

  /** As after the queue was created. Commands in flight get no completion any more: `execute` rejects. */
  reset(): void {
    this.#rejectAll('the queue was reset');
    this.#sqTail = 0;
    this.#cqHead = 0;
    this.#phase = 1;
    this.inflight = 0;
    this.place.cq.fill(0);
    this.#freeIds.length = 0;
    for (let cid = 0; cid < this.place.depth - 1; cid++) {
      this.#freeIds.push(cid);
    }
  }

  /** The queue is gone: stops polling, and rejects what `execute` waits for. */
  abandon(): void {
    this.#abandoned = true;
    this.#rejectAll('the queue is gone');
  }

  #rejectAll(reason: string): void {
    const waiters = [...this.#waiting.values(), ...this.#queued.splice(0)];
    this.#waiting.clear();
    for (const { reject } of waiters) {
      reject(new Error(reason));
    }
  }

  // --- without allocation -----------------------------------------------------------------------------------------

  /** Gives a command id its buffer, for `push`. */
  setBuffer(cid: number, prp1: number, prp2: number): void {
    this.#prps.set([prp1 | 0, (prp1 / TWO_32) | 0, prp2 | 0, (prp2 / TWO_32) | 0], 4 * cid);
  }

  /**
   * Puts an NVM command into the next entry, not yet visible to the device. The caller has at most depth − 1 in flight.
   * `lba` and `lbaHigh` are the halves of the block address; `dw12` has the zero-based number of blocks, and FUA.
   */
  push(cid: number, opcode: number, nsid: number, lba: number, dw12: number, lbaHigh = 0): void {
    const sq = this.place.sq;
    const prps = this.#prps;
    const at = this.#sqTail * SQE_WORDS;
    sq[at + CDW0] = opcode | (cid << 16);
    sq[at + NSID] = nsid;
    sq[at + PRP1] = prps[4 * cid];
    sq[at + PRP1 + 1] = prps[4 * cid + 1];
    sq[at + PRP2] = prps[4 * cid + 2];
    sq[at + PRP2 + 1] = prps[4 * cid + 3];
    sq[at + CDW10] = lba;
    sq[at + CDW10 + 1] = lbaHigh;
    sq[at + CDW12] = dw12;
    this.#sqTail = this.#sqTail + 1 === this.place.depth ? 0 : this.#sqTail + 1;
    this.inflight += 1;
  }

  /** Tells the device about what was pushed. */
  ring(): void {
    this.#writeDoorbell(2 * this.place.qid, this.#sqTail);
  }

  #writeDoorbell(index: number, value: number): void {
    const { shadow, doorbells } = this.place;
    if (shadow !== undefined) {
      const old = shadow.doorbells[index];
      // A store and a load in sequence (both are seq-cst): either the device sees the value, or this side its event index.
      Atomics.store(shadow.doorbells, index, value);
      const event = Atomics.load(shadow.eventIndexes, index);
      // NVMe Base 2.0 §B.5: is the event index among the values passed over, modulo 2^16?
      if (((value - event - 1) & 0xffff) >= ((value - old) & 0xffff)) {
        return;
      }
    }
    if (doorbells !== undefined) {
      Atomics.store(doorbells, index, value);
    } else {
      this.place.writeDoorbell(index, value);
    }
  }

  /** Takes what has completed into `doneIds` and `doneStatus`, and settles `execute`. Returns how many. */
  poll(): number {
    const cq = this.place.cq;
    const depth = this.#cqDepth;
    let count = 0;
    while (count < depth) {
      const at = this.#cqHead * CQE_WORDS;
      // Probe cheaply; then a load with acquire order before the rest of the entry is read.
      if (((cq[at + DW3] >>> PHASE_SHIFT) & 1) !== this.#phase) {
        break;
      }
      const dw3 = count === 0 ? Atomics.load(cq, at + DW3) : cq[at + DW3];
      const cid = dw3 & CID;
      this.doneIds[count] = cid;
      this.doneStatus[count] = dw3 >>> STATUS_SHIFT;
      count += 1;
      if (this.#waiting.size > 0) {
        this.#settle(cid, { status: dw3 >>> STATUS_SHIFT, dw0: cq[at] >>> 0 });
      }
      if (this.#cqHead + 1 === depth) {
        this.#cqHead = 0;
        this.#phase ^= 1;
      } else {
        this.#cqHead += 1;
      }
    }
    if (count > 0) {
      this.inflight -= count;
      this.#writeDoorbell(2 * this.place.qid + 1, this.#cqHead);
    }
    return count;
  }

  // --- a promise a command ----------------------------------------------------------------------------------------

  /**
   * Submits one command and resolves with its completion. Waits for a free entry if the queue is full. `cid` is chosen here.
   * Rejects if the queue is reset or abandoned. Not to be mixed with `push`, whose ids are the caller's.
   */
  execute(fields: CommandFields): Promise<Completion> {
    return new Promise((resolve, reject) => {
      const submit = (): void => {
        const cid = this.#freeIds.pop()!;
        this.#waiting.set(cid, { resolve, reject });
        const at = this.#sqTail * SQE_SIZE;
        this.place.sq.fill(0, this.#sqTail * SQE_WORDS, (this.#sqTail + 1) * SQE_WORDS);
        Sqe.write(this.#view, at, { ...fields, cid });
        this.#sqTail = this.#sqTail + 1 === this.place.depth ? 0 : this.#sqTail + 1;
        this.inflight += 1;
        this.ring();
      };
      if (this.#abandoned) {
        reject(new Error('the queue is gone'));
      } else if (this.#freeIds.length > 0) {
        submit();
      } else {
        this.#queued.push({ submit, resolve, reject });
      }
      this.#pump();
    });
  }

  #settle(cid: number, completion: Completion): void {
    const waiter = this.#waiting.get(cid);
    if (waiter === undefined) {
      throw new Error(`completion of command ${cid}, which is not in flight`);
    }
    this.#waiting.delete(cid);
    this.#freeIds.push(cid);
    waiter.resolve(completion);
    this.#queued.shift()?.submit();
  }

  #pump(): void {
    if (this.#pumping || this.place.interrupts) {
      return;
    }
    this.#pumping = true;
    const turn = (): void => {
      this.poll();
      if (this.#waiting.size > 0 && !this.#abandoned) {
        setImmediate(turn);
      } else {
        this.#pumping = false;
      }
    };
    setImmediate(turn);
  }
}
