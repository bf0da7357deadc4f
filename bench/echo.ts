/**
 * `node dist/bench/echo.js '{"depth":1,"seconds":1,…}'`: the yardstick for the null bdev. The client of `doorbell perf` against a thread
 * that answers every command at once: what client, queues and the way between two processors can do at best. Prints JSON.
 */
import { Worker } from 'node:worker_threads';
import { Lane } from '../src/client/lane.ts';
import { QueuePair } from '../src/client/queue-pair.ts';
import { native } from '../src/native/index.ts';
import { CQE_SIZE, SQE_SIZE } from '../src/spec/nvme.ts';
import type { EchoShared } from './echo-thread.ts';

export interface EchoOptions {
  readonly depth: number;
  /** Entries of the queues. */
  readonly entries: number;
  readonly latency: boolean;
  readonly warmup: number;
  readonly seconds: number;
  /** Processors of the client and of the thread. */
  readonly clientCpu: number;
  readonly echoCpu: number;
}

export interface EchoReport {
  readonly iops: number;
  /** Non-empty buckets of latencies in ns: upper bound and count. */
  readonly latencies: readonly (readonly [number, number])[];
}

const options: EchoOptions = JSON.parse(process.argv[2]);
const { depth, entries } = options;
const memory = { sq: SQE_SIZE * entries, cq: CQE_SIZE * entries, doorbells: 4096, stop: 4 };
const shared: EchoShared = {
  depth: entries,
  cpu: options.echoCpu,
  sq: new SharedArrayBuffer(memory.sq),
  cq: new SharedArrayBuffer(memory.cq),
  doorbells: new SharedArrayBuffer(memory.doorbells),
  stop: new SharedArrayBuffer(memory.stop),
};
const worker = new Worker(new URL('./echo-thread.js', import.meta.url), { workerData: shared });
await new Promise((resolve) => worker.once('message', resolve));
native.setAffinity([options.clientCpu]);
const time = new Float64Array(new SharedArrayBuffer(8));
const readClock = native.bindClock(time);
const lane = new Lane({
  ...{ depth, buffers: depth, words: [], random: true, reads: 1, rate: 0, seed: 1 },
  ...{ latency: options.latency, verifier: undefined, time, readClock },
  ranges: [{ nsid: 1, lbasPerCommand: 8, firstLba: 0, places: 1 << 24, start: 0 }],
  pair: new QueuePair({
    ...{ qid: 1, depth: entries, sqIova: 0, cqIova: 0, interrupts: false },
    sq: new Int32Array(shared.sq),
    cq: new Int32Array(shared.cq),
    doorbells: new Int32Array(shared.doorbells),
    writeDoorbell: () => {},
  }),
});

/** Returns commands a second. */
function run(seconds: number): number {
  lane.clear();
  lane.start(Number.POSITIVE_INFINITY);
  const start = time[0];
  const end = start + seconds * 1e9;
  for (let rounds = 1; time[0] < end; rounds++) {
    lane.turn();
    if (rounds % 64 === 0) {
      readClock();
    }
  }
  return lane.totals[0] / ((time[0] - start) / 1e9);
}

run(options.warmup);
const iops = run(options.seconds);
Atomics.store(new Int32Array(shared.stop), 0, 1);
await worker.terminate();
const latencies = [...lane.readLatencies.buckets()].map(({ to, count }) => [to, count] as const);
process.stdout.write(`${JSON.stringify({ iops, latencies } satisfies EchoReport)}\n`);
