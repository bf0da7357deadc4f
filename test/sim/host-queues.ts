/** The queues of a model host: it submits, rings, is interrupted, consumes, as a driver does; and now and then writes nonsense into a doorbell. */
import type { Random } from '../helpers/random.ts';
import { type Command, type Commands, describe } from './commands.ts';
import { type HostMemory, Pages } from './host-memory.ts';
import { Violation } from './violation.ts';

export const PAIRS = 4;
const CQE_WORDS = 4;
const SQE_WORDS = 16;

export interface HostCq {
  readonly qid: number;
  readonly size: number;
  readonly page: number;
  readonly interrupts: boolean;
  readonly vector: number;
  head: number;
  phase: number;
  /** SQs that there are, or are being made. */
  users: number;
}

export interface HostSq {
  readonly qid: number;
  readonly size: number;
  readonly page: number;
  readonly cq: HostCq;
  tail: number;
  /** As the last completion said. */
  head: number;
  /** What was rung last. */
  rung: number;
  cid: number;
  /** Nothing more is submitted: it is about to be deleted. */
  closing: boolean;
  readonly commands: Map<number, Command>;
}

/** How doorbells get to the device. */
export interface DoorbellPath {
  /** Undefined: the host does not use shadow doorbells. */
  readonly shadow: boolean;
  /** The real one. */
  ring(index: number, value: number): void;
}

export class HostQueues {
  readonly #memory: HostMemory;
  readonly #commands: Commands;
  readonly #random: Random;
  readonly #path: DoorbellPath;
  readonly cqs = new Map<number, HostCq>();
  readonly sqs = new Map<number, HostSq>();
  /** Vectors that were interrupted. */
  readonly interrupted = new Set<number>();
  completed = 0;

  constructor(memory: HostMemory, commands: Commands, random: Random, path: DoorbellPath) {
    this.#memory = memory;
    this.#commands = commands;
    this.#random = random;
    this.#path = path;
  }

  /** The page is zeroed, as a driver does. */
  newCq(qid: number): HostCq {
    const page = Pages.QUEUES + 2 * (qid - 1) + 1;
    this.#memory.words(page).fill(0);
    this.#clearShadow(2 * qid + 1);
    return {
      qid,
      size: this.#random.pick([2, 3, 8, 32, 64]),
      page,
      interrupts: this.#random.chance(0.8),
      vector: 1 + this.#random.below(2),
      head: 0,
      phase: 1,
      users: 0,
    };
  }

  newSq(qid: number, cq: HostCq): HostSq {
    this.#clearShadow(2 * qid);
    return {
      qid,
      size: this.#random.pick([2, 3, 8, 32, 64]),
      page: Pages.QUEUES + 2 * (qid - 1),
      cq,
      tail: 0,
      head: 0,
      rung: 0,
      cid: this.#random.below(0x10000),
      closing: false,
      commands: new Map(),
    };
  }

