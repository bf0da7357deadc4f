/**
 * `npm run bench:peer -- --start COMMAND --rpc SOCKET`: this target beside another one that serves NVMe over vfio-user and answers SPDK's
 * JSON-RPC (SPDK's nvmf_tgt, say). Both are configured by the same calls, and get the same loads in turn, one queue pair each, from the initiator
 * in C of test/foreign, which shares no code with either, and from our own client. Options:
 *
 *   --start COMMAND    starts the other target in the foreground, on the processor that --core names
 *   --rpc SOCKET       its JSON-RPC
 *   --core N           the processor that both targets poll on, one after the other (the first); the client has the last
 *   --only NAME,…      loads whose names contain one of these
 *   --client NAME      c or doorbell (both)
 *   --rounds N         pairs of runs (5)
 *   --seconds S        of a run (1)
 *   --file PATH        beginning of the names of two files that do not exist, on the disk to be measured (bench/results/peer)
 *
 * A target that polls takes its processor whole, so each of the two is stopped (SIGSTOP) while it is the other's turn. RAM disks are written
 * before they are read. Prints the medians, and of the ratios of each pair the median and between which values half of them lie. Writes
 * bench/results/peer.json.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { formatTable } from '../src/cli/table.ts';
import { native } from '../src/native/index.ts';
import { buildInitiator } from '../test/helpers/initiator.ts';
import { Disks } from './disks.ts';
import { type Load, runPerf } from './load.ts';
import { describeMachine } from './machine.ts';
import { quantity } from './report.ts';
import { type BdevKind, KIB } from './scenarios.ts';
import { median, quantile } from './stats.ts';
import { type BenchTarget, startPeer, startTarget } from './target.ts';

const FOLDER = 'bench/results';
const WARMUP_SECONDS = 0.2;
const SETTLE_MS = 200;
const CLIENTS = ['c', 'doorbell'] as const;
type ClientName = (typeof CLIENTS)[number];

interface PeerLoad {
  readonly name: string;
  readonly bdev: BdevKind;
  readonly load: Load;
}

const random = (bdev: BdevKind, op: Load['op'], kib: number, depth: number): PeerLoad => ({
  name: `${bdev}-${op}-${kib}k-${depth}`,
  bdev,
  load: { op, depth, random: true, blockSize: kib * KIB },
});

const LOADS: readonly PeerLoad[] = [
  ...[1, 32, 128].map((depth) => random('null', 'read', 4, depth)),
  random('null', 'read', 128, 32),
  ...[1, 32, 128].map((depth) => random('ram', 'read', 4, depth)),
  random('ram', 'write', 4, 32),
  random('ram', 'read', 128, 32),
  random('direct', 'read', 4, 1),
  random('direct', 'read', 4, 32),
  random('direct', 'write', 4, 32),
  random('direct', 'read', 128, 16),
];

const { values } = parseArgs({
  options: {
    start: { type: 'string' },
    rpc: { type: 'string' },
    core: { type: 'string' },
    only: { type: 'string' },
    client: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '1' },
    file: { type: 'string', default: join(FOLDER, 'peer') },
  },
});
const { start, rpc } = values;
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
if (start === undefined || rpc === undefined || !(rounds > 0 && seconds > 0)) {
  throw new Error('usage: npm run bench:peer -- --start COMMAND --rpc SOCKET [--rounds N] …');
}
const cpus = native.getAffinity();
const reactorCpu = values.core === undefined ? cpus[0] : Number(values.core);
const clientCpu = cpus.findLast((cpu) => cpu !== reactorCpu) ?? reactorCpu;
const parts = values.only?.split(',');
const loads = LOADS.filter(({ name }) => parts?.some((part) => name.includes(part)) ?? true);
const clients = CLIENTS.filter((name) => values.client === undefined || values.client === name);

interface Side {
  readonly target: BenchTarget;
  readonly disks: Disks;
  /** Where its signals go: the process, or the group of a shell's. */
  readonly pid: number;
}

