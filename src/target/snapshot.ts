/**
 * The whole state of a target as plain JSON, for dashboards, metrics and `doorbell top`. Counters are cumulative: a rate is the difference
 * of two snapshots. Owned by main.
 */
import type { ServerTally } from '../bdev/bdev.ts';
import { Op } from '../bdev/op.ts';
import { Tally } from '../bdev/tally.ts';
import { errnoName } from '../util/errors.ts';
import { VERSION } from '../util/version.ts';
import type { Listener, Subsystem } from './subsystem.ts';
import type { Target } from './target.ts';
import type { ControllerInfo, QueuePairInfo } from './types.ts';

/**
 * Completions by latency: upper bound in ns, and how many. Sorted; empty buckets are left out. Of bdevs in memory, whose commands complete
 * within a batch, only samples are timed.
 */
export type LatencyBuckets = [upperBoundNs: number, count: number][];

export interface IoTotals {
  readonly readOps: number;
  readonly writeOps: number;
  readonly flushOps: number;
  readonly otherOps: number;
  readonly readBytes: number;
  readonly writeBytes: number;
  /** Completions with an error, by NVMe status (SCT and SC, like '0x281'); 'other' are those beyond eight different ones. */
  readonly errors: Readonly<Record<string, number>>;
  readonly readLatency: LatencyBuckets;
  readonly writeLatency: LatencyBuckets;
  /** Of all reads in `readLatency`, and of all writes in `writeLatency`, together. */
  readonly readLatencyNs: number;
  readonly writeLatencyNs: number;
}

export interface ReactorSnapshot {
  readonly index: number;
  /** Its processor. */
  readonly core: number;
  readonly alive: boolean;
  readonly busyNs: number;
  readonly idleNs: number;
  /** Times it went to sleep; eventfds signalled. */
  readonly sleeps: number;
  readonly interrupts: number;
  /** Controllers with a queue there, and the submission queues there. */
  readonly controllers: number;
  readonly queuePairs: number;
}

export interface BdevSnapshot {
  readonly name: string;
  readonly module: string;
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly uuid: string;
  /** NQN of the subsystem that has it as a namespace, or the name of the bdev on top of it. */
  readonly claimedBy?: string;
  /** What was written may be lost, and no Flush succeeds until it is reopened: why. */
  readonly writeBackError?: string;
  /** Of a bdev whose data is on a server. */
  readonly server?: ServerTally;
  readonly io: IoTotals;
}

export interface QueueSnapshot {
  readonly qid: number;
  readonly cqid: number;
  readonly reactor: number;
  /** Entries. */
  readonly size: number;
  /** Next entry to be taken, and the host's doorbell. */
  readonly head: number;
  readonly tail: number;
  /** Commands submitted and not completed. */
  readonly outstanding: number;
  readonly cqSize: number;
  readonly cqHead: number;
  readonly cqTail: number;
  readonly interrupts: boolean;
  readonly vector: number;
}

export interface ControllerSnapshot {
  readonly cntlid: number;
  readonly connectedAt: string;
  readonly enabled: boolean;
  readonly io: IoTotals;
  readonly namespaces: readonly { readonly nsid: number; readonly io: IoTotals }[];
  readonly queues: readonly QueueSnapshot[];
}

export interface ListenerSnapshot {
  readonly socket: string;
  /** Of the client that is connected. */
  readonly controller?: ControllerSnapshot;
}

export interface SubsystemSnapshot {
  readonly nqn: string;
  readonly serialNumber: string;
  readonly modelNumber: string;
  readonly namespaces: readonly {
    readonly nsid: number;
    readonly bdev: string;
    readonly uuid: string;
  }[];
  readonly listeners: readonly ListenerSnapshot[];
}

export interface Snapshot {
  readonly version: string;
  readonly pid: number;
  /** ISO 8601. */
  readonly time: string;
  /** Monotonic clock, ns. */
  readonly ticks: number;
  readonly uptimeSeconds: number;
  /** Bytes. `guestBytes`: guest memory that is mapped. */
  readonly memory: {
    readonly rss: number;
    readonly heapUsed: number;
    readonly external: number;
    readonly guestBytes: number;
  };
  readonly reactors: readonly ReactorSnapshot[];
  readonly bdevs: readonly BdevSnapshot[];
  readonly subsystems: readonly SubsystemSnapshot[];
}

/** Asks the reactors how far their queues are, and takes the snapshot when they have answered (or soon, if one hangs). */
export async function snapshot(target: Target): Promise<Snapshot> {
  await target.reactors.report();
  return currentSnapshot(target);
}

