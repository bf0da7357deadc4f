/**
 * The metrics: name, meaning, and where the values come from. Names follow Prometheus' rules: a unit at the end, base units, counters in
 * `_total`. Labels are of what the operator made (subsystems, sockets, bdevs, reactors), so no guest can multiply them; queues and
 * latencies of namespaces are summed over the controller.
 */
import { readdirSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import type { ServerTally } from '../bdev/bdev.ts';
import type {
  BdevSnapshot,
  ControllerSnapshot,
  IoTotals,
  ReactorSnapshot,
  Snapshot,
} from '../target/snapshot.ts';
import type { Family, HistogramSample, Labels, MetricsState, Sample } from './family.ts';

const NS_PER_S = 1e9;
const US_PER_S = 1e6;
const MS_PER_S = 1e3;

// --- where values come from -------------------------------------------------------------------------------------------

const one = (value: number, labels: Labels = {}): Sample[] => [{ labels, value }];

/** I/O counts of something, by its labels. */
type Counted = readonly { readonly labels: Labels; readonly io: IoTotals }[];

const ops = (counted: Counted): Sample[] =>
  counted.flatMap(({ labels, io }) => [
    { labels: { ...labels, op: 'read' }, value: io.readOps },
    { labels: { ...labels, op: 'write' }, value: io.writeOps },
    { labels: { ...labels, op: 'flush' }, value: io.flushOps },
    { labels: { ...labels, op: 'other' }, value: io.otherOps },
  ]);

const bytes = (counted: Counted): Sample[] =>
  counted.flatMap(({ labels, io }) => [
    { labels: { ...labels, op: 'read' }, value: io.readBytes },
    { labels: { ...labels, op: 'write' }, value: io.writeBytes },
  ]);

const errors = (counted: Counted): Sample[] =>
  counted.flatMap(({ labels, io }) =>
    Object.entries(io.errors).map(([status, value]) => ({ labels: { ...labels, status }, value })),
  );

const latency = (counted: Counted): HistogramSample[] =>
  counted.flatMap(({ labels, io }) => [
    { labels: { ...labels, op: 'read' }, buckets: io.readLatency, sum: io.readLatencyNs },
    { labels: { ...labels, op: 'write' }, buckets: io.writeLatency, sum: io.writeLatencyNs },
  ]);

const bdevs = ({ snapshot }: MetricsState): Counted =>
  snapshot.bdevs.map((bdev) => ({ labels: bdevLabels(bdev), io: bdev.io }));

const bdevLabels = ({ name, module }: BdevSnapshot): Labels => ({ bdev: name, module });

/** A number of each bdev whose data is on a server. */
const ofServers =
  (value: (server: ServerTally) => number) =>
  ({ snapshot }: MetricsState) =>
    snapshot.bdevs.flatMap((bdev) =>
      bdev.server === undefined ? [] : [{ labels: bdevLabels(bdev), value: value(bdev.server) }],
    );

interface Connected {
  readonly labels: Labels;
  readonly controller: ControllerSnapshot;
  readonly bdevOf: ReadonlyMap<number, string>;
}

const listeners = ({ snapshot }: MetricsState) =>
  snapshot.subsystems.flatMap((subsystem) =>
    subsystem.listeners.map(({ socket, controller }) => ({
      labels: { nqn: subsystem.nqn, socket },
      controller,
      bdevOf: new Map(subsystem.namespaces.map(({ nsid, bdev }) => [nsid, bdev])),
    })),
  );

const connected = (state: MetricsState): Connected[] =>
  listeners(state).flatMap(({ controller, ...rest }) =>
    controller === undefined ? [] : [{ ...rest, controller }],
  );

const controllers = (state: MetricsState): Counted =>
  connected(state).map(({ labels, controller }) => ({ labels, io: controller.io }));

const namespaces = (state: MetricsState): Counted =>
  connected(state).flatMap(({ labels, controller, bdevOf }) =>
    controller.namespaces.map(({ nsid, io }) => ({
      labels: { ...labels, nsid, bdev: bdevOf.get(nsid) ?? '' },
      io,
    })),
  );

/** A number of each connected controller. */
const ofControllers =
  (value: (controller: ControllerSnapshot) => number) =>
  (state: MetricsState): Sample[] =>
    connected(state).map(({ labels, controller }) => ({ labels, value: value(controller) }));

const sumQueues = (value: (queue: ControllerSnapshot['queues'][number]) => number) =>
  ofControllers(({ queues }) => queues.reduce((sum, queue) => sum + value(queue), 0));

const ofReactors =
  (value: (reactor: ReactorSnapshot) => number) =>
  ({ snapshot }: MetricsState): Sample[] =>
    snapshot.reactors.map((reactor) => ({
      labels: { reactor: reactor.index, core: reactor.core },
      value: value(reactor),
    }));

const ofTarget =
  (value: (snapshot: Snapshot) => number) =>
  ({ snapshot }: MetricsState): Sample[] =>
    one(value(snapshot));

const calls =
  (which: 'calls' | 'errors') =>
  ({ calls }: MetricsState): Sample[] =>
    [...calls].map(([method, counts]) => ({
      labels: { method: method === '' ? 'unknown' : method },
      value: counts[which],
    }));

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / US_PER_S;
}

