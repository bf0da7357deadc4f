/** What `npm run bench` measures, as data: loads with their yardsticks and goals, and curves of loads. */
import type { Load } from './load.ts';
import type { Yardstick } from './yardsticks.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;

/** `direct`: a file with O_DIRECT. */
export type BdevKind = 'null' | 'ram' | 'file' | 'direct';

/** A bound for a median. */
export interface Goal {
  /** `ratio`: of the yardstick. `added`: microseconds over the yardstick's. */
  readonly metric: 'iops' | 'ratio' | 'addedP50' | 'addedP99_9';
  readonly atLeast?: number;
  readonly atMost?: number;
}

export interface Scenario {
  readonly name: string;
  readonly bdev: BdevKind;
  readonly load: Load;
  readonly yardstick: Yardstick;
  /** Times the commands; the others measure only how many there are. */
  readonly latency?: true;
  readonly goals: readonly Goal[];
}

const small = (op: Load['op'], depth: number): Load => ({
  ...{ op, depth, random: true, blockSize: 4 * KIB },
});
const large = (blockSize: number, depth: number): Load => ({
  ...{ op: 'read', depth, random: false, blockSize },
});
const iops = (atLeast: number): Goal => ({ metric: 'iops', atLeast });
const ratio = (atLeast: number): Goal => ({ metric: 'ratio', atLeast });

export const SCENARIOS: readonly Scenario[] = [
  ...(
    [
      [1, 2.5e6],
      [32, 8e6],
      [128, 12e6],
    ] as const
  ).map(
    ([depth, goal]): Scenario => ({
      name: `null-read-4k-${depth}`,
      bdev: 'null',
      load: small('read', depth),
      yardstick: 'echo',
      goals: [iops(goal)],
    }),
  ),
  {
    name: 'null-read-128k-32',
    bdev: 'null',
    load: large(128 * KIB, 32),
    yardstick: 'echo',
    goals: [],
  },
  {
    name: 'null-latency',
    bdev: 'null',
    load: small('read', 1),
    yardstick: 'echo',
    latency: true,
    goals: [
      { metric: 'addedP50', atMost: 0.4 },
      { metric: 'addedP99_9', atMost: 2 },
    ],
  },
  ...([1, 32, 128] as const).map(
    (depth): Scenario => ({
      name: `ram-read-4k-${depth}`,
      bdev: 'ram',
      load: small('read', depth),
      yardstick: 'copy',
      goals: [ratio(0.7)],
    }),
  ),
  {
    name: 'ram-write-4k-32',
    bdev: 'ram',
    load: small('write', 32),
    yardstick: 'copy',
    goals: [ratio(0.7)],
  },
  {
    name: 'ram-read-128k-32',
    bdev: 'ram',
    load: large(128 * KIB, 32),
    yardstick: 'copy',
    goals: [ratio(0.9)],
  },
  ...(['read', 'write'] as const).map(
    (op): Scenario => ({
      name: `file-${op}-4k-32`,
      bdev: 'file',
      load: small(op, 32),
      yardstick: 'fio',
      goals: [ratio(0.95)],
    }),
  ),
  {
    name: 'file-read-4k-1',
    bdev: 'file',
    load: small('read', 1),
    yardstick: 'fio',
    goals: [],
  },
  ...(
    [
      [128 * KIB, 32, '128k'],
      [MIB, 8, '1m'],
    ] as const
  ).map(
    ([bytes, depth, size]): Scenario => ({
      name: `file-read-${size}-${depth}`,
      bdev: 'file',
      load: large(bytes, depth),
      yardstick: 'fio',
      goals: [ratio(0.97)],
    }),
  ),
  {
    name: 'direct-read-4k-1',
    bdev: 'direct',
    load: small('read', 1),
    yardstick: 'fio-direct',
    goals: [],
  },
  ...(['read', 'write'] as const).map(
    (op): Scenario => ({
      name: `direct-${op}-4k-32`,
      bdev: 'direct',
      load: small(op, 32),
      yardstick: 'fio-direct',
      goals: [ratio(1)],
    }),
  ),
];

/** A load in which one thing varies. */
export interface Curve {
  readonly name: string;
  readonly title: string;
  /** What varies, and its values. */
  readonly axis: string;
  readonly values: readonly number[];
  readonly bdev: 'null' | 'ram';
  readonly load: (value: number) => Load;
  /** What is drawn. */
  readonly unit: 'iops' | 'bytes';
}

/** So that depth and count together stay the same: commands in flight. */
const IN_FLIGHT = 64;

export const CURVES: readonly Curve[] = [
  {
    name: 'depth',
    title: 'null bdev, random reads of 4 KiB, one queue pair',
    axis: 'depth',
    values: [1, 2, 4, 8, 16, 32, 64, 128, 256],
    bdev: 'null',
    load: (depth) => small('read', depth),
    unit: 'iops',
  },
  {
    name: 'queue-pairs',
    title: `null bdev, random reads of 4 KiB, ${IN_FLIGHT} in flight`,
    axis: 'queue pairs',
    values: [1, 2, 4, 8, 16],
    bdev: 'null',
    load: (queuePairs) => ({ ...small('read', IN_FLIGHT / queuePairs), queuePairs }),
    unit: 'iops',
  },
  {
    name: 'controllers',
    title: `null bdev, random reads of 4 KiB, ${IN_FLIGHT} in flight on one reactor`,
    axis: 'controllers',
    values: [1, 2, 4, 8, 16, 32, 64],
    bdev: 'null',
    load: (controllers) => ({ ...small('read', IN_FLIGHT / controllers), controllers }),
    unit: 'iops',
  },
  {
    name: 'namespaces',
    title: 'null bdevs, random reads of 4 KiB, depth 32',
    axis: 'namespaces',
    values: [1, 2, 4, 8, 16, 32],
    bdev: 'null',
    load: (namespaces) => ({ ...small('read', 32), namespaces }),
    unit: 'iops',
  },
  {
    name: 'regions',
    title: 'RAM bdev, random reads of 4 KiB, depth 32, buffers spread over DMA regions',
    axis: 'DMA regions',
    values: [1, 4, 16, 64, 256, 1024, 4096],
    bdev: 'ram',
    load: (regions) => ({ ...small('read', 32), regions }),
    unit: 'iops',
  },
  {
    name: 'transfer-size',
    title: 'RAM bdev, sequential reads, depth 32',
    axis: 'bytes a command',
    values: [512, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024].map((size, i) =>
      i === 0 ? size : size * KIB,
    ),
    bdev: 'ram',
    load: (blockSize) => large(blockSize, 32),
    unit: 'bytes',
  },
];
