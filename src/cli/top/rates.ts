/**
 * From two snapshots to what happened between them: pure. Counters of a target are cumulative, and start anew when the target, a
 * controller or a statistic does; then what they say now is what happened since, so that no rate is ever negative or made up.
 */
import type {
  ControllerSnapshot,
  IoTotals,
  LatencyBuckets,
  ListenerSnapshot,
  Snapshot,
  SubsystemSnapshot,
} from '../../target/snapshot.ts';

/** What is shown of the counts. */
type IoShown = Omit<IoTotals, 'readLatencyNs' | 'writeLatencyNs'>;

/** Per second; latencies of what completed in the interval, undefined if nothing did. */
export interface IoRate {
  readonly readIops: number;
  readonly writeIops: number;
  /** Flushes and all else. */
  readonly otherIops: number;
  readonly iops: number;
  readonly readBytes: number;
  readonly writeBytes: number;
  readonly errors: number;
  /** Upper bounds of the histogram's buckets, in ns. */
  readonly p50Ns: number | undefined;
  readonly p99Ns: number | undefined;
}

export interface ReactorLoad {
  readonly index: number;
  readonly core: number;
  readonly alive: boolean;
  /** 0 to 1; undefined before there are two snapshots of it. */
  readonly load: number | undefined;
  readonly queuePairs: number;
}

export interface NamespaceRow {
  readonly nsid: number;
  readonly bdev: string;
  readonly rate: IoRate | undefined;
}

export interface ControllerRow {
  readonly socket: string;
  readonly nqn: string;
  /** 'waiting': no client; 'off': its client has not enabled the controller. */
  readonly state: 'on' | 'off' | 'waiting';
  /** Undefined without a client, and before there are two snapshots. */
  readonly rate: IoRate | undefined;
  /** Of all I/O queues: how many there are, their commands, their entries. */
  readonly queues: number;
  readonly outstanding: number;
  readonly entries: number;
  readonly namespaces: readonly NamespaceRow[];
}

export interface View {
  readonly time: string;
  readonly version: string;
  readonly uptimeSeconds: number;
  readonly rss: number;
  readonly guestBytes: number;
  /** Between the snapshots; undefined if there is only one. */
  readonly seconds: number | undefined;
  readonly total: IoRate | undefined;
  readonly reactors: readonly ReactorLoad[];
  readonly controllers: readonly ControllerRow[];
}

const NOTHING: IoShown = {
  readOps: 0,
  writeOps: 0,
  flushOps: 0,
  otherOps: 0,
  readBytes: 0,
  writeBytes: 0,
  errors: {},
  readLatency: [],
  writeLatency: [],
};

/** `previous`: an earlier snapshot, if there is one. */
export function compare(previous: Snapshot | undefined, current: Snapshot): View {
  // Another process has other counters, and another clock origin after a reboot.
  const before =
    previous?.pid === current.pid &&
    current.ticks > previous.ticks &&
    current.uptimeSeconds >= previous.uptimeSeconds
      ? previous
      : undefined;
  const seconds = before && (current.ticks - before.ticks) / 1e9;
  const controllers = current.subsystems.flatMap((subsystem) =>
    subsystem.listeners.map((listener) => {
      const old = before && findListener(before, subsystem.nqn, listener.socket);
      return controllerRow(subsystem, listener, old?.controller, seconds);
    }),
  );
  return {
    time: current.time,
    version: current.version,
    uptimeSeconds: current.uptimeSeconds,
    rss: current.memory.rss,
    guestBytes: current.memory.guestBytes,
    seconds,
    total: seconds === undefined ? undefined : totalOf(before, current, seconds),
    reactors: current.reactors.map(({ index, core, alive, busyNs, idleNs, queuePairs }) => {
      const old = before?.reactors.find((reactor) => reactor.index === index);
      return { index, core, alive, load: old && loadOf(old, { busyNs, idleNs }), queuePairs };
    }),
    controllers,
  };
}

const findListener = (snapshot: Snapshot, nqn: string, socket: string) =>
  snapshot.subsystems
    .find((subsystem) => subsystem.nqn === nqn)
    ?.listeners.find((listener) => listener.socket === socket);

function controllerRow(
  subsystem: SubsystemSnapshot,
  { socket, controller }: ListenerSnapshot,
  old: ControllerSnapshot | undefined,
  seconds: number | undefined,
): ControllerRow {
  const names = new Map(subsystem.namespaces.map(({ nsid, bdev }) => [nsid, bdev]));
  if (controller === undefined) {
    return {
      socket,
      nqn: subsystem.nqn,
      state: 'waiting',
      rate: undefined,
      queues: 0,
      outstanding: 0,
      entries: 0,
      namespaces: subsystem.namespaces.map(({ nsid, bdev }) => ({ nsid, bdev, rate: undefined })),
    };
  }
  // Another client's controller began at zero.
  const same =
    old?.cntlid === controller.cntlid && old.connectedAt === controller.connectedAt
      ? old
      : undefined;
  const sum = (value: (queue: ControllerSnapshot['queues'][number]) => number): number =>
    controller.queues.reduce((result, queue) => result + value(queue), 0);
  return {
    socket,
    nqn: subsystem.nqn,
    state: controller.enabled ? 'on' : 'off',
    rate: seconds === undefined ? undefined : rateOf(same?.io, controller.io, seconds),
    queues: controller.queues.length,
    outstanding: sum(({ outstanding }) => outstanding),
    entries: sum(({ size }) => size),
    namespaces: controller.namespaces.map(({ nsid, io }) => {
      const before = same?.namespaces.find((namespace) => namespace.nsid === nsid)?.io;
      return {
        nsid,
        bdev: names.get(nsid) ?? '',
        rate: seconds === undefined ? undefined : rateOf(before, io, seconds),
      };
    }),
  };
}

