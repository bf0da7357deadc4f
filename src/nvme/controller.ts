/**
 * The controller: registers with effects, and the enable/reset/shutdown state machine. Owned by main.
 * NVMe Base 2.0 §3.1.3, §3.5, §3.6.
 *
 * disabled ──CC.EN=1──▶ enabled ──CC.EN=0──▶ resetting ──queues gone──▶ disabled
 *               └─ bad settings or memory ──▶ CSTS.CFS, until the host resets
 */
import { PAGE_SIZE } from '../limits.ts';
import {
  AsyncCommandSetInfo,
  AsyncErrorInfo,
  AsyncEventType,
  AsyncNoticeInfo,
} from '../spec/events.ts';
import { Lid, SelfTestEnd } from '../spec/logs.ts';
import { CQE_SHIFT, SQE_SHIFT, Sqe } from '../spec/nvme.ts';
import { Aqa, Cc, CommandSets, Csts, NSSR_RESET, Register, Shn, Shst } from '../spec/registers.ts';
import { describeError } from '../util/errors.ts';
import { Admin } from './admin.ts';
import { AdminQueue } from './admin-queue.ts';
import { decodeRegisters, type NvmeDiagnosis } from './diagnosis.ts';
import { AsyncEvents } from './events.ts';
import type { Coalescing } from './features/coalescing.ts';
import type { AdminRegisters, ControllerConfig, ControllerHost, SubsystemEvent } from './host.ts';
import type { IoFailure } from './plane/failure.ts';
import { Registers } from './registers.ts';
import { executeReservation, type MainResult } from './reservation-commands.ts';

export class Controller {
  readonly #host: ControllerHost;
  readonly #registers: Registers;
  readonly #hasSubsystemReset: boolean;
  readonly #events = new AsyncEvents();
  readonly #admin: Admin;
  readonly #queue: AdminQueue;
  /** A reset is under way: CC.EN is 0 and CSTS.RDY still 1. */
  #resetting: Promise<void> | undefined;
  /** Settles when it is known where the admin queues are: CC.EN is 1 and CSTS.RDY still 0. */
  #enabling: Promise<unknown> | undefined;
  #keepAliveTimer: NodeJS.Timeout | undefined;
  /** That is of the whole subsystem: CSTS.NSSRO says so at its end. */
  #ofSubsystem = false;
  /** A failure was logged. */
  #complained = false;
  /** Why CSTS.CFS was set last. */
  #failure = '';

