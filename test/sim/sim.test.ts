/** A short run of the simulator (`npm run test:sim` runs thousands of seeds), and what makes it worth something: it repeats itself. */
import t from 'tap';
import { Coverage } from './coverage.ts';
import { simulate } from './run.ts';

const SEEDS = 100;
const EVENTS = 300;

t.test('some seeds', async (t) => {
  const coverage = new Coverage();
  // Others each day.
  const first = Number(process.env.SEED ?? Math.floor(Date.now() / 86_400_000) * SEEDS);
  let commands = 0;
  for (let seed = first; seed < first + SEEDS; seed++) {
    try {
      commands += (await simulate(seed, EVENTS, coverage)).commands;
    } catch (error) {
      t.fail(`seed ${seed} of ${EVENTS} events: ${(error as Error).message}`);
    }
  }
  t.ok(commands > SEEDS * 20, `${commands} commands`);
  const events = new Map(coverage.rows);
  for (const event of ['reset', 'move', 'unmap', 'add namespace', 'reactor dies', 'bad doorbell']) {
    t.ok(events.has(event), event);
  }
});

t.test('a seed is the same each time', async (t) => {
  const [first, second] = [new Coverage(), new Coverage()];
  t.strictSame(await simulate(7, EVENTS, first), await simulate(7, EVENTS, second));
  t.strictSame(first.rows, second.rows);
});
