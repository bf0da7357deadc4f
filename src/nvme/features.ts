/** Get and Set Features: the values, what may be set to what. NVMe Base 2.0 §5.27. Owned by main. */
import { AsyncEventConfig, Fid } from '../spec/features.ts';
import { Status } from '../spec/nvme.ts';

/** KAS, in 100 ms units: Keep Alive timers are rounded up to 10 s. */
export const KEEP_ALIVE_GRANULARITY = 100;

/** The longest that a timer of Node's can be set to. */
const MAX_TIMER_MS = 2 ** 31 - 1;

function roundKeepAlive(ms: number): number {
  const step = KEEP_ALIVE_GRANULARITY * 100;
  return Math.ceil(ms / step) * step;
}

const AEC_MASK = AsyncEventConfig.mask.smart | AsyncEventConfig.mask.namespaceAttribute;
const MAX_QUEUES = 0xffff;
const VECTOR_MASK = 0xffff;
const COALESCING_DISABLE = 1 << 16;
/** Composite temperature over and under threshold. */
const TEMPERATURE_MASK = 0xffff;
const TEMPERATURE_SENSOR_SHIFT = 16;
const TEMPERATURE_UNDER_SHIFT = 20;
const ALL_SENSORS = 15;
/** Kelvin: 70 °C. WCTEMP, and the threshold until the host sets one. */
export const WARNING_TEMPERATURE = 343;

/** Select field of Get Features. */
const Select = { CURRENT: 0, DEFAULT: 1, SAVED: 2, CAPABILITIES: 3 } as const;
const CAPABILITY_CHANGEABLE = 1 << 2;

/** A result of Get or Set Features: a status, and dword 0 of the completion. */
export interface FeatureResult {
  readonly status: number;
  readonly dw0: number;
}

const ok = (dw0 = 0): FeatureResult => ({ status: Status.SUCCESS, dw0 });
const refused = (status: number): FeatureResult => ({ status, dw0: 0 });

const DEFAULTS: ReadonlyMap<number, number> = new Map([
  [Fid.ARBITRATION, 7],
  [Fid.POWER_MANAGEMENT, 0],
  [Fid.TEMPERATURE_THRESHOLD, WARNING_TEMPERATURE],
  [Fid.ERROR_RECOVERY, 0],
  [Fid.VOLATILE_WRITE_CACHE, 1],
  [Fid.INTERRUPT_COALESCING, 0],
  [Fid.INTERRUPT_VECTOR_CONFIG, 0],
  [Fid.WRITE_ATOMICITY, 0],
  [Fid.ASYNC_EVENT_CONFIG, 0],
  [Fid.KEEP_ALIVE_TIMER, 0],
]);

/** Identifiers of all features. */
export const SUPPORTED_FEATURES: readonly number[] = [...DEFAULTS.keys(), Fid.NUMBER_OF_QUEUES];

export class Features {
  readonly #maxQueues: number;
  #values = new Map(DEFAULTS);
  #underTemperature = 0;
  /** Vectors that the host took out of coalescing. */
  #uncoalesced = new Set<number>();
  #queues: number;

  /** `maxQueues`: I/O queue pairs that the controller has. */
  constructor(maxQueues: number) {
    this.#maxQueues = maxQueues;
    this.#queues = maxQueues;
  }

  reset(): void {
    this.#values = new Map(DEFAULTS);
    this.#underTemperature = 0;
    this.#uncoalesced = new Set();
    this.#queues = this.#maxQueues;
  }

  /** I/O queue pairs that the host may create: all, until it asked for a number. */
  get queues(): number {
    return this.#queues;
  }

