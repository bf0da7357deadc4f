/**
 * `npm run bench:http`: requests a second and latency of the target's HTTP server (autocannon against /rpc and /metrics), and what they
 * cost the data path: the null bdev, 4 KiB reads at depth 32, with and without the requests. Options after `--`:
 *
 *   --runs N           rounds; each measures everything once, in turn (5)
 *   --seconds S        of a run (2)
 *   --connections N    of autocannon (4)
 *   --rate N           requests a second; 0: as many as possible (0)
 *
 * The reactor has a processor of its own, the NVMe client another; the target's main thread and autocannon have the rest. Where there is no
 * third they share the client's, so the client asks for less: then the reactor's own time for a command is what tells whether requests
 * disturb it.
 *
 * Prints a table, and writes bench/results/http.json. Needs taskset (util-linux).
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { formatTable } from '../src/cli/table.ts';
import { native } from '../src/native/index.ts';
import type { Snapshot } from '../src/target/snapshot.ts';
import type { HttpFigure } from './http-load.ts';
import { serveNull } from './idle-measure.ts';
import { type Load, runPerf } from './load.ts';
import { describeMachine } from './machine.ts';
import { startHttpTarget, underRequests } from './requests.ts';
import { median } from './stats.ts';

const FOLDER = 'bench/results';
const LOAD: Load = { op: 'read', random: true, blockSize: 4096, depth: 32 };
const CALL = JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'bdev_get_bdevs' });
const WARMUP_SECONDS = 0.3;
/** What must remain of the data path's speed. */
const GOAL = 0.97;

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    connections: { type: 'string', default: '4' },
    rate: { type: 'string', default: '0' },
  },
});
const [runs, seconds] = [Number(values.runs), Number(values.seconds)];
const [connections, rate] = [Number(values.connections), Number(values.rate)];
if (!(Number.isInteger(runs) && runs > 0 && seconds > 0 && connections > 0 && rate >= 0)) {
  throw new Error('--runs, --seconds and --connections are numbers above 0, --rate is at least 0');
}

/** The data path in one run. */
interface IoFigure {
  readonly iops: number;
  /** Time that the reactor had work, by command. */
  readonly reactorNs: number;
}

/** What is measured in turn, and what came out. */
interface Measure {
  readonly name: string;
  /** Of the target's HTTP server; no requests without. */
  readonly path?: string;
  readonly body?: string;
  /** Without I/O. */
  readonly idle?: true;
  readonly io: IoFigure[];
  readonly http: HttpFigure[];
}

const quiet: Measure = { name: 'none', io: [], http: [] };
const rpc: Measure = { name: '/rpc', path: 'rpc', body: CALL, io: [], http: [] };
const metrics: Measure = { name: '/metrics', path: 'metrics', io: [], http: [] };
const idle = (measure: Measure): Measure => ({
  ...measure,
  name: `${measure.name}, no I/O`,
  idle: true,
  io: [],
  http: [],
});
const measures = [quiet, rpc, metrics, idle(rpc), idle(metrics)];

const cpus = native.getAffinity();
const [reactorCpu, clientCpu = reactorCpu, otherCpu = clientCpu] = cpus;
const shared = otherCpu === clientCpu;

const target = await startHttpTarget({ cpus: [reactorCpu] });
try {
  // The main thread; the reactor has its processor.
  execFileSync('taskset', ['-pc', String(otherCpu), String(target.pid)], { stdio: 'ignore' });
  const socket = await serveNull(target);
  const count = async (): Promise<{ ops: number; busyNs: number }> => {
    const { bdevs, reactors } = (await target.rpc('doorbell_get_snapshot')) as Snapshot;
    return { ops: bdevs[0].io.readOps, busyNs: reactors[0].busyNs };
  };
  const loadData = async (): Promise<IoFigure> => {
    const before = await count();
    const conditions = { seconds, warmup: WARMUP_SECONDS, clientCpu, reactorCpu, latency: false };
    const { iops } = (await runPerf([socket], LOAD, conditions)).total;
    const after = await count();
    return { iops, reactorNs: (after.busyNs - before.busyNs) / (after.ops - before.ops) };
  };
  const rest = async (): Promise<undefined> => {
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  };
  for (let round = 0; round < runs; round++) {
    for (const { path, body, idle, io, http } of measures) {
      const operation = idle ? rest : loadData;
      let figure: IoFigure | undefined;
      if (path === undefined) {
        figure = await operation();
      } else {
        const url = `${target.url}${path}`;
        const requests = { url, cpu: otherCpu, connections, rate, ...(body && { body }) };
        const [found, answered] = await underRequests(requests, operation);
        figure = found;
        http.push(answered);
      }
      if (figure !== undefined) io.push(figure);
    }
  }
} finally {
  await target.stop();
}

/** The median over the rounds of a figure's ratio to the quiet run of the same round. */
const remains = (io: readonly IoFigure[], ratio: (loaded: IoFigure, quiet: IoFigure) => number) =>
  median(io.map((figure, round) => ratio(figure, quiet.io[round])));

const results = measures.map(({ name, io, http }) => ({
  name,
  ...(io.length > 0 && {
    iops: median(io.map(({ iops }) => iops)),
    reactorNs: median(io.map(({ reactorNs }) => reactorNs)),
    iopsRemain: remains(io, (loaded, quiet) => loaded.iops / quiet.iops),
    reactorSpeedRemains: remains(io, (loaded, quiet) => quiet.reactorNs / loaded.reactorNs),
  }),
  ...(http.length > 0 && {
    requestsPerSecond: median(http.map(({ requestsPerSecond }) => requestsPerSecond)),
    p50Ms: median(http.map(({ p50 }) => p50)),
    p99Ms: median(http.map(({ p99 }) => p99)),
  }),
  runs: { io, http },
}));

const fixed = (value: number | undefined, digits: number): string => value?.toFixed(digits) ?? '';
const titles = [
  ...['requests to', 'requests/s', 'p50 ms', 'p99 ms'],
  ...['M IOPS', 'of quiet', 'reactor ns/command', 'speed of quiet'],
];
const lines = formatTable(
  titles.map((title, index) => ({ title, align: index === 0 ? 'left' : 'right' })),
  results.map((result) => [
    result.name,
    fixed(result.requestsPerSecond, 0),
    fixed(result.p50Ms, 1),
    fixed(result.p99Ms, 1),
    fixed(result.iops && result.iops / 1e6, 2),
    fixed(result.iopsRemain, 3),
    fixed(result.reactorNs, 1),
    fixed(result.reactorSpeedRemains, 3),
  ]),
);
process.stdout.write(`${lines.join('\n')}\n\n`);
for (const { name, iopsRemain, reactorSpeedRemains } of results.slice(1)) {
  const value = shared ? reactorSpeedRemains : iopsRemain;
  if (value !== undefined) {
    const verdict = value >= GOAL ? 'met' : 'missed';
    process.stdout.write(`${name}: ${fixed(value, 3)}, goal at least ${GOAL}: ${verdict}\n`);
  }
}
if (shared) {
  process.stdout.write(
    `With ${cpus.length} processors the NVMe client shares its own with the main thread and autocannon and asks for less, so\n` +
      'the goal is held against the speed of the reactor, not against IOPS.\n',
  );
}
mkdirSync(FOLDER, { recursive: true });
const document = { machine: describeMachine(), options: values, cpus: cpus.length, results };
writeFileSync(`${FOLDER}/http.json`, `${JSON.stringify(document, null, 2)}\n`);
