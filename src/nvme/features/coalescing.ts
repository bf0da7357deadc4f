/**
 * Interrupt coalescing: a threshold and a time for all vectors of I/O queues, and the vectors that are left out. NVMe Base 2.0 §5.27.1.6,
 * §5.27.1.7. Owned by main; reactors act on it (`plane/publisher.ts`).
 */
import { Fid, InterruptCoalescing, InterruptVectorConfig } from '../../spec/features.ts';
import { DwordFeature, type Feature, type FeatureResult, ok, refused } from './feature.ts';

/** The unit of the aggregation time. Nanoseconds. */
const TIME_UNIT_NS = 100_000;

/** When hosts are interrupted, as reactors need it. */
export interface Coalescing {
  /** As long as no more completions than this wait. */
  readonly threshold: number;
  /** An interrupt is held back for so long at most; 0: none is. Nanoseconds. */
  readonly ns: number;
  /** Vectors of which none is held back. */
  readonly except: readonly number[];
}

export const NO_COALESCING: Coalescing = { threshold: 0, ns: 0, except: [] };

/** Vectors that the host took out of coalescing. */
export class VectorConfig implements Feature {
  readonly fid = Fid.INTERRUPT_VECTOR_CONFIG;
  readonly #maxVector: number;
  readonly #uncoalesced = new Set<number>();

  constructor(maxVector: number) {
    this.#maxVector = maxVector;
  }

  get uncoalesced(): readonly number[] {
    return [...this.#uncoalesced];
  }

  get(which: 'current' | 'default', value: number): FeatureResult {
    const { iv } = InterruptVectorConfig.decode(value);
    const cd = which === 'current' && this.#uncoalesced.has(iv);
    return iv > this.#maxVector ? refused() : ok(InterruptVectorConfig.encode({ iv, cd }));
  }

  set(value: number): FeatureResult {
    const { iv, cd } = InterruptVectorConfig.decode(value);
    if (iv > this.#maxVector) {
      return refused();
    }
    if (cd) {
      this.#uncoalesced.add(iv);
    } else {
      this.#uncoalesced.delete(iv);
    }
    return ok();
  }

  reset(): void {
    this.#uncoalesced.clear();
  }
}

/** Both features. */
export class CoalescingFeatures {
  readonly amount = new DwordFeature(Fid.INTERRUPT_COALESCING, InterruptCoalescing);
  readonly vectors: VectorConfig;

  /** `maxVector`: the last that there is. */
  constructor(maxVector: number) {
    this.vectors = new VectorConfig(maxVector);
  }

  get current(): Coalescing {
    const { thrZ, time } = InterruptCoalescing.decode(this.amount.value);
    // A threshold of one completion, and a time of none, both mean: at once.
    return thrZ === 0 || time === 0
      ? NO_COALESCING
      : { threshold: thrZ, ns: time * TIME_UNIT_NS, except: this.vectors.uncoalesced };
  }
}
