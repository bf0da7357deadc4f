/** Runs scenarios and curves against a target: rounds of the load and its yardstick in turn. */

import { type Disks, RAM_BYTES } from './disks.ts';
import { type Conditions, runPerf } from './load.ts';
import type { Curve, Goal, Scenario } from './scenarios.ts';
import { median } from './stats.ts';
import { runFor } from './yardsticks.ts';

/** A goal and what became of it; `value` is missing if there was no yardstick. */
export interface Verdict extends Goal {
  readonly value?: number;
  readonly met?: boolean;
}

/** Microseconds. */
export interface LatencyFigure {
  readonly p50: number;
  readonly p99_9: number;
}

export interface ScenarioResult {
  readonly name: string;
  readonly yardstick: string;
  /** Medians; `ratio` is the median of the rounds' ratios. */
  readonly iops: number;
  readonly yardstickIops?: number;
  readonly ratio?: number;
  readonly latencyUs?: LatencyFigure;
  readonly yardstickLatencyUs?: LatencyFigure;
  /** Garbage collections of the client in all runs. */
  readonly collections: number;
  readonly goals: readonly Verdict[];
  readonly runs: readonly number[];
  readonly yardstickRuns: readonly number[];
}

export interface CurveResult {
  readonly name: string;
  readonly points: readonly {
    readonly value: number;
    readonly iops: number;
    readonly bytesPerSecond: number;
  }[];
}

export interface Rounds extends Conditions {
  readonly runs: number;
  /** Called before each run. */
  readonly onRun: (what: string) => void;
}

export async function measureScenario(
  disks: Disks,
  scenario: Scenario,
  rounds: Rounds,
): Promise<ScenarioResult> {
  const { name, load, yardstick } = scenario;
  const sockets = await disks.sockets(scenario.bdev, load);
  const conditions = { ...rounds, latency: scenario.latency ?? false };
  const place = { ramBytes: RAM_BYTES, file: disks.file(scenario.bdev) };
  const [runs, held]: number[][] = [[], []];
  const [latencies, heldLatencies]: LatencyFigure[][] = [[], []];
  let collections = 0;
  for (let round = 0; round < rounds.runs; round++) {
    rounds.onRun(name);
    const report = await runPerf(sockets, load, conditions);
    runs.push(report.total.iops);
    collections += report.collections;
    if (report.total.latencyUs !== null) latencies.push(report.total.latencyUs);
    rounds.onRun(`${name}: ${yardstick}`);
    const figure = await runFor(yardstick, load, conditions, place);
    if (figure !== undefined) held.push(figure.iops);
    if (figure?.latencyUs !== undefined) heldLatencies.push(figure.latencyUs);
  }
  const summary = {
    ...{ name, yardstick, runs, collections, iops: median(runs), yardstickRuns: held },
    ...(held.length > 0 && {
      yardstickIops: median(held),
      ratio: median(runs.map((iops, round) => iops / held[round])),
    }),
    ...(latencies.length > 0 && { latencyUs: medians(latencies) }),
    ...(heldLatencies.length > 0 && { yardstickLatencyUs: medians(heldLatencies) }),
  };
  return { ...summary, goals: scenario.goals.map((goal) => judge(goal, summary)) };
}

function medians(figures: readonly LatencyFigure[]): LatencyFigure {
  const of = (key: keyof LatencyFigure): number => median(figures.map((figure) => figure[key]));
  return { p50: of('p50'), p99_9: of('p99_9') };
}

type Summary = Pick<ScenarioResult, 'iops' | 'ratio' | 'latencyUs' | 'yardstickLatencyUs'>;

function figureOf(metric: Goal['metric'], summary: Summary): number | undefined {
  const { latencyUs, yardstickLatencyUs } = summary;
  const added = (key: keyof LatencyFigure): number | undefined =>
    latencyUs && yardstickLatencyUs && latencyUs[key] - yardstickLatencyUs[key];
  switch (metric) {
    case 'iops':
      return summary.iops;
    case 'ratio':
      return summary.ratio;
    case 'addedP50':
      return added('p50');
    case 'addedP99_9':
      return added('p99_9');
  }
}

/** Whether a figure reaches its goal. */
export function judge(goal: Goal, summary: Summary): Verdict {
  const value = figureOf(goal.metric, summary);
  if (value === undefined) {
    return goal;
  }
  const { atLeast = Number.NEGATIVE_INFINITY, atMost = Number.POSITIVE_INFINITY } = goal;
  return { ...goal, value, met: value >= atLeast && value <= atMost };
}

export async function measureCurve(
  disks: Disks,
  curve: Curve,
  rounds: Rounds,
): Promise<CurveResult> {
  const figures = new Map<number, number[]>(curve.values.map((value) => [value, []]));
  // Round by round over all points, so that a slow minute of the machine is no dent in the curve.
  for (let round = 0; round < rounds.runs; round++) {
    for (const [value, iops] of figures) {
      rounds.onRun(`${curve.name}: ${value}`);
      const load = curve.load(value);
      const sockets = await disks.sockets(curve.bdev, load);
      iops.push((await runPerf(sockets, load, { ...rounds, latency: false })).total.iops);
    }
  }
  const points = [...figures].map(([value, runs]) => {
    const iops = median(runs);
    return { value, iops, bytesPerSecond: iops * curve.load(value).blockSize };
  });
  return { name: curve.name, points };
}
