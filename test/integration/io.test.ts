/** What is written is read: random commands of all sizes and alignments from several queues at once, on every kind of bdev. */
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { type AnyTarget, startTarget } from '../helpers/any-target.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB } from '../helpers/target.ts';

const DISK = 32 * MIB;

async function hammer(t: Test, target: AnyTarget, bdev: string, blockSize: number) {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const client = await target.connect(await target.serve(bdev));
  const pairs = [
    await client.createQueuePair(1, 64),
    await client.createQueuePair(2, 5),
    await client.createQueuePair(3, 256),
  ];
  const pool = new PagePool(random).add(client.memory);
  const copy = new Uint8Array(DISK);
  const load = { pairs, nsid: 1, blockSize, copy, pool, random };
  await runWorkload({ ...load, workers: 4, commands: 40 });
  await runWorkload({ ...load, workers: 16, commands: 20, maxBytes: 64 * 1024 });
  t.pass('every byte was as it should be');
  return copy;
}

for (const blockSize of [512, 4096]) {
  t.test(`memory, blocks of ${blockSize}`, async (t) => {
    const target = await startTarget(t, { reactors: 2 });
    await hammer(t, target, await target.malloc(DISK, blockSize), blockSize);
  });

  for (const direct of [false, true]) {
    t.test(`a file, blocks of ${blockSize}${direct ? ', O_DIRECT' : ''}`, async (t) => {
      const target = await startTarget(t, { reactors: 2 });
      const path = target.image(DISK);
      const bdev = await target.file(path, { blockSize, direct });
      const copy = await hammer(t, target, bdev, blockSize);
      t.ok(readFileSync(path).equals(copy), 'the file holds what was written');
    });
  }
}
