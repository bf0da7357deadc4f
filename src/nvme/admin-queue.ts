/**
 * The admin queue: takes commands as the host rings, completes them, and reports events. Owned by main; a reactor watches the doorbells where
 * the host has them mapped. NVMe Base 2.0 §3.3.
 *
 * A command that waits for a reactor is completed when that has answered; those behind it go on meanwhile. Each holds an entry of the CQ
 * from when it is taken.
 */
import { MAX_ADMIN_COMMANDS } from '../limits.ts';
import { Sqe, Status } from '../spec/nvme.ts';
import type { Command, Outcome } from './admin/command.ts';
import { AdminDoorbells } from './admin-doorbells.ts';
import { AdminPair, AdminPlace } from './admin-pair.ts';
import { describeAdminCommand, hex, type NvmeDiagnosis } from './diagnosis.ts';
import type { AsyncEvents } from './events.ts';
import type { ControllerHost } from './host.ts';
import type { LoggedError } from './logs/errors.ts';
import { SQE_WORDS } from './queue.ts';
import type { Registers } from './registers.ts';
import type { ShadowPages } from './shadow.ts';

/** Commands taken before other work of the event loop has its turn. */
const BATCH = 32;

/** What the queue needs of its controller. */
export interface AdminQueueParts {
  /** Carries a command out, at once or in the course of time. */
  readonly execute: (command: Command) => Outcome | Promise<Outcome>;
  readonly events: AsyncEvents;
  /** A command was completed with an error. */
  readonly refused: (error: LoggedError) => void;
  /** No command is taken meanwhile. */
  readonly failed: () => boolean;
  /**
   * The first entry is all zeros, which no driver sends: is this the host's memory? Undefined if that cannot be found out. Resolves when the
   * queue may go on, or another is in its place.
   */
  readonly doubt: () => Promise<void> | undefined;
  /** The host wrote a value outside the queue. */
  readonly badDoorbell: () => void;
}

/** A command that was taken. */
interface Taken {
  readonly command: Command;
  readonly time: Date;
  outcome: Outcome | undefined;
}

/** The queue pair, and what is under way on it. */
class Pair extends AdminPair {
  /** Commands that wait for a reactor. */
  waiting = 0;
  /** Commands that are done and not completed yet. */
  readonly done: Taken[] = [];
  /** Whether it is the host's memory is being found out. */
  doubted = false;
}

export class AdminQueue {
  readonly #host: ControllerHost;
  readonly #parts: AdminQueueParts;
  readonly #doorbells: AdminDoorbells;
  #pair: Pair | undefined;
  /** The queue is being worked on, and it was rung meanwhile; or it is this queue's turn again soon. */
  #working = false;
  #rung = false;
  #scheduled = false;
  /** An entry was all zeros. */
  #zeros = false;
  #last: Taken | undefined;

  constructor(host: ControllerHost, parts: AdminQueueParts) {
    this.#host = host;
    this.#parts = parts;
    this.#doorbells = new AdminDoorbells(host);
  }

  /** Completions that the host has not seen. */
  get pending(): boolean {
    return this.#pair?.cq.pending ?? false;
  }

  /** As AQA, ASQ and ACQ say. Returns what is wrong with them: sizes, or memory that is not there. */
  map(registers: Pick<Registers, 'aqa' | 'asq' | 'acq'>): string | undefined {
    const place = new AdminPlace(registers);
    if (place.sqSize < 2 || place.cqSize < 2) {
      return 'AQA gives an admin queue a single entry';
    }
    const pair = new Pair(place, this.#host.memory, this.#host.doorbells);
    if (pair.missing !== undefined) {
      pair.release();
      return this.#unreachable(pair.missing, place[pair.missing]);
    }
    this.#doorbells.reset();
    this.#doorbells.askToRing(false);
    this.#pair = pair;
    this.#zeros = false;
    return undefined;
  }

  /** Why the memory of a queue cannot be used: nearly always a VM that does not share its memory. */
  #unreachable(queue: 'asq' | 'acq', iova: number): string {
    const name = queue === 'asq' ? 'submission' : 'completion';
    const place = `the admin ${name} queue is at ${hex(iova)}`;
    return this.#host.unshared(iova)
      ? `${place}, in memory that the VM does not share (QEMU: memory-backend-memfd with share=on; Cloud Hypervisor: --memory shared=on)`
      : `${place}, where the VM has no memory that is mapped here for that use`;
  }

