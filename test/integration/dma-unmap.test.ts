/** DMA_UNMAP: answered when nothing uses the memory any more, after which nothing touches it. vfio-user: DMA_UNMAP. */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { AdminOpcode, CQE_SIZE, SQE_SIZE, Status } from '../../src/spec/nvme.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { createPair, room } from '../helpers/queues.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const PAGE = 4096;
/** Away from the client's own memory. */
const IOVA = 0x4000_0000;

/** Memory of its own, mapped for the device. */
async function mapped(t: Test, client: NvmeClient, size: number, iova = IOVA) {
  const memory = new ClientMemory(size, iova);
  t.teardown(() => memory.close());
  await client.vfio.dmaMap({ iova, size: memory.size, fd: memory.fd });
  return memory;
}

/** Many commands of another client go their way through the same reactors and the same main thread. */
async function otherWork(other: NvmeClient): Promise<void> {
  const pair = await other.createQueuePair(1, 16);
  for (let i = 0; i < 50; i++) {
    assert.equal((await pair.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 })).status, 0);
  }
  await other.deleteQueuePair(1);
}

function isPending(promise: Promise<unknown>): Promise<boolean> {
  const marker = {};
  return Promise.race([promise, Promise.resolve(marker)]).then((first) => first === marker);
}

for (const opcode of [NvmOpcode.READ, NvmOpcode.WRITE]) {
  for (const all of [false, true]) {
    const name = `${opcode === NvmOpcode.READ ? 'a read' : 'a write'} under way`;
    t.test(
      `${name}, ${all ? 'all regions' : 'its region'} unmapped`,
      { skip: noFuse },
      async (t) => {
        const disk = await FuseDisk.mount(t, MIB);
        const target = await TestTarget.start(t);
        const served = await target.serve(await target.file(disk.path));
        const other = await target.connect(await target.serve(await target.malloc(MIB)));
        const client = await target.connect(served);
        const memory = await mapped(t, client, 2 * PAGE);
        const pair = await client.createQueuePair(1, 16);
        await disk.behave({ hold: true });
        const command = { opcode, nsid: 1, prp1: memory.iova, cdw10: 8, cdw12: 7 };
        const done = pair.execute(command);
        await disk.held(1);
        let answered = false;
        const unmapped = all
          ? client.vfio.dmaUnmapAll()
          : client.vfio.dmaUnmap(memory.iova, memory.size);
        void unmapped.then(() => {
          answered = true;
        });
        await otherWork(other);
        t.notOk(answered, 'not while the disk has the memory');
        await disk.behave({});
        await unmapped;
        const bytes = memory.bytes(0, memory.size).fill(0x77);
        if (!all) {
          t.strictSame(await done, { status: 0, dw0: 0 }, 'the command was completed');
          t.strictSame(
            await pair.execute(command),
            { status: Status.DATA_TRANSFER_ERROR, dw0: 0 },
            'the region is not there any more',
          );
        }
        await otherWork(other);
        t.ok(
          bytes.every((byte) => byte === 0x77),
          'nothing was touched since',
        );
      },
    );
  }
}

t.test('a reactor that gets its first queue while memory goes', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  // The admin doorbells are watched by one, the first queue is on the second, the next will be on the third.
  const target = await TestTarget.start(t, { reactors: 3 });
  const served = await target.serve(await target.file(disk.path), await target.malloc(MIB));
  const client = await target.connect(served);
  const memory = await mapped(t, client, PAGE);
  const first = await client.createQueuePair(1, 16);
  await disk.behave({ hold: true });
  const done = first.execute({ opcode: NvmOpcode.READ, nsid: 1, prp1: memory.iova });
  await disk.held(1);
  const unmapped = client.vfio.dmaUnmap(memory.iova, memory.size);
  const second = await client.createQueuePair(2, 16);
  await disk.behave({});
  await unmapped;
  t.equal((await done).status, 0);
  const read = { opcode: NvmOpcode.READ, nsid: 2, prp1: memory.iova, cdw12: 7 };
  t.equal((await second.execute(read)).status, Status.DATA_TRANSFER_ERROR, 'it does not know it');
  const again = await mapped(t, client, PAGE);
  again.bytes(0, PAGE).fill(0x33);
  const write = { ...read, opcode: NvmOpcode.WRITE };
  t.equal((await second.execute(write)).status, 0);
  again.bytes(0, PAGE).fill(0);
  t.equal((await second.execute(read)).status, 0);
  t.ok(
    again.bytes(0, PAGE).every((byte) => byte === 0x33),
    'data comes from the new memory and goes there',
  );
});

