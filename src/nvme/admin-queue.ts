/**
 * The admin queue: takes commands one by one as the host rings, completes them, and reports events. Owned by main; a reactor watches the
 * doorbells where the host has them mapped. NVMe Base 2.0 §3.3.
 */
import { native } from '../native/index.ts';
import { CQE_SIZE, SQE_SIZE, Sqe, Status } from '../spec/nvme.ts';
import type { Command, Outcome } from './admin.ts';
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
import { ShadowDoorbells, type ShadowPages } from './shadow.ts';

/** Commands taken before other work of the event loop has its turn. */
const BATCH = 32;

/** What the queue needs of its controller. */
export interface AdminQueueParts {
  readonly execute: (command: Command) => Promise<Outcome>;
  readonly events: AsyncEvents;
  readonly logs: Logs;
  /** No command is taken meanwhile. */
  readonly failed: () => boolean;
  /** The host wrote a value outside the queue. */
  readonly badDoorbell: () => void;
}

interface Pair {
  readonly sq: SubmissionQueue;
  readonly cq: CompletionQueue;
  readonly asq: number;
  readonly acq: number;
  /** Extra mappings over several DMA regions. */
  readonly aliases: Uint8Array[];
}

export class AdminQueue {
  readonly #host: ControllerHost;
  readonly #parts: AdminQueueParts;
  #pair: Pair | undefined;
  #shadow: ShadowDoorbells | undefined;
  /** What was rung while the pages were not in guest memory, and what they held before. By index: SQ tail, CQ head. */
  readonly #missed: (number | undefined)[] = [];
  readonly #left: number[] = [];
  /** The queue is being worked on; and it was rung meanwhile. */
  #draining = false;
  #rung = false;
  /** An entry was all zeros. */
  #zeros = false;
  /** Goes on with a completion that waits for the memory of the queue. */
  #wakeDrain = (): void => {};
  #lastCommand:
    | { readonly command: Command; readonly time: Date; status: number | 'parked' | undefined }
    | undefined;

  constructor(host: ControllerHost, parts: AdminQueueParts) {
    this.#host = host;
    this.#parts = parts;
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
    Atomics.store(doorbells, 0, 0);
    Atomics.store(doorbells, 1, 0);
    this.#host.sawAdminTail(0);
    this.#host.sawAdminHead(undefined);
    const cq = new CompletionQueue(0, cqSize, cqMemory.words, doorbells, true, 0);
    const sq = new SubmissionQueue(0, sqSize, sqMemory.words, doorbells, cq);
    this.#pair = { sq, cq, asq, acq, aliases };
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

  /** The queue is gone, until it is mapped again. */
  drop(): void {
    for (const alias of this.#pair?.aliases ?? []) {
      native.revoke(alias);
    }
    this.#pair = undefined;
    this.#shadow = undefined;
    this.#wakeDrain();
  }

  /** The host rang an admin doorbell (or may have). */
  ring(): void {
    this.#rung = true;
    this.#look();
    if (!this.#draining) {
      this.#draining = true;
      void this.#drain();
    }
  }

  /**
   * The host rang an admin doorbell (0: SQ tail, 1: CQ head) with a message. Hosts that have shadow doorbells are to write those, too, but
   * Linux leaves them out for the admin queue: what was rung counts.
   */
  rung(index: number, value: number): void {
    const shadow = this.#shadow?.words;
    if (shadow !== undefined) {
      Atomics.store(shadow.doorbells, index, value);
    } else {
      this.#missed[index] = value;
    }
    this.ring();
  }

  /** The host's doorbells are in these pages from now on. False if they are not in its memory. */
  setShadow(pages: ShadowPages): boolean {
    const shadow = new ShadowDoorbells(pages, this.#host.memory);
    if (shadow.words === undefined) {
      return false;
    }
    for (const index of [0, 1]) {
      Atomics.store(shadow.words.doorbells, index, Atomics.load(this.#host.doorbells, index));
    }
    this.#shadow = shadow;
    this.#missed.length = 0;
    this.#placeDoorbells();
    return true;
  }

  /** Where the host writes the admin queue's doorbells. */
  get #doorbells(): Int32Array {
    return this.#shadow?.words?.doorbells ?? this.#host.doorbells;
  }

  #placeDoorbells(): void {
    if (this.#pair !== undefined) {
      this.#pair.sq.doorbells = this.#doorbells;
      this.#pair.cq.doorbells = this.#doorbells;
    }
  }

  async #drain(): Promise<void> {
    while (this.#rung) {
      this.#rung = false;
      let taken = 0;
      for (;;) {
        // A reset replaces the queue while a command waits for a reactor.
        const pair = this.#pair;
        if (pair === undefined || this.#parts.failed() || !(await this.#executeNext(pair))) {
          break;
        }
        taken += 1;
        if (taken % BATCH === 0) {
          await new Promise((resolve) => setImmediate(resolve));
        }
      }
      this.#completeEvents();
      this.#lookForRoom();
    }
    // In the same turn as the last look at what was rung: nothing can come between.
    this.#draining = false;
  }

  /** Tells the reactor that watches the doorbells what main has seen, before main acts on it: any other value wakes main again. */
  #look(): void {
    const tail = Atomics.load(this.#doorbells, 0);
    this.#host.sawAdminTail(tail);
    this.#askToRing(0, tail);
    this.#lookForRoom();
  }

  /** The CQ's head matters only while completions wait for room. */
  #lookForRoom(): void {
    const head = Atomics.load(this.#doorbells, 1);
    const full = this.#pair !== undefined && this.#pair.cq.room(1) < 1;
    this.#host.sawAdminHead(full ? head : undefined);
    if (full) {
      this.#askToRing(1, head);
    }
  }

  /** A host with shadow doorbells is to ring when it goes on from here. */
  #askToRing(index: number, from: number): void {
    const shadow = this.#shadow?.words;
    if (shadow !== undefined) {
      Atomics.store(shadow.eventIdx, index, from);
    }
  }

