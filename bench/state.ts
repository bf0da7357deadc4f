/** What is no rate of its own: start, memory, idling, interrupts, garbage, what HTTP takes, a second reactor. Each figure with its goal, if it has one. */
import { measureForeign } from './foreign.ts';
import { measureHttpLoss } from './http.ts';
import {
  connectMore,
  type IdleClient,
  measureIdle,
  measureInterrupts,
  serveNull,
} from './idle-measure.ts';
import { type Conditions, type Load, runPerf } from './load.ts';
import { measureSecondReactor } from './second-reactor.ts';
import { median } from './stats.ts';
import { startTarget } from './target.ts';

export interface StateFigure {
  readonly name: string;
  readonly what: string;
  readonly unit: string;
  /** Missing if it could not be measured, for the reason given. */
  readonly value?: number;
  readonly missing?: string;
  readonly atMost?: number;
  readonly atLeast?: number;
  readonly met?: boolean;
}

export interface StateConditions extends Conditions {
  readonly runs: number;
  /** How long garbage collections are counted. Seconds. */
  readonly garbageSeconds: number;
  /** Processors that may be used. */
  readonly cpus: readonly number[];
}

type Bound = Pick<StateFigure, 'atMost' | 'atLeast'>;

function figure(name: string, what: string, unit: string, value: number, bound: Bound = {}) {
  const { atMost, atLeast } = bound;
  const met =
    (atMost === undefined || value <= atMost) && (atLeast === undefined || value >= atLeast);
  const judged = atMost !== undefined || atLeast !== undefined;
  return { name, what, unit, value, ...bound, ...(judged && { met }) } satisfies StateFigure;
}

function missing(
  name: string,
  what: string,
  unit: string,
  reason: string,
  bound: Bound,
): StateFigure {
  return { name, what, unit, missing: reason, ...bound };
}

const notEnough = (cores: number, wanted: number): string =>
  `not enough cores: ${cores} of ${wanted}`;

const LOAD: Load = { op: 'read', random: true, blockSize: 4096, depth: 32 };

async function start({ runs, reactorCpu }: StateConditions): Promise<StateFigure[]> {
  const times: number[] = [];
  for (let run = 0; run < runs; run++) {
    const target = await startTarget({ cpus: [reactorCpu] });
    times.push(target.startMs);
    await target.stop();
  }
  const what = 'from the start of the process to the first JSON-RPC answer';
  return [figure('start', what, 'ms', median(times), { atMost: 500 })];
}

/** How many controllers are connected, of 4 queue pairs each, and the goals for that many. */
const IDLE_GOALS: ReadonlyMap<number, { readonly cpu?: number; readonly mib?: number }> = new Map([
  [1, { cpu: 1 }],
  [16, {}],
  [64, { cpu: 2, mib: 120 }],
  [256, {}],
]);
const IDLE_QUEUE_PAIRS = 4;

async function idle({ reactorCpu, seconds }: StateConditions): Promise<StateFigure[]> {
  const figures: StateFigure[] = [];
  const target = await startTarget({ cpus: [reactorCpu] });
  try {
    const clients: IdleClient[] = [];
    for (const [count, goal] of IDLE_GOALS) {
      await connectMore(target, clients, count, IDLE_QUEUE_PAIRS);
      const pauses = Math.ceil(50 * seconds);
      const found = await measureIdle(target.pid, clients, { seconds: 2 * seconds, pauses });
      const name = (what: string): string => `${what}-${count}`;
      const who = `${count} controllers of ${IDLE_QUEUE_PAIRS} queue pairs`;
      figures.push(
        figure(
          name('idle-cpu'),
          `the target's processor time with ${who} idle`,
          '%',
          found.cpu * 100,
          {
            ...(goal.cpu !== undefined && { atMost: goal.cpu }),
          },
        ),
        figure(name('idle-wakeups'), `wake-ups of the reactor, ${who}`, '/s', found.reactorWakeups),
        figure(name('memory'), `resident, ${who}`, 'MiB', found.residentMiB, {
          ...(goal.mib !== undefined && { atMost: goal.mib }),
        }),
        figure(
          name('first'),
          `first command after 5 to 50 ms, p50, ${who}`,
          'µs',
          found.first.p50,
          {
            atMost: 150,
          },
        ),
        figure(name('first-p99'), `the same, p99`, 'µs', found.first.p99),
      );
    }
    for (const { client } of clients) client.close();
  } finally {
    await target.stop();
  }
  return figures;
}

/** Shadow doorbells, and a BAR0 that cannot be mapped: the client says when there is something to do. */
async function trapped({ reactorCpu, seconds }: StateConditions): Promise<StateFigure[]> {
  const transport = { disable_mappable_bar0: true };
  const target = await startTarget({ cpus: [reactorCpu], transport });
  try {
    const clients: IdleClient[] = [];
    await connectMore(target, clients, 1, 1, { shadowDoorbells: true });
    const found = await measureIdle(target.pid, clients, { seconds: 2 * seconds, pauses: 20 });
    for (const { client } of clients) client.close();
    const who = 'shadow doorbells, BAR0 not mapped';
    return [
      figure('trapped-wakeups', `wake-ups of the reactor, ${who}`, '/s', found.reactorWakeups, {
        atMost: 0,
      }),
      figure('trapped-cpu', `the target's processor time, ${who}`, '%', found.cpu * 100),
      figure('trapped-first', `first command after 5 to 50 ms, p50, ${who}`, 'µs', found.first.p50),
    ];
  } finally {
    await target.stop();
  }
}

