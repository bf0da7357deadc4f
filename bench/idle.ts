/**
 * `node dist/bench/idle.js`: what connected controllers cost that do nothing, how long the first command takes after a pause, and how
 * many interrupts a command costs. Options:
 *
 *   --controllers 1,16,64   how many are connected at the same time, with one queue pair each
 *   --seconds S             how long the idle target is watched (5)
 *   --pauses N              first commands measured, after pauses of 5 to 50 ms (100)
 *   --depths 1,8,32,128     for the interrupts; 0 leaves them out
 *   --unmapped              BAR0 cannot be mapped: doorbells come as messages
 *   --shadow                the clients give the target shadow doorbells
 *   --serve '--max-sleep-us 500'   further options of the target
 *
 * Prints tables, and writes bench/results/idle.json.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { NvmeClient, type NvmeClientOptions } from '../src/client/nvme.ts';
import type { QueuePair } from '../src/client/queue-pair.ts';
import { native } from '../src/native/index.ts';
import { NvmOpcode } from '../src/spec/nvm.ts';
import { isReactor, rates, sample } from './process.ts';
import { quantile } from './stats.ts';
import { type BenchTarget, startTarget } from './target.ts';

const { values } = parseArgs({
  options: {
    controllers: { type: 'string', default: '1,16,64' },
    seconds: { type: 'string', default: '5' },
    pauses: { type: 'string', default: '100' },
    depths: { type: 'string', default: '1,8,32,128' },
    unmapped: { type: 'boolean', default: false },
    shadow: { type: 'boolean', default: false },
    serve: { type: 'string', default: '' },
  },
});
const numbers = (list: string): number[] => list.split(',').map(Number);

const MIB = 1024 * 1024;
const BLOCK_BYTES = 4096;
const LBAS_PER_BLOCK = BLOCK_BYTES / 512;
/** After the connections, before the target is watched. */
const SETTLE_MS = 1500;
const INTERRUPT_SECONDS = 1;
const clientOptions: NvmeClientOptions = {
  memoryBytes: 2 * MIB,
  shadowDoorbells: values.shadow,
};

interface Connected {
  readonly client: NvmeClient;
  readonly pair: QueuePair;
}

async function connect(socket: string, options: NvmeClientOptions = {}): Promise<Connected> {
  const client = await NvmeClient.connect(socket, { ...clientOptions, ...options });
  const pair = await client.createQueuePair(1, 256);
  const buffer = client.memory.iova + client.memory.allocate(BLOCK_BYTES);
  for (let cid = 0; cid < 256; cid++) {
    pair.setBuffer(cid, buffer, 0);
  }
  return { client, pair };
}

/** Submits a read and polls until it has completed. Nanoseconds. */
async function timeOne(pair: QueuePair): Promise<number> {
  const start = native.clock();
  pair.push(0, NvmOpcode.READ, 1, 0, LBAS_PER_BLOCK - 1);
  pair.ring();
  while (pair.poll() === 0) {
    if (values.unmapped) {
      // A doorbell that is a message leaves this process from its event loop.
      await new Promise(setImmediate);
    }
  }
  return native.clock() - start;
}

interface IdleRow {
  readonly controllers: number;
  readonly cpu: number;
  readonly reactorCpu: number;
  readonly reactorWakeups: number;
  readonly otherWakeups: number;
  readonly residentMiB: number;
  readonly residentOwnMiB: number;
  /** Microseconds. */
  readonly first: { readonly p50: number; readonly p99: number; readonly max: number };
}

/** With the controllers connected: watches the idle target, then times first commands. */
async function measureIdle(pid: number, connected: readonly Connected[]): Promise<IdleRow> {
  for (const { pair } of connected) {
    await timeOne(pair);
  }
  await sleep(SETTLE_MS);
  const before = sample(pid);
  await sleep(Number(values.seconds) * 1000);
  const after = sample(pid);
  const latencies: number[] = [];
  for (let i = 0; i < Number(values.pauses); i++) {
    await sleep(5 + Math.random() * 45);
    latencies.push((await timeOne(connected[i % connected.length].pair)) / 1000);
  }
  const reactors = rates(before, after, isReactor);
  return {
    controllers: connected.length,
    cpu: rates(before, after).cpu,
    reactorCpu: reactors.cpu,
    reactorWakeups: reactors.wakeupsPerSecond,
    otherWakeups: rates(before, after, (name) => !isReactor(name)).wakeupsPerSecond,
    residentMiB: after.resident / MIB,
    residentOwnMiB: after.residentOwn / MIB,
    first: {
      p50: quantile(latencies, 0.5),
      p99: quantile(latencies, 0.99),
      max: quantile(latencies, 1),
    },
  };
}

