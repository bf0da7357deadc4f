/**
 * `npm run bench:flush`: databases' load on one file. Several writers, each of which makes every write of 4 KiB durable before the next: by a Flush, or
 * by a write with FUA. Beside it, in turn, fio with as many jobs that call fdatasync after each write. Options after `--`:
 *
 *   --jobs N           writers (8), each with a queue pair of its own
 *   --runs N           of each (5)
 *   --seconds S        of a run (2)
 *   --file PATH        a file that does not exist, on the disk to be measured (bench/results/flush.img)
 *
 * Prints durable writes a second, and their ratio to fio's; writes bench/results/flush.json.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatTable } from '../src/cli/table.ts';
import { NvmeClient } from '../src/client/nvme.ts';
import { native } from '../src/native/index.ts';
import { NvmOpcode, RangeDword12 } from '../src/spec/nvm.ts';
import { describeMachine } from './machine.ts';
import { quantity } from './report.ts';
import { MIB } from './scenarios.ts';
import { median } from './stats.ts';
import { startTarget } from './target.ts';

const FOLDER = 'bench/results';
const FILE_BYTES = 128 * MIB;
const BLOCK_SIZE = 512;
const WRITE_BYTES = 4096;
const WRITE_BLOCKS = WRITE_BYTES / BLOCK_SIZE;

type Way = 'flush' | 'fua' | 'fio';

const { values } = parseArgs({
  options: {
    jobs: { type: 'string', default: '8' },
    runs: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    file: { type: 'string', default: join(FOLDER, 'flush.img') },
  },
});
const jobs = Number(values.jobs);
const runs = Number(values.runs);
const seconds = Number(values.seconds);
if (!(Number.isInteger(jobs) && jobs > 0 && Number.isInteger(runs) && runs > 0 && seconds > 0)) {
  throw new Error('--jobs, --runs and --seconds are numbers above 0');
}

/** Durable writes a second of all writers. */
async function write(socket: string, fua: boolean): Promise<number> {
  const client = await NvmeClient.connect(socket, { memoryBytes: MIB });
  const pairs = await Promise.all(
    Array.from({ length: jobs }, (_, job) => client.createQueuePair(job + 1, 8)),
  );
  const places = FILE_BYTES / WRITE_BYTES;
  const end = performance.now() + seconds * 1000;
  let writes = 0;
  await Promise.all(
    pairs.map(async (pair) => {
      const prp1 = client.memory.iova + client.memory.allocate(WRITE_BYTES);
      const execute = async (command: Parameters<typeof pair.execute>[0]): Promise<void> => {
        const { status } = await pair.execute(command);
        if (status !== 0) {
          throw new Error(`a command failed with status ${status.toString(16)}h`);
        }
      };
      while (performance.now() < end) {
        const cdw10 = Math.floor(Math.random() * places) * WRITE_BLOCKS;
        const cdw12 = (WRITE_BLOCKS - 1) | (fua ? RangeDword12.mask.fua : 0);
        await execute({ opcode: NvmOpcode.WRITE, nsid: 1, prp1, cdw10, cdw12 });
        if (!fua) {
          await execute({ opcode: NvmOpcode.FLUSH, nsid: 1 });
        }
        writes += 1;
      }
    }),
  );
  await client.disable();
  client.close();
  return writes / seconds;
}

/** The same by fio; undefined if it is not installed. */
function fio(): number | undefined {
  const options = {
    ...{ name: 'yardstick', filename: values.file, rw: 'randwrite', bs: WRITE_BYTES },
    ...{ ioengine: 'psync', fdatasync: 1, numjobs: jobs, group_reporting: 1, norandommap: 1 },
    ...{ time_based: 1, runtime: `${Math.round(seconds * 1000)}ms`, randrepeat: 0 },
  };
  const args = Object.entries(options).map(([key, value]) => `--${key}=${value}`);
  const { status, stdout } = spawnSync('fio', [...args, '--output-format=json'], {
    encoding: 'utf8',
  });
  return status === 0 ? JSON.parse(stdout).jobs[0].write.iops : undefined;
}

mkdirSync(FOLDER, { recursive: true });
const fd = openSync(values.file, 'wx');
const [cpu] = native.getAffinity();
const target = await startTarget({ cpus: [cpu] });
const figures: Record<Way, number[]> = { flush: [], fua: [], fio: [] };
try {
  const chunk = Buffer.alloc(MIB, 0x5a);
  for (let at = 0; at < FILE_BYTES; at += MIB) {
    writeSync(fd, chunk);
  }
  closeSync(fd);
  // The target locks what it serves, so each takes its turn with the file.
  for (let run = 0; run < runs; run++) {
    const name = `flush${run}`;
    const held = { name, filename: values.file, block_size: BLOCK_SIZE };
    await target.rpc('bdev_uring_create', held);
    const socket = await target.serve(name);
    figures.flush.push(await write(socket, false));
    figures.fua.push(await write(socket, true));
    await target.rpc('bdev_uring_delete', { name });
    const figure = fio();
    figures.fio.push(...(figure === undefined ? [] : [figure]));
  }
} finally {
  await target.stop();
  rmSync(values.file, { force: true });
}
const rows = (['flush', 'fua'] as const).map((way) => {
  const own = figures[way];
  const ratio = median(own.map((figure, run) => figure / figures.fio[run]));
  return [
    way === 'fua' ? 'write with FUA' : 'write, then Flush',
    quantity(median(own)),
    figures.fio.length === runs ? `${ratio.toFixed(2)} of fio` : 'no fio',
  ];
});
const titles = [`${jobs} writers`, 'durable writes a second', 'ratio'];
const columns = titles.map((title, i) => ({ title, align: i === 0 ? 'left' : 'right' }) as const);
process.stdout.write(`${formatTable(columns, rows).join('\n')}\n`);
const file = { machine: describeMachine(), jobs, runs, seconds, figures };
writeFileSync(join(FOLDER, 'flush.json'), `${JSON.stringify(file, undefined, 2)}\n`);
process.exit();
