/**
 * Bdevs on top of another, made on the main thread: delay and error. How a reactor does I/O on them is in `delay.ts` and `error.ts`.
 * Their geometry is the base's, and so is all that they hold: they go before it.
 */
import { ErrnoError } from '../util/errors.ts';
import type { BackendDescriptor, DiskFailure } from './bdev.ts';
import {
  type Latencies,
  type Latency,
  makeLatencies,
  readLatencies,
  writeLatency,
} from './delay.ts';
import { type BdevIdentity, Disk } from './disk.ts';
import {
  clearInjections,
  type Injection,
  inject,
  makeInjections,
  resumePending,
} from './injections.ts';
import type { Op } from './op.ts';
import type { UncorrectableRanges } from './uncorrectable-ranges.ts';

/** Another bdev's I/O, later (`delay.ts`) or with errors (`error.ts`). */
export interface DelayDescriptor extends BackendDescriptor {
  readonly kind: 'delay';
  readonly latencies: SharedArrayBuffer;
  readonly base: BackendDescriptor;
}

export interface ErrorDescriptor extends BackendDescriptor {
  readonly kind: 'error';
  readonly injections: SharedArrayBuffer;
  readonly base: BackendDescriptor;
}

export abstract class WrapperDisk extends Disk {
  readonly base: Disk;
  readonly readonly: boolean;
  #baseGeneration: number;

  constructor(identity: BdevIdentity, base: Disk) {
    super(identity, base);
    this.base = base;
    this.readonly = base.readonly;
    this.#baseGeneration = base.generation;
  }

  /** Another one with each of its base. */
  override get generation(): number {
    if (this.base.generation !== this.#baseGeneration) {
      this.#baseGeneration = this.base.generation;
      this.renew();
    }
    return super.generation;
  }

  get hints() {
    return this.base.hints;
  }

  override get failure(): DiskFailure | undefined {
    return this.base.failure;
  }

  override get uncorrectable(): UncorrectableRanges {
    return this.base.uncorrectable;
  }

  sync(): Promise<void> {
    return this.base.sync();
  }

  async close(): Promise<void> {}
}

export class DelayBdev extends WrapperDisk {
  readonly module = 'delay';
  readonly productName = 'delay';
  readonly #latencies: SharedArrayBuffer;

  /** Throws EINVAL if a slow command would be faster than the others. */
  constructor(identity: BdevIdentity, base: Disk, latencies: Latencies) {
    super(identity, base);
    for (const op of ['read', 'write'] as const) {
      if (latencies[`p99_${op}`] < latencies[`avg_${op}`]) {
        throw new ErrnoError(
          'EINVAL',
          `key 'p99_${op}_latency' must not be less than 'avg_${op}_latency', ${latencies[`avg_${op}`]}`,
        );
      }
    }
    this.#latencies = makeLatencies(latencies);
  }

  get backend(): DelayDescriptor {
    return { kind: 'delay', latencies: this.#latencies, base: this.base.backend };
  }

  get latencies(): Latencies {
    return readLatencies(this.#latencies);
  }

  /** Microseconds. For all commands that the base finishes from now on. */
  setLatency(latency: Latency, us: number): void {
    writeLatency(this.#latencies, latency, us);
  }

  get driverSpecific() {
    return { delay: describeDelay(this) };
  }
}

/** What makes it again. */
export function describeDelay({ name, base, latencies }: DelayBdev) {
  return {
    name,
    base_bdev_name: base.name,
    avg_read_latency: latencies.avg_read,
    p99_read_latency: latencies.p99_read,
    avg_write_latency: latencies.avg_write,
    p99_write_latency: latencies.p99_write,
  };
}

export class ErrorBdev extends WrapperDisk {
  readonly module = 'error';
  readonly productName = 'Error Injection Disk';
  readonly #injections = makeInjections();

  get backend(): ErrorDescriptor {
    return { kind: 'error', injections: this.#injections, base: this.base.backend };
  }

  /** In place of what was to be injected into `op` before. */
  inject(op: Op, injection: Injection): void {
    inject(this.#injections, op, injection);
  }

  clear(): void {
    clearInjections(this.#injections);
  }

  /** Commands that are pending are carried out. */
  resumePending(): void {
    resumePending(this.#injections);
  }

  get driverSpecific() {
    return { error_disk: { base_bdev: this.base.name } };
  }
}
