/**
 * Admin commands: opcode → what is done. NVMe Base 2.0 §5. Owned by main; may wait for reactors.
 *
 * A command arrives as a copy, so that the host cannot change it meanwhile. Each ends in one `Outcome`.
 */
import { MAX_IOVA, PAGE_SIZE } from '../limits.ts';
import { mapPrps } from '../memory/prp.ts';
import { Segments } from '../memory/segments.ts';
import { AdminOpcode, Cns } from '../spec/admin.ts';
import { AsyncEventType, AsyncSmartInfo } from '../spec/events.ts';
import { Fid } from '../spec/features.ts';
import { IDENTIFY_SIZE } from '../spec/identify.ts';
import { CriticalWarning, Lid } from '../spec/logs.ts';
import { Cdw0, NSID_ALL, type Sqe, Status } from '../spec/nvme.ts';
import type { StructValues } from '../util/struct.ts';
import { AdminIoQueues } from './admin-io-queues.ts';
import type { AsyncEvents } from './events.ts';
import type { Features } from './features.ts';
import { sendToGuest } from './guest-data.ts';
import type { ControllerConfig, ControllerHost } from './host.ts';
import {
  activeNamespaces,
  identifyController,
  identifyNamespace,
  identifyNamespaceIndependent,
  namespaceDescriptors,
} from './identify.ts';
import { type Logs, TEMPERATURE } from './logs.ts';
import type { ShadowPages } from './shadow.ts';

export type Command = StructValues<(typeof Sqe)['fields']>;

/** How a command ends: a status and dword 0, or not yet (an asynchronous event request). */
export type Outcome = { readonly status: number; readonly dw0: number } | 'parked';

const done = (status: number, dw0 = 0): Outcome => ({ status, dw0 });
const SUCCESS = done(Status.SUCCESS);

/** Abort: dword 0 of the completion says that nothing was aborted. */
const NOT_ABORTED = 1;
/** Retain Asynchronous Event, in Get Log Page. */
const LOG_RAE = 1 << 15;
const NVM_COMMAND_SET = 0;

export class Admin {
  readonly #config: ControllerConfig;
  readonly #host: ControllerHost;
  readonly #features: Features;
  readonly #logs: Logs;
  readonly #events: AsyncEvents;
  readonly #keepAlive: () => void;
  readonly #setShadow: (pages: ShadowPages) => boolean;
  readonly #segments = new Segments();
  readonly #queues: AdminIoQueues;
  /** The host was told that the temperature is beyond a threshold, and it still is. */
  #warned = false;

  constructor(
    config: ControllerConfig,
    host: ControllerHost,
    parts: {
      readonly features: Features;
      readonly logs: Logs;
      readonly events: AsyncEvents;
      /** The host gave a sign of life, or changed how often it has to. */
      readonly keepAlive: () => void;
      /** The admin queue finds its doorbells in these pages from now on; false if they are not in guest memory. */
      readonly setShadow: (pages: ShadowPages) => boolean;
    },
  ) {
    this.#config = config;
    this.#host = host;
    this.#features = parts.features;
    this.#logs = parts.logs;
    this.#events = parts.events;
    this.#keepAlive = parts.keepAlive;
    this.#setShadow = parts.setShadow;
    this.#queues = new AdminIoQueues(config, host, parts.features);
  }

  /** All I/O queues are gone; commands about them that wait for their turn are not carried out. */
  reset(): void {
    this.#queues.reset();
    this.#warned = false;
  }