  /** What is left of an earlier queue: the device cannot do it while the page is not mapped. */
  #clearShadow(index: number): void {
    if (this.#path.shadow) {
      this.#memory.words(Pages.SHADOW)[index] = 0;
    }
  }

  // --- submission -------------------------------------------------------------------------------------------------------

  /** Writes up to `most` commands. Returns how many. */
  submit(sq: HostSq, most: number): number {
    let count = 0;
    while (count < most && (sq.tail + 1) % sq.size !== sq.head) {
      while (sq.commands.has(sq.cid)) {
        sq.cid = (sq.cid + 1) & 0xffff;
      }
      const words = this.#memory.words(sq.page);
      const sqe = words.subarray(sq.tail * SQE_WORDS, (sq.tail + 1) * SQE_WORDS);
      const command = this.#commands.make(sq.qid, sq.cid, sqe);
      if (command === undefined) {
        break;
      }
      sq.commands.set(sq.cid, command);
      sq.cid = (sq.cid + 1) & 0xffff;
      sq.tail = (sq.tail + 1) % sq.size;
      count += 1;
    }
    return count;
  }

  ring(sq: HostSq): void {
    if (sq.rung !== sq.tail) {
      this.#write(2 * sq.qid, sq.tail, sq.rung);
      sq.rung = sq.tail;
    }
  }

  /** A value outside the queue, for which the host later makes up. */
  ringNonsense(sq: HostSq): void {
    const value = this.#random.pick([sq.size, 0xffff, -1, 0x7fff_ffff]);
    this.#path.ring(2 * sq.qid, value);
    if (this.#path.shadow) {
      this.#memory.words(Pages.SHADOW)[2 * sq.qid] = value;
    }
    // The next ring is real.
    sq.rung = -1;
  }

  #write(index: number, value: number, before: number): void {
    if (!this.#path.shadow) {
      this.#path.ring(index, value);
      return;
    }
    this.#memory.words(Pages.SHADOW)[index] = value;
    const event = this.#memory.words(Pages.SHADOW + 1)[index];
    const passed = (value - event - 1) & 0xffff;
    if (passed < ((value - before) & 0xffff) || before < 0) {
      this.#path.ring(index, value);
    }
  }

  // --- completion -------------------------------------------------------------------------------------------------------

  /** Looks at the queues of the vectors that were interrupted, and at those without interrupts. Returns how much there was. */
  consume(most: number): number {
    let count = 0;
    const vectors = new Set(this.interrupted);
    this.interrupted.clear();
    for (const cq of this.cqs.values()) {
      if (!cq.interrupts || vectors.has(cq.vector)) {
        count += this.#take(cq, most);
        if (count >= most) {
          // There may be more, here and elsewhere.
          for (const vector of vectors) {
            this.interrupted.add(vector);
          }
          break;
        }
      }
    }
    return count;
  }

  #take(cq: HostCq, most: number): number {
    const words = this.#memory.words(cq.page);
    const before = cq.head;
    let count = 0;
    while (count < most) {
      const at = cq.head * CQE_WORDS;
      const dw3 = words[at + 3];
      if (((dw3 >>> 16) & 1) !== cq.phase) {
        break;
      }
      this.#completion(cq, words[at + 2], dw3);
      cq.head = (cq.head + 1) % cq.size;
      cq.phase ^= cq.head === 0 ? 1 : 0;
      count += 1;
    }
    if (count > 0) {
      this.#write(2 * cq.qid + 1, cq.head, before);
    }
    return count;
  }

  #completion(cq: HostCq, dw2: number, dw3: number): void {
    const sq = this.sqs.get(dw2 >>> 16);
    const cid = dw3 & 0xffff;
    const command = sq?.commands.get(cid);
    const status = dw3 >>> 17;
    if (sq === undefined || command === undefined || sq.cq !== cq) {
      throw new Violation(
        `CQ ${cq.qid}: a completion of command ${cid} of SQ ${dw2 >>> 16} (status 0x${status.toString(16)}), which is not under way`,
      );
    }
    const head = dw2 & 0xffff;
    if (head >= sq.size) {
      throw new Violation(`${describe(command)}: the head ${head} is outside of the queue`);
    }
    sq.head = head;
    sq.commands.delete(cid);
    this.completed += 1;
    this.#commands.completed(command, status);
  }

  // --- the end ----------------------------------------------------------------------------------------------------------

  /** An SQ was deleted: its last completions are there, and what was not completed never will be. */
  deletedSq(qid: number): void {
    const sq = this.sqs.get(qid);
    if (sq !== undefined) {
      this.#take(sq.cq, Number.POSITIVE_INFINITY);
    }
    this.#dropSq(qid);
  }

  #dropSq(qid: number): void {
    const sq = this.sqs.get(qid);
    this.sqs.delete(qid);
    for (const command of sq?.commands.values() ?? []) {
      this.#commands.lost(command);
    }
  }

  /** All are gone. */
  drop(): void {
    for (const qid of [...this.sqs.keys()]) {
      this.#dropSq(qid);
    }
    this.cqs.clear();
    this.interrupted.clear();
  }

  get outstanding(): Command[] {
    return [...this.sqs.values()].flatMap(({ commands }) => [...commands.values()]);
  }
}
