/**
 * `npm run bench`: what the target does on this machine, each figure beside a yardstick of the same run. Options after `--`:
 *
 *   --quick            one short run of everything: whether it works, not how fast it is
 *   --only NAME,…      scenarios, curves and states whose names contain one of these
 *   --list             what there is
 *   --runs N           of each scenario and its yardstick, in turn (5)
 *   --seconds S        of a run (2)
 *   --file PATH        a file that does not exist, on the disk to be measured (bench/results/disk.img)
 *   --compare FILE     what changed since the results in this file, for example bench/baseline.json
 *
 * Prints tables; writes bench/results/bench.json and a chart a curve beside it.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { SingleBar } from 'cli-progress';
import { native } from '../src/native/index.ts';
import { curveChart, ratioChart } from './charts.ts';
import { Disks } from './disks.ts';
import { describeMachine } from './machine.ts';
import { measureCurve, measureScenario, type Rounds } from './measure.ts';
import { type BenchResults, comparison, curveTable, scenarioTable, stateTable } from './report.ts';
import { CURVES, SCENARIOS } from './scenarios.ts';
import { STATES } from './state.ts';
import { startTarget } from './target.ts';

const FOLDER = 'bench/results';

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    list: { type: 'boolean', default: false },
    runs: { type: 'string' },
    seconds: { type: 'string' },
    file: { type: 'string', default: join(FOLDER, 'disk.img') },
    compare: { type: 'string' },
  },
});
const runs = Number(values.runs ?? (values.quick ? 1 : 5));
const seconds = Number(values.seconds ?? (values.quick ? 0.3 : 2));
if (!(Number.isInteger(runs) && runs > 0 && seconds > 0)) {
  throw new Error('--runs and --seconds are numbers above 0');
}
const wanted = (name: string): boolean =>
  values.only === '' || values.only.split(',').some((part) => name.includes(part));
const scenarios = SCENARIOS.filter(({ name }) => wanted(name));
const curves = CURVES.filter(({ name }) => wanted(name));
const states = Object.entries(STATES).filter(([name]) => wanted(name));

function say(lines: readonly string[]): void {
  process.stdout.write(`${lines.join('\n')}\n\n`);
}

/** On stderr, if that is a terminal. */
const bar = process.stderr.isTTY
  ? new SingleBar({ format: '{bar} {value}/{total}  {what}', clearOnComplete: true })
  : undefined;

async function measure(): Promise<BenchResults> {
  // Read before anything is measured: a mistake is found now.
  const cpus = native.getAffinity();
  const [reactorCpu, clientCpu = reactorCpu] = cpus;
  if (cpus.length < 2) {
    process.stderr.write('warning: target and client share the only CPU\n');
  }
  const points = curves.reduce((sum, curve) => sum + curve.values.length, 0);
  bar?.start(runs * (2 * scenarios.length + points) + states.length, 0, { what: '' });
  const onRun = (what: string): void => bar?.increment({ what });
  const warmup = Math.min(0.5, seconds);
  const rounds: Rounds = { runs, seconds, warmup, reactorCpu, clientCpu, latency: false, onRun };
  const results = {
    machine: describeMachine(),
    runs,
    seconds,
    scenarios: [] as BenchResults['scenarios'][number][],
    curves: [] as BenchResults['curves'][number][],
    states: [] as BenchResults['states'][number][],
  };
  if (scenarios.length + curves.length > 0) {
    const target = await startTarget({ cpus: [reactorCpu] });
    const disks = new Disks(target, values.file);
    try {
      for (const scenario of scenarios) {
        results.scenarios.push(await measureScenario(disks, scenario, rounds));
      }
      for (const curve of curves) {
        results.curves.push(await measureCurve(disks, curve, rounds));
      }
    } finally {
      await target.stop();
      disks.clear();
    }
  }
  const garbageSeconds = values.quick ? 2 : 60;
  for (const [name, state] of states) {
    onRun(name);
    results.states.push(...(await state({ ...rounds, garbageSeconds, cpus })));
  }
  return results;
}

if (values.list) {
  say([...SCENARIOS, ...CURVES].map(({ name }) => name).concat(Object.keys(STATES)));
} else {
  const baseline: BenchResults | undefined =
    values.compare === undefined ? undefined : JSON.parse(readFileSync(values.compare, 'utf8'));
  const results = await measure().finally(() => bar?.stop());
  mkdirSync(FOLDER, { recursive: true });
  writeFileSync(join(FOLDER, 'bench.json'), `${JSON.stringify(results, null, 2)}\n`);
  if (results.scenarios.length > 0) {
    say(scenarioTable(results.scenarios));
    writeFileSync(join(FOLDER, 'ratios.svg'), ratioChart(results.scenarios));
  }
  for (const result of results.curves) {
    const curve = curves.find(({ name }) => name === result.name)!;
    say([curve.title, ...curveTable(curve, result)]);
    writeFileSync(join(FOLDER, `${curve.name}.svg`), curveChart(curve, result));
  }
  if (results.states.length > 0) say(stateTable(results.states));
  if (baseline !== undefined) say(comparison(results, baseline));
}