  /** Takes and completes one command. False if there is none, or no room for its completion. */
  async #executeNext(pair: Pair): Promise<boolean> {
    const { sq, cq } = pair;
    this.#look();
    const tail = sq.tail();
    const room = cq.room(1);
    if (sq.badTail || cq.badHead) {
      this.#reportBadDoorbells(pair);
    }
    if (tail === sq.head || sq.stopped || room < 1) {
      return false;
    }
    const entry = sq.words.slice(sq.head * SQE_WORDS, (sq.head + 1) * SQE_WORDS);
    const command: Command = Sqe.read(new DataView(entry.buffer));
    if (entry.every((word) => word === 0)) {
      this.#sawZeros();
    }
    sq.head = sq.head + 1 === sq.size ? 0 : sq.head + 1;
    cq.reserve();
    const last = { command, time: new Date(), status: undefined as number | 'parked' | undefined };
    this.#lastCommand = last;
    const outcome = await this.#execute(command);
    last.status = outcome === 'parked' ? outcome : outcome.status;
    while (this.#pair === pair && sq.stopped) {
      // The memory of the queue went meanwhile.
      await new Promise<void>((resolve) => {
        this.#wakeDrain = resolve;
      });
    }
    if (this.#pair !== pair) {
      return true;
    }
    // Before the Abort that did it, if there is room; else as soon as there is.
    this.#completeAborted(pair);
    cq.unreserve();
    if (outcome !== 'parked') {
      this.#complete(pair, command.cid, outcome.status, outcome.dw0);
      if (outcome.status !== Status.SUCCESS) {
        const { cid, nsid } = command;
        this.#parts.logs.addError({ sqid: 0, cid, status: outcome.status, nsid });
      }
    }
    return true;
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

  async #execute(command: Command): Promise<Outcome> {
    try {
      const outcome = await this.#parts.execute(command);
      const { opcode, cid, nsid } = command;
      const status = outcome === 'parked' ? outcome : outcome.status;
      this.#host.log.debug({ opcode, cid, nsid, status }, 'admin command');
      return outcome;
    } catch (error) {
      this.#host.log.error({ err: error, opcode: command.opcode }, 'admin command failed');
      return { status: Status.INTERNAL_ERROR, dw0: 0 };
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
  #completeEvents(): void {
    const pair = this.#pair;
    if (pair === undefined || pair.sq.stopped) {
      return;
    }
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
    const unreported = (sq.badTail && !sq.reportedTail) || (cq.badHead && !cq.reportedHead);
    sq.reportedTail ||= sq.badTail;
    cq.reportedHead ||= cq.badHead;
    sq.badTail = false;
    cq.badHead = false;
    if (unreported) {
      this.#parts.badDoorbell();
    }
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
    this.#findShadow();
    this.#placeDoorbells();
    const shadowLost = this.#shadow !== undefined && this.#shadow.words === undefined;
    pair.sq.stopped = sqMemory === undefined || cqMemory === undefined || shadowLost;
    this.#wakeDrain();
    this.ring();
  }

  /** Pages that come back get what was rung meanwhile, if the host leaves out these doorbells there. */
  #findShadow(): void {
    const before = this.#shadow?.words?.doorbells;
    this.#shadow?.find(this.#host.memory);
    const after = this.#shadow?.words?.doorbells;
    for (const index of [0, 1]) {
      const rung = this.#missed[index];
      if (before !== undefined) {
        this.#left[index] = Atomics.load(before, index);
        this.#missed[index] = undefined;
      } else if (
        after !== undefined &&
        rung !== undefined &&
        Atomics.load(after, index) === this.#left[index]
      ) {
        Atomics.store(after, index, rung);
      }
    }
  }

  /** How things stand, in words. */
  diagnose(): Pick<NvmeDiagnosis, 'adminQueue' | 'lastAdminCommand'> {
    const last = this.#lastCommand;
    return {
      ...(this.#pair !== undefined && { adminQueue: describe(this.#pair, this.#zeros) }),
      ...(last !== undefined && {
        lastAdminCommand: describeAdminCommand(last.command, last.time, last.status),
      }),
    };
  }
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
