/** Log pages. NVMe Base 2.0 §5.16. Owned by main. */
import { MAX_ERROR_LOG_ENTRIES } from '../limits.ts';
import { AdminOpcode } from '../spec/admin.ts';
import { Fid } from '../spec/features.ts';
import {
  EFFECTS_IO_OFFSET,
  EFFECTS_LOG_SIZE,
  Effects,
  ErrorLogEntry,
  FEATURE_EFFECTS_LOG_SIZE,
  FeatureEffects,
  FirmwareSlotLog,
  Lid,
  SmartLog,
} from '../spec/logs.ts';
import { NvmOpcode } from '../spec/nvm.ts';
import { SUPPORTED_FEATURES } from './features.ts';
import type { IoTotals } from './host.ts';
import { padded } from './identify.ts';

/** Kelvin: a virtual disk keeps cool at 40 °C. */
export const TEMPERATURE = 313;
/** SMART counts data in thousands of 512-byte units, rounded up. */
const DATA_UNIT = 512_000;
const NS_PER_MS = 1_000_000;
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;
/** NSIDs in the changed namespace list; more are told by FFFFFFFFh alone. */
const MAX_CHANGED = 1024;
const SUPPORTED = Effects.encode({ csupp: true });
const WRITES = Effects.encode({ csupp: true, lbcc: true });

/** A failed command, for the error log. */
export interface LoggedError {
  readonly sqid: number;
  readonly cid: number;
  readonly status: number;
  readonly nsid: number;
}

export class Logs {
  readonly #firmwareRevision: string;
  readonly #shadowDoorbells: boolean;
  /** By a clock that nobody sets. Milliseconds. */
  readonly #started = performance.now();
  /** How long the controller was busy, until when (ms) and what latency (ns) it was added up. */
  #busyMs = 0;
  #busyUntil = this.#started;
  #busyLatency = 0;
  /** Newest first. */
  #errors: (LoggedError & { readonly count: number })[] = [];
  #errorCount = 0;
  #changed = new Set<number>();
  #unsafeShutdowns = 0;

  /** `shadowDoorbells`: Doorbell Buffer Config is among the commands. */
  constructor(firmwareRevision: string, shadowDoorbells: boolean) {
    this.#firmwareRevision = firmwareRevision;
    this.#shadowDoorbells = shadowDoorbells;
  }

  /** What a controller reset forgets. */
  reset(): void {
    this.#changed = new Set();
  }

  addError(error: LoggedError): void {
    this.#errorCount += 1;
    this.#errors.unshift({ ...error, count: this.#errorCount });
    this.#errors.length = Math.min(this.#errors.length, MAX_ERROR_LOG_ENTRIES);
  }

  addChangedNamespace(nsid: number): void {
    this.#changed.add(nsid);
  }

  addUnsafeShutdown(): void {
    this.#unsafeShutdowns += 1;
  }

  /**
   * Controller Busy Time (§5.16.1.3): commands were outstanding no longer than all the time, and no longer than what they took one after the
   * other. Where several overlap the second is too much; nobody measures how many are outstanding.
   */
  #addBusy(now: number, { latencyNs }: IoTotals): void {
    const took = (latencyNs - this.#busyLatency) / NS_PER_MS;
    this.#busyMs += Math.min(now - this.#busyUntil, Math.max(0, took));
    this.#busyUntil = now;
    this.#busyLatency = latencyNs;
  }

