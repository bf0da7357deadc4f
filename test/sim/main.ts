/**
 * `npm run test:sim -- [--seeds N] [--first SEED] [--events N] [--processes N]`: runs simulations, prints the seed of one that fails, and a
 * table of what was tried in which state.
 *
 * What it cannot see: a turn of a reactor, and each step of main, is not interrupted, so the order of memory accesses between threads is not
 * tried (the kernel's tests, and those with real threads, are for that); nor the copies that messages between threads are, mappings of
 * queues over several regions, sockets, the admin queue, and PCI.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Coverage } from './coverage.ts';
import { simulate } from './run.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '10000' },
    first: { type: 'string', default: '1' },
    events: { type: 'string', default: '500' },
    processes: { type: 'string', default: '2' },
    step: { type: 'string', default: '1' },
    quiet: { type: 'boolean', default: false },
  },
});
const seeds = Number(values.seeds);
const first = Number(values.first);
const events = Number(values.events);
const processes = Math.min(Number(values.processes), seeds);
const step = Number(values.step);

interface Report {
  readonly seeds: number;
  readonly events: number;
  readonly commands: number;
  readonly turns: number;
  readonly coverage: [string, number[]][];
  readonly failure: { readonly seed: number; readonly text: string } | undefined;
}

async function runSeeds(): Promise<Report> {
  const coverage = new Coverage();
  const sum = { seeds: 0, events: 0, commands: 0, turns: 0 };
  for (let seed = first; seed < first + seeds; seed += step) {
    try {
      const outcome = await simulate(seed, events, coverage);
      sum.seeds += 1;
      sum.events += outcome.events;
      sum.commands += outcome.commands;
      sum.turns += outcome.turns;
    } catch (error) {
      const text = (error as Error).stack ?? String(error);
      return { ...sum, coverage: coverage.rows, failure: { seed, text } };
    }
  }
  return { ...sum, coverage: coverage.rows, failure: undefined };
}

/** A child runs every n-th seed. */
function runChild(index: number): Promise<Report> {
  const args = ['--seeds', seeds - index, '--first', first + index, '--events', events];
  const child = fork(
    fileURLToPath(import.meta.url),
    [...args, '--processes', 1, '--step', processes].map(String),
    { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
  );
  return new Promise((resolve, reject) => {
    child.on('message', (report) => resolve(report as Report));
    child.on('exit', (code) => reject(new Error(`a process ended with ${code}`)));
  });
}

function print(reports: readonly Report[], seconds: number): void {
  const coverage = new Coverage();
  for (const report of reports) {
    coverage.merge(report.coverage);
  }
  const total = (key: 'seeds' | 'events' | 'commands' | 'turns'): number =>
    reports.reduce((sum, report) => sum + report[key], 0);
  console.log(
    `${total('seeds')} seeds, ${total('events')} events, ${total('commands')} commands, ${total('turns')} turns in ${seconds.toFixed(1)} s`,
  );
  console.log(coverage.format());
  console.log(`never: ${coverage.missing.slice(0, 20).join(', ') || 'nothing'}`);
  for (const { failure } of reports) {
    if (failure !== undefined) {
      console.error(`seed ${failure.seed}: ${failure.text}`);
      process.exitCode = 1;
    }
  }
}

if (process.send !== undefined) {
  process.send(await runSeeds(), () => process.exit());
} else {
  const started = performance.now();
  const reports =
    processes > 1
      ? await Promise.all(Array.from({ length: processes }, (_, i) => runChild(i)))
      : [await runSeeds()];
  print(reports, (performance.now() - started) / 1000);
}
