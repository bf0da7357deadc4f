/** `doorbell perf`: a load generator for any NVMe target on a vfio-user socket. */
import { type Command, Option } from 'commander';
import { parseSize } from '../../app/size.ts';
import { integer, parsed } from '../options.ts';

/** What `--rw` names: fio's words. */
const PATTERNS = {
  read: { random: false, reads: 1 },
  write: { random: false, reads: 0 },
  rw: { random: false, reads: undefined },
  randread: { random: true, reads: 1 },
  randwrite: { random: true, reads: 0 },
  randrw: { random: true, reads: undefined },
} as const;

interface PerfFlags {
  readonly rw: keyof typeof PATTERNS;
  readonly mix: number;
  readonly bs: number;
  readonly depth: number;
  readonly queues: number;
  readonly queueSize: number;
  readonly namespace: number[];
  readonly size: number;
  readonly time: number;
  readonly count?: number;
  readonly warmup: number;
  readonly rate: number;
  readonly verify?: true;
  readonly allowWrite?: true;
  readonly regions: number;
  readonly seed?: number;
  readonly cpu?: number;
  readonly latency: boolean;
  readonly json?: true;
  readonly histogram?: string;
}

const seconds = parsed((text: string): number => {
  const value = Number(text);
  if (!/^\d+(\.\d+)?$/.test(text) || value > 86_400) {
    throw new Error('It must be a number of seconds, at most 86400.');
  }
  return value;
});

const blockSize = parsed((text: string): number => {
  const bytes = /^\d+$/.test(text) ? Number(text) : parseSize(text);
  if (bytes < 512 || bytes % 512 !== 0) {
    throw new Error('It must be a multiple of 512 bytes, for example 512, 4K or 1M.');
  }
  return bytes;
});

const option = <T>(flags: string, text: string, parse: (text: string) => T, value: T) =>
  new Option(flags, text).argParser(parse).default(value);

/** Adds `perf` to the program. */
export function addPerf(program: Command): void {
  program
    .command('perf')
    .description(
      'Measure an NVMe target on vfio-user sockets, ours or another, with a client that polls. ' +
        'A socket that has a VM already is not to be disturbed.',
    )
    .argument('<socket...>', 'vfio-user sockets, a controller each')
    .addOption(
      new Option('--rw <pattern>', 'what to do').choices(Object.keys(PATTERNS)).default('randread'),
    )
    .addOption(option('--mix <percent>', 'reads of rw and randrw', integer(0, 100), 70))
    .addOption(option('--bs <size>', 'bytes of a command', blockSize, 4096))
    .addOption(option('--depth <n>', 'commands in flight a queue pair', integer(1, 4095), 32))
    .addOption(option('--queues <n>', 'queue pairs a controller', integer(1, 65_535), 1))
    .addOption(option('--queue-size <n>', 'entries of a queue, at least', integer(2, 65_536), 256))
    .addOption(
      new Option('--namespace <id>', 'use this one; may be repeated')
        .argParser((text: string, ids: number[]) => [...ids, integer(1, 0xffff_fffe)(text)])
        .default([], 'all'),
    )
    .addOption(
      new Option('--size <size>', 'of each namespace, use the first bytes')
        .argParser(parsed(parseSize))
        .default(0, 'all'),
    )
    .addOption(option('--time <seconds>', 'how long to measure', seconds, 10))
    .addOption(
      new Option('--count <n>', 'end after so many commands').argParser(integer(1, 2 ** 48)),
    )
    .addOption(option('--warmup <seconds>', 'load before that is measured', seconds, 1))
    .addOption(option('--rate <iops>', 'commands a second at most (0: any)', integer(0, 1e9), 0))
    .option('--verify', 'write a pattern, compare what is read, and at the end read all of it')
    .option('--allow-write', 'overwrite what is on the namespaces')
    .addOption(
      option('--regions <n>', 'spread the buffers over so many DMA regions', integer(1, 8192), 1),
    )
    .addOption(new Option('--seed <n>', 'of places and pattern').argParser(integer(1, 2 ** 31 - 1)))
    .addOption(
      new Option(
        '--cpu <n>',
        'run on this CPU (default: one where the target does not poll)',
      ).argParser(integer(0, 4095)),
    )
    .option('--no-latency', 'do not time the commands')
    .option('-j, --json', 'print the report as JSON')
    .option('--histogram <file>', "write the latencies in HdrHistogram's log format")
    .addHelpText(
      'after',
      `
Examples:
  doorbell perf /run/doorbell/cntrl                                  random reads of 4 KiB, depth 32
  doorbell perf /run/doorbell/cntrl --depth 1 --time 30              latencies
  doorbell perf /run/doorbell/cntrl --rw randrw --verify --allow-write --size 1G

Latencies run from a command's submission to when the client sees its completion.`,
    )
    .action(async (sockets: string[], flags: PerfFlags) => {
      const { random, reads = flags.mix / 100 } = PATTERNS[flags.rw];
      const { runPerf } = await import('../perf/run.ts');
      process.exitCode = await runPerf({
        load: {
          sockets,
          namespaces: flags.namespace,
          queuePairs: flags.queues,
          depth: flags.depth,
          queueEntries: flags.queueSize,
          blockSize: flags.bs,
          random,
          reads,
          size: flags.size,
          verify: flags.verify ?? false,
          rate: flags.rate,
          regions: flags.regions,
          latency: flags.latency,
          seed: flags.seed ?? Math.ceil(Math.random() * (2 ** 31 - 1)),
        },
        allowWrite: flags.allowWrite ?? false,
        cpu: flags.cpu,
        warmup: flags.warmup,
        seconds: flags.time,
        commands: flags.count ?? Number.POSITIVE_INFINITY,
        json: flags.json ?? false,
        histogram: flags.histogram,
      });
    });
}
