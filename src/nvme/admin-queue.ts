/**
 * The admin queue: takes commands as the host rings, completes them, and reports events. Owned by main; a reactor watches the doorbells where
 * the host has them mapped. NVMe Base 2.0 §3.3.
 *
 * A command that waits for a reactor is completed when that has answered; those behind it go on meanwhile. Each holds an entry of the CQ
 * from when it is taken.
 */
import { MAX_ADMIN_COMMANDS } from '../limits.ts';
import { native } from '../native/index.ts';
import { CQE_SIZE, SQE_SIZE, Sqe, Status } from '../spec/nvme.ts';
import type { Command, Outcome } from './admin.ts';
import { AdminDoorbells } from './admin-doorbells.ts';
import {
  type AdminQueueDiagnosis,
  describeAdminCommand,
  hex,
  type NvmeDiagnosis,
} from './diagnosis.ts';
import type { AsyncEvents } from './events.ts';
import type { ControllerHost } from './host.ts';
import type { Logs } from './logs.ts';
import { CompletionQueue, SQE_WORDS, SubmissionQueue } from './queue.ts';
import type { Registers } from './registers.ts';
import type { ShadowPages } from './shadow.ts';

/** Commands taken before other work of the event loop has its turn. */
const BATCH = 32;

/** What the queue needs of its controller. */
export interface AdminQueueParts {
  /** Carries a command out, at once or in the course of time. */
  readonly execute: (command: Command) => Outcome | Promise<Outcome>;
  readonly events: AsyncEvents;
  readonly logs: Logs;
  /** No command is taken meanwhile. */
  readonly failed: () => boolean;
  /** The host wrote a value outside the queue. */
  readonly badDoorbell: () => void;
}

/** A command that was taken. */
interface Taken {
  readonly command: Command;
  readonly time: Date;
  outcome: Outcome | undefined;
}

interface Pair {
  readonly sq: SubmissionQueue;
  readonly cq: CompletionQueue;
  readonly asq: number;
  readonly acq: number;
  /** Extra mappings over several DMA regions. */
  readonly aliases: Uint8Array[];
  /** Commands that wait for a reactor. */
  waiting: number;
  /** Commands that are done and not completed yet. */
  readonly done: Taken[];
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
  map({ aqa, asq, acq }: Pick<Registers, 'aqa' | 'asq' | 'acq'>): string | undefined {
    const { memory, doorbells } = this.#host;
    const sqSize = (aqa & 0xfff) + 1;
    const cqSize = ((aqa >>> 16) & 0xfff) + 1;
    if (sqSize < 2 || cqSize < 2) {
      return 'AQA gives an admin queue a single entry';
    }
    const sqMemory = memory.queueMemory(asq, sqSize * SQE_SIZE, false);
    const cqMemory = memory.queueMemory(acq, cqSize * CQE_SIZE, true);
    const aliases = [sqMemory?.alias, cqMemory?.alias].filter((alias) => alias !== undefined);
    if (sqMemory === undefined || cqMemory === undefined) {
      aliases.forEach((alias) => {
        native.revoke(alias);
      });
      return this.#unreachable(sqMemory === undefined ? { asq } : { acq });
    }
    this.#doorbells.reset();
    this.#doorbells.askToRing(false);
    const cq = new CompletionQueue(0, cqSize, cqMemory.words, doorbells, true, 0);
    const sq = new SubmissionQueue(0, sqSize, sqMemory.words, doorbells, cq);
    this.#pair = { sq, cq, asq, acq, aliases, waiting: 0, done: [] };
    this.#zeros = false;
    return undefined;
  }