function printIdle(row: IdleRow): void {
  const percent = (share: number): string => `${(share * 100).toFixed(2)} %`.padStart(9);
  const us = (value: number): string => value.toFixed(0).padStart(7);
  process.stdout.write(
    `${String(row.controllers).padStart(11)} ${percent(row.cpu)} ${percent(row.reactorCpu)} ` +
      `${row.reactorWakeups.toFixed(1).padStart(12)} ${row.otherWakeups.toFixed(1).padStart(12)} ` +
      `${row.residentMiB.toFixed(0).padStart(7)} ${row.residentOwnMiB.toFixed(0).padStart(7)} ` +
      `${us(row.first.p50)} ${us(row.first.p99)} ${us(row.first.max)}\n`,
  );
}

interface InterruptRow {
  readonly depth: number;
  readonly perCommand: number;
  readonly iops: number;
}

/**
 * Keeps a queue pair at a depth as a driver does that works on interrupts only: completions are looked at when the eventfd was
 * signalled, and new commands submitted then. The eventfd counts signals that nobody has read yet.
 */
async function measureInterrupts(socket: string, depth: number): Promise<InterruptRow> {
  const { client, pair } = await connect(socket, { interrupts: true });
  try {
    const start = native.clock();
    const end = start + INTERRUPT_SECONDS * 1e9;
    const before = client.interruptCount;
    let done = 0;
    const push = (cid: number): void =>
      pair.push(cid, NvmOpcode.READ, 1, cid * LBAS_PER_BLOCK, LBAS_PER_BLOCK - 1);
    await new Promise<void>((resolve) => {
      pair.onInterrupt = () => {
        const count = pair.poll();
        done += count;
        if (native.clock() < end) {
          for (let i = 0; i < count; i++) {
            push(pair.doneIds[i]);
          }
          if (count > 0) {
            pair.ring();
          }
        } else if (pair.inflight === 0) {
          resolve();
        }
      };
      for (let cid = 0; cid < depth; cid++) {
        push(cid);
      }
      pair.ring();
    });
    const interrupts = client.interruptCount - before;
    return { depth, perCommand: interrupts / done, iops: done / INTERRUPT_SECONDS };
  } finally {
    client.close();
  }
}

const allowed = native.getAffinity();
const target: BenchTarget = await startTarget({
  cpus: [allowed[0]],
  args: values.serve.split(' ').filter((word) => word !== ''),
  transport: { disable_mappable_bar0: values.unmapped },
});
// Only now: a child inherits what its parent may use.
native.setAffinity([allowed[allowed.length - 1]]);
const serveNull = async (name: string): Promise<string> => {
  await target.rpc('bdev_null_create', { name, num_blocks: 1 << 20, block_size: 512 });
  return target.serve(name);
};
const idle: IdleRow[] = [];
const interrupts: InterruptRow[] = [];
try {
  const connected: Connected[] = [];
  process.stdout.write(
    'controllers target cpu   reactor wake-ups/s  other w-u/s resident  own MiB  first command µs: p50, p99, max\n',
  );
  for (const count of numbers(values.controllers).sort((a, b) => a - b)) {
    while (connected.length < count) {
      connected.push(await connect(await serveNull(`null${connected.length}`)));
    }
    const row = await measureIdle(target.pid, connected);
    idle.push(row);
    printIdle(row);
  }
  for (const { client } of connected) {
    client.close();
  }
  const depths = numbers(values.depths).filter((depth) => depth > 0);
  const socket = await serveNull('interrupts');
  for (const depth of depths) {
    const row = await measureInterrupts(socket, depth);
    interrupts.push(row);
    const [per, iops] = [row.perCommand.toFixed(3), (row.iops / 1000).toFixed(0)];
    process.stdout.write(`depth ${depth}: ${per} interrupts a command at ${iops} k IOPS\n`);
  }
} finally {
  await target.stop();
}
mkdirSync('bench/results', { recursive: true });
const text = JSON.stringify({ options: values, idle, interrupts }, null, 2);
writeFileSync('bench/results/idle.json', `${text}\n`);