  /** The queue is gone, until it is mapped again. Commands under way are not completed. */
  drop(): void {
    this.#pair?.release();
    this.#pair = undefined;
  }

  /** The host may write its doorbells into these pages from now on. False if they are not in its memory. */
  setShadow(pages: ShadowPages): boolean {
    return this.#doorbells.setShadow(pages);
  }

  /** The host rang an admin doorbell (or may have), or there is something to complete. */
  ring(): void {
    if (this.#working) {
      this.#rung = true;
    } else if (this.#scheduled) {
      // What was rung is looked at then; until then one message is enough.
      this.#doorbells.askToRing(false);
    } else {
      this.#work();
    }
  }

  #work(): void {
    this.#working = true;
    let taken = 0;
    do {
      this.#rung = false;
      while (taken < BATCH && this.#step()) {
        taken += 1;
      }
      // A look counts, too: a host that changes its tail to and fro must not keep main here.
      taken += 1;
      this.#doorbells.askToRing(this.#roomless);
    } while (taken < BATCH && (this.#rung || this.#ready));
    this.#working = false;
    if (taken >= BATCH) {
      this.#scheduled = true;
      setImmediate(() => {
        this.#scheduled = false;
        this.#work();
      });
    }
  }

  /** The queue, if it is there and commands may be taken from it. */
  get #usable(): Pair | undefined {
    const pair = this.#pair;
    return pair === undefined || pair.sq.stopped || pair.doubted || this.#parts.failed()
      ? undefined
      : pair;
  }

