/**
 * `node dist/bench/idle.js`: what connected controllers cost that do nothing, how long the first command takes after a pause, and how
 * many interrupts a command costs. Options:
 *
 *   --controllers 1,16,64   how many are connected at the same time
 *   --queues N              queue pairs of each (1)
 *   --seconds S             how long the idle target is watched (5)
 *   --pauses N              first commands measured, after pauses of 5 to 50 ms (100)
 *   --depths 1,8,32,128     for the interrupts; 0 leaves them out
 *   --unmapped              BAR0 cannot be mapped: doorbells come as messages
 *   --shadow                the clients give the target shadow doorbells
 *   --serve '--max-sleep-us 500'   further options of the target
 *
 * Prints tables, and writes bench/results/idle.json.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { formatTable } from '../src/cli/table.ts';
import { native } from '../src/native/index.ts';
import {
  connectMore,
  type IdleClient,
  type IdleFigures,
  measureIdle,
  measureInterrupts,
  serveNull,
} from './idle-measure.ts';
import { startTarget } from './target.ts';

const { values } = parseArgs({
  options: {
    controllers: { type: 'string', default: '1,16,64' },
    queues: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '5' },
    pauses: { type: 'string', default: '100' },
    depths: { type: 'string', default: '1,8,32,128' },
    unmapped: { type: 'boolean', default: false },
    shadow: { type: 'boolean', default: false },
    serve: { type: 'string', default: '' },
  },
});
const numbers = (list: string): number[] => list.split(',').map(Number);
const INTERRUPT_SECONDS = 1;

function row(figures: IdleFigures): string[] {
  const { first } = figures;
  const percent = (share: number): string => `${(share * 100).toFixed(2)} %`;
  return [
    String(figures.controllers),
    percent(figures.cpu),
    percent(figures.reactorCpu),
    ...[figures.reactorWakeups, figures.otherWakeups].map((rate) => rate.toFixed(1)),
    ...[figures.residentMiB, figures.residentOwnMiB, first.p50, first.p99, first.max].map((value) =>
      value.toFixed(0),
    ),
  ];
}

const COLUMNS = [
  ...['controllers', 'target CPU', 'reactor', 'wake-ups/s', 'others/s', 'MiB', 'own MiB'],
  ...['first µs p50', 'p99', 'max'],
].map((title) => ({ title, align: 'right' }) as const);

const allowed = native.getAffinity();
const target = await startTarget({
  cpus: [allowed[0]],
  args: values.serve.split(' ').filter((word) => word !== ''),
  transport: { disable_mappable_bar0: values.unmapped },
});
// Only now: a child inherits what its parent may use.
native.setAffinity([allowed[allowed.length - 1]]);
const idle: IdleFigures[] = [];
const interrupts = [];
try {
  const clients: IdleClient[] = [];
  const options = { shadowDoorbells: values.shadow };
  for (const count of numbers(values.controllers).sort((a, b) => a - b)) {
    await connectMore(target, clients, count, Number(values.queues), options);
    const duration = { seconds: Number(values.seconds), pauses: Number(values.pauses) };
    idle.push(await measureIdle(target.pid, clients, duration));
  }
  process.stdout.write(`${formatTable(COLUMNS, idle.map(row)).join('\n')}\n`);
  for (const { client } of clients) {
    client.close();
  }
  const depths = numbers(values.depths).filter((depth) => depth > 0);
  const socket = await serveNull(target);
  for (const depth of depths) {
    const figures = await measureInterrupts(socket, depth, INTERRUPT_SECONDS);
    interrupts.push(figures);
    const [per, iops] = [figures.perCommand.toFixed(3), (figures.iops / 1000).toFixed(0)];
    process.stdout.write(`depth ${depth}: ${per} interrupts a command at ${iops} k IOPS\n`);
  }
} finally {
  await target.stop();
}
mkdirSync('bench/results', { recursive: true });
const text = JSON.stringify({ options: values, idle, interrupts }, null, 2);
writeFileSync('bench/results/idle.json', `${text}\n`);
