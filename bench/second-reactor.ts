/**
 * What a second reactor is worth where there are only two processors: both reactors work at the same time, and the client sleeps meanwhile.
 *
 * A client that polls would need a third processor. This one submits as much as its queues hold, rings for all at once and sleeps until it
 * is done. A reactor does not time commands of a null bdev, but the time in which it had work: commands in that time are its rate. The rates
 * of both, each with half of the queues, are set against that of one with all. The queues are moved between the two.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { NvmeClient } from '../src/client/nvme.ts';
import type { QueuePair } from '../src/client/queue-pair.ts';
import { NvmOpcode } from '../src/spec/nvm.ts';
import { serveNull } from './idle-measure.ts';
import type { Conditions } from './load.ts';
import { median } from './stats.ts';
import { type BenchTarget, startTarget } from './target.ts';

const MIB = 1024 * 1024;
const QUEUE_PAIRS = 8;
const ENTRIES = 4096;
/** In flight in each queue pair. */
const BATCH = ENTRIES - 1;
const LBAS = 8;
/** Reactors poll on between two batches, so that both begin at once. */
const SPIN_US = 1_000_000;
const NAP_MS = 2;

export interface SecondReactor {
  /** Commands a second of reactor time: of one reactor with all queues; of both with half of them each. */
  readonly one: number;
  readonly both: number;
}

interface Reactor {
  /** ns with work. */
  readonly busy: number;
}

/** Measures one and both in turn, `runs` times. `cpus`: of the reactors. */
export async function measureSecondReactor(
  { seconds, warmup }: Pick<Conditions, 'seconds' | 'warmup'>,
  runs: number,
  cpus: readonly [number, number],
): Promise<SecondReactor[]> {
  const target = await startTarget({ cpus, args: ['--spin-us', String(SPIN_US)] });
  try {
    const guest = await Guest.connect(target, await serveNull(target));
    try {
      const results: SecondReactor[] = [];
      const measure = async (reactors: number): Promise<number> => {
        await guest.spread(reactors);
        await guest.run(warmup);
        return guest.run(seconds);
      };
      for (let run = 0; run < runs; run++) {
        results.push({ one: await measure(1), both: await measure(2) });
      }
      return results;
    } finally {
      guest.close();
    }
  } finally {
    await target.stop();
  }
}

class Guest {
  readonly #target: BenchTarget;
  readonly #socket: string;
  readonly #client: NvmeClient;
  readonly #pairs: readonly QueuePair[];
  /** Where the queue pairs are. */
  #reactors = 1;

  static async connect(target: BenchTarget, socket: string): Promise<Guest> {
    const client = await NvmeClient.connect(socket, { memoryBytes: 8 * MIB });
    const buffer = client.memory.iova + client.memory.allocate(LBAS * 512);
    const pairs: QueuePair[] = [];
    for (let qid = 1; qid <= QUEUE_PAIRS; qid++) {
      const pair = await client.createQueuePair(qid, ENTRIES);
      for (let cid = 0; cid < BATCH; cid++) {
        pair.setBuffer(cid, buffer, 0);
      }
      pairs.push(pair);
    }
    return new Guest(target, socket, client, pairs);
  }

  private constructor(
    target: BenchTarget,
    socket: string,
    client: NvmeClient,
    pairs: readonly QueuePair[],
  ) {
    this.#target = target;
    this.#socket = socket;
    this.#client = client;
    this.#pairs = pairs;
  }

  /** Moves the queue pairs to the first reactor, or to both in turn. */
  async spread(reactors: number): Promise<void> {
    this.#reactors = reactors;
    for (const { place } of this.#pairs) {
      const { qid: cqid } = place;
      const reactor = cqid % reactors;
      await this.#target.rpc('doorbell_move_queue', { socket: this.#socket, cqid, reactor });
    }
  }

  /**
   * Batches for so many seconds. Resolves with commands a second of reactor time, of all reactors that have queues, together: the median of the
   * batches, since some are disturbed by whatever else the machine does.
   */
  async run(seconds: number): Promise<number> {
    const end = performance.now() + seconds * 1000;
    const commands = (BATCH * QUEUE_PAIRS) / this.#reactors;
    const rates: number[] = [];
    let before = await this.#busy();
    do {
      await this.#batch();
      const after = await this.#busy();
      const times = after.slice(0, this.#reactors).map((busy, i) => busy - before[i]);
      rates.push(times.reduce((sum, busy) => sum + commands / (busy / 1e9), 0));
      before = after;
    } while (performance.now() < end);
    return median(rates);
  }

  async #batch(): Promise<void> {
    for (const pair of this.#pairs) {
      for (let cid = 0; cid < BATCH; cid++) {
        pair.push(cid, NvmOpcode.READ, 1, cid * LBAS, LBAS - 1);
      }
    }
    for (const pair of this.#pairs) {
      pair.ring();
    }
    let done = 0;
    while (done < BATCH * QUEUE_PAIRS) {
      await sleep(NAP_MS);
      for (const pair of this.#pairs) {
        const count = pair.poll();
        done += count;
        if (pair.doneStatus.subarray(0, count).some((status) => status !== 0)) {
          throw new Error('a read failed');
        }
      }
    }
  }

  async #busy(): Promise<number[]> {
    const { reactors } = (await this.#target.rpc('framework_get_reactors')) as {
      reactors: Reactor[];
    };
    return reactors.map(({ busy }) => busy);
  }

  close(): void {
    this.#client.close();
  }
}