  /** Nothing can be taken or reported before the host consumes a completion. */
  get #roomless(): boolean {
    const pair = this.#usable;
    return pair !== undefined && pair.cq.room(1) < 1;
  }

  /** There is something to do. */
  get #ready(): boolean {
    const pair = this.#usable;
    if (pair === undefined) {
      return false;
    }
    const { sq, cq } = pair;
    this.#doorbells.place(sq, cq);
    const comes = sq.tail() !== sq.head && pair.waiting < MAX_ADMIN_COMMANDS;
    const ready = cq.room(1) > 0 && (comes || this.#parts.events.ready);
    return ready || pair.unreported;
  }

  /** Completes what can be completed, and takes a command. False if there is none that could be taken. */
  #step(): boolean {
    const pair = this.#pair;
    if (pair === undefined || pair.sq.stopped || pair.doubted) {
      return false;
    }
    this.#doorbells.place(pair.sq, pair.cq);
    for (const taken of pair.done.splice(0)) {
      this.#end(pair, taken);
    }
    this.#completeEvents(pair);
    return !this.#parts.failed() && this.#take(pair);
  }

  #take(pair: Pair): boolean {
    const { sq, cq } = pair;
    const tail = sq.tail();
    const room = cq.room(1);
    if (pair.unreported) {
      this.#reportBadDoorbells(pair);
    }
    if (tail === sq.head || room < 1 || pair.waiting >= MAX_ADMIN_COMMANDS) {
      return false;
    }
    const entry = sq.words.slice(sq.head * SQE_WORDS, (sq.head + 1) * SQE_WORDS);
    const command: Command = Sqe.read(new DataView(entry.buffer));
    if (entry.every((word) => word === 0)) {
      if (sq.head === 0 && !this.#zeros && this.#doubts(pair)) {
        return false;
      }
      this.#sawZeros();
    }
    sq.head = sq.head + 1 === sq.size ? 0 : sq.head + 1;
    cq.reserve();
    const taken: Taken = { command, time: new Date(), outcome: undefined };
    this.#last = taken;
    this.#execute(pair, taken);
    return true;
  }

  #doubts(pair: Pair): boolean {
    const answer = this.#parts.doubt();
    if (answer === undefined) {
      return false;
    }
    pair.doubted = true;
    void answer.then(() => {
      if (this.#pair === pair) {
        pair.doubted = false;
        this.ring();
      }
    });
    return true;
  }

  #execute(pair: Pair, taken: Taken): void {
    const { command } = taken;
    try {
      const outcome = this.#parts.execute(command);
      if (outcome instanceof Promise) {
        pair.waiting += 1;
        void outcome
          .catch((error: unknown) => this.#broke(command, error))
          .then((late) => this.#answered(pair, taken, late));
        return;
      }
      taken.outcome = outcome;
    } catch (error) {
      taken.outcome = this.#broke(command, error);
    }
    this.#end(pair, taken);
  }

  #broke({ opcode }: Command, error: unknown): Outcome {
    this.#host.log.error({ err: error, opcode }, 'admin command failed');
    return { status: Status.INTERNAL_ERROR, dw0: 0 };
  }

  /** A command that waited for a reactor is done. Its queue may have gone, or its memory. */
  #answered(pair: Pair, taken: Taken, outcome: Outcome): void {
    taken.outcome = outcome;
    if (this.#pair === pair) {
      pair.waiting -= 1;
      pair.done.push(taken);
      this.ring();
    }
  }

  /** Completes a command, or gives its entry of the CQ back if it is a request that was parked. */
  #end(pair: Pair, { command, outcome }: Taken): void {
    const { opcode, cid, nsid } = command;
    const result = typeof outcome === 'object' ? outcome : undefined;
    this.#host.log.debug({ opcode, cid, nsid, status: result?.status ?? outcome }, 'admin command');
    // Before the Abort that did it, if there is room; else as soon as there is.
    this.#completeAborted(pair);
    pair.cq.unreserve();
    if (result === undefined) {
      return;
    }
    const { status, dw0, place } = result;
    if (status !== Status.SUCCESS) {
      this.#parts.refused({ sqid: 0, cid, status, nsid, place });
    }
    this.#complete(pair, cid, status, dw0);
  }

  /**
   * No driver sends zeros, which would delete I/O submission queue 0. A VM whose memory is a file that it maps for itself does: the guest's
   * entries are in its own copy.
   */
  #sawZeros(): void {
    if (!this.#zeros) {
      this.#zeros = true;
      this.#host.log.warn(
        'the guest rang for an admin command, and its entry is all zeros: does the VM share its memory (QEMU: share=on)?',
      );
    }
  }

  #complete({ sq, cq }: Pair, cid: number, status: number, dw0: number): void {
    cq.stage(dw0, 0, sq.head, cid, status);
    cq.publish();
    this.#host.signalAdmin();
  }

  #completeAborted(pair: Pair): void {
    while (pair.cq.room(1) > 0) {
      const cid = this.#parts.events.nextAborted();
      if (cid === undefined) {
        return;
      }
      this.#complete(pair, cid, Status.ABORTED_BY_REQUEST, 0);
    }
  }

  /** Reports events for which the host parked a request. */
  #completeEvents(pair: Pair): void {
    this.#completeAborted(pair);
    while (pair.cq.room(1) > 0) {
      const next = this.#parts.events.next();
      if (next === undefined) {
        return;
      }
      this.#complete(pair, next.cid, Status.SUCCESS, next.dw0);
    }
  }

  #reportBadDoorbells({ sq, cq }: Pair): void {
    sq.reportedTail ||= sq.badTail;
    cq.reportedHead ||= cq.badHead;
    this.#parts.badDoorbell();
  }

  /** A DMA region under the admin queue may have gone (the queue rests) or come (it goes on). */
  memoryChanged(): void {
    const pair = this.#pair;
    if (pair === undefined) {
      return;
    }
    const found = pair.find(this.#host.memory);
    this.#doorbells.findShadow();
    pair.sq.stopped = !found || this.#doorbells.lost;
    this.ring();
  }

  /** How things stand, in words. */
  diagnose(): Pick<NvmeDiagnosis, 'adminQueue' | 'lastAdminCommand'> {
    const last = this.#last;
    return {
      ...(this.#pair !== undefined && { adminQueue: this.#pair.describe(this.#zeros) }),
      ...(last !== undefined && {
        lastAdminCommand: describeAdminCommand(
          last.command,
          last.time,
          typeof last.outcome === 'object' ? last.outcome.status : last.outcome,
        ),
      }),
    };
  }
}