async function interrupts({ reactorCpu, seconds }: StateConditions): Promise<StateFigure[]> {
  const target = await startTarget({ cpus: [reactorCpu] });
  try {
    const socket = await serveNull(target);
    const figures: StateFigure[] = [];
    for (const depth of [1, 8, 32, 128]) {
      const { perCommand } = await measureInterrupts(socket, depth, seconds);
      const what = `interrupts a command at depth ${depth}, a driver that works on them only`;
      figures.push(figure(`interrupts-${depth}`, what, '', perCommand, { atMost: 1 }));
    }
    return figures;
  } finally {
    await target.stop();
  }
}

/** `--trace-gc` prints a line a collection, with the address of the isolate: main's, or a reactor's. */
async function garbage(conditions: StateConditions): Promise<StateFigure[]> {
  /** By isolate. Main's is the first to tell of one. */
  const collections = new Map<string, number>();
  let rest = '';
  const target = await startTarget({
    cpus: [conditions.reactorCpu],
    nodeArgs: ['--trace-gc'],
    onOutput: (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const isolate = /:(0x[0-9a-f]+)\].*: (Scavenge|Mark-Compact|Minor)/.exec(line)?.[1];
        if (isolate !== undefined) {
          collections.set(isolate, (collections.get(isolate) ?? 0) + 1);
        }
      }
    },
  });
  try {
    const socket = await serveNull(target);
    // Until the code is compiled: that makes garbage of its own.
    await runPerf([socket], LOAD, { ...conditions, seconds: 2, warmup: 0 });
    if (collections.size < 2) {
      throw new Error(
        'node --trace-gc did not tell of garbage collections in two threads, not even at the start',
      );
    }
    const before = new Map(collections);
    const seconds = conditions.garbageSeconds;
    const report = await runPerf([socket], LOAD, { ...conditions, seconds });
    const [main, ...reactors] = [...collections].map(
      ([isolate, count]) => count - (before.get(isolate) ?? 0),
    );
    const what = `garbage collections of the reactor in ${seconds} s of load`;
    const sum = reactors.reduce((total, count) => total + count, 0);
    return [
      figure('garbage', what, '', sum, { atMost: 0 }),
      figure('garbage-main', 'the same of the main thread', '', main),
      figure('garbage-client', 'the same of the load generator', '', report.collections),
    ];
  } finally {
    await target.stop();
  }
}

async function secondReactor(conditions: StateConditions): Promise<StateFigure[]> {
  const goal = { atLeast: 1.8 };
  const [first, second] = conditions.cpus;
  const what =
    'rates of two reactors that work at once, of that of one; the client sleeps meanwhile';
  const simulated = 'two-reactors-simulated';
  return [
    await polledSecondReactor(conditions, goal),
    second === undefined
      ? missing(simulated, what, '×', notEnough(conditions.cpus.length, 2), goal)
      : figure(simulated, what, '×', await simulatedGain(conditions, [first, second]), goal),
  ];
}

async function simulatedGain(
  { seconds, warmup, runs }: StateConditions,
  cpus: readonly [number, number],
): Promise<number> {
  const rounds = await measureSecondReactor({ seconds, warmup }, runs, cpus);
  return median(rounds.map(({ one, both }) => both / one));
}

/** With a client that polls on a processor of its own. */
async function polledSecondReactor(conditions: StateConditions, goal: Bound): Promise<StateFigure> {
  const name = 'two-reactors';
  const what = 'IOPS of two reactors with a queue pair each, of those of one with both';
  const [first, second, client] = conditions.cpus;
  if (client === undefined) {
    return missing(name, what, '×', notEnough(conditions.cpus.length, 3), goal);
  }
  const ratios: number[] = [];
  for (let run = 0; run < conditions.runs; run++) {
    const iops: number[] = [];
    for (const cpus of [[first], [first, second]]) {
      const target = await startTarget({ cpus });
      try {
        const load = { ...LOAD, queuePairs: 2 };
        const place = { ...conditions, clientCpu: client };
        iops.push((await runPerf([await serveNull(target)], load, place)).total.iops);
      } finally {
        await target.stop();
      }
    }
    ratios.push(iops[1] / iops[0]);
  }
  return figure(name, what, '×', median(ratios), goal);
}

async function foreign(conditions: StateConditions): Promise<StateFigure[]> {
  const figures = await measureForeign(conditions);
  if (figures === undefined) {
    return [missing('foreign', 'IOPS under an initiator in C', 'M', 'no C compiler', {})];
  }
  return figures.map(({ name, bdev, depth, bytes, iops, goal }) => {
    const what = `IOPS under the initiator in C: ${bdev} bdev, reads of ${bytes / 1024} KiB, depth ${depth}`;
    return figure(name, what, 'M', iops / 1e6, { atLeast: Number((goal / 1e6).toPrecision(3)) });
  });
}

/** Requests a second of somebody who watches closely. */
const SCRAPES = 10;
/** Reactor, client, main, autocannon. */
const FLOOD_CORES = 4;

async function http(conditions: StateConditions): Promise<StateFigure[]> {
  const goal = { atMost: 3 };
  const percent = async (rate: number): Promise<number> =>
    100 * (await measureHttpLoss(conditions, rate));
  const scraped = `IOPS lost while ${SCRAPES} requests a second ask for metrics`;
  const flooded = 'IOPS lost while autocannon asks for metrics with 10 connections';
  const cores = conditions.cpus.length;
  return [
    figure('http-scrape', scraped, '%', await percent(SCRAPES), goal),
    cores < FLOOD_CORES
      ? missing('http-flood', flooded, '%', notEnough(cores, FLOOD_CORES), goal)
      : figure('http-flood', flooded, '%', await percent(0), goal),
  ];
}

/** By the name that `--only` takes. */
export const STATES: Readonly<
  Record<string, (conditions: StateConditions) => Promise<StateFigure[]>>
> = { start, idle, trapped, interrupts, garbage, http, foreign, 'two-reactors': secondReactor };
