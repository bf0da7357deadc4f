/**
 * `npm run bench:neighbour`: what one VM's trouble costs another. The neighbour of test/neighbour works alone, then beside each trouble of that test,
 * then alone again. Options after `--`:
 *
 *   --only NAME,…      troubles whose names contain one of these
 *   --list             what there is
 *   --seconds S        of each measurement (3)
 *   --reactors N       1 (default) or 2
 *   --trapped          doorbells are trapped, not mapped
 *
 * Prints rates and latencies, and the ratios of those beside the trouble to those alone; writes bench/results/neighbour.json.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type { Lap } from '../test/helpers/neighbour/guest.ts';
import { Scene } from '../test/helpers/neighbour/scene.ts';
import {
  type Configuration,
  describeConfiguration,
  Stage,
} from '../test/helpers/neighbour/stage.ts';
import type { Trouble } from '../test/helpers/neighbour/trouble.ts';
import { FAMILIES } from '../test/helpers/troubles/index.ts';
import { describeMachine } from './machine.ts';

const FOLDER = 'bench/results';

interface Result {
  readonly trouble: string;
  readonly alone?: Lap;
  readonly beside?: Lap;
  /** Why it could not be measured. */
  readonly missing?: string;
}

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    list: { type: 'boolean', default: false },
    seconds: { type: 'string', default: '3' },
    reactors: { type: 'string', default: '1' },
    trapped: { type: 'boolean', default: false },
  },
});
const seconds = Number(values.seconds);
const reactors = Number(values.reactors);
if (!(seconds > 0) || (reactors !== 1 && reactors !== 2)) {
  throw new Error('--seconds is a number above 0, --reactors 1 or 2');
}
const configuration: Configuration = { reactors, trapped: values.trapped };
const troubles: readonly Trouble[] = Object.values(FAMILIES)
  .flat()
  .filter(({ name }) => values.only.split(',').some((part) => name.includes(part)));

async function measureAlone({ neighbour }: Stage): Promise<Lap> {
  await neighbour.advance(1);
  await neighbour.lap();
  await sleep(1000 * seconds);
  return neighbour.lap();
}

/** Rejects if the trouble stops the neighbour, or breaks the target. */
async function measureBeside(stage: Stage, trouble: Trouble): Promise<Lap> {
  const { neighbour } = stage;
  const scene = new Scene(stage);
  try {
    const held = await trouble.establish(scene);
    await neighbour.lap();
    const end = performance.now() + 1000 * seconds;
    while (performance.now() < end) {
      await held.held();
      await sleep(1);
    }
    const lap = await neighbour.lap();
    await neighbour.advance(1);
    await scene.remove();
    await held.release();
    return lap;
  } finally {
    await scene.close();
  }
}

async function measure(): Promise<Result[]> {
  const results: Result[] = [];
  let stage: Stage | undefined;
  for (const trouble of troubles) {
    if (trouble.needs) {
      results.push({ trouble: trouble.name, missing: trouble.needs });
    } else {
      stage ??= await Stage.open(configuration, { polls: true });
      try {
        const alone = await measureAlone(stage);
        results.push({ trouble: trouble.name, alone, beside: await measureBeside(stage, trouble) });
      } catch (error) {
        results.push({ trouble: trouble.name, missing: (error as Error).message });
        await stage.abandon();
        stage = undefined;
      }
    }
    print(results[results.length - 1]);
  }
  await stage?.close();
  return results;
}

const rate = ({ commands, seconds: took }: Lap): number => commands / took;
const number = (value: number): string => value.toFixed(value < 10 ? 1 : 0).padStart(8);
const ratio = (beside: number, alone: number): string =>
  `${(beside / alone).toFixed(2)} ×`.padStart(9);

function print({ trouble, alone, beside, missing }: Result): void {
  const lines = [trouble];
  if (alone === undefined || beside === undefined) {
    lines.push(`  not measured: ${missing}`);
  } else {
    const rows: readonly [string, (lap: Lap) => number][] = [
      ['commands/s', rate],
      ['p50 µs', ({ transfers }) => transfers.p50],
      ['p99 µs', ({ transfers }) => transfers.p99],
      ['p99.9 µs', ({ transfers }) => transfers.p999],
      ['flush p99 µs', ({ flushes }) => flushes.p99],
    ];
    for (const [name, of] of rows) {
      const figures = [alone, beside].map((lap) => number(of(lap))).join(' →');
      lines.push(`  ${name.padEnd(14)}${figures} ${ratio(of(beside), of(alone))}`);
    }
  }
  process.stdout.write(`${lines.join('\n')}\n`);
}

if (values.list) {
  process.stdout.write(troubles.map(({ name }) => `${name}\n`).join(''));
} else {
  process.stdout.write(`${describeConfiguration(configuration)}: alone → beside the trouble\n`);
  const results = await measure();
  mkdirSync(FOLDER, { recursive: true });
  const report = { machine: describeMachine(), configuration, seconds, results };
  writeFileSync(join(FOLDER, 'neighbour.json'), `${JSON.stringify(report, null, 2)}\n`);
}
