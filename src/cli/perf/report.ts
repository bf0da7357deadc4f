/** What `doorbell perf` says at the end: the report as JSON, whose schema is here, as a table, and as a histogram's log. */
import { build, type Histogram, HistogramLogWriter } from 'hdr-histogram-js';
import { type Static, Type } from 'typebox';
import { Latencies } from '../../client/latencies.ts';
import type { WorkloadPart, WorkloadResult } from '../../client/workload.ts';
import type { WorkloadOptions } from '../../client/workload-options.ts';
import type { WorkloadController } from '../../client/workload-target.ts';
import { VERSION } from '../../util/version.ts';
import { binarySize } from '../size.ts';
import { formatTable } from '../table.ts';

const { Array: List, Boolean: Bool, Integer, Number: Num, Object: Shape, String: Text } = Type;
const { Null, Union } = Type;

const PERCENTILES = { p50: 50, p90: 90, p99: 99, p99_9: 99.9, p99_99: 99.99 } as const;

/** Microseconds, from a command's submission to when its completion was seen. */
const LatencySchema = Shape({
  count: Integer(),
  mean: Num(),
  min: Num(),
  p50: Num(),
  p90: Num(),
  p99: Num(),
  p99_9: Num(),
  p99_99: Num(),
  max: Num(),
});

const DirectionSchema = Shape({
  commands: Integer(),
  iops: Num(),
  bytesPerSecond: Num(),
  /** null if nothing was timed. */
  latencyUs: Union([LatencySchema, Null()]),
});

/** The document that `doorbell perf --json` prints. */
export const PerfReportSchema = Shape({
  doorbell: Text({ description: 'version of this program' }),
  controllers: List(
    Shape({
      socket: Text(),
      model: Text(),
      serial: Text(),
      firmware: Text(),
      namespaces: List(Shape({ nsid: Integer(), lbaBytes: Integer(), lbas: Integer() })),
      read: DirectionSchema,
      write: DirectionSchema,
      total: DirectionSchema,
    }),
  ),
  load: Shape({
    depth: Integer(),
    queuePairs: Integer(),
    queueEntries: Integer(),
    blockSize: Integer(),
    random: Bool(),
    reads: Num({ description: 'share of reads' }),
    size: Integer({ description: 'bytes of each namespace; 0: all' }),
    rate: Num({ description: 'commands a second at most; 0: no bound' }),
    regions: Integer(),
    verify: Bool(),
    seed: Integer(),
  }),
  cpu: Union([Integer(), Null()], { description: 'where the load generator ran' }),
  seconds: Num({ description: 'measured' }),
  wantedSeconds: Num({ description: 'asked for' }),
  interrupted: Bool({ description: 'by a signal, before that time was over' }),
  lost: Union([Text(), Null()], { description: 'why a target is gone; null: none is' }),
  read: DirectionSchema,
  write: DirectionSchema,
  total: DirectionSchema,
  verified: Integer({ description: 'reads whose data was compared' }),
  collections: Integer({
    description: 'garbage collections of the load generator while it measured',
  }),
});

export type PerfReport = Static<typeof PerfReportSchema>;
export type DirectionReport = Static<typeof DirectionSchema>;

/** The same records at 3 significant digits. A bucket's records count as its upper end, as HdrHistogram itself does. Nanoseconds. */
export function toHdr(latencies: Latencies): Histogram {
  const histogram = build({
    highestTrackableValue: 2 ** 48,
    numberOfSignificantValueDigits: 3,
    bitBucketSize: 64,
  });
  for (const { to, count } of latencies.buckets()) {
    histogram.recordValueWithCount(Math.min(to - 1, latencies.max), count);
  }
  return histogram;
}

function direction(
  commands: number,
  latencies: Latencies,
  { seconds, blockSize }: { seconds: number; blockSize: number },
): DirectionReport {
  const iops = seconds > 0 ? commands / seconds : 0;
  const result = { commands, iops, bytesPerSecond: iops * blockSize };
  if (latencies.count === 0) {
    return { ...result, latencyUs: null };
  }
  const histogram = toHdr(latencies);
  const { count, mean, min, max } = latencies;
  // A bucket of HdrHistogram may end above the largest value in it.
  const at = (percentile: number): number =>
    Math.min(histogram.getValueAtPercentile(percentile), max) / 1000;
  return {
    ...result,
    latencyUs: {
      ...{ count, mean: mean / 1000, min: min / 1000, max: max / 1000 },
      p50: at(PERCENTILES.p50),
      p90: at(PERCENTILES.p90),
      p99: at(PERCENTILES.p99),
      p99_9: at(PERCENTILES.p99_9),
      p99_99: at(PERCENTILES.p99_99),
    },
  };
}

/** What else a report tells of a run. */
export interface Circumstances {
  readonly cpu: number | null;
  readonly collections: number;
  readonly wantedSeconds: number;
  readonly interrupted: boolean;
}