/** The same at once, with the queues as the reactors last told. */
export function currentSnapshot(target: Target): Snapshot {
  const controllers = target.subsystems.flatMap(({ listeners }) =>
    [...listeners.values()].flatMap(({ endpoint }) => endpoint.controller ?? []),
  );
  const { rss, heapUsed, external } = process.memoryUsage();
  return {
    version: VERSION,
    pid: process.pid,
    time: new Date().toISOString(),
    ticks: Number(process.hrtime.bigint()),
    uptimeSeconds: process.uptime(),
    memory: {
      rss,
      heapUsed,
      external,
      guestBytes: controllers.reduce((bytes, { guestBytes }) => bytes + guestBytes, 0),
    },
    reactors: describeReactors(target, controllers),
    bdevs: describeBdevs(target),
    subsystems: target.subsystems.map(describeSubsystem),
  };
}

function describeReactors(
  { reactors }: Target,
  controllers: readonly ControllerInfo[],
): ReactorSnapshot[] {
  return reactors.cores.map((core, index) => {
    const { alive, busy, idle, sleeps, interrupts } = reactors.state(index);
    const there = controllers
      .map(({ qpairs }) => qpairs.filter(({ reactor }) => reactor === index).length)
      .filter((count) => count > 0);
    return {
      index,
      core,
      alive,
      busyNs: busy,
      idleNs: idle,
      sleeps,
      interrupts,
      controllers: there.length,
      queuePairs: there.reduce((sum, count) => sum + count, 0),
    };
  });
}

function describeBdevs({ bdevs, reactors }: Target): BdevSnapshot[] {
  return bdevs.list().map((bdev) => {
    const { name, module, blockSize, numBlocks, uuid } = bdev;
    const claimedBy = bdevs.wrapperOf(bdev)?.name ?? bdevs.claimOf(bdev);
    return {
      name,
      module,
      blockSize,
      numBlocks,
      uuid,
      ...(claimedBy !== undefined && { claimedBy }),
      ...(bdev.failure !== undefined && { writeBackError: errnoName(bdev.failure.errno) }),
      ...(bdev.server !== undefined && { server: bdev.server }),
      io: total(reactors.cores.map((_, reactor) => reactors.bdevTally(bdev.index, reactor))),
    };
  });
}

function describeSubsystem(subsystem: Subsystem): SubsystemSnapshot {
  const { nqn, serialNumber, modelNumber } = subsystem;
  return {
    nqn,
    serialNumber,
    modelNumber,
    namespaces: [...subsystem.namespaces.values()]
      .sort((a, b) => a.nsid - b.nsid)
      .map(({ nsid, bdev, uuid }) => ({ nsid, bdev: bdev.name, uuid })),
    listeners: [...subsystem.listeners.values()].map((listener) =>
      describeListener(subsystem, listener),
    ),
  };
}

function describeListener(subsystem: Subsystem, { endpoint }: Listener): ListenerSnapshot {
  const { socketPath: socket, controller } = endpoint;
  if (controller === undefined) {
    return { socket };
  }
  const { cntlid, connectedAt, enabled } = controller;
  const nsids = [...subsystem.namespaces.keys()].sort((a, b) => a - b);
  return {
    socket,
    controller: {
      cntlid,
      connectedAt,
      enabled,
      io: total([controller.tally()]),
      namespaces: nsids.map((nsid) => ({ nsid, io: total([controller.tally(nsid)]) })),
      queues: controller.queues().map(describeQueue),
    },
  };
}

function describeQueue(queue: QueuePairInfo): QueueSnapshot {
  const { inFlight: _, stopped: __, phase: ___, ...shown } = queue;
  return shown;
}

/** What several reactors counted of the same thing. */
function total(parts: readonly Tally[]): IoTotals {
  const sum = new Tally();
  for (const part of parts) {
    sum.merge(part);
  }
  const [read, written] = [sum.of(Op.READ), sum.of(Op.WRITE)];
  return {
    readOps: read.ops,
    writeOps: written.ops,
    flushOps: sum.flushes,
    otherOps: sum.discards.ops + sum.others,
    readBytes: read.bytes,
    writeBytes: written.bytes,
    errors: Object.fromEntries([...sum.errors].map(([status, count]) => [name(status), count])),
    readLatency: sum.latencies(Op.READ),
    writeLatency: sum.latencies(Op.WRITE),
    readLatencyNs: read.timedLatency,
    writeLatencyNs: written.timedLatency,
  };
}

/** SCT and SC, without the bits that say how to go on. */
function name(status: number): string {
  return status < 0 ? 'other' : `0x${(status & 0x7ff).toString(16).padStart(3, '0')}`;
}