  /** The features that the host set to something else than their default, by name. */
  get changed(): Record<string, number> {
    const names = Object.entries(Fid).flatMap(([name, fid]): [string, number][] => {
      const value = this.#values.get(fid);
      return value === undefined || value === DEFAULTS.get(fid) ? [] : [[name, value]];
    });
    return {
      ...Object.fromEntries(names),
      ...(this.#queues !== this.#maxQueues && { NUMBER_OF_QUEUES: this.#queues }),
    };
  }

  get asyncEvents(): number {
    return this.#values.get(Fid.ASYNC_EVENT_CONFIG)!;
  }

  /** A composite temperature (K) is at or beyond a threshold: the upper one or the lower one. */
  warnsAt(temperature: number): boolean {
    const over = this.#values.get(Fid.TEMPERATURE_THRESHOLD)!;
    return temperature >= over || temperature <= this.#underTemperature;
  }

  get writeCache(): boolean {
    return this.#values.get(Fid.VOLATILE_WRITE_CACHE) === 1;
  }

  /** Milliseconds, rounded up to the granularity; 0: off. */
  get keepAliveMs(): number {
    return roundKeepAlive(this.#values.get(Fid.KEEP_ALIVE_TIMER)!);
  }

  /** Number of Queues: granted submission and completion queues, zero-based. */
  get #granted(): number {
    return (this.#queues - 1) | ((this.#queues - 1) << 16);
  }

  /** Get Features. `cdw10`: SEL and FID. */
  get(cdw10: number, cdw11: number): FeatureResult {
    const fid = cdw10 & 0xff;
    const select = (cdw10 >>> 8) & 7;
    if (select > Select.CAPABILITIES || (fid !== Fid.NUMBER_OF_QUEUES && !DEFAULTS.has(fid))) {
      return refused(Status.INVALID_FIELD);
    }
    if (select === Select.CAPABILITIES) {
      return ok(CAPABILITY_CHANGEABLE);
    }
    const current = select === Select.CURRENT;
    switch (fid) {
      case Fid.NUMBER_OF_QUEUES:
        return ok(this.#granted);
      case Fid.INTERRUPT_VECTOR_CONFIG: {
        const vector = cdw11 & VECTOR_MASK;
        if (vector > this.#maxQueues) {
          return refused(Status.INVALID_FIELD);
        }
        return ok(vector | (current && this.#uncoalesced.has(vector) ? COALESCING_DISABLE : 0));
      }
      case Fid.TEMPERATURE_THRESHOLD: {
        if (((cdw11 >>> TEMPERATURE_SENSOR_SHIFT) & 15) !== 0) {
          return refused(Status.INVALID_FIELD);
        }
        if (((cdw11 >>> TEMPERATURE_UNDER_SHIFT) & 3) === 1) {
          return ok(current ? this.#underTemperature : 0);
        }
        break;
      }
    }
    return ok((current ? this.#values : DEFAULTS).get(fid)!);
  }

  /**
   * Set Features. Nothing is saved across a reset. `queuesExist`: I/O queues were created, so that their number is settled.
   */
  set(cdw10: number, cdw11: number, queuesExist: boolean): FeatureResult {
    const fid = cdw10 & 0xff;
    if (cdw10 >>> 31 === 1) {
      return refused(Status.FEATURE_NOT_SAVEABLE);
    }
    switch (fid) {
      case Fid.NUMBER_OF_QUEUES: {
        if (queuesExist) {
          return refused(Status.COMMAND_SEQUENCE_ERROR);
        }
        const sqs = cdw11 & MAX_QUEUES;
        const cqs = cdw11 >>> 16;
        if (sqs === MAX_QUEUES || cqs === MAX_QUEUES) {
          return refused(Status.INVALID_FIELD);
        }
        this.#queues = Math.min(this.#maxQueues, Math.max(sqs, cqs) + 1);
        return ok(this.#granted);
      }
      case Fid.VOLATILE_WRITE_CACHE:
        this.#values.set(fid, cdw11 & 1);
        return ok();
      case Fid.POWER_MANAGEMENT:
        // There is one power state.
        return (cdw11 & 31) === 0 ? ok() : refused(Status.INVALID_FIELD);
      case Fid.TEMPERATURE_THRESHOLD:
        return this.#setTemperature(cdw11);
      case Fid.INTERRUPT_VECTOR_CONFIG: {
        const vector = cdw11 & VECTOR_MASK;
        if (vector > this.#maxQueues) {
          return refused(Status.INVALID_FIELD);
        }
        if ((cdw11 & COALESCING_DISABLE) !== 0) {
          this.#uncoalesced.add(vector);
        } else {
          this.#uncoalesced.delete(vector);
        }
        return ok();
      }
      case Fid.ASYNC_EVENT_CONFIG:
        if ((cdw11 & ~AEC_MASK) !== 0) {
          return refused(Status.INVALID_FIELD);
        }
        this.#values.set(fid, cdw11);
        return ok();
      case Fid.WRITE_ATOMICITY:
      case Fid.ARBITRATION:
      case Fid.ERROR_RECOVERY:
      case Fid.INTERRUPT_COALESCING:
        this.#values.set(fid, cdw11 >>> 0);
        return ok();
      case Fid.KEEP_ALIVE_TIMER:
        if (roundKeepAlive(cdw11 >>> 0) > MAX_TIMER_MS) {
          return refused(Status.KEEP_ALIVE_TIMEOUT_INVALID);
        }
        this.#values.set(fid, cdw11 >>> 0);
        return ok();
      default:
        return refused(Status.INVALID_FIELD);
    }
  }

  #setTemperature(cdw11: number): FeatureResult {
    const sensor = (cdw11 >>> TEMPERATURE_SENSOR_SHIFT) & 15;
    const type = (cdw11 >>> TEMPERATURE_UNDER_SHIFT) & 3;
    if ((sensor !== 0 && sensor !== ALL_SENSORS) || type > 1) {
      return refused(Status.INVALID_FIELD);
    }
    if (type === 1) {
      this.#underTemperature = cdw11 & TEMPERATURE_MASK;
    } else {
      this.#values.set(Fid.TEMPERATURE_THRESHOLD, cdw11 & TEMPERATURE_MASK);
    }
    return ok();
  }
}
