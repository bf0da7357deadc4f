/** DMA_UNMAP: answered when nothing uses the memory any more, after which nothing touches it. vfio-user: DMA_UNMAP. */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { CQE_SIZE, SQE_SIZE, Status } from '../../src/spec/nvme.ts';
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
        const served = await target.serve(await target.pinning(disk.path));
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
  const served = await target.serve(await target.pinning(disk.path), await target.malloc(MIB));
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
  const client = await target.connect(await target.serve(await target.pinning(disk.path)));
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

t.test('a range takes away what lies wholly inside it', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const pair = await client.createQueuePair(1, 16);
  const memories = [];
  for (let i = 0; i < 4; i++) {
    memories.push(await mapped(t, client, 2 * PAGE, IOVA + i * 4 * PAGE));
  }
  // Without a descriptor, in the room between the first two.
  await client.vfio.dmaMap({ iova: IOVA + 2 * PAGE, size: 2 * PAGE });
  const read = async (iova: number) =>
    (await pair.execute({ opcode: NvmOpcode.READ, nsid: 1, prp1: iova, cdw12: 7 })).status;
  const cuts = [
    [IOVA, PAGE],
    [IOVA + PAGE, 8 * PAGE],
    [IOVA + 3 * PAGE, PAGE],
    [IOVA, 3 * PAGE],
  ];
  for (const [iova, size] of cuts) {
    await t.rejects(client.vfio.dmaUnmap(iova, size), { code: 'EINVAL' }, 'it would cut one');
  }
  for (const { iova } of memories) {
    t.equal(await read(iova), 0, 'and nothing changes');
  }
  t.equal(await client.vfio.dmaUnmap(IOVA, 8 * PAGE), 6 * PAGE);
  t.equal(await client.vfio.dmaUnmap(IOVA, 8 * PAGE), 0, 'there is nothing any more');
  for (const [i, memory] of memories.entries()) {
    const expected = i < 2 ? Status.DATA_TRANSFER_ERROR : 0;
    t.equal(await read(memory.iova), expected);
    memory.bytes(0, memory.size).fill(0x77);
  }
  t.equal(await client.vfio.dmaUnmap(IOVA + 8 * PAGE, 2 ** 20), 4 * PAGE, 'a wide range');
  await client.vfio.dmaMap({ iova: IOVA, size: 64 * PAGE });
  t.equal(await client.vfio.dmaUnmap(IOVA, 2 ** 64 - IOVA), 64 * PAGE + client.memory.size);
  for (const memory of memories) {
    t.ok(memory.bytes(0, memory.size).every((byte) => byte === 0x77));
  }
});

t.test('what was taken away in one message is not written to for the next', async (t) => {
  const target = await TestTarget.start(t, { reactors: 2 });
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const pair = await client.createQueuePair(1, 16);
  // As QEMU with a vIOMMU: page by page, taken away together, and given to other memory.
  const before = new ClientMemory(8 * PAGE);
  const after = new ClientMemory(8 * PAGE);
  t.teardown(() => [before, after].map((memory) => memory.close()));
  for (const memory of [before, after]) {
    for (let offset = 0; offset < memory.size; offset += PAGE) {
      await client.vfio.dmaMap({ iova: IOVA + offset, size: PAGE, fd: memory.fd, offset });
    }
    if (memory === before) {
      t.equal(await client.vfio.dmaUnmap(IOVA, memory.size), memory.size);
    }
  }
  const identify = { opcode: AdminOpcode.IDENTIFY, prp1: IOVA, cdw10: 1 };
  t.equal((await client.admin.execute(identify)).status, 0);
  const fill = after.bytes(PAGE, PAGE).fill(0x55);
  const io = { nsid: 1, prp1: IOVA + PAGE, cdw12: 7 };
  t.equal((await pair.execute({ ...io, opcode: NvmOpcode.WRITE })).status, 0);
  fill.fill(0);
  t.equal((await pair.execute({ ...io, opcode: NvmOpcode.READ })).status, 0);
  t.ok(
    fill.every((byte) => byte === 0x55),
    'data comes from the new memory and goes there',
  );
  t.ok(after.bytes(0, PAGE).some(Boolean), 'Identify, too');
  t.ok(
    before.bytes(0, before.size).every((byte) => byte === 0),
    'and not to the old',
  );
});