t.test('the memory of I/O queues goes and comes back', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const memory = await mapped(t, client, 16 * PAGE);
  for (const [name, inSq, inCq] of [
    ['both', true, true],
    ['the submission queue', true, false],
    ['the completion queue', false, true],
  ] as const) {
    const pair = await createPair(client, {
      qid: 1,
      depth: 8,
      ...(inSq && { sq: room(memory, 8 * SQE_SIZE) }),
      ...(inCq && { cq: room(memory, 8 * CQE_SIZE) }),
    });
    for (let round = 0; round < 3; round++) {
      t.equal((await pair.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 })).status, 0);
      await client.vfio.dmaUnmap(memory.iova, memory.size);
      const waiting = Array.from({ length: 5 }, () =>
        pair.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 }),
      );
      await client.identifyController();
      const pending = await Promise.all(waiting.map(isPending));
      t.ok(pending.every(Boolean), `${name}: the queue rests`);
      await client.vfio.dmaMap({ iova: memory.iova, size: memory.size, fd: memory.fd });
      const statuses = (await Promise.all(waiting)).map(({ status }) => status);
      t.strictSame(statuses, [0, 0, 0, 0, 0], `${name}: the queue goes on`);
    }
    await client.deleteQueuePair(1);
  }
});

t.test('the memory of the admin queue goes and comes back', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const { memory } = client;
  for (let round = 0; round < 3; round++) {
    await client.vfio.dmaUnmap(memory.iova, memory.size);
    const waiting = client.admin.execute({ opcode: AdminOpcode.KEEP_ALIVE });
    await client.readRegister(0);
    t.ok(await isPending(waiting), 'the queue rests');
    await client.vfio.dmaMap({ iova: memory.iova, size: memory.size, fd: memory.fd });
    t.strictSame(await waiting, { status: 0, dw0: 0 }, 'the queue goes on');
  }
});

t.test('an admin command outlasts the memory of its queue', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.file(disk.path)));
  const { memory } = client;
  const pair = await client.createQueuePair(1, 16);
  await disk.behave({ hold: true });
  const read = { opcode: NvmOpcode.READ, nsid: 1, prp1: memory.iova + memory.allocate(PAGE) };
  const done = pair.execute(read);
  await disk.held(1);
  // Waits for the read; and its completion for the memory.
  const deleted = client.admin.execute({ opcode: AdminOpcode.DELETE_IO_SQ, cdw10: 1 });
  await client.readRegister(0);
  const unmapped = client.vfio.dmaUnmap(memory.iova, memory.size);
  await disk.behave({});
  await unmapped;
  await client.vfio.dmaMap({ iova: memory.iova, size: memory.size, fd: memory.fd });
  t.strictSame(await deleted, { status: 0, dw0: 0 });
  t.strictSame(await done, { status: 0, dw0: 0 });
});

t.test('regions come and go under load', async (t) => {
  const target = await TestTarget.start(t, { reactors: 2 });
  const bdevs = [await target.malloc(MIB), await target.file(target.image(MIB))];
  const client = await target.connect(await target.serve(...bdevs));
  const memory = new ClientMemory(8 * PAGE, IOVA);
  t.teardown(() => memory.close());
  const region = { iova: memory.iova, size: memory.size, fd: memory.fd };
  const bytes = memory.bytes(0, memory.size);
  let stopped = false;
  const seen = new Map<number, number>();
  const hammer = async (qid: number): Promise<void> => {
    const pair = await client.createQueuePair(qid, 32);
    const worker = async (i: number): Promise<void> => {
      while (!stopped) {
        const { status } = await pair.execute({
          opcode: NvmOpcode.READ,
          nsid: 1 + (i % 2),
          prp1: memory.iova + (i % 8) * PAGE,
          cdw10: 8 * i,
          cdw12: 7,
        });
        seen.set(status, (seen.get(status) ?? 0) + 1);
      }
    };
    await Promise.all(Array.from({ length: 8 }, (_, i) => worker(i)));
  };
  const load = Promise.all([hammer(1), hammer(2)]);
  for (let round = 0; round < 60; round++) {
    await client.vfio.dmaMap(region);
    const before = seen.get(0) ?? 0;
    while ((seen.get(0) ?? 0) < before + 20) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    await client.vfio.dmaUnmap(region.iova, region.size);
    bytes.fill(0x77);
    const refused = seen.get(Status.DATA_TRANSFER_ERROR) ?? 0;
    while ((seen.get(Status.DATA_TRANSFER_ERROR) ?? 0) < refused + 20) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.ok(bytes.every((byte) => byte === 0x77));
  }
  stopped = true;
  await load;
  t.strictSame([...seen.keys()].sort(), [0, Status.DATA_TRANSFER_ERROR], 'and no other status');
});
