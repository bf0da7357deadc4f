/** The Number of Queues feature. NVMe Base 2.0 §5.27.1.5. Owned by main. */
import { Fid, NumberOfQueues } from '../../spec/features.ts';
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
