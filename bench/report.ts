/** What a bench says: tables, and what changed since a baseline. */
import { type Column, formatTable } from '../src/cli/table.ts';
import type { Machine } from './machine.ts';
import type { CurveResult, ScenarioResult, Verdict } from './measure.ts';
import type { Curve } from './scenarios.ts';
import type { StateFigure } from './state.ts';

/** The file that `npm run bench` writes, and `--compare` reads. */
export interface BenchResults {
  readonly machine: Machine;
  readonly runs: number;
  readonly seconds: number;
  readonly scenarios: readonly ScenarioResult[];
  readonly curves: readonly CurveResult[];
  readonly states: readonly StateFigure[];
}

/** About three digits, without an exponent. */
const plain = (value: number): string =>
  value >= 100 ? value.toFixed(0) : Number(value.toPrecision(3)).toString();

/** 1234567 as 1.23 M. */
export function quantity(value: number): string {
  const [divisor, unit] = value >= 1e6 ? [1e6, ' M'] : value >= 1e4 ? [1e3, ' k'] : [1, ''];
  return `${plain(value / divisor)}${unit}`;
}

/** 131072 as 128 Ki; a number that is no multiple of 1024 as it is. */
function size(value: number): string {
  const [divisor, unit] =
    value % 2 ** 20 === 0 ? [2 ** 20, ' Mi'] : value % 1024 === 0 ? [1024, ' Ki'] : [1, ''];
  return `${value / divisor}${unit}`;
}

/** A value of a curve's axis. */
export const axisValue = (curve: Pick<Curve, 'unit'>, value: number): string =>
  curve.unit === 'bytes' ? size(value) : String(value);

const columns = (...titles: string[]): Column[] =>
  titles.map((title, i) => ({ title, align: i === 0 || title === 'goal' ? 'left' : 'right' }));

const mark = (met: boolean | undefined): string =>
  met === undefined ? '' : met ? ' (met)' : ' (missed)';

function goalText({ metric, atLeast, atMost, met }: Verdict): string {
  const bound = atLeast !== undefined ? ['≥', atLeast] : (['≤', atMost ?? Number.NaN] as const);
  const [sign, value] = bound as [string, number];
  switch (metric) {
    case 'iops':
      return `${sign} ${quantity(value)} IOPS${mark(met)}`;
    case 'ratio':
      return `${sign} ${value}${mark(met)}`;
    case 'addedP50':
      return `p50 ${sign} ${value} µs more${mark(met)}`;
    case 'addedP99_9':
      return `p99.9 ${sign} ${value} µs more${mark(met)}`;
  }
}

/** A line a scenario: median, range of the runs, share of the yardstick, latencies if they were timed, goals. */
export function scenarioTable(results: readonly ScenarioResult[]): string[] {
  const rows = results.map((result) => {
    const { name, iops, runs, ratio, yardstick, latencyUs, yardstickLatencyUs } = result;
    const latency = (us: typeof latencyUs): string =>
      us === undefined ? '' : `${us.p50.toFixed(2)} / ${us.p99_9.toFixed(2)}`;
    return [
      name,
      quantity(iops),
      `${quantity(Math.min(...runs))} to ${quantity(Math.max(...runs))}`,
      ratio === undefined ? `no ${yardstick}` : `${ratio.toFixed(2)} of ${yardstick}`,
      latency(latencyUs),
      latency(yardstickLatencyUs),
      result.goals.map(goalText).join(', '),
    ];
  });
  const titles = ['scenario', 'IOPS', 'runs', 'ratio', 'µs p50 / p99.9', 'of yardstick', 'goal'];
  return formatTable(columns(...titles), rows);
}

/** A line a point. */
export function curveTable(curve: Curve, { points }: CurveResult): string[] {
  const rows = points.map(({ value, iops, bytesPerSecond }) => [
    axisValue(curve, value),
    quantity(iops),
    (bytesPerSecond / 2 ** 20).toFixed(0),
  ]);
  return formatTable(columns(curve.axis, 'IOPS', 'MiB/s'), rows);
}

export function stateTable(figures: readonly StateFigure[]): string[] {
  const rows = figures.map(({ name, what, unit, value, missing, atMost, atLeast, met }) => [
    name,
    value === undefined ? (missing ?? '') : `${plain(value)} ${unit}`.trim(),
    what,
    atMost !== undefined
      ? `≤ ${atMost} ${unit}${mark(met)}`
      : atLeast !== undefined
        ? `≥ ${atLeast} ${unit}${mark(met)}`
        : '',
  ]);
  const titles: Column[] = [
    { title: 'figure' },
    { title: 'value', align: 'right' },
    { title: 'what' },
    { title: 'goal' },
  ];
  return formatTable(titles, rows);
}

/** Changes below this are the machine's noise. */
const NOTABLE = 0.1;

function change(now: number, then: number): string {
  const share = now / then - 1;
  const text = `${share >= 0 ? '+' : ''}${(share * 100).toFixed(0)} %`;
  return Math.abs(share) < NOTABLE ? text : `${text} !`;
}

/**
 * Now against then: medians, and ratios to the yardsticks, which say more where the machine is another or busy. Only what both have.
 * `!` marks a change of 10 % or more.
 */
export function comparison(now: BenchResults, then: BenchResults): string[] {
  const rows: string[][] = [];
  for (const result of now.scenarios) {
    const before = then.scenarios.find(({ name }) => name === result.name);
    if (before === undefined) continue;
    const ratios =
      result.ratio === undefined || before.ratio === undefined
        ? ['', '', '']
        : [before.ratio.toFixed(2), result.ratio.toFixed(2), change(result.ratio, before.ratio)];
    const iops = [quantity(before.iops), quantity(result.iops), change(result.iops, before.iops)];
    rows.push([result.name, ...iops, ...ratios]);
  }
  for (const { name, points } of now.curves) {
    const before = then.curves.find((curve) => curve.name === name);
    for (const { value, iops } of points) {
      const old = before?.points.find((point) => point.value === value);
      if (old !== undefined) {
        const label = `${name} ${value}`;
        rows.push([label, quantity(old.iops), quantity(iops), change(iops, old.iops)]);
      }
    }
  }
  for (const { name, value } of now.states) {
    const old = then.states.find((state) => state.name === name)?.value;
    if (value !== undefined && old !== undefined) {
      const moved = old === 0 ? '' : change(value, old);
      rows.push([name, plain(old), plain(value), moved]);
    }
  }
  const { commit = '?', cpu } = then.machine;
  const titles = ['', 'then', 'now', 'change', 'ratio then', 'now', 'change'];
  return [`against ${commit} on ${cpu}:`, ...formatTable(columns(...titles), rows)];
}