  /** The whole page, or undefined if there is none of that identifier. */
  page(lid: number, totals: () => IoTotals, criticalWarning: number): Uint8Array | undefined {
    switch (lid) {
      case Lid.SUPPORTED:
        return this.#supported();
      case Lid.ERROR:
        return this.#errorPage();
      case Lid.SMART:
        return this.#smart(totals(), criticalWarning);
      case Lid.FIRMWARE_SLOT:
        return FirmwareSlotLog.encode({
          afi: 1,
          frs1: padded(this.#firmwareRevision, 8),
        });
      case Lid.CHANGED_NAMESPACES:
        return this.#changedPage();
      case Lid.COMMAND_EFFECTS:
        return effects(this.#shadowDoorbells);
      case Lid.FEATURE_EFFECTS:
        return featureEffects();
      default:
        return undefined;
    }
  }

  /** The host read the changed namespace list. */
  clearChanged(): void {
    this.#changed = new Set();
  }

  /** LID 00h: a dword for each identifier, bit 0: supported. */
  #supported(): Uint8Array {
    const out = new Uint8Array(1024);
    for (const lid of Object.values(Lid)) {
      out[4 * lid] = 1;
    }
    return out;
  }

  #errorPage(): Uint8Array {
    const out = new Uint8Array(MAX_ERROR_LOG_ENTRIES * ErrorLogEntry.size);
    const view = new DataView(out.buffer);
    this.#errors.forEach((error, i) => {
      ErrorLogEntry.write(view, i * ErrorLogEntry.size, {
        errorCount: error.count,
        sqid: error.sqid,
        cid: error.cid,
        status: error.status << 1,
        parameterLocation: 0xffff,
        nsid: error.nsid,
      });
    });
    return out;
  }

  #smart(totals: IoTotals, criticalWarning: number): Uint8Array {
    const now = performance.now();
    const up = now - this.#started;
    this.#addBusy(now, totals);
    const out = new Uint8Array(SmartLog.size);
    const view = new DataView(out.buffer);
    // compositeTemperature is not aligned, which only a DataView can write.
    SmartLog.write(view, 0, {
      criticalWarning,
      compositeTemperature: TEMPERATURE,
      availableSpare: 100,
      availableSpareThreshold: 10,
      dataUnitsRead: Math.ceil(totals.bytesRead / DATA_UNIT),
      dataUnitsWritten: Math.ceil(totals.bytesWritten / DATA_UNIT),
      hostReads: totals.numReadOps,
      hostWrites: totals.numWriteOps,
      controllerBusyMinutes: Math.floor(this.#busyMs / MINUTE_MS),
      powerCycles: 1,
      powerOnHours: Math.floor(up / HOUR_MS),
      unsafeShutdowns: this.#unsafeShutdowns,
      mediaErrors: totals.errors,
      errorLogEntries: this.#errorCount,
    });
    return out;
  }

  #changedPage(): Uint8Array {
    const out = new Uint8Array(4 * MAX_CHANGED);
    const view = new DataView(out.buffer);
    const changed = [...this.#changed].sort((a, b) => a - b);
    if (changed.length > MAX_CHANGED) {
      view.setUint32(0, 0xffff_ffff, true);
      return out;
    }
    for (const [i, nsid] of changed.entries()) {
      view.setUint32(4 * i, nsid, true);
    }
    return out;
  }
}

function effects(shadowDoorbells: boolean): Uint8Array {
  const out = new Uint8Array(EFFECTS_LOG_SIZE);
  const view = new DataView(out.buffer);
  for (const opcode of Object.values(AdminOpcode)) {
    if (opcode !== AdminOpcode.DOORBELL_BUFFER_CONFIG || shadowDoorbells) {
      view.setUint32(4 * opcode, SUPPORTED, true);
    }
  }
  view.setUint32(EFFECTS_IO_OFFSET + 4 * NvmOpcode.FLUSH, SUPPORTED, true);
  view.setUint32(EFFECTS_IO_OFFSET + 4 * NvmOpcode.READ, SUPPORTED, true);
  view.setUint32(EFFECTS_IO_OFFSET + 4 * NvmOpcode.WRITE, WRITES, true);
  return out;
}

/** LID 12h: which features there are, and whose each is. */
function featureEffects(): Uint8Array {
  const out = new Uint8Array(FEATURE_EFFECTS_LOG_SIZE);
  const view = new DataView(out.buffer);
  for (const fid of SUPPORTED_FEATURES) {
    const namespace = fid === Fid.ERROR_RECOVERY;
    const effects = FeatureEffects.encode({ fsupp: true, namespace, controller: !namespace });
    view.setUint32(4 * fid, effects, true);
  }
  return out;
}
