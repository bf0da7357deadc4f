/** Features about queues: their number, and the interrupts of their vectors. NVMe Base 2.0 §5.27.1.5 to §5.27.1.7. Owned by main. */
import { Fid, InterruptVectorConfig, NumberOfQueues } from '../../spec/features.ts';
import { Status } from '../../spec/nvme.ts';
import { type Feature, type FeatureResult, ok, refused } from './feature.ts';

/** What a host may not ask for. */
const TOO_MANY = 0xffff;

export class QueueCount implements Feature {
  readonly fid = Fid.NUMBER_OF_QUEUES;
  readonly max: number;
  /** I/O queue pairs that the host may create: all, until it asked for a number. */
  value: number;
  /** I/O queues were created: their number is settled. */
  readonly #settled: () => boolean;

  constructor(max: number, settled: () => boolean) {
    this.max = max;
    this.value = max;
    this.#settled = settled;
  }

  get(which: 'current' | 'default'): FeatureResult {
    return ok(granted(which === 'current' ? this.value : this.max));
  }

  set(value: number): FeatureResult {
    if (this.#settled()) {
      return refused(Status.COMMAND_SEQUENCE_ERROR);
    }
    const { nsqZ, ncqZ } = NumberOfQueues.decode(value);
    if (nsqZ === TOO_MANY || ncqZ === TOO_MANY) {
      return refused();
    }
    this.value = Math.min(this.max, Math.max(nsqZ, ncqZ) + 1);
    return ok(granted(this.value));
  }

  reset(): void {
    this.value = this.max;
  }
}

const granted = (queues: number): number =>
  NumberOfQueues.encode({ nsqZ: queues - 1, ncqZ: queues - 1 });

/** Vectors that the host took out of coalescing. */
export class VectorConfig implements Feature {
  readonly fid = Fid.INTERRUPT_VECTOR_CONFIG;
  readonly #maxVector: number;
  readonly #uncoalesced = new Set<number>();

  constructor(maxVector: number) {
    this.#maxVector = maxVector;
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