// --- the metrics ------------------------------------------------------------------------------------------------------

export const FAMILIES: readonly Family[] = [
  {
    name: 'doorbell_namespace_ops_total',
    help: 'Commands completed without error, by connected controller and namespace.',
    type: 'counter',
    read: (state) => ops(namespaces(state)),
  },
  {
    name: 'doorbell_namespace_bytes_total',
    help: 'Bytes read and written, by connected controller and namespace.',
    type: 'counter',
    read: (state) => bytes(namespaces(state)),
  },
  {
    name: 'doorbell_namespace_errors_total',
    help: 'Commands completed with an error, by connected controller, namespace and NVMe status (SCT and SC).',
    type: 'counter',
    read: (state) => errors(namespaces(state)),
  },
  {
    name: 'doorbell_controller_latency_seconds',
    help: 'Time from taking a command to its completion, by connected controller; of fast bdevs some are timed.',
    type: 'histogram',
    read: (state) => latency(controllers(state)),
  },
  {
    name: 'doorbell_controller_connected',
    help: 'Whether a VM is connected to the socket.',
    type: 'gauge',
    read: (state) =>
      listeners(state).map(({ labels, controller }) => ({
        labels,
        value: Number(controller !== undefined),
      })),
  },
  {
    name: 'doorbell_controller_enabled',
    help: 'Whether the guest has enabled the controller.',
    type: 'gauge',
    read: ofControllers(({ enabled }) => Number(enabled)),
  },
  {
    name: 'doorbell_controller_queues',
    help: 'I/O submission queues of the controller.',
    type: 'gauge',
    read: ofControllers(({ queues }) => queues.length),
  },
  {
    name: 'doorbell_controller_queue_entries',
    help: 'Entries of all I/O submission queues of the controller together.',
    type: 'gauge',
    read: sumQueues(({ size }) => size),
  },
  {
    name: 'doorbell_controller_outstanding_commands',
    help: 'I/O commands submitted and not completed.',
    type: 'gauge',
    read: sumQueues(({ outstanding }) => outstanding),
  },
  {
    name: 'doorbell_bdev_ops_total',
    help: 'Operations completed without error, by bdev.',
    type: 'counter',
    read: (state) => ops(bdevs(state)),
  },
  {
    name: 'doorbell_bdev_bytes_total',
    help: 'Bytes read and written, by bdev.',
    type: 'counter',
    read: (state) => bytes(bdevs(state)),
  },
  {
    name: 'doorbell_bdev_errors_total',
    help: 'Operations completed with an error, by bdev and NVMe status (SCT and SC).',
    type: 'counter',
    read: (state) => errors(bdevs(state)),
  },
  {
    name: 'doorbell_bdev_latency_seconds',
    help: 'The same by bdev.',
    type: 'histogram',
    read: (state) => latency(bdevs(state)),
  },
  {
    name: 'doorbell_bdev_size_bytes',
    help: 'Size of the bdev.',
    type: 'gauge',
    read: ({ snapshot }) =>
      snapshot.bdevs.map((bdev) => ({
        labels: bdevLabels(bdev),
        value: bdev.blockSize * bdev.numBlocks,
      })),
  },
  {
    name: 'doorbell_bdev_write_back_failed',
    help: 'Whether a write-back of its file has failed: data is lost, and no flush succeeds until the bdev is reopened.',
    type: 'gauge',
    read: ({ snapshot }) =>
      snapshot.bdevs.map((bdev) => ({
        labels: bdevLabels(bdev),
        value: Number(bdev.writeBackError !== undefined),
      })),
  },
  {
    name: 'doorbell_bdev_server_connections',
    help: 'Connections to the server of the bdev.',
    type: 'gauge',
    read: ofServers(({ connections }) => connections),
  },
  {
    name: 'doorbell_bdev_server_reconnects_total',
    help: 'Times that the server of the bdev was lost and reached again.',
    type: 'counter',
    read: ofServers(({ reconnects }) => reconnects),
  },
  {
    name: 'doorbell_bdev_server_requests_total',
    help: 'Requests sent to the server of the bdev.',
    type: 'counter',
    read: ofServers(({ requests }) => requests),
  },
  {
    name: 'doorbell_bdev_server_unanswered_requests',
    help: 'Requests that the server of the bdev has not answered.',
    type: 'gauge',
    read: ofServers(({ inFlight }) => inFlight),
  },
  {
    name: 'doorbell_reactor_alive',
    help: 'Whether the reactor runs.',
    type: 'gauge',
    read: ofReactors(({ alive }) => Number(alive)),
  },
  {
    name: 'doorbell_reactor_busy_seconds_total',
    help: 'Time in which the reactor had work.',
    type: 'counter',
    read: ofReactors(({ busyNs }) => busyNs / NS_PER_S),
  },
  {
    name: 'doorbell_reactor_idle_seconds_total',
    help: 'Time in which the reactor had none, asleep or polling.',
    type: 'counter',
    read: ofReactors(({ idleNs }) => idleNs / NS_PER_S),
  },
  {
    name: 'doorbell_reactor_sleeps_total',
    help: 'Times the reactor went to sleep.',
    type: 'counter',
    read: ofReactors(({ sleeps }) => sleeps),
  },
  {
    name: 'doorbell_reactor_interrupts_total',
    help: 'Interrupts sent to guests.',
    type: 'counter',
    read: ofReactors(({ interrupts }) => interrupts),
  },
  {
    name: 'doorbell_reactor_controllers',
    help: 'Controllers with a queue on the reactor.',
    type: 'gauge',
    read: ofReactors(({ controllers }) => controllers),
  },
  {
    name: 'doorbell_reactor_queues',
    help: 'I/O submission queues on the reactor.',
    type: 'gauge',
    read: ofReactors(({ queuePairs }) => queuePairs),
  },
  {
    name: 'doorbell_guest_memory_bytes',
    help: 'Guest memory that is mapped.',
    type: 'gauge',
    read: ofTarget(({ memory }) => memory.guestBytes),
  },
  {
    name: 'doorbell_heap_bytes',
    help: 'JavaScript heap of the main thread that is in use.',
    type: 'gauge',
    read: ofTarget(({ memory }) => memory.heapUsed),
  },
  {
    name: 'doorbell_main_busy_seconds_total',
    help: 'Time in which the main thread had work: JSON-RPC, HTTP, admin commands.',
    type: 'counter',
    read: () => one(performance.eventLoopUtilization().active / MS_PER_S),
  },
  {
    name: 'doorbell_rpc_requests_total',
    help: 'JSON-RPC requests; `unknown` stands for all methods that do not exist.',
    type: 'counter',
    read: calls('calls'),
  },
  {
    name: 'doorbell_rpc_errors_total',
    help: 'JSON-RPC requests that were answered with an error.',
    type: 'counter',
    read: calls('errors'),
  },
  {
    name: 'doorbell_build_info',
    help: 'Always 1; the labels tell what runs.',
    type: 'gauge',
    read: ({ snapshot }) => one(1, { version: snapshot.version, node: process.versions.node }),
  },
  {
    name: 'process_cpu_seconds_total',
    help: 'Processor time of the process, user and system.',
    type: 'counter',
    read: () => one(cpuSeconds()),
  },
  {
    name: 'process_resident_memory_bytes',
    help: 'Resident memory of the process. Guest memory that was touched counts.',
    type: 'gauge',
    read: ofTarget(({ memory }) => memory.rss),
  },
  {
    name: 'process_open_fds',
    help: 'File descriptors in use.',
    type: 'gauge',
    read: () => one(readdirSync('/proc/self/fd').length),
  },
  {
    name: 'process_start_time_seconds',
    help: 'When the process started, in seconds since 1970.',
    type: 'gauge',
    read: () => one(performance.timeOrigin / MS_PER_S),
  },
];
