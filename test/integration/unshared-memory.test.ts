/** Hosts that keep their memory to themselves: queues, lists, data and completions go by messages. */
import assert from 'node:assert/strict';
import t from 'tap';
import type { NvmeClientOptions } from '../../src/client/nvme.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const UNSHARED: NvmeClientOptions = { shareMemory: false, memoryBytes: 16 * MIB };

t.test('Identify, queues, and commands', async (t) => {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.malloc(4 * MIB));
  const client = await target.connect(served, UNSHARED);
  t.equal((await client.identifyController()).vid, 0x4e58);
  t.equal((await client.identifyNamespace(1)).nsze, (4 * MIB) / 512);
});

for (const [name, options] of [
  ['mapped doorbells, polled', {}],
  ['doorbells by messages, interrupts', { mapDoorbells: false, interrupts: true }],
] as const) {
  t.test(`random verified I/O: ${name}`, async (t) => {
    const target = await TestTarget.start(t, { reactors: 2 });
    const disks = [await target.malloc(4 * MIB), await target.file(target.image(4 * MIB))];
    const client = await target.connect(await target.serve(...disks), { ...UNSHARED, ...options });
    const random = new Random();
    t.comment(`seed ${random.seed}`);
    const pairs = [await client.createQueuePair(1, 16), await client.createQueuePair(2, 64, 7)];
    const pool = new PagePool(random).add(client.memory, 3500);
    for (const nsid of [1, 2]) {
      const copy = new Uint8Array(4 * MIB);
      const load = { pairs, workers: 4, nsid, blockSize: 512, copy, pool, random };
      await runWorkload({ ...load, commands: 40 });
    }
    await client.deleteQueuePair(2);
    await client.enable();
    assert.equal((await client.identifyController()).vid, 0x4e58);
  });
}