function directions(
  part: WorkloadPart,
  all: { seconds: number; blockSize: number },
): Pick<PerfReport, 'read' | 'write' | 'total'> {
  const { reads, writes, readLatencies, writeLatencies } = part;
  const both = new Latencies();
  both.add(readLatencies);
  both.add(writeLatencies);
  return {
    read: direction(reads, readLatencies, all),
    write: direction(writes, writeLatencies, all),
    total: direction(reads + writes, both, all),
  };
}

export function makeReport(
  options: WorkloadOptions,
  controllers: readonly WorkloadController[],
  result: WorkloadResult,
  { cpu, collections, wantedSeconds, interrupted }: Circumstances,
): PerfReport {
  const { depth, queuePairs, queueEntries, blockSize, random, reads } = options;
  const { size, rate, regions, verify, seed } = options;
  const { seconds, lost = null } = result;
  const all = { seconds, blockSize };
  return {
    doorbell: VERSION,
    controllers: controllers.map(({ namespaces, ...rest }, i) => ({
      ...rest,
      namespaces: [...namespaces],
      ...directions(result.sockets[i], all),
    })),
    load: {
      depth,
      queuePairs,
      queueEntries,
      blockSize,
      random,
      reads,
      size,
      rate,
      regions,
      verify,
      seed,
    },
    cpu,
    seconds,
    wantedSeconds,
    interrupted,
    lost,
    ...directions(result, all),
    verified: result.verified,
    collections,
  };
}

const grouped = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/** A latency with about three digits that mean something. */
function us(value: number): string {
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : grouped.format(value);
}

function row(name: string, report: DirectionReport): string[] {
  const { iops, bytesPerSecond, latencyUs } = report;
  const rates = [name, grouped.format(iops), (bytesPerSecond / 2 ** 20).toFixed(1)];
  if (latencyUs === null) {
    return rates;
  }
  const { mean, p50, p90, p99, p99_9, p99_99, max } = latencyUs;
  return [...rates, ...[mean, p50, p90, p99, p99_9, p99_99, max].map(us)];
}

/** What was measured, in a line. */
function describeLoad({
  load,
  controllers,
  seconds,
  interrupted,
  lost,
  wantedSeconds,
}: PerfReport) {
  const { random, reads, blockSize, depth, queuePairs, rate } = load;
  const word = reads === 1 ? 'read' : reads === 0 ? 'write' : 'rw';
  const mix = word === 'rw' ? ` (${Math.round(100 * reads)} % reads)` : '';
  const queues = queuePairs === 1 ? '' : ` in each of ${queuePairs} queues`;
  const sockets = controllers.length === 1 ? '' : ` of ${controllers.length} sockets`;
  const cut = interrupted ? 'interrupted' : lost === null ? undefined : 'the target was lost';
  return [
    `${random ? 'rand' : ''}${word}${mix}`,
    `${binarySize(blockSize)}`,
    `depth ${depth}${queues}${sockets}`,
    ...(rate > 0 ? [`at most ${grouped.format(rate)} commands/s`] : []),
    `${seconds.toFixed(1)} s${cut === undefined ? '' : ` of ${wantedSeconds} s: ${cut}`}`,
  ].join(', ');
}

/** What was measured; read, write, and both if there were both; each socket if there are several; latencies in µs. Lines. */
export function perfTable(report: PerfReport): string[] {
  const titles = ['IOPS', 'MiB/s', 'mean µs', 'p50', 'p90', 'p99', 'p99.9', 'p99.99', 'max'];
  const columns = [{ title: '' }, ...titles.map((title) => ({ title, align: 'right' }) as const)];
  const rows = (['read', 'write'] as const)
    .filter((name) => report[name].commands > 0)
    .map((name) => row(name, report[name]));
  if (rows.length !== 1) {
    rows.push(row('total', report.total));
  }
  if (report.controllers.length > 1) {
    rows.push(...report.controllers.map(({ socket, total }) => row(socket, total)));
  }
  return [describeLoad(report), ...formatTable(columns, rows)];
}

/** In HdrHistogram's log format, tagged `read` and `write`, with nanoseconds as unit: for its plotters and analyzers. */
export function histogramLog(result: WorkloadResult): string {
  let text = '';
  const writer = new HistogramLogWriter((part) => {
    text += part;
  });
  writer.outputComment(`[doorbell perf ${VERSION}; latencies in ns]`);
  writer.outputLogFormatVersion();
  writer.outputLegend();
  for (const [tag, latencies] of [
    ['read', result.readLatencies],
    ['write', result.writeLatencies],
  ] as const) {
    if (latencies.count > 0) {
      const histogram = toHdr(latencies);
      histogram.tag = tag;
      writer.outputIntervalHistogram(histogram, 0, result.seconds, 1);
    }
  }
  return text;
}
