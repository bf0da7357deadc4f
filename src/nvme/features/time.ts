/** Features about time: Keep Alive Timer and Timestamp. NVMe Base 2.0 §5.27.1.12, §5.27.1.11. Owned by main. */
import { Fid, Timestamp, TimestampAttributes } from '../../spec/features.ts';
import { Status } from '../../spec/nvme.ts';
import { type Feature, type FeatureResult, ok, refused } from './feature.ts';

/** KAS, in 100 ms units: Keep Alive timers are rounded up to 10 s. */
export const KEEP_ALIVE_GRANULARITY = 100;
/** The longest that a timer of Node's can be set to. */
const MAX_TIMER_MS = 2 ** 31 - 1;
const TWO_32 = 2 ** 32;

function roundKeepAlive(ms: number): number {
  const step = KEEP_ALIVE_GRANULARITY * 100;
  return Math.ceil(ms / step) * step;
}

export class KeepAliveTimer implements Feature {
  readonly fid = Fid.KEEP_ALIVE_TIMER;
  #value = 0;

  /** Milliseconds, rounded up to the granularity; 0: off. */
  get ms(): number {
    return roundKeepAlive(this.#value);
  }

  get(which: 'current' | 'default'): FeatureResult {
    return ok(which === 'current' ? this.#value : 0);
  }

  set(value: number): FeatureResult {
    if (roundKeepAlive(value >>> 0) > MAX_TIMER_MS) {
      return refused(Status.KEEP_ALIVE_TIMEOUT_INVALID);
    }
    this.#value = value >>> 0;
    return ok();
  }

  reset(): void {
    this.#value = 0;
  }
}

/** Milliseconds since 1970, as the host set them; since the last reset, if it did not. They go on by a clock that nobody sets. */
export class HostTimestamp implements Feature {
  readonly fid = Fid.TIMESTAMP;
  readonly oncs = 'timestamp';
  readonly dataBytes = Timestamp.size;
  /** What it was when the controller's clock said `#at`. Milliseconds. */
  #ms = 0;
  #at = performance.now();
  #fromHost = false;

  get now(): number {
    return this.#ms + Math.floor(performance.now() - this.#at);
  }

  get(which: 'current' | 'default'): FeatureResult {
    const ms = which === 'current' ? this.now : 0;
    const origin = which === 'current' && this.#fromHost ? 1 : 0;
    const data = Timestamp.encode({
      msLow: ms % TWO_32,
      msHigh: Math.floor(ms / TWO_32) & 0xffff,
      attributes: TimestampAttributes.encode({ origin }),
    });
    return { ...ok(), data };
  }

  set(_value: number, _nsid: number, data: Uint8Array): FeatureResult {
    const { msLow, msHigh } = Timestamp.read(new DataView(data.buffer, data.byteOffset));
    this.#ms = msHigh * TWO_32 + msLow;
    this.#at = performance.now();
    this.#fromHost = true;
    return ok();
  }

  reset(): void {
    this.#ms = 0;
    this.#at = performance.now();
    this.#fromHost = false;
  }
}