  /** Why the memory of a queue cannot be used: nearly always a VM that does not share its memory. */
  #unreachable(queue: { readonly asq: number } | { readonly acq: number }): string {
    const [name, iova] = 'asq' in queue ? ['submission', queue.asq] : ['completion', queue.acq];
    const place = `the admin ${name} queue is at ${hex(iova)}`;
    return this.#host.unshared(iova)
      ? `${place}, in memory that the VM does not share (QEMU: memory-backend-memfd with share=on; Cloud Hypervisor: --memory shared=on)`
      : `${place}, where the VM has no memory that is mapped here for that use`;
  }

  /** The queue is gone, until it is mapped again. Commands under way are not completed. */
  drop(): void {
    for (const alias of this.#pair?.aliases ?? []) {
      native.revoke(alias);
    }
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
    return pair === undefined || pair.sq.stopped || this.#parts.failed() ? undefined : pair;
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
    return ready || unreported(pair);
  }

  /** Completes what can be completed, and takes a command. False if there is none that could be taken. */
  #step(): boolean {
    const pair = this.#pair;
    if (pair === undefined || pair.sq.stopped) {
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
    if (unreported(pair)) {
      this.#reportBadDoorbells(pair);
    }
    if (tail === sq.head || room < 1 || pair.waiting >= MAX_ADMIN_COMMANDS) {
      return false;
    }
    const entry = sq.words.slice(sq.head * SQE_WORDS, (sq.head + 1) * SQE_WORDS);
    const command: Command = Sqe.read(new DataView(entry.buffer));
    if (entry.every((word) => word === 0)) {
      this.#sawZeros();
    }
    sq.head = sq.head + 1 === sq.size ? 0 : sq.head + 1;
    cq.reserve();
    const taken: Taken = { command, time: new Date(), outcome: undefined };
    this.#last = taken;
    this.#execute(pair, taken);
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
    const { status, dw0 } = typeof outcome === 'object' ? outcome : { status: outcome, dw0: 0 };
    this.#host.log.debug({ opcode, cid, nsid, status }, 'admin command');
    // Before the Abort that did it, if there is room; else as soon as there is.
    this.#completeAborted(pair);
    pair.cq.unreserve();
    if (typeof status !== 'number') {
      return;
    }
    this.#complete(pair, cid, status, dw0);
    if (status !== Status.SUCCESS) {
      this.#parts.logs.addError({ sqid: 0, cid, status, nsid });
    }
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
    for (const alias of pair.aliases.splice(0)) {
      native.revoke(alias);
    }
    const { asq, acq } = pair;
    const { memory } = this.#host;
    const sqMemory = memory.queueMemory(asq, pair.sq.size * SQE_SIZE, false);
    const cqMemory = memory.queueMemory(acq, pair.cq.size * CQE_SIZE, true);
    pair.aliases.push(...[sqMemory?.alias, cqMemory?.alias].filter((alias) => alias !== undefined));
    pair.sq.words = sqMemory?.words ?? new Int32Array(0);
    pair.cq.memory = cqMemory?.words ?? new Int32Array(0);
    this.#doorbells.findShadow();
    pair.sq.stopped = sqMemory === undefined || cqMemory === undefined || this.#doorbells.lost;
    this.ring();
  }

  /** How things stand, in words. */
  diagnose(): Pick<NvmeDiagnosis, 'adminQueue' | 'lastAdminCommand'> {
    const last = this.#last;
    return {
      ...(this.#pair !== undefined && { adminQueue: describe(this.#pair, this.#zeros) }),
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

/** The host wrote a value outside the queue, which it was not told of. */
function unreported({ sq, cq }: Pair): boolean {
  return (sq.badTail && !sq.reportedTail) || (cq.badHead && !cq.reportedHead);
}

function describe({ sq, cq }: Pair, zeros: boolean): AdminQueueDiagnosis {
  const { head, tail, phase } = cq.progress;
  return {
    sqSize: sq.size,
    cqSize: cq.size,
    head: sq.head,
    tail: sq.tail(),
    cqHead: head,
    cqTail: tail,
    phase,
    stopped: sq.stopped,
    zeros,
  };
}
