/**
 * The controller: registers with effects, the enable/reset/shutdown state machine, and the admin queue. Owned by main.
 * NVMe Base 2.0 §3.1.3, §3.5, §3.6.
 *
 * disabled ──CC.EN=1──▶ enabled ──CC.EN=0──▶ resetting ──queues gone──▶ disabled
 *               └─ bad settings or memory ──▶ CSTS.CFS, until the host resets
 */
import { PAGE_SIZE } from '../limits.ts';
import { native } from '../native/index.ts';
import {
  AsyncErrorInfo,
  AsyncEvent,
  AsyncEventType,
  AsyncNoticeInfo,
  Cc,
  CQE_SHIFT,
  CQE_SIZE,
  Csts,
  Lid,
  Register,
  SQE_SHIFT,
  SQE_SIZE,
  Sqe,
  Status,
} from '../spec/nvme.ts';
import { Admin, type Command, type Outcome } from './admin.ts';
import {
  type AdminQueueDiagnosis,
  decodeRegisters,
  describeAdminCommand,
  type NvmeDiagnosis,
} from './diagnosis.ts';
import { AsyncEvents } from './events.ts';
import { Features } from './features.ts';
import type { ControllerConfig, ControllerHost } from './host.ts';
import { Logs } from './logs.ts';
import { CompletionQueue, SQE_WORDS, SubmissionQueue } from './queue.ts';
import { Registers } from './registers.ts';
import { ShadowDoorbells, type ShadowPages } from './shadow.ts';

/** Commands taken from the admin queue before other work of the event loop has its turn. */
const BATCH = 32;
const AQA_MASK = 0x0fff_0fff;

interface AdminQueue {
  readonly sq: SubmissionQueue;
  readonly cq: CompletionQueue;
  /** Extra mappings over several DMA regions. */
  readonly aliases: Uint8Array[];
}

export class Controller {
  readonly #host: ControllerHost;
  readonly #registers: Registers;
  readonly #features: Features;
  readonly #logs: Logs;
  readonly #events = new AsyncEvents();
  readonly #admin: Admin;
  #queue: AdminQueue | undefined;
  #shadow: ShadowDoorbells | undefined;
  /** A reset is under way: CC.EN is 0 and CSTS.RDY still 1. */
  #resetting: Promise<void> | undefined;
  /** The admin queue is being worked on; and it was rung meanwhile. */
  #draining = false;
  #rung = false;
  /** Goes on with a completion that waits for the memory of the admin queue. */
  #wakeDrain = (): void => {};
  #keepAliveTimer: NodeJS.Timeout | undefined;
  /** A failure was logged. */
  #complained = false;
  /** Why CSTS.CFS was set last. */
  #failure = '';
  #lastCommand:
    | { readonly command: Command; readonly time: Date; status: number | 'parked' | undefined }
    | undefined;

