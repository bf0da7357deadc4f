/** The SMART / Health Information log. NVMe Base 2.0 §5.16.1.3. Owned by main. */
import { CriticalWarning, SmartLog } from '../../spec/logs.ts';
import type { TemperatureThresholds } from '../features/temperature.ts';
import type { IoTotals } from '../host.ts';

/** Kelvin: a virtual disk keeps cool at 40 °C. */
export const TEMPERATURE = 313;
/** SMART counts data in thousands of 512-byte units, rounded up. */
const DATA_UNIT = 512_000;
const NS_PER_MS = 1_000_000;
const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

export class Health {
  readonly #thresholds: TemperatureThresholds;
  readonly #isUnreliable: () => boolean;
  /** By a clock that nobody sets. Milliseconds. */
  readonly #started = performance.now();
  /** How long the controller was busy, until when (ms) and what latency (ns) it was added up. */
  #busyMs = 0;
  #busyUntil = this.#started;
  #busyLatency = 0;
  #unsafeShutdowns = 0;

  /** `isUnreliable`: a disk has lost data that was completed. */
  constructor(thresholds: TemperatureThresholds, isUnreliable: () => boolean) {
    this.#thresholds = thresholds;
    this.#isUnreliable = isUnreliable;
  }

  addUnsafeShutdown(): void {
    this.#unsafeShutdowns += 1;
  }

  /** Hours that the controller has been there. */
  get powerOnHours(): number {
    return Math.floor((performance.now() - this.#started) / HOUR_MS);
  }

  /** What the host is warned of: bits of CriticalWarning. */
  get warnings(): number {
    return CriticalWarning.encode({
      temperature: this.#thresholds.warnsAt(TEMPERATURE),
      reliability: this.#isUnreliable(),
    });
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

  /** `errors`: entries that the error log ever had. */
  page(totals: IoTotals, errors: number): Uint8Array {
    const now = performance.now();
    this.#addBusy(now, totals);
    const out = new Uint8Array(SmartLog.size);
    // compositeTemperature is not aligned, which only a DataView can write.
    SmartLog.write(new DataView(out.buffer), 0, {
      criticalWarning: this.warnings,
      compositeTemperature: TEMPERATURE,
      availableSpare: 100,
      availableSpareThreshold: 10,
      dataUnitsRead: Math.ceil(totals.bytesRead / DATA_UNIT),
      dataUnitsWritten: Math.ceil(totals.bytesWritten / DATA_UNIT),
      hostReads: totals.numReadOps,
      hostWrites: totals.numWriteOps,
      controllerBusyMinutes: Math.floor(this.#busyMs / MINUTE_MS),
      powerCycles: 1,
      powerOnHours: this.powerOnHours,
      unsafeShutdowns: this.#unsafeShutdowns,
      mediaErrors: totals.errors,
      errorLogEntries: errors,
    });
    return out;
  }
}