  /** Carries a command out: at once, unless it has to wait for a reactor. */
  execute(command: Command): Outcome | Promise<Outcome> {
    if ((command.cdw0 & (Cdw0.mask.fuse | Cdw0.mask.psdt)) !== 0) {
      return done(Status.INVALID_FIELD);
    }
    switch (command.opcode) {
      case AdminOpcode.IDENTIFY:
        return done(this.#identify(command));
      case AdminOpcode.GET_LOG_PAGE:
        return done(this.#getLogPage(command));
      case AdminOpcode.GET_FEATURES: {
        const { status, dw0 } = this.#features.get(command.cdw10, command.cdw11);
        return done(status, dw0);
      }
      case AdminOpcode.SET_FEATURES:
        return this.#setFeatures(command);
      case AdminOpcode.CREATE_IO_CQ:
      case AdminOpcode.CREATE_IO_SQ:
      case AdminOpcode.DELETE_IO_CQ:
      case AdminOpcode.DELETE_IO_SQ:
        return this.#queues.change(command).then((status) => done(status));
      case AdminOpcode.ABORT:
        // Only event requests can be taken back; anything else completes by itself.
        return this.#abort(command);
      case AdminOpcode.ASYNC_EVENT_REQUEST:
        return this.#events.park(command.cid) ? 'parked' : done(Status.ASYNC_EVENT_REQUEST_LIMIT);
      case AdminOpcode.DOORBELL_BUFFER_CONFIG:
        return this.#shadowDoorbells(command);
      case AdminOpcode.KEEP_ALIVE:
        this.#keepAlive();
        return SUCCESS;
      default:
        return done(Status.INVALID_OPCODE);
    }
  }

  /** Sends data to the buffer that PRP1 and PRP2 describe. */
  #send(command: Command, data: Uint8Array): number {
    if (command.prp1 > Number.MAX_SAFE_INTEGER || command.prp2 > Number.MAX_SAFE_INTEGER) {
      return Status.DATA_TRANSFER_ERROR;
    }
    const status = mapPrps(
      this.#host.memory,
      command.prp1 | 0,
      (command.prp1 / 0x1_0000_0000) | 0,
      command.prp2 | 0,
      (command.prp2 / 0x1_0000_0000) | 0,
      data.length,
      true,
      this.#segments,
    );
    if (status === Status.SUCCESS) {
      sendToGuest(data, this.#segments);
    }
    return status;
  }

  #identify(command: Command): number {
    const data = this.#identifyData(command);
    return typeof data === 'number' ? data : this.#send(command, data);
  }

  #identifyData(command: Command): Uint8Array | number {
    const { namespaces } = this.#host;
    const { nsid } = command;
    const csi = command.cdw11 >>> 24;
    const inRange = nsid >= 1 && nsid <= this.#config.maxNamespaces;
    const cns = command.cdw10 & 0xff;
    switch (cns) {
      case Cns.CONTROLLER:
        return identifyController(this.#config, this.#host.shared);
      case Cns.NAMESPACE:
        // An NSID in range without a namespace is inactive: zeros, not an error.
        return inRange
          ? identifyNamespace(namespaces.get(nsid), this.#host.shared)
          : Status.INVALID_NAMESPACE;
      case Cns.INDEPENDENT_NAMESPACE:
        return inRange
          ? identifyNamespaceIndependent(namespaces.get(nsid), this.#host.shared)
          : Status.INVALID_NAMESPACE;
      case Cns.NAMESPACE_DESCRIPTORS: {
        const namespace = namespaces.get(nsid);
        return namespace === undefined ? Status.INVALID_NAMESPACE : namespaceDescriptors(namespace);
      }
      case Cns.ACTIVE_NAMESPACES:
      case Cns.CSI_ACTIVE_NAMESPACES:
        if (cns === Cns.CSI_ACTIVE_NAMESPACES && csi !== NVM_COMMAND_SET) {
          return Status.INVALID_FIELD;
        }
        return nsid >= NSID_ALL - 1
          ? Status.INVALID_NAMESPACE
          : activeNamespaces(namespaces.keys(), nsid);
      case Cns.CSI_NAMESPACE:
        if (csi !== NVM_COMMAND_SET) {
          return Status.INVALID_FIELD;
        }
        // No extended LBA formats, no protection information: zeros.
        return inRange ? new Uint8Array(IDENTIFY_SIZE) : Status.INVALID_NAMESPACE;
      case Cns.CSI_CONTROLLER:
        // No limits beside MDTS: zeros.
        return csi === NVM_COMMAND_SET ? new Uint8Array(IDENTIFY_SIZE) : Status.INVALID_FIELD;
      default:
        return Status.INVALID_FIELD;
    }
  }

  #getLogPage(command: Command): number {
    const lid = command.cdw10 & 0xff;
    const retain = (command.cdw10 & LOG_RAE) !== 0;
    const dwords = (command.cdw10 >>> 16) + (command.cdw11 & 0xffff) * 0x1_0000 + 1;
    const offset = command.cdw12 + command.cdw13 * 0x1_0000_0000;
    if (dwords * 4 > PAGE_SIZE << this.#config.mdts || offset % 4 !== 0) {
      return Status.INVALID_FIELD;
    }
    const page = this.#logs.page(lid, () => this.#host.ioTotals(), this.#criticalWarning);
    if (page === undefined) {
      return Status.INVALID_LOG_PAGE;
    }
    if (offset > page.length) {
      return Status.INVALID_FIELD;
    }
    const data = new Uint8Array(dwords * 4);
    data.set(page.subarray(offset, offset + data.length));
    const status = this.#send(command, data);
    if (status === Status.SUCCESS && !retain) {
      this.#events.read(lid);
      if (lid === Lid.CHANGED_NAMESPACES) {
        this.#logs.clearChanged();
      }
    }
    return status;
  }

  #setFeatures(command: Command): Outcome | Promise<Outcome> {
    const { status, dw0 } = this.#features.set(command.cdw10, command.cdw11, this.#queues.exist);
    if (status === Status.SUCCESS) {
      const fid = command.cdw10 & 0xff;
      if (fid === Fid.VOLATILE_WRITE_CACHE) {
        return this.#host
          .setWriteThrough(!this.#features.writeCache)
          .then(() => done(Status.SUCCESS));
      }
      if (fid === Fid.KEEP_ALIVE_TIMER) {
        this.#keepAlive();
      } else if (fid === Fid.TEMPERATURE_THRESHOLD || fid === Fid.ASYNC_EVENT_CONFIG) {
        this.#warnOfTemperature();
      }
    }
    return done(status, dw0);
  }

  /** Of the SMART log. */
  get #criticalWarning(): number {
    return this.#features.warnsAt(TEMPERATURE) ? CriticalWarning.mask.temperature : 0;
  }

  /**
   * Tells of a temperature beyond a threshold, once for each time that it gets there (§5.27.1.3). It never changes: the thresholds do, and
   * whether the host wants to be told.
   */
  #warnOfTemperature(): void {
    const wanted = this.#features.asyncEvents & CriticalWarning.mask.temperature;
    const warns = (this.#criticalWarning & wanted) !== 0;
    if (warns && !this.#warned) {
      this.#events.add({
        type: AsyncEventType.SMART,
        info: AsyncSmartInfo.TEMPERATURE_THRESHOLD,
        logPage: Lid.SMART,
      });
    }
    this.#warned = warns;
  }

  /** Doorbell Buffer Config, §5.8. */
  #shadowDoorbells({ prp1, prp2 }: Command): Outcome | Promise<Outcome> {
    if (!this.#config.shadowDoorbells) {
      return done(Status.INVALID_OPCODE);
    }
    if (prp1 % PAGE_SIZE !== 0 || prp2 % PAGE_SIZE !== 0 || prp1 === prp2) {
      return done(Status.INVALID_FIELD);
    }
    const pages: ShadowPages = { doorbells: prp1, eventIdx: prp2 };
    if (Math.max(prp1, prp2) > MAX_IOVA || !this.#setShadow(pages)) {
      return done(Status.DATA_TRANSFER_ERROR);
    }
    return this.#host.setShadow(pages).then(() => SUCCESS);
  }

  #abort(command: Command): Outcome {
    const sqid = command.cdw10 & 0xffff;
    const cid = command.cdw10 >>> 16;
    return sqid === 0 && this.#events.abort(cid) ? SUCCESS : done(Status.SUCCESS, NOT_ABORTED);
  }
}
