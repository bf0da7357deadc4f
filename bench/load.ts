/** What a bench measures, and the processes that do it: `doorbell perf` and the yardsticks. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { PerfReport } from '../src/cli/perf/report.ts';

const run = promisify(execFile);
const CLI = fileURLToPath(new URL('../src/cli/doorbell.js', import.meta.url));

export interface Load {
  readonly op: 'read' | 'write';
  readonly random: boolean;
  /** Bytes of a command. */
  readonly blockSize: number;
  /** Commands in flight a queue pair. */
  readonly depth: number;
  /** Queue pairs a controller; 1 by default, as are the others. */
  readonly queuePairs?: number;
  readonly controllers?: number;
  readonly namespaces?: number;
  /** DMA regions over which the client's buffers are spread. */
  readonly regions?: number;
}

/** How long and where. */
export interface Conditions {
  readonly seconds: number;
  readonly warmup: number;
  readonly clientCpu: number;
  readonly reactorCpu: number;
  /** Time the commands. */
  readonly latency: boolean;
}

/** Entries of the client's queues, of which it uses as many as there are commands in flight. */
export const QUEUE_ENTRIES = 256;

/** Runs one of our programs; resolves with what it printed as JSON. */
export async function runNode(script: string, args: readonly string[]): Promise<unknown> {
  const { stdout } = await run(process.execPath, [script, ...args], { maxBuffer: 2 ** 26 });
  return JSON.parse(stdout);
}

/** Runs a program of this folder that takes its options as JSON. */
export function runYardstick(name: string, options: unknown): Promise<unknown> {
  const script = fileURLToPath(new URL(`./${name}.js`, import.meta.url));
  return runNode(script, [JSON.stringify(options)]);
}

/** Writes to a disk from end to end, so that its memory is there: what was never written is read from one page of zeros. */
export async function fillDisk(socket: string, bytes: number): Promise<void> {
  const blockSize = 2 ** 20;
  const load = ['--rw', 'write', '--allow-write', '--bs', String(blockSize), '--depth', '4'];
  const run = ['--count', String(Math.ceil(bytes / blockSize)), '--warmup', '0', '--time', '600'];
  await runNode(CLI, ['perf', socket, '--json', ...load, ...run]);
}

/** Puts a load on vfio-user sockets. */
export async function runPerf(
  sockets: readonly string[],
  load: Load,
  { seconds, warmup, clientCpu, latency }: Conditions,
): Promise<PerfReport> {
  const option = (name: string, value: number): string[] => [`--${name}`, String(value)];
  return (await runNode(CLI, [
    'perf',
    ...sockets,
    ...['--json', '--rw', `${load.random ? 'rand' : ''}${load.op}`, '--allow-write'],
    ...option('bs', load.blockSize),
    ...option('depth', load.depth),
    ...option('queues', load.queuePairs ?? 1),
    ...option('queue-size', QUEUE_ENTRIES),
    ...option('regions', load.regions ?? 1),
    ...option('time', seconds),
    ...option('warmup', warmup),
    ...option('cpu', clientCpu),
    ...(latency ? [] : ['--no-latency']),
  ])) as PerfReport;
}
