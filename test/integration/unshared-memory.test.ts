/** Hosts that keep their memory to themselves: queues, lists, data and completions go by messages. */
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { pino } from 'pino';
import t from 'tap';
import type { NvmeClient, NvmeClientOptions } from '../../src/client/nvme.ts';
import { native } from '../../src/native/index.ts';
import { Csts, Register } from '../../src/spec/registers.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB, type Served, TestTarget } from '../helpers/target.ts';

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
      await runWorkload({ ...load, commands: 25 });
    }
    await client.deleteQueuePair(2);
    await client.enable();
    assert.equal((await client.identifyController()).vid, 0x4e58);
  });
}

/** As QEMU with share=off: a descriptor of a file that is mapped for itself alone, and messages that say what is there. */
async function connectPrivate(target: TestTarget, served: Served): Promise<NvmeClient> {
  const client = await target.connect(served, {
    ...UNSHARED,
    enable: false,
    version: { capabilities: { max_msg_fds: 8, max_data_xfer_size: MIB, max_dma_maps: 65535 } },
  });
  const { iova, size } = client.memory;
  await client.vfio.dmaUnmapAll();
  const fd = native.memfdCreate('private', size);
  await client.vfio.dmaMap({ iova, size, fd });
  closeSync(fd);
  return client;
}

t.test('a descriptor of memory that the guest does not see', async (t) => {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => lines.push(line) });
  const target = await TestTarget.start(t, { log });
  const client = await connectPrivate(target, await target.serve(await target.malloc(4 * MIB)));
  for (let i = 0; i < 3; i++) {
    await client.enable();
    t.equal((await client.identifyController()).vid, 0x4e58);
  }
  const told = lines.filter((line) => /reached by messages, which is slow.*share=on/.test(line));
  t.equal(told.length, 1, 'the log says once that it is slow, and what helps');

  // The same client shares its memory after all.
  const { iova, size, fd } = client.memory;
  await client.disable();
  await client.vfio.dmaUnmapAll();
  await client.vfio.dmaMap({ iova, size, fd });
  let messages = 0;
  client.vfio.onDma = () => {
    messages += 1;
    return false;
  };
  await client.enable();
  t.equal((await client.identifyController()).vid, 0x4e58);
  await client.enable();
  t.equal(messages, 0, 'which nobody doubts when a command is there');
});

t.test('a client that is not known to answer messages is asked nothing', async (t) => {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.malloc(4 * MIB));
  const client = await target.connect(served, { memoryBytes: 16 * MIB, enable: false });
  client.vfio.onDma = () => t.fail('a message');
  await client.enable();
  t.equal((await client.identifyController()).vid, 0x4e58);
});

t.test('require_shared_memory', async (t) => {
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => lines.push(line) });
  const target = await TestTarget.start(t, { log, transport: { requireSharedMemory: true } });
  const served = await target.serve(await target.malloc(4 * MIB));
  const client = await connectPrivate(target, served);
  await client.enable();
  client.identifyController().catch(() => {});
  while (((await client.readRegister(Register.offset.csts)) & Csts.mask.cfs) === 0) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  t.ok(lines.some((line) => /share=on.*refused here \(require_shared_memory\)/.test(line)));
  const { iova, size, fd } = client.memory;
  await client.disable();
  await client.vfio.dmaUnmapAll();
  await client.vfio.dmaMap({ iova, size, fd });
  await client.enable();
  t.equal((await client.identifyController()).vid, 0x4e58, 'shared memory is served');
});