  constructor(config: ControllerConfig, host: ControllerHost) {
    this.#host = host;
    this.#registers = new Registers(config.maxQueueEntries);
    this.#features = new Features(config.maxIoQueuePairs);
    this.#logs = new Logs(config.firmwareRevision, config.shadowDoorbells);
    this.#admin = new Admin(config, host, {
      features: this.#features,
      logs: this.#logs,
      events: this.#events,
      keepAlive: () => this.#restartKeepAlive(),
      setShadow: (pages) => this.#setShadow(pages),
    });
  }

  /** Bits of INTMS/INTMC: masked vectors when interrupts are pin-based. */
  get interruptMask(): number {
    return this.#registers.interruptMask;
  }

  /** Completions in the admin CQ that the host has not seen. */
  get adminPending(): boolean {
    return this.#queue?.cq.pending ?? false;
  }

  /** CC.EN, as the host wrote it. */
  get enabled(): boolean {
    return this.#registers.enabled;
  }

  get writeThrough(): boolean {
    return !this.#features.writeCache;
  }

  readRegisters(offset: number, into: Uint8Array): void {
    this.#registers.read(offset, into);
  }

  /** A host write of whole dwords; anything else has no effect, as registers are accessed by dword or qword (§3.1.3). */
  writeRegisters(offset: number, data: Uint8Array): void {
    if (offset % 4 !== 0 || data.length % 4 !== 0) {
      return;
    }
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    for (let at = 0; at < data.length; at += 4) {
      this.#writeDword(offset + at, view.getUint32(at, true));
    }
  }

  #writeDword(offset: number, value: number): void {
    const registers = this.#registers;
    switch (offset) {
      case Register.offset.intms:
        registers.interruptMask |= value;
        this.#host.interruptMaskChanged();
        break;
      case Register.offset.intmc:
        registers.interruptMask &= ~value;
        this.#host.interruptMaskChanged();
        break;
      case Register.offset.cc:
        this.#writeCc(value);
        break;
      case Register.offset.aqa:
        if (!registers.enabled) {
          registers.aqa = value & AQA_MASK;
        }
        break;
      case Register.offset.asq:
      case Register.offset.acq:
        if (!registers.enabled) {
          registers.setDword(offset, value & ~(PAGE_SIZE - 1));
        }
        break;
      case Register.offset.asq + 4:
      case Register.offset.acq + 4:
        if (!registers.enabled) {
          registers.setDword(offset, value);
        }
        break;
      // Everything else is read only, or not supported and ignored.
    }
  }

  #writeCc(value: number): void {
    const registers = this.#registers;
    const before = registers.cc;
    registers.cc = value;
    const wasEnabled = (before & Cc.EN) !== 0;
    if (wasEnabled !== registers.enabled && this.#resetting === undefined) {
      if (registers.enabled) {
        this.#enable();
      } else {
        this.#startReset();
      }
    }
    // A reset that is under way looks at CC.EN at its end.
    const shutdown = (value >>> Cc.SHN_SHIFT) & Cc.SHN_MASK;
    if (shutdown !== 0 && ((before >>> Cc.SHN_SHIFT) & Cc.SHN_MASK) === 0) {
      void this.#shutDown();
    }
  }

  #enable(): void {
    const registers = this.#registers;
    const queue = this.#settingsValid() ? this.#mapAdminQueue() : undefined;
    if (queue === undefined) {
      this.fail('the controller cannot be enabled with these settings');
      return;
    }
    this.#queue = queue;
    registers.csts = Csts.RDY;
    this.#complained = false;
    this.#host.watchAdmin(true);
    this.#host.log.debug('controller enabled');
    this.#host.tell({ type: 'enabled' });
  }

  /** CC fields that the host set before EN: only what CAP offers. */
  #settingsValid(): boolean {
    const { cc } = this.#registers;
    const iosqes = (cc >>> Cc.IOSQES_SHIFT) & Cc.ES_MASK;
    const iocqes = (cc >>> Cc.IOCQES_SHIFT) & Cc.ES_MASK;
    return (
      ((cc >>> Cc.CSS_SHIFT) & Cc.CSS_MASK) === 0 &&
      ((cc >>> Cc.MPS_SHIFT) & Cc.MPS_MASK) === 0 &&
      ((cc >>> Cc.AMS_SHIFT) & Cc.AMS_MASK) === 0 &&
      // Firmware may enable the controller before it sets the sizes of I/O entries.
      (iosqes === 0 || iosqes === SQE_SHIFT) &&
      (iocqes === 0 || iocqes === CQE_SHIFT)
    );
  }

  #mapAdminQueue(): AdminQueue | undefined {
    const { aqa, asq, acq } = this.#registers;
    const { memory, doorbells } = this.#host;
    const sqSize = (aqa & 0xfff) + 1;
    const cqSize = ((aqa >>> 16) & 0xfff) + 1;
    if (sqSize < 2 || cqSize < 2) {
      return undefined;
    }
    const sqMemory = memory.queueMemory(asq, sqSize * SQE_SIZE, false);
    const cqMemory = memory.queueMemory(acq, cqSize * CQE_SIZE, true);
    const aliases = [sqMemory?.alias, cqMemory?.alias].filter((alias) => alias !== undefined);
    if (sqMemory === undefined || cqMemory === undefined) {
      aliases.forEach((alias) => {
        native.revoke(alias);
      });
      return undefined;
    }
    Atomics.store(doorbells, 0, 0);
    Atomics.store(doorbells, 1, 0);
    this.#host.sawAdminTail(0);
    this.#host.sawAdminHead(undefined);
    const cq = new CompletionQueue(0, cqSize, cqMemory.words, doorbells, true, 0);
    const sq = new SubmissionQueue(0, sqSize, sqMemory.words, doorbells, cq);
    return { sq, cq, aliases };
  }

  #dropAdminQueue(): void {
    for (const alias of this.#queue?.aliases ?? []) {
      native.revoke(alias);
    }
    this.#queue = undefined;
    this.#shadow = undefined;
    this.#wakeDrain();
    this.#host.watchAdmin(false);
  }

  /** Fatal: nothing is processed until the host resets the controller. */
  fail(reason: string): void {
    // Once, until the host has enabled it again: a host can fail as often as it likes.
    const level = this.#complained ? 'debug' : 'warn';
    this.#complained = true;
    this.#host.log[level]({ reason }, 'controller failed: CSTS.CFS is set');
    this.#registers.csts |= Csts.CFS;
    this.#failure = reason;
    this.#host.tell({ type: 'failed', reason });
  }

  get #failed(): boolean {
    return (this.#registers.csts & Csts.CFS) !== 0;
  }

  /** Controller reset (§3.7.2): queues go, AQA, ASQ and ACQ stay. */
  #startReset(): void {
    // A host that waits for RDY to be 0 finds that at once after a failure: it must not find the old failure, too.
    this.#registers.csts &= ~Csts.CFS;
    this.#dropAdminQueue();
    this.#host.tell({ type: 'disabled' });
    this.#resetting = this.#resetQueues().then(() => {
      this.#resetting = undefined;
      const { cc } = this.#registers;
      this.#registers.reset(true);
      this.#registers.cc = cc;
      if (this.#registers.enabled) {
        this.#enable();
      }
    });
  }

  async #resetQueues(): Promise<void> {
    clearTimeout(this.#keepAliveTimer);
    this.#admin.reset();
    this.#events.reset();
    this.#features.reset();
    this.#logs.reset();
    await this.#host.resetQueues();
    await this.#host.setWriteThrough(this.writeThrough);
  }

  /** Back to power-on, when nothing of the controller is in flight any more: function level reset, vfio-user reset, client gone. */
  async reset(): Promise<void> {
    if (this.#registers.ready && (this.#registers.csts & Csts.SHST_MASK) !== Csts.SHST_COMPLETE) {
      this.#logs.addUnsafeShutdown();
    }
    if (this.#registers.enabled) {
      this.#host.tell({ type: 'disabled' });
    }
    this.#registers.cc = 0;
    this.#dropAdminQueue();
    await this.#resetting;
    await this.#resetQueues();
    this.#registers.reset(false);
  }

  /** CC.SHN: what was completed goes to stable storage, then CSTS says so. */
  async #shutDown(): Promise<void> {
    const registers = this.#registers;
    registers.csts = (registers.csts & ~Csts.SHST_MASK) | Csts.SHST_OCCURRING;
    this.#host.tell({ type: 'shutdown' });
    try {
      await this.#host.sync();
    } catch (error) {
      this.#host.log.error({ err: error }, 'not all data could be made durable at shutdown');
    }
    // A reset may have come between.
    if ((registers.csts & Csts.SHST_MASK) === Csts.SHST_OCCURRING) {
      registers.csts = (registers.csts & ~Csts.SHST_MASK) | Csts.SHST_COMPLETE;
    }
  }

  // --- admin queue ------------------------------------------------------------------------------------------------

  /** The host rang an admin doorbell (or may have). */
  adminDoorbell(): void {
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
  adminRung(index: number, value: number): void {
    const shadow = this.#shadow?.words;
    if (shadow !== undefined) {
      Atomics.store(shadow.doorbells, index, value);
    }
    this.adminDoorbell();
  }

  #setShadow(pages: ShadowPages): boolean {
    const shadow = new ShadowDoorbells(pages, this.#host.memory);
    if (shadow.words === undefined) {
      return false;
    }
    for (const index of [0, 1]) {
      Atomics.store(shadow.words.doorbells, index, Atomics.load(this.#host.doorbells, index));
    }
    this.#shadow = shadow;
    this.#placeDoorbells();
    return true;
  }

  /** Where the host writes the admin queue's doorbells. */
  get #doorbells(): Int32Array {
    return this.#shadow?.words?.doorbells ?? this.#host.doorbells;
  }

  #placeDoorbells(): void {
    if (this.#queue !== undefined) {
      this.#queue.sq.doorbells = this.#doorbells;
      this.#queue.cq.doorbells = this.#doorbells;
    }
  }

  async #drain(): Promise<void> {
    while (this.#rung) {
      this.#rung = false;
      let taken = 0;
      for (;;) {
        // A reset replaces the queue while a command waits for a reactor.
        const queue = this.#queue;
        if (queue === undefined || this.#failed || !(await this.#executeNext(queue))) {
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
    const full = this.#queue !== undefined && this.#queue.cq.room(1) < 1;
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
  async #executeNext(queue: AdminQueue): Promise<boolean> {
    const { sq, cq } = queue;
    this.#look();
    const tail = sq.tail();
    const room = cq.room(1);
    if (sq.badTail || cq.badHead) {
      this.#reportBadDoorbells(queue);
    }
    if (tail === sq.head || sq.stopped || room < 1) {
      return false;
    }
    const entry = sq.words.slice(sq.head * SQE_WORDS, (sq.head + 1) * SQE_WORDS);
    const command: Command = Sqe.read(new DataView(entry.buffer));
    sq.head = sq.head + 1 === sq.size ? 0 : sq.head + 1;
    cq.reserve();
    const last = { command, time: new Date(), status: undefined as number | 'parked' | undefined };
    this.#lastCommand = last;
    const outcome = await this.#execute(command);
    last.status = outcome === 'parked' ? outcome : outcome.status;
    while (this.#queue === queue && sq.stopped) {
      // The memory of the queue went meanwhile.
      await new Promise<void>((resolve) => {
        this.#wakeDrain = resolve;
      });
    }
    if (this.#queue !== queue) {
      return true;
    }
    // Before the Abort that did it, if there is room; else as soon as there is.
    this.#completeAborted(queue);
    cq.unreserve();
    if (outcome !== 'parked') {
      this.#complete(queue, command.cid, outcome.status, outcome.dw0);
      if (outcome.status !== Status.SUCCESS) {
        const { cid, nsid } = command;
        this.#logs.addError({ sqid: 0, cid, status: outcome.status, nsid });
      }
    }
    return true;
  }

  async #execute(command: Command): Promise<Outcome> {
    try {
      const outcome = await this.#admin.execute(command);
      const { opcode, cid, nsid } = command;
      const status = outcome === 'parked' ? outcome : outcome.status;
      this.#host.log.debug({ opcode, cid, nsid, status }, 'admin command');
      return outcome;
    } catch (error) {
      this.#host.log.error({ err: error, opcode: command.opcode }, 'admin command failed');
      return { status: Status.INTERNAL_ERROR, dw0: 0 };
    }
  }

  #complete({ sq, cq }: AdminQueue, cid: number, status: number, dw0: number): void {
    cq.stage(dw0, 0, sq.head, cid, status);
    cq.publish();
    this.#host.signalAdmin();
  }

  #completeAborted(queue: AdminQueue): void {
    while (queue.cq.room(1) > 0) {
      const cid = this.#events.nextAborted();
      if (cid === undefined) {
        return;
      }
      this.#complete(queue, cid, Status.ABORTED_BY_REQUEST, 0);
    }
  }

  /** Reports events for which the host parked a request. */
  #completeEvents(): void {
    const queue = this.#queue;
    if (queue === undefined || queue.sq.stopped) {
      return;
    }
    this.#completeAborted(queue);
    while (queue.cq.room(1) > 0) {
      const next = this.#events.next();
      if (next === undefined) {
        return;
      }
      this.#complete(queue, next.cid, Status.SUCCESS, next.dw0);
    }
  }

  #reportBadDoorbells({ sq, cq }: AdminQueue): void {
    const unreported = (sq.badTail && !sq.reportedTail) || (cq.badHead && !cq.reportedHead);
    sq.reportedTail ||= sq.badTail;
    cq.reportedHead ||= cq.badHead;
    sq.badTail = false;
    cq.badHead = false;
    if (unreported) {
      this.badDoorbell();
    }
  }

  /** A DMA region under the admin queue may have gone (the queue rests) or come (it goes on). */
  memoryChanged(): void {
    const queue = this.#queue;
    if (queue === undefined) {
      return;
    }
    for (const alias of queue.aliases.splice(0)) {
      native.revoke(alias);
    }
    const { asq, acq } = this.#registers;
    const { memory } = this.#host;
    const sqMemory = memory.queueMemory(asq, queue.sq.size * SQE_SIZE, false);
    const cqMemory = memory.queueMemory(acq, queue.cq.size * CQE_SIZE, true);
    queue.aliases.push(
      ...[sqMemory?.alias, cqMemory?.alias].filter((alias) => alias !== undefined),
    );
    queue.sq.words = sqMemory?.words ?? new Int32Array(0);
    queue.cq.memory = cqMemory?.words ?? new Int32Array(0);
    this.#shadow?.find(memory);
    this.#placeDoorbells();
    const shadowLost = this.#shadow !== undefined && this.#shadow.words === undefined;
    queue.sq.stopped = sqMemory === undefined || cqMemory === undefined || shadowLost;
    this.#wakeDrain();
    this.adminDoorbell();
  }

  // --- diagnosis ----------------------------------------------------------------------------------------------------

  /** How things stand, in words. */
  diagnose(): NvmeDiagnosis {
    const image = new DataView(new ArrayBuffer(Register.size));
    this.#registers.read(0, new Uint8Array(image.buffer));
    const last = this.#lastCommand;
    return {
      registers: decodeRegisters(image),
      ...(this.#failed && { failure: this.#failure }),
      ...(this.#queue !== undefined && { adminQueue: describeAdminQueue(this.#queue) }),
      asyncEvents: this.#events.counts,
      features: this.#features.changed,
      ...(last !== undefined && {
        lastAdminCommand: describeAdminCommand(last.command, last.time, last.status),
      }),
    };
  }

  // --- events -------------------------------------------------------------------------------------------------------

  /** The host wrote a doorbell value outside the queue. */
  badDoorbell(): void {
    this.#events.add({
      type: AsyncEventType.ERROR,
      info: AsyncErrorInfo.INVALID_DOORBELL_VALUE,
      logPage: Lid.ERROR,
    });
    this.adminDoorbell();
  }

  /** A namespace came, went, or changed its size. */
  namespaceChanged(nsid: number): void {
    if ((this.#features.asyncEvents & AsyncEvent.NAMESPACE_ATTRIBUTE) !== 0) {
      this.#logs.addChangedNamespace(nsid);
      this.#events.add({
        type: AsyncEventType.NOTICE,
        info: AsyncNoticeInfo.NAMESPACE_ATTRIBUTE_CHANGED,
        logPage: Lid.CHANGED_NAMESPACES,
      });
      this.adminDoorbell();
    }
  }

  /** The Keep Alive timer (§3.9): off unless the host sets it. */
  #restartKeepAlive(): void {
    clearTimeout(this.#keepAliveTimer);
    const ms = this.#features.keepAliveMs;
    if (ms > 0) {
      this.#keepAliveTimer = setTimeout(() => this.fail('the host kept silent past KATO'), ms);
      this.#keepAliveTimer.unref();
    }
  }
}

function describeAdminQueue({ sq, cq }: AdminQueue): AdminQueueDiagnosis {
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
  };
}
