/** What a figure is held against, measured in the same run: queues that somebody merely answers, a plain copy, fio. */
import { spawnSync } from 'node:child_process';
import type { CopyOptions, CopyReport } from './copy.ts';
import type { EchoOptions, EchoReport } from './echo.ts';
import { type Conditions, type Load, QUEUE_ENTRIES, runYardstick } from './load.ts';

export type Yardstick = 'echo' | 'copy' | 'fio' | 'fio-direct';

export interface YardstickFigure {
  readonly iops: number;
  /** Microseconds, if the yardstick tells. */
  readonly latencyUs?: { readonly p50: number; readonly p99_9: number };
}

export interface YardstickPlace {
  /** Bytes of the RAM bdev. */
  readonly ramBytes: number;
  /** The file behind the file bdev. */
  readonly file: string;
}

/** Runs it once; undefined if it is not installed. */
export function runFor(
  yardstick: Yardstick,
  load: Load,
  conditions: Conditions,
  place: YardstickPlace,
): Promise<YardstickFigure | undefined> {
  switch (yardstick) {
    case 'echo':
      return echo(load, conditions);
    case 'copy':
      return copy(load, conditions, place.ramBytes);
    case 'fio':
      return Promise.resolve(fio(load, conditions, place.file, false));
    case 'fio-direct':
      return Promise.resolve(fio(load, conditions, place.file, true));
  }
}

async function echo({ depth }: Load, conditions: Conditions): Promise<YardstickFigure> {
  const { seconds, warmup, clientCpu, reactorCpu, latency } = conditions;
  const options: EchoOptions = {
    ...{ depth, seconds, warmup, clientCpu, latency },
    entries: Math.max(QUEUE_ENTRIES, depth + 1),
    echoCpu: reactorCpu,
  };
  const { iops, latencies } = (await runYardstick('echo', options)) as EchoReport;
  const total = latencies.reduce((sum, [, count]) => sum + count, 0);
  const at = (share: number): number => {
    let seen = 0;
    const bucket = latencies.find(([, count]) => {
      seen += count;
      return seen >= share * total;
    });
    return (bucket?.[0] ?? Number.NaN) / 1000;
  };
  return { iops, ...(latency && { latencyUs: { p50: at(0.5), p99_9: at(0.999) } }) };
}

async function copy(load: Load, conditions: Conditions, from: number): Promise<YardstickFigure> {
  const { seconds, reactorCpu: cpu } = conditions;
  const { blockSize: bytes, depth: batch, random } = load;
  const options: CopyOptions = { bytes, from, batch, random, seconds, cpu };
  return (await runYardstick('copy', options)) as CopyReport;
}

/** io_uring, registered files and buffers, batches, on the reactor's processor. */
function fio(
  load: Load,
  { seconds, reactorCpu }: Conditions,
  file: string,
  direct: boolean,
): YardstickFigure | undefined {
  const options = {
    name: 'yardstick',
    filename: file,
    rw: `${load.random ? 'rand' : ''}${load.op}`,
    bs: load.blockSize,
    iodepth: load.depth,
    ioengine: 'io_uring',
    registerfiles: 1,
    fixedbufs: 1,
    direct: direct ? 1 : 0,
    invalidate: 0,
    norandommap: 1,
    randrepeat: 0,
    time_based: 1,
    runtime: `${Math.round(seconds * 1000)}ms`,
    cpus_allowed: reactorCpu,
    iodepth_batch_submit: Math.min(32, load.depth),
    iodepth_batch_complete_max: Math.min(32, load.depth),
    'output-format': 'json',
  };
  const args = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  const run = spawnSync('fio', args, { encoding: 'utf8' });
  if (run.error !== undefined && 'code' in run.error && run.error.code === 'ENOENT') {
    return undefined;
  }
  if (run.status !== 0) {
    throw new Error(`fio failed: ${run.stderr || run.stdout}`);
  }
  const job = JSON.parse(run.stdout.slice(run.stdout.indexOf('{'))).jobs[0];
  return { iops: job[load.op].iops };
}
