/**
 * `npm run bench`: IOPS of one reactor under the project's own client in another process, each figure as a ratio to a yardstick of the
 * same run. Options: `--runs N`, `--seconds S`, `--only null|malloc|file`, `--file PATH` (for the file bdev; made if absent).
 * Prints a table, and writes bench/results/io.json.
 */
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { NvmeClient } from '../src/client/nvme.ts';
import { native } from '../src/native/index.ts';
import { type Load, prepareBuffers, runLoad } from './load.ts';
import { type BenchTarget, startTarget } from './target.ts';
import { copyRate, echoRate, fioRate } from './yardsticks.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    only: { type: 'string' },
    file: { type: 'string', default: join(process.cwd(), 'bench-file.img') },
  },
});
const runs = Number(values.runs);
const seconds = Number(values.seconds);
const KIB = 1024;
const MIB = KIB * KIB;
const FILE_BYTES = 512 * MIB;
const MAX_DEPTH = 128;

interface Row {
  readonly bdev: string;
  readonly load: string;
  readonly yardstick: string;
  readonly iops: number[];
  readonly yardstickIops: number[];
}

const rows: Row[] = [];

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

function name(load: Load): string {
  const size =
    load.blockSize >= MIB ? `${load.blockSize / MIB} MiB` : `${load.blockSize / KIB} KiB`;
  return `${load.random ? 'random' : 'sequential'} ${load.op} ${size}, depth ${load.depth}`;
}

type Yardstick = (load: Load) => Promise<number | undefined> | number | undefined;

/** Runs each load `runs` times, in turn with its yardstick, over one queue pair to a bdev. */
async function measure(
  target: BenchTarget,
  bdev: { name: string; lbaSize: number; lbas: number },
  loads: readonly Load[],
  yardstick: { name: string; run: Yardstick },
): Promise<void> {
  const socket = await target.serve(bdev.name);
  for (const load of loads) {
    const row: Row = {
      bdev: bdev.name,
      load: name(load),
      yardstick: yardstick.name,
      iops: [],
      yardstickIops: [],
    };
    for (let run = 0; run < runs; run++) {
      const memoryBytes = load.depth * (load.blockSize + 8 * KIB) + 2 * MIB;
      const client = await NvmeClient.connect(socket, { memoryBytes });
      const pair = await client.createQueuePair(1, 1024);
      prepareBuffers(client, pair, load.depth, load.blockSize);
      const geometry = { nsid: 1, lbaSize: bdev.lbaSize, lbas: bdev.lbas };
      runLoad(pair, geometry, { ...load, seconds: 0.3 });
      row.iops.push(runLoad(pair, geometry, load).iops);
      client.close();
      const held = await yardstick.run(load);
      if (held !== undefined) {
        row.yardstickIops.push(held);
      }
    }
    rows.push(row);
    print(row);
  }
}

function print({ bdev, load, yardstick, iops, yardstickIops }: Row): void {
  const figure = median(iops);
  const held = yardstickIops.length > 0 ? median(yardstickIops) : undefined;
  const ratio =
    held === undefined ? 'no yardstick' : `${(figure / held).toFixed(2)} of ${yardstick}`;
  const text = `${(figure / 1e6).toFixed(3)} M IOPS`;
  process.stdout.write(`${bdev.padEnd(8)} ${load.padEnd(34)} ${text.padStart(14)}   ${ratio}\n`);
}

const allowed = native.getAffinity();
const [reactorCpu, clientCpu] = allowed.length > 1 ? allowed : [allowed[0], allowed[0]];

const small = (op: Load['op'], depth: number): Load => ({
  depth,
  blockSize: 4 * KIB,
  op,
  random: true,
  seconds,
});
const large = (blockSize: number, depth: number): Load => ({
  ...small('read', depth),
  blockSize,
  random: false,
});

function makeFile(path: string): void {
  const fd = openSync(path, 'w');
  const chunk = Buffer.alloc(MIB, 0x5a);
  for (let at = 0; at < FILE_BYTES; at += MIB) {
    writeSync(fd, chunk);
  }
  closeSync(fd);
}

const target = await startTarget({ cpus: [reactorCpu] });
// Only now: a child inherits what its parent may use.
native.setAffinity([clientCpu]);
try {
  const wanted = (bdev: string): boolean => values.only === undefined || values.only === bdev;
  if (wanted('null')) {
    await target.rpc('bdev_null_create', { name: 'null', num_blocks: 1 << 28, block_size: 512 });
    await measure(
      target,
      { name: 'null', lbaSize: 512, lbas: 1 << 28 },
      [small('read', 1), small('read', 32), small('read', MAX_DEPTH)],
      { name: 'an echo thread', run: (load) => echoRate(load, reactorCpu) },
    );
  }
  if (wanted('malloc')) {
    const bytes = 256 * MIB;
    await target.rpc('bdev_malloc_create', {
      name: 'malloc',
      num_blocks: bytes / 512,
      block_size: 512,
    });
    await measure(
      target,
      { name: 'malloc', lbaSize: 512, lbas: bytes / 512 },
      [
        small('write', 32),
        small('read', 1),
        small('read', 32),
        small('read', MAX_DEPTH),
        large(128 * KIB, 32),
      ],
      {
        name: 'a plain copy',
        run: ({ blockSize, depth }) => copyRate(blockSize, bytes, depth, Math.min(seconds, 1)),
      },
    );
  }
  if (wanted('file')) {
    const path = values.file ?? join(tmpdir(), 'doorbell-bench.img');
    makeFile(path);
    await target.rpc('bdev_aio_create', { name: 'file', filename: path, block_size: 512 });
    await measure(
      target,
      { name: 'file', lbaSize: 512, lbas: FILE_BYTES / 512 },
      [
        small('read', 32),
        small('write', 32),
        small('read', 1),
        large(128 * KIB, 32),
        large(MIB, 8),
      ],
      { name: 'fio', run: (load) => fioRate(path, load, reactorCpu, false) },
    );
    rmSync(path);
  }
} finally {
  await target.stop();
}
mkdirSync('bench/results', { recursive: true });
writeFileSync('bench/results/io.json', `${JSON.stringify({ runs, seconds, rows }, null, 2)}\n`);