  constructor(config: ControllerConfig, host: ControllerHost) {
    this.#host = host;
    this.#registers = new Registers(config.maxQueueEntries, config.subsystemReset);
    this.#hasSubsystemReset = config.subsystemReset;
    this.#admin = new Admin(config, host, {
      events: this.#events,
      keepAlive: () => this.#restartKeepAlive(),
      setShadow: (pages) => this.#queue.setShadow(pages),
    });
    host.sanitize.resume(host);
    this.#queue = new AdminQueue(host, {
      execute: (command) => this.#admin.execute(command),
      events: this.#events,
      refused: (error) => this.#admin.errors.add(error),
      failed: () => this.#failed,
      doubt: () => this.#doubt(),
      badDoorbell: () => this.badDoorbell(),
    });
  }

  /** Completions in the admin CQ that the host has not seen. */
  get adminPending(): boolean {
    return this.#queue.pending;
  }

  /** CC.EN, as the host wrote it. */
  get enabled(): boolean {
    return this.#registers.enabled;
  }

  get writeThrough(): boolean {
    return !this.#admin.features.writeCache;
  }

  get coalescing(): Coalescing {
    return this.#admin.features.coalescing;
  }

  /** Formats of source ranges that Copy takes: a bit each. */
  get copyFormats(): number {
    return this.#admin.features.hostBehavior.copyFormats;
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
        this.#host.interruptMaskChanged(registers.interruptMask);
        break;
      case Register.offset.intmc:
        registers.interruptMask &= ~value;
        this.#host.interruptMaskChanged(registers.interruptMask);
        break;
      case Register.offset.cc:
        this.#writeCc(value);
        break;
      case Register.offset.csts:
        // The only bit that is cleared by writing 1 to it.
        registers.csts &= ~(value & Csts.mask.nssro);
        break;
      case Register.offset.nssr:
        if (this.#hasSubsystemReset && value === NSSR_RESET) {
          this.#host.resetSubsystem();
        }
        break;
      case Register.offset.aqa:
        if (!registers.enabled) {
          registers.aqa = value & (Aqa.mask.asqsZ | Aqa.mask.acqsZ);
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
    const was = Cc.decode(before);
    if (was.en !== registers.enabled && this.#resetting === undefined) {
      if (registers.enabled) {
        this.#enable();
      } else {
        this.#startReset();
      }
    }
    // A reset that is under way looks at CC.EN at its end.
    if (Cc.decode(value).shn !== Shn.NONE && was.shn === Shn.NONE) {
      void this.#shutDown();
    }
  }

  #enable(): void {
    if (!this.#settingsValid()) {
      this.fail(
        'CC asks for a command set, page size, arbitration or entry size that CAP does not offer',
      );
      return;
    }
    const { aqa, asq, acq } = this.#registers;
    const place = this.#host.reach({ aqa, asq, acq });
    if (!(place instanceof Promise)) {
      this.#begin(place, true);
      return;
    }
    // CSTS.RDY follows. The host may have left before.
    this.#enabling = place;
    place.then(
      (found) => this.#enabling === place && this.#begin(found, true),
      (error: unknown) => this.#enabling === place && this.fail(describeError(error)),
    );
  }

  /** `isNew`: the host has just enabled it. */
  #begin(place: AdminRegisters, isNew: boolean): void {
    this.#enabling = undefined;
    const problem = this.#queue.map(place);
    if (problem !== undefined) {
      this.fail(problem);
      return;
    }
    this.#registers.csts = (this.#registers.csts & Csts.mask.nssro) | Csts.mask.rdy;
    this.#complained = false;
    this.#host.watchAdmin(true);
    if (isNew) {
      this.#host.log.debug('controller enabled');
      this.#host.tell({ type: 'enabled' });
    }
  }

  /** The host goes on where it is, or its queues are found elsewhere; it notices nothing. Never rejects. */
  #doubt(): Promise<void> | undefined {
    const { aqa, asq, acq } = this.#registers;
    const place = this.#host.doubt({ aqa, asq, acq });
    if (place === undefined) {
      return undefined;
    }
    this.#enabling = place;
    return place.then(
      (found) => {
        if (this.#enabling === place && found !== undefined) {
          this.#queue.drop();
          this.#begin(found, false);
        }
      },
      (error: unknown) => {
        if (this.#enabling === place) {
          this.fail(describeError(error));
        }
      },
    );
  }

  /** CC fields that the host set before EN: only what CAP offers. */
  #settingsValid(): boolean {
    const { css, mps, ams, iosqes, iocqes } = Cc.decode(this.#registers.cc);
    return (
      (css === CommandSets.NVM || css === CommandSets.ALL) &&
      mps === 0 &&
      ams === 0 &&
      // Firmware may enable the controller before it sets the sizes of I/O entries.
      (iosqes === 0 || iosqes === SQE_SHIFT) &&
      (iocqes === 0 || iocqes === CQE_SHIFT)
    );
  }

  #dropQueue(): void {
    this.#enabling = undefined;
    this.#queue.drop();
    this.#admin.dropQueues();
    this.#host.watchAdmin(false);
  }

  /** Fatal: nothing is processed until the host resets the controller. */
  fail(reason: string): void {
    // Once, until the host has enabled it again: a host can fail as often as it likes.
    const level = this.#complained ? 'debug' : 'warn';
    this.#complained = true;
    this.#host.log[level]({ reason }, 'controller failed: CSTS.CFS is set');
    this.#registers.csts |= Csts.mask.cfs;
    this.#failure = reason;
    this.#host.tell({ type: 'failed', reason });
  }

  get #failed(): boolean {
    return (this.#registers.csts & Csts.mask.cfs) !== 0;
  }

  /** Controller reset (§3.7.2): queues go, AQA, ASQ and ACQ stay. */
  #startReset(enabled = true): void {
    // A host that waits for RDY to be 0 finds that at once after a failure: it must not find the old failure, too.
    this.#registers.csts &= ~Csts.mask.cfs;
    this.#dropQueue();
    if (enabled) {
      this.#host.tell({ type: 'disabled' });
    }
    this.#resetting = this.#resetQueues().then(
      () => {
        this.#resetting = undefined;
        const { cc } = this.#registers;
        this.#registers.reset(true);
        this.#registers.cc = cc;
        if (this.#ofSubsystem) {
          this.#ofSubsystem = false;
          this.#registers.csts = Csts.encode({ nssro: true });
        }
        if (this.#registers.enabled) {
          this.#enable();
        }
      },
      (error: Error) => {
        // CSTS.RDY stays: the host waits for it in vain, and finds the failure.
        this.#resetting = undefined;
        this.fail(`the reset failed: ${error.message}`);
      },
    );
  }

  /**
   * NVM Subsystem Reset (§3.7.1.2), of this controller: as a controller reset, but AQA, ASQ and ACQ go, too, and CSTS.NSSRO tells of it.
   * What the host writes to CC meanwhile counts when it is over.
   */
  subsystemReset(): void {
    const registers = this.#registers;
    if (registers.ready && registers.shutdown !== Shst.COMPLETE) {
      this.#admin.health.addUnsafeShutdown();
    }
    const { enabled } = registers;
    this.#ofSubsystem = true;
    registers.cc = 0;
    registers.forgetAdmin();
    if (this.#resetting === undefined) {
      this.#startReset(enabled);
    }
  }

  async #resetQueues(): Promise<void> {
    clearTimeout(this.#keepAliveTimer);
    this.#admin.reset();
    await this.#host.resetQueues();
    await this.#host.setWriteThrough(this.writeThrough);
    await this.#host.setCoalescing(this.coalescing);
    await this.#host.nameHost(this.#admin.features.hostIdentity.id);
    await this.#host.setCopyFormats(this.copyFormats);
  }

  /** Back to power-on, when nothing of the controller is in flight any more: function level reset, vfio-user reset, client gone. */
  async reset(): Promise<void> {
    if (this.#registers.ready && this.#registers.shutdown !== Shst.COMPLETE) {
      this.#admin.health.addUnsafeShutdown();
    }
    if (this.#registers.enabled) {
      this.#host.tell({ type: 'disabled' });
    }
    this.#registers.cc = 0;
    this.#admin.selfTests.stop(SelfTestEnd.RESET);
    this.#dropQueue();
    await this.#resetting;
    await this.#resetQueues();
    this.#registers.reset(false);
  }

  /** CC.SHN: what was completed goes to stable storage, then CSTS says so. */
  async #shutDown(): Promise<void> {
    const registers = this.#registers;
    registers.shutdown = Shst.OCCURRING;
    this.#host.tell({ type: 'shutdown' });
    try {
      await this.#host.sync();
    } catch (error) {
      this.#host.log.error({ err: error }, 'not all data could be made durable at shutdown');
    }
    // A reset may have come between.
    if (registers.shutdown === Shst.OCCURRING) {
      registers.shutdown = Shst.COMPLETE;
    }
  }

  /** The host rang an admin doorbell (or may have). */
  adminDoorbell(): void {
    this.#queue.ring();
  }

  /** DMA regions came or went. */
  memoryChanged(): void {
    this.#queue.memoryChanged();
  }

  // --- diagnosis ----------------------------------------------------------------------------------------------------

  /** How things stand, in words. */
  diagnose(): NvmeDiagnosis {
    const image = new DataView(new ArrayBuffer(Register.size));
    this.#registers.read(0, new Uint8Array(image.buffer));
    return {
      registers: decodeRegisters(image),
      ...(this.#failed && { failure: this.#failure }),
      ...this.#queue.diagnose(),
      asyncEvents: this.#events.counts,
      features: this.#admin.features.changed(this.#host),
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
    this.#queue.ring();
  }

  /** A disk reported an error to a command of this controller. */
  diskFailed({ nsid, status, lba, count }: IoFailure): void {
    this.#admin.errors.add({ nsid, status, lba }, count);
    this.#admin.checkHealth();
    this.#queue.ring();
  }

  /** A namespace came, went, or changed its size. */
  namespaceChanged(nsid: number): void {
    if (this.#admin.features.wants('namespaceAttribute')) {
      this.#admin.changed.add(nsid);
      this.#events.add({
        type: AsyncEventType.NOTICE,
        info: AsyncNoticeInfo.NAMESPACE_ATTRIBUTE_CHANGED,
        logPage: Lid.CHANGED_NAMESPACES,
      });
      this.#queue.ring();
    }
  }

  /** Something happened to the subsystem. */
  subsystemEvent(event: SubsystemEvent): void {
    if (event.kind === 'reservation') {
      this.#admin.reservationNotice(event);
    } else {
      this.#events.add({
        type: AsyncEventType.COMMAND_SET,
        info: AsyncCommandSetInfo.SANITIZE_COMPLETED,
        logPage: Lid.SANITIZE,
      });
    }
    this.#queue.ring();
  }

  /** A command of an I/O queue that main carries out. */
  ioCommand(words: Int32Array, data: Uint8Array): Promise<MainResult> {
    const command = Sqe.read(new DataView(words.buffer, words.byteOffset));
    return executeReservation(command, data, this.#host.hostName, this.#host);
  }

  /** The Keep Alive timer (§3.9): off unless the host sets it. */
  #restartKeepAlive(): void {
    clearTimeout(this.#keepAliveTimer);
    const { ms } = this.#admin.features.keepAlive;
    if (ms > 0) {
      this.#keepAliveTimer = setTimeout(() => this.fail('the host kept silent past KATO'), ms);
      this.#keepAliveTimer.unref();
    }
  }
}
