/** The bench's arithmetic, tables and charts, over results that are made up here. */
import t from 'tap';
import { curveChart, ratioChart } from '../../bench/charts.ts';
import { judge, type ScenarioResult } from '../../bench/measure.ts';
import { rates, sample } from '../../bench/process.ts';
import {
  type BenchResults,
  comparison,
  curveTable,
  quantity,
  scenarioTable,
  stateTable,
} from '../../bench/report.ts';
import { CURVES, SCENARIOS } from '../../bench/scenarios.ts';
import { median, quantile } from '../../bench/stats.ts';
import { formatTable } from '../../src/cli/table.ts';

t.test('medians and quantiles', async (t) => {
  t.equal(median([3, 1, 2]), 2);
  t.equal(median([4, 1, 3, 2]), 2.5);
  t.ok(Number.isNaN(median([])) && Number.isNaN(quantile([], 0.5)));
  const hundred = Array.from({ length: 100 }, (_, i) => 100 - i);
  t.strictSame(
    [0, 0.5, 0.99, 1].map((q) => quantile(hundred, q)),
    [1, 50, 99, 100],
  );
});

t.test('tables are as wide as their cells', async (t) => {
  const columns = [{ title: 'name' }, { title: 'n', align: 'right' }] as const;
  t.strictSame(formatTable(columns, [['a', '100'], ['longer']]), [
    'name      n',
    'a       100',
    'longer',
  ]);
  t.strictSame([0, 12.345, 999, 9999, 45_678, 1_234_567, 234e6].map(quantity), [
    '0',
    '12.3',
    '999',
    '9999',
    '45.7 k',
    '1.23 M',
    '234 M',
  ]);
});

const scenario: ScenarioResult = {
  name: 'null-latency',
  yardstick: 'echo',
  iops: 2e6,
  yardstickIops: 4e6,
  ratio: 0.5,
  latencyUs: { p50: 0.5, p99_9: 4 },
  yardstickLatencyUs: { p50: 0.25, p99_9: 1 },
  collections: 0,
  goals: [],
  runs: [1e6, 2e6, 3e6],
  yardstickRuns: [4e6, 4e6, 4e6],
};

t.test('a goal is met or missed, or nobody knows', async (t) => {
  t.match(judge({ metric: 'iops', atLeast: 2e6 }, scenario), { value: 2e6, met: true });
  t.match(judge({ metric: 'ratio', atLeast: 0.51 }, scenario), { value: 0.5, met: false });
  t.match(judge({ metric: 'addedP50', atMost: 0.4 }, scenario), { value: 0.25, met: true });
  t.match(judge({ metric: 'addedP99_9', atMost: 2 }, scenario), { value: 3, met: false });
  const { ratio: _, ...alone } = scenario;
  t.strictSame(judge({ metric: 'ratio', atLeast: 1 }, alone), { metric: 'ratio', atLeast: 1 });
  const judged = {
    ...scenario,
    goals: [judge({ metric: 'iops', atLeast: 3e6 }, scenario), { metric: 'ratio', atLeast: 1 }],
  } as ScenarioResult;
  const [, line] = scenarioTable([judged]);
  t.match(
    line,
    /^null-latency +2 M +1 M to 3 M +0\.50 of echo +0\.50 \/ 4\.00 +0\.25 \/ 1\.00 +≥ 3 M IOPS \(missed\), ≥ 1$/,
  );
});

t.test('state figures', async (t) => {
  const figures = [
    { name: 'start', what: 'to start', unit: 'ms', value: 1060.4, atMost: 500, met: false },
    { name: 'two', what: 'two of them', unit: '×', missing: 'not enough cores', atLeast: 1.8 },
  ];
  t.match(stateTable(figures).slice(1), [
    /^start +1060 ms +to start +≤ 500 ms \(missed\)$/,
    /^two +not enough cores +two of them +≥ 1.8 ×$/,
  ]);
});

const [curve] = CURVES;
const result = {
  name: curve.name,
  points: [
    { value: 1, iops: 1e6, bytesPerSecond: 4096e6 },
    { value: 32, iops: 5e6, bytesPerSecond: 20480e6 },
  ],
};

t.test('curves as a table and as a chart', async (t) => {
  t.match(curveTable(curve, result), [/^depth +IOPS +MiB\/s$/, /^1 +1 M +3906$/, /^32 +5 M/]);
  const svg = curveChart(curve, result);
  t.match(svg, /^<svg [\s\S]*<\/svg>$/);
  t.match(svg, curve.title);
  t.match(svg, />32<\/text>/);
  const size = CURVES.find(({ unit }) => unit === 'bytes')!;
  const points = [{ value: 131_072, iops: 1e5, bytesPerSecond: 13e9 }];
  t.match(curveTable(size, { name: size.name, points })[1], /^128 Ki +100 k/);
  t.match(curveChart(size, { name: size.name, points }), />128 Ki</);
});

t.test('ratios as a chart', async (t) => {
  const { ratio: _, ...alone } = scenario;
  const svg = ratioChart([scenario, { ...alone, name: 'no-yardstick' }]);
  t.match(svg, /^<svg [\s\S]*null-latency[\s\S]*<\/svg>$/);
  t.notMatch(svg, /no-yardstick/);
  t.match(svg, />0\.5</);
});

t.test('a comparison has what both have, and marks what changed', async (t) => {
  const results = (scale: number, value: number): BenchResults => ({
    machine: {
      ...{ cpu: 'CPU', cores: 2, kernel: '6.1', node: 'v20', doorbell: '0', time: '' },
      commit: 'abc',
    },
    runs: 1,
    seconds: 1,
    scenarios: [{ ...scenario, iops: scenario.iops * scale }],
    curves: [
      { ...result, points: result.points.map((point) => ({ ...point, iops: point.iops * scale })) },
    ],
    states: [{ name: 'start', what: '', unit: 'ms', value }],
  });
  const { curves, ...now } = results(1.5, 400);
  t.match(comparison({ ...now, curves: curves.slice(0, 1) }, results(1, 410)), [
    'against abc on CPU:',
    /then +now +change/,
    /^null-latency +2 M +3 M +\+50 % ! +0.50 +0.50 +\+0 %$/,
    /^depth 1 +1 M +1.5 M +\+50 % !$/,
    /^depth 32 /,
    /^start +410 +400 +-2 %$/,
  ]);
  t.equal(
    comparison({ ...now, curves: [], states: [] }, { ...results(1, 1), scenarios: [] }).length,
    2,
  );
});

t.test('every scenario has a name of its own', async (t) => {
  const names = [...SCENARIOS, ...CURVES].map(({ name }) => name);
  t.equal(new Set(names).size, names.length);
});

t.test('a process that works has processor time', async (t) => {
  const before = sample(process.pid);
  while (sample(process.pid).time - before.time < 50e6) {
    // Work.
  }
  const after = sample(process.pid);
  const { cpu } = rates(before, after);
  t.ok(cpu > 0 && cpu <= 16, `${cpu} of a processor`);
  t.equal(rates(before, after, () => false).cpu, 0);
  t.ok(after.resident > after.residentOwn && after.residentOwn > 2 ** 20);
  t.throws(() => sample(2 ** 30), { code: 'ENOENT' });
});
