/** Measures connected controllers that do nothing: what they cost, how soon the first command is done, interrupts a command. */
import { setTimeout as sleep } from 'node:timers/promises';
import { NvmeClient, type NvmeClientOptions } from '../src/client/nvme.ts';
import type { QueuePair } from '../src/client/queue-pair.ts';
import { native } from '../src/native/index.ts';
import { NvmOpcode } from '../src/spec/nvm.ts';
import { isReactor, rates, sample } from './process.ts';
import { quantile } from './stats.ts';
import type { BenchTarget } from './target.ts';

const MIB = 1024 * 1024;
const BLOCK_BYTES = 4096;
const LBAS_PER_BLOCK = BLOCK_BYTES / 512;
const QUEUE_ENTRIES = 256;
/** After the connections, before the target is watched. */
const SETTLE_MS = 1500;
/** Pauses before first commands are 5 to 50 ms long. */
const PAUSE_MS = [5, 50] as const;

export interface IdleClient {
  readonly client: NvmeClient;
  /** The first queue pair; all commands have the same buffer. */
  readonly pair: QueuePair;
}

export async function connectIdle(
  socket: string,
  queuePairs = 1,
  options: NvmeClientOptions = {},
): Promise<IdleClient> {
  const client = await NvmeClient.connect(socket, { memoryBytes: 2 * MIB, ...options });
  const pair = await client.createQueuePair(1, QUEUE_ENTRIES);
  for (let qid = 2; qid <= queuePairs; qid++) {
    await client.createQueuePair(qid, QUEUE_ENTRIES);
  }
  const buffer = client.memory.iova + client.memory.allocate(BLOCK_BYTES);
  for (let cid = 0; cid < QUEUE_ENTRIES; cid++) {
    pair.setBuffer(cid, buffer, 0);
  }
  return { client, pair };
}

/** Serves null bdevs and connects until there are `count` clients. */
export async function connectMore(
  target: BenchTarget,
  clients: IdleClient[],
  count: number,
  queuePairs = 1,
  options: NvmeClientOptions = {},
): Promise<void> {
  while (clients.length < count) {
    clients.push(await connectIdle(await serveNull(target), queuePairs, options));
  }
}

let nulls = 0;

/** A null bdev of its own on a socket. */
export async function serveNull(target: BenchTarget): Promise<string> {
  nulls += 1;
  const name = `idle${nulls}`;
  await target.rpc('bdev_null_create', { name, num_blocks: 1 << 20, block_size: 512 });
  return target.serve(name);
}

/** Submits a read, and polls until it has completed. Nanoseconds. */
export async function timeOne({ pair }: IdleClient): Promise<number> {
  const start = native.clock();
  pair.push(0, NvmOpcode.READ, 1, 0, LBAS_PER_BLOCK - 1);
  pair.ring();
  while (pair.poll() === 0) {
    if (pair.place.doorbells === undefined) {
      // A doorbell that is a message leaves this process from its event loop.
      await new Promise(setImmediate);
    }
  }
  return native.clock() - start;
}

export interface IdleFigures {
  readonly controllers: number;
  /** Shares of one processor. */
  readonly cpu: number;
  readonly reactorCpu: number;
  /** A second. */
  readonly reactorWakeups: number;
  readonly otherWakeups: number;
  /** All that is resident, and that which no file or client shares. */
  readonly residentMiB: number;
  readonly residentOwnMiB: number;
  /** Of a first command after a pause. Microseconds. */
  readonly first: { readonly p50: number; readonly p99: number; readonly max: number };
}

/** Watches an idle target for so many seconds, then times `pauses` first commands. */
export async function measureIdle(
  pid: number,
  clients: readonly IdleClient[],
  { seconds, pauses }: { readonly seconds: number; readonly pauses: number },
): Promise<IdleFigures> {
  for (const client of clients) {
    await timeOne(client);
  }
  await sleep(SETTLE_MS);
  const before = sample(pid);
  await sleep(seconds * 1000);
  const after = sample(pid);
  const latencies: number[] = [];
  for (let i = 0; i < pauses; i++) {
    await sleep(PAUSE_MS[0] + Math.random() * (PAUSE_MS[1] - PAUSE_MS[0]));
    latencies.push((await timeOne(clients[i % clients.length])) / 1000);
  }
  const reactors = rates(before, after, isReactor);
  return {
    controllers: clients.length,
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

export interface InterruptFigures {
  readonly depth: number;
  readonly perCommand: number;
  readonly iops: number;
}

/**
 * Keeps a queue pair at a depth as a driver does that works on interrupts only: completions are looked at when the eventfd was
 * signalled, and new commands submitted then. The eventfd counts signals that nobody has read yet.
 */
export async function measureInterrupts(
  socket: string,
  depth: number,
  seconds: number,
): Promise<InterruptFigures> {
  const { client, pair } = await connectIdle(socket, 1, { interrupts: true });
  const push = (cid: number): void =>
    pair.push(cid, NvmOpcode.READ, 1, cid * LBAS_PER_BLOCK, LBAS_PER_BLOCK - 1);
  try {
    const end = native.clock() + seconds * 1e9;
    const before = client.interruptCount;
    let done = 0;
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
    return { depth, perCommand: (client.interruptCount - before) / done, iops: done / seconds };
  } finally {
    client.close();
  }
}
