/** What figures are held against, measured in the same run: a plain copy, fio, and queues that somebody merely answers. */
import { spawnSync } from 'node:child_process';
import { Worker } from 'node:worker_threads';
import { QueuePair } from '../src/client/queue-pair.ts';
import { native } from '../src/native/index.ts';
import { CQE_SIZE, SQE_SIZE } from '../src/spec/nvme.ts';
import { type Load, runLoad } from './load.ts';

/** Copies a second of pieces of `bytes` from random places of `size` bytes, as a RAM disk would, from TypeScript in batches. */
export function copyRate(bytes: number, size: number, batch: number, seconds: number): number {
  const source = new Uint8Array(native.mapAnonymous(size, true));
  source.fill(1);
  const target = new Uint8Array(native.mapAnonymous(bytes * batch));
  target.fill(1);
  const from = native.addressOf(source);
  const to = native.addressOf(target);
  const list = new Float64Array(new SharedArrayBuffer(batch * 3 * 8));
  const run = native.bindCopyBatch(list);
  const places = Math.floor(size / bytes);
  let seed = 1;
  let done = 0;
  const start = native.clock();
  const end = start + seconds * 1e9;
  let now = start;
  while (now < end) {
    for (let i = 0; i < batch; i++) {
      seed ^= seed << 13;
      seed ^= seed >>> 17;
      seed ^= seed << 5;
      list[3 * i] = to + i * bytes;
      list[3 * i + 1] = from + ((seed >>> 1) % places) * bytes;
      list[3 * i + 2] = bytes;
    }
    run(batch);
    done += batch;
    now = native.clock();
  }
  // The memory must outlive the addresses taken of it.
  if (source[0] !== target[0]) {
    throw new Error('the copy did not copy');
  }
  return done / ((now - start) / 1e9);
}

/** fio with io_uring on a file, in IOPS, on one processor; undefined without fio. */
export function fioRate(
  path: string,
  load: Load,
  cpu: number,
  direct: boolean,
): number | undefined {
  const rw = `${load.random ? 'rand' : ''}${load.op}`;
  const run = spawnSync(
    'fio',
    [
      '--name=yardstick',
      `--filename=${path}`,
      `--rw=${rw}`,
      `--bs=${load.blockSize}`,
      `--iodepth=${load.depth}`,
      '--ioengine=io_uring',
      '--registerfiles=1',
      '--fixedbufs=1',
      `--direct=${direct ? 1 : 0}`,
      '--invalidate=0',
      '--norandommap=1',
      '--randrepeat=0',
      '--time_based=1',
      `--runtime=${load.seconds}`,
      `--cpus_allowed=${cpu}`,
      '--iodepth_batch_submit=32',
      '--iodepth_batch_complete_max=32',
      '--output-format=json',
    ],
    { encoding: 'utf8' },
  );
  if (run.error !== undefined) {
    return undefined;
  }
  const job = JSON.parse(run.stdout.slice(run.stdout.indexOf('{'))).jobs[0];
  return job[load.op].iops;
}

/** The same load against a thread that answers every command at once: what client and rings can do at best. */
export async function echoRate(load: Load, cpu: number): Promise<number> {
  const depth = 1024;
  const sq = new SharedArrayBuffer(depth * SQE_SIZE);
  const cq = new SharedArrayBuffer(depth * CQE_SIZE);
  const doorbells = new SharedArrayBuffer(4096);
  const stop = new SharedArrayBuffer(4);
  const worker = new Worker(new URL('./echo.js', import.meta.url), {
    workerData: { sq, cq, doorbells, stop, depth, cpu },
  });
  await new Promise((resolve) => worker.once('message', resolve));
  const pair = new QueuePair({
    qid: 1,
    depth,
    sqIova: 0,
    cqIova: 0,
    sq: new Int32Array(sq),
    cq: new Int32Array(cq),
    interrupts: false,
    doorbells: new Int32Array(doorbells),
    writeDoorbell: () => {},
  });
  try {
    return runLoad(pair, { nsid: 1, lbaSize: 512, lbas: 1 << 20 }, load).iops;
  } finally {
    Atomics.store(new Int32Array(stop), 0, 1);
    await worker.terminate();
  }
}