interface Pairs {
  readonly name: string;
  readonly client: ClientName;
  /** Commands a second, a run each. */
  readonly ours: readonly number[];
  readonly peer: readonly number[];
}

const folder = mkdtempSync(join(tmpdir(), 'doorbell-peer-'));
const initiator = clients.includes('c') ? buildInitiator(folder) : '';

/** Commands a second of one run. */
async function run(client: ClientName, socket: string, load: Load): Promise<number> {
  if (client === 'doorbell') {
    const conditions = { seconds, warmup: WARMUP_SECONDS, clientCpu, reactorCpu, latency: false };
    return (await runPerf([socket], load, conditions)).total.iops;
  }
  const { depth, op, blockSize } = load;
  const args = [socket, 'perf', depth, seconds, op, blockSize].map(String);
  // A child inherits what its parent may use.
  native.setAffinity([clientCpu]);
  try {
    return JSON.parse(execFileSync(initiator, args, { encoding: 'utf8', stdio: 'pipe' })).iops;
  } finally {
    native.setAffinity(cpus);
  }
}

async function measure(
  client: ClientName,
  { name, bdev, load }: PeerLoad,
  [ours, peer]: readonly Side[],
): Promise<Pairs> {
  const figures = new Map<Side, number[]>([
    [ours, []],
    [peer, []],
  ]);
  for (let round = 0; round < rounds; round++) {
    // Who is first takes turns as well.
    for (const side of round % 2 === 0 ? [ours, peer] : [peer, ours]) {
      process.kill(side.pid, 'SIGCONT');
      try {
        const [socket] = await side.disks.sockets(bdev, load);
        figures.get(side)!.push(await run(client, socket, load));
        // It takes leave of the client first.
        await sleep(SETTLE_MS);
      } finally {
        process.kill(side.pid, 'SIGSTOP');
      }
    }
  }
  return { name, client, ours: figures.get(ours)!, peer: figures.get(peer)! };
}

function row({ name, client, ours, peer }: Pairs): string[] {
  const ratios = ours.map((iops, i) => iops / peer[i]);
  const [low, high] = [quantile(ratios, 0.25), quantile(ratios, 0.75)];
  return [
    name,
    client,
    quantity(median(ours)),
    quantity(median(peer)),
    median(ratios).toFixed(2),
    `${low.toFixed(2)} to ${high.toFixed(2)}`,
  ];
}

const sides: Side[] = [];
try {
  const ours = await startTarget({ cpus: [reactorCpu] });
  sides.push({ target: ours, disks: new Disks(ours, `${values.file}-ours.img`), pid: ours.pid });
  process.kill(ours.pid, 'SIGSTOP');
  const peer = await startPeer(start, rpc);
  const disks = new Disks(peer, `${values.file}-peer.img`, true);
  sides.push({ target: peer, disks, pid: -peer.pid });
  process.kill(-peer.pid, 'SIGSTOP');
  const results: Pairs[] = [];
  for (const load of loads) {
    for (const client of clients) {
      results.push(await measure(client, load, sides));
    }
  }
  const titles = ['load', 'client', 'ours', 'peer', 'ratio', 'half of the pairs'];
  const columns = titles.map((title, i) => ({ title, align: i < 2 ? 'left' : 'right' }) as const);
  process.stdout.write(`${formatTable(columns, results.map(row)).join('\n')}\n`);
  mkdirSync(FOLDER, { recursive: true });
  const file = { machine: describeMachine(), start, reactorCpu, clientCpu, seconds, results };
  writeFileSync(join(FOLDER, 'peer.json'), `${JSON.stringify(file, undefined, 2)}\n`);
} finally {
  for (const { target, disks, pid } of sides) {
    process.kill(pid, 'SIGCONT');
    await target.stop();
    disks.clear();
  }
  rmSync(folder, { recursive: true, force: true });
}