/** What all bdevs did, since a bdev outlives controllers. */
function totalOf(before: Snapshot | undefined, current: Snapshot, seconds: number): IoRate {
  const parts = current.bdevs.map(({ name, uuid, io }) => {
    const old = before?.bdevs.find((bdev) => bdev.name === name && bdev.uuid === uuid)?.io;
    return difference(old, io);
  });
  return perSecond(parts.reduce(add, NOTHING), seconds);
}

function add(a: IoShown, b: IoShown): IoShown {
  return {
    readOps: a.readOps + b.readOps,
    writeOps: a.writeOps + b.writeOps,
    flushOps: a.flushOps + b.flushOps,
    otherOps: a.otherOps + b.otherOps,
    readBytes: a.readBytes + b.readBytes,
    writeBytes: a.writeBytes + b.writeBytes,
    errors: { all: count(a.errors) + count(b.errors) },
    readLatency: [...a.readLatency, ...b.readLatency],
    writeLatency: [...a.writeLatency, ...b.writeLatency],
  };
}

const count = (errors: IoShown['errors']): number =>
  Object.values(errors).reduce((sum, errors) => sum + errors, 0);

function loadOf(
  old: { readonly busyNs: number; readonly idleNs: number },
  now: { readonly busyNs: number; readonly idleNs: number },
): number {
  // A reactor that died has a successor that counts from zero.
  const restarted = now.busyNs < old.busyNs || now.idleNs < old.idleNs;
  const busy = restarted ? now.busyNs : now.busyNs - old.busyNs;
  const idle = restarted ? now.idleNs : now.idleNs - old.idleNs;
  return busy + idle === 0 ? 0 : busy / (busy + idle);
}

const rateOf = (old: IoShown | undefined, now: IoShown, seconds: number): IoRate =>
  perSecond(difference(old, now), seconds);

/** What was counted since `old`. If any counter went back they all began anew, and `now` is what was counted since. */
function difference(old: IoShown | undefined, now: IoShown): IoShown {
  if (old === undefined || wentBack(old, now)) {
    return now;
  }
  return {
    readOps: now.readOps - old.readOps,
    writeOps: now.writeOps - old.writeOps,
    flushOps: now.flushOps - old.flushOps,
    otherOps: now.otherOps - old.otherOps,
    readBytes: now.readBytes - old.readBytes,
    writeBytes: now.writeBytes - old.writeBytes,
    errors: { all: count(now.errors) - count(old.errors) },
    readLatency: subtract(old.readLatency, now.readLatency),
    writeLatency: subtract(old.writeLatency, now.writeLatency),
  };
}

function wentBack(old: IoShown, now: IoShown): boolean {
  const numbers = (io: IoShown) => [
    io.readOps,
    io.writeOps,
    io.flushOps,
    io.otherOps,
    io.readBytes,
    io.writeBytes,
    count(io.errors),
  ];
  const current = numbers(now);
  return (
    numbers(old).some((value, i) => value > current[i]) ||
    bucketsWentBack(old.readLatency, now.readLatency) ||
    bucketsWentBack(old.writeLatency, now.writeLatency)
  );
}

function bucketsWentBack(old: LatencyBuckets, now: LatencyBuckets): boolean {
  const counts = new Map(now);
  return old.some(([bound, times]) => times > (counts.get(bound) ?? 0));
}

function subtract(old: LatencyBuckets, now: LatencyBuckets): LatencyBuckets {
  const counts = new Map(old);
  return now.map(([bound, times]) => [bound, times - (counts.get(bound) ?? 0)]);
}

function perSecond(io: IoShown, seconds: number): IoRate {
  const latency = [...io.readLatency, ...io.writeLatency].sort(([a], [b]) => a - b);
  const other = io.flushOps + io.otherOps;
  return {
    readIops: io.readOps / seconds,
    writeIops: io.writeOps / seconds,
    otherIops: other / seconds,
    iops: (io.readOps + io.writeOps + other) / seconds,
    readBytes: io.readBytes / seconds,
    writeBytes: io.writeBytes / seconds,
    errors: count(io.errors) / seconds,
    p50Ns: percentile(latency, 0.5),
    p99Ns: percentile(latency, 0.99),
  };
}

/** The bound under which `fraction` of all are; buckets sorted. */
function percentile(buckets: LatencyBuckets, fraction: number): number | undefined {
  const all = buckets.reduce((sum, [, times]) => sum + times, 0);
  let seen = 0;
  for (const [bound, times] of buckets) {
    seen += times;
    if (times > 0 && seen >= all * fraction) {
      return bound;
    }
  }
  return undefined;
}