t.test('one range with commands under way in several regions', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.pinning(disk.path)));
  const memories = [];
  for (let i = 0; i < 3; i++) {
    memories.push(await mapped(t, client, PAGE, IOVA + i * 4 * PAGE));
  }
  const pair = await client.createQueuePair(1, 16);
  await disk.behave({ hold: true });
  const done = memories.map(({ iova }, i) =>
    pair.execute({ opcode: NvmOpcode.READ, nsid: 1, prp1: iova, cdw10: 8 * i, cdw12: 7 }),
  );
  await disk.held(3);
  let answered = false;
  const unmapped = client.vfio.dmaUnmap(IOVA, 1 << 20).then((bytes) => {
    answered = true;
    return bytes;
  });
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.notOk(answered, 'not while the disk has the memory');
  await disk.behave({});
  t.equal(await unmapped, 3 * PAGE);
  for (const memory of memories) {
    memory.bytes(0, PAGE).fill(0x77);
  }
  t.strictSame(
    (await Promise.all(done)).map(({ status }) => status),
    [0, 0, 0],
  );
  for (const memory of memories) {
    t.ok(memory.bytes(0, PAGE).every((byte) => byte === 0x77));
  }
});

t.test('all memory in one range, under every queue and the shadow doorbells', async (t) => {
  const transport = { disableMappableBar0: true, shadowDoorbells: true };
  const target = await TestTarget.start(t, { transport });
  const served = await target.serve(await target.malloc(MIB));
  const client = await target.connect(served, { shadowDoorbells: true });
  const extra = await mapped(t, client, 16 * PAGE);
  const pairs = [await client.createQueuePair(1, 16), await client.createQueuePair(2, 16)];
  const { memory } = client;
  for (let round = 0; round < 3; round++) {
    t.equal(await client.vfio.dmaUnmap(0, 2 ** 63), memory.size + extra.size);
    const waiting = [
      ...pairs.map((queue) => queue.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 })),
      client.admin.execute({ opcode: AdminOpcode.KEEP_ALIVE }),
    ];
    await client.readRegister(0);
    t.ok((await Promise.all(waiting.map(isPending))).every(Boolean), 'all rest');
    for (const { iova, size, fd } of [extra, memory]) {
      await client.vfio.dmaMap({ iova, size, fd });
    }
    const statuses = (await Promise.all(waiting)).map(({ status }) => status);
    t.strictSame(statuses, [0, 0, 0], 'all go on');
  }
});

t.test('8,000 regions come and go faster than a VMM gives up', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const other = await target.connect(await target.serve(await target.malloc(MIB)));
  const pair = await other.createQueuePair(1, 16);
  let stopped = false;
  const load = (async () => {
    let done = 0;
    for (; !stopped; done += 1) {
      assert.equal((await pair.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 })).status, 0);
    }
    return done;
  })();
  // Every other page, so that no two are neighbours.
  const [count, step] = [8000, 2 * PAGE];
  const memory = new ClientMemory(count * step);
  t.teardown(() => memory.close());
  for (let offset = 0; offset < memory.size; offset += step) {
    await client.vfio.dmaMap({ iova: IOVA + offset, size: PAGE, fd: memory.fd, offset });
  }
  const timed = async (name: string, action: () => Promise<unknown>) => {
    const start = performance.now();
    await action();
    const ms = performance.now() - start;
    // QEMU's patience for a message; alone it takes a tenth of a second.
    t.ok(ms < 5000, `${name}: ${ms.toFixed()} ms`);
  };
  await timed('a reactor gets to know them', () => client.createQueuePair(1, 16));
  const last = { opcode: AdminOpcode.IDENTIFY, cdw10: 1, prp1: IOVA + memory.size - step };
  t.equal((await client.admin.execute(last)).status, 0);
  await timed('all of them unmapped', async () => {
    t.equal(await client.vfio.dmaUnmap(IOVA, memory.size), count * PAGE);
  });
  stopped = true;
  t.ok((await load) > 0, 'others go on');
});
