/**
 * `npm run bench:compare -- BASE`: this checkout against another revision of it. Builds BASE in a folder of its own, starts both targets on one
 * processor, and puts the same loads on them in turn, for moments only: where the host moves the processors between two runs, it does so for both.
 * Options:
 *
 *   --only NAME,…      scenarios whose names contain one of these (those that matter most: see COMPARED)
 *   --rounds N         pairs of runs (15)
 *   --seconds S        of a run (0.5)
 *   --file PATH        beginning of the names of two files that do not exist, on the disk to be measured (bench/results/compare)
 *
 * Prints the medians and the ratio of each pair: its median, and between which values half of the pairs lie. Writes bench/results/compare.json.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { formatTable } from '../src/cli/table.ts';
import { native } from '../src/native/index.ts';
import { Disks } from './disks.ts';
import { runPerf } from './load.ts';
import { describeMachine } from './machine.ts';
import { quantity } from './report.ts';
import { SCENARIOS, type Scenario } from './scenarios.ts';
import { median, quantile } from './stats.ts';
import { type BenchTarget, startTarget } from './target.ts';

const FOLDER = 'bench/results';
const PROGRAM = 'dist/src/cli/doorbell.js';
const WARMUP_SECONDS = 0.1;

/** What a change of the hot path may cost. */
const COMPARED = [
  ...['null-read-4k-1', 'null-read-4k-32', 'null-read-4k-128', 'null-read-128k-32'],
  ...['ram-read-4k-1', 'ram-read-4k-32', 'ram-write-4k-32', 'ram-read-128k-32'],
  ...['file-read-4k-1', 'file-read-4k-32', 'file-write-4k-32'],
  ...['direct-read-4k-1', 'direct-read-4k-32'],
];

interface Pairs {
  readonly name: string;
  /** Commands a second, a run each. */
  readonly base: readonly number[];
  readonly here: readonly number[];
}

interface Side {
  readonly target: BenchTarget;
  readonly disks: Disks;
}

const { values, positionals } = parseArgs({
  options: {
    only: { type: 'string' },
    rounds: { type: 'string', default: '15' },
    seconds: { type: 'string', default: '0.5' },
    file: { type: 'string', default: join(FOLDER, 'compare') },
  },
  allowPositionals: true,
});
const [base] = positionals;
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
if (base === undefined || !(Number.isInteger(rounds) && rounds > 0 && seconds > 0)) {
  throw new Error(
    'usage: npm run bench:compare -- BASE [--rounds N] [--seconds S] [--only NAME,…]',
  );
}
const parts = values.only?.split(',');
const scenarios = SCENARIOS.filter(({ name }) =>
  parts === undefined ? COMPARED.includes(name) : parts.some((part) => name.includes(part)),
);

/** Checks the revision out into a folder and builds it there. Returns what it is called in full. */
function build(revision: string, folder: string): string {
  const git = (...args: string[]): string => execFileSync('git', args, { encoding: 'utf8' }).trim();
  const commit = git('rev-parse', '--verify', `${revision}^{commit}`);
  git('worktree', 'add', '--detach', folder, commit);
  // Packages that both need are there already; what the revision needs besides, it installs itself.
  cpSync('node_modules', join(folder, 'node_modules'), { recursive: true });
  execFileSync(process.execPath, ['src/setup/prepare.mjs', 'build'], {
    cwd: folder,
    stdio: 'inherit',
  });
  return commit;
}

async function start(program: string, cpu: number, file: string): Promise<Side> {
  const target = await startTarget({ cpus: [cpu], program });
  return { target, disks: new Disks(target, file) };
}

async function compare(scenario: Scenario, sides: readonly Side[], cpus: number[]): Promise<Pairs> {
  const [reactorCpu, clientCpu = reactorCpu] = cpus;
  const conditions = { seconds, warmup: WARMUP_SECONDS, clientCpu, reactorCpu, latency: false };
  const iops: number[][] = [[], []];
  for (let round = 0; round < rounds; round++) {
    // Who is first takes turns as well.
    for (const side of round % 2 === 0 ? [0, 1] : [1, 0]) {
      const sockets = await sides[side].disks.sockets(scenario.bdev, scenario.load);
      iops[side].push((await runPerf(sockets, scenario.load, conditions)).total.iops);
    }
  }
  return { name: scenario.name, base: iops[0], here: iops[1] };
}

function row({ name, base, here }: Pairs): string[] {
  const ratios = here.map((iops, i) => iops / base[i]);
  const [low, high] = [quantile(ratios, 0.25), quantile(ratios, 0.75)];
  return [
    name,
    quantity(median(base)),
    quantity(median(here)),
    median(ratios).toFixed(3),
    `${low.toFixed(2)} to ${high.toFixed(2)}`,
  ];
}

const folder = mkdtempSync(join(tmpdir(), 'doorbell-base-'));
const checkout = join(folder, 'base');
const sides: Side[] = [];
try {
  const commit = build(base, checkout);
  const cpus = native.getAffinity();
  sides.push(await start(join(checkout, PROGRAM), cpus[0], `${values.file}-base.img`));
  sides.push(await start(resolve(PROGRAM), cpus[0], `${values.file}-here.img`));
  const results: Pairs[] = [];
  for (const scenario of scenarios) {
    results.push(await compare(scenario, sides, cpus));
  }
  const titles = ['load', 'base', 'here', 'ratio', 'half of the pairs'];
  const columns = titles.map((title, i) => ({ title, align: i === 0 ? 'left' : 'right' }) as const);
  process.stdout.write(`${formatTable(columns, results.map(row)).join('\n')}\n`);
  mkdirSync(FOLDER, { recursive: true });
  const file = { machine: describeMachine(), base: commit, rounds, seconds, results };
  writeFileSync(join(FOLDER, 'compare.json'), `${JSON.stringify(file, undefined, 2)}\n`);
} finally {
  for (const { target, disks } of sides) {
    await target.stop();
    disks.clear();
  }
  if (existsSync(checkout)) {
    execFileSync('git', ['worktree', 'remove', '--force', checkout]);
  }
  rmSync(folder, { recursive: true, force: true });
}
