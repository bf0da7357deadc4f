/** Resets of all kinds: queues go, nothing of the old ones is touched any more, the controller starts anew. NVMe Base 2.0 §3.7. */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Cc, Csts, Register } from '../../src/spec/registers.ts';
import { PciRegion } from '../../src/spec/vfio-user.ts';
import { code } from '../helpers/admin.ts';
import { onlyOurs, startTarget } from '../helpers/any-target.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { offset } = Register;
const { READ, WRITE, FLUSH } = NvmOpcode;

/** PCI Express capability: where it is, and of its registers. */
async function pciExpress(client: NvmeClient): Promise<number> {
  const config = await client.vfio.regionRead(PciRegion.CONFIG, 0, 256);
  for (let at = config[0x34]; at !== 0; at = config[at + 1]) {
    if (config[at] === 0x10) {
      return at;
    }
  }
  throw new Error('no PCI Express capability');
}

const RESETS: Readonly<Record<string, (client: NvmeClient) => Promise<void>>> = {
  'controller reset': (client) => client.disable(),
  'vfio-user DEVICE_RESET': (client) => client.vfio.reset(),
  'function level reset': async (client) => {
    const { CONFIG } = PciRegion;
    const at = (await pciExpress(client)) + 8;
    const control = await client.vfio.regionRead(CONFIG, at, 2);
    await client.vfio.regionWrite(CONFIG, at, Uint8Array.of(control[0], control[1] | 0x80));
    const after = await client.vfio.regionRead(CONFIG, at, 2);
    assert.equal(after[1] & 0x80, 0, 'the bit reads as 0');
  },
};

t.test('function level reset is offered', async (t) => {
  const target = await startTarget(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const at = await pciExpress(client);
  const capabilities = await client.vfio.regionRead(PciRegion.CONFIG, at + 4, 4);
  t.equal(capabilities[3] & 0x10, 0x10, 'bit 28 of the device capabilities');
});

/** Words of a queue pair's memory that are not what they were filled with. */
function touched({ place }: QueuePair): number {
  return [...place.sq, ...place.cq].filter((word) => word !== -1).length;
}

for (const [name, reset] of Object.entries(RESETS)) {
  t.test(`${name}: queues go`, async (t) => {
    const target = await startTarget(t, { reactors: 2 });
    const client = await target.connect(await target.serve(await target.malloc(MIB)));
    const asq = await client.vfio.regionRead(PciRegion.BAR0, offset.aqa, 20);
    const pairs = [await client.createQueuePair(1, 16), await client.createQueuePair(2, 16)];
    for (const pair of pairs) {
      assert.equal((await pair.execute({ opcode: FLUSH, nsid: 1 })).status, 0);
    }
    await reset(client);
    t.equal(await client.readRegister(offset.csts), 0);
    t.equal(await client.readRegister(offset.cc), 0);
    const kept = await client.vfio.regionRead(PciRegion.BAR0, offset.aqa, 20);
    if (name === 'controller reset') {
      t.same(kept, asq, 'AQA, ASQ and ACQ stay');
    } else {
      t.ok(
        kept.every((byte) => byte === 0),
        'AQA, ASQ and ACQ go',
      );
    }
    const doorbells = client.admin.place.doorbells!;
    for (const pair of [client.admin, ...pairs]) {
      pair.place.sq.fill(-1);
      pair.place.cq.fill(-1);
      Atomics.store(doorbells, 2 * pair.place.qid, 5);
      Atomics.store(doorbells, 2 * pair.place.qid + 1, 3);
    }
    await client.enable();
    const again = await client.createQueuePair(1, 8);
    for (let i = 0; i < 20; i++) {
      t.strictSame(await again.execute({ opcode: FLUSH, nsid: 1 }), { status: 0, dw0: 0 });
    }
    t.strictSame(pairs.map(touched), [0, 0], 'the old queues are not touched');
    const { status } = await client.admin.execute({ opcode: AdminOpcode.DELETE_IO_SQ, cdw10: 2 });
    t.equal(code({ status }), '1/01', 'queue 2 is gone');
  });

  t.test(`${name}: commands under way`, { skip: onlyOurs || noFuse }, async (t) => {
    const disk = await FuseDisk.mount(t, MIB);
    const target = await TestTarget.start(t);
    const client = await target.connect(await target.serve(await target.pinning(disk.path)));
    const pair = await client.createQueuePair(1, 16);
    const buffer = client.memory.allocate(4096);
    const bytes = client.memory.bytes(buffer, 4096);
    pair.setBuffer(0, client.memory.iova + buffer, 0);
    await disk.behave({ hold: true });
    for (const opcode of [READ, WRITE, FLUSH]) {
      pair.push(0, opcode, 1, 0, 7);
    }
    pair.ring();
    await disk.held(2);
    let done = false;
    const over = reset(client).then(() => {
      done = true;
    });
    for (let i = 0; i < 200; i++) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    t.notOk(done, 'not over while the disk works for the old queues');
    await disk.behave({});
    await over;
    t.equal(pair.poll(), 0, 'no completion');
    bytes.fill(0x77);
    await client.enable();
    const again = await client.createQueuePair(1, 16);
    for (let i = 0; i < 20; i++) {
      assert.equal((await again.execute({ opcode: FLUSH, nsid: 1 })).status, 0);
    }
    t.ok(
      bytes.every((byte) => byte === 0x77),
      'the old buffers are not touched',
    );
    t.equal(pair.poll(), 0);
  });
}

interface Numbers {
  /** By block: the last number whose write was completed, and the last that was started. */
  readonly completed: Int32Array;
  readonly started: Int32Array;
}

/** Keeps a queue full of writes, each of a larger number than the one before on that block, until it is told to stop. */
async function writeNumbers(
  client: NvmeClient,
  pair: QueuePair,
  place: { first: number; blocks: number; number: number },
  stop: () => boolean,
): Promise<Numbers> {
  const { first, blocks, number } = place;
  const base = client.memory.allocate(blocks * 512);
  const words = new Int32Array(client.memory.buffer, base, (blocks * 512) / 4);
  const completed = new Int32Array(blocks);
  const started = new Int32Array(blocks).fill(number);
  const submit = (block: number) => {
    started[block] += 1;
    words.fill(started[block], 128 * block, 128 * (block + 1));
    pair.push(block, WRITE, 1, first + block, 0);
  };
  for (let block = 0; block < blocks; block++) {
    pair.setBuffer(block, client.memory.iova + base + 512 * block, 0);
    submit(block);
  }
  pair.ring();
  while (!stop()) {
    const count = pair.poll();
    for (let i = 0; i < count; i++) {
      assert.equal(pair.doneStatus[i], 0);
      const block = pair.doneIds[i];
      completed[block] = started[block];
      submit(block);
    }
    if (count > 0) {
      pair.ring();
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  return { completed, started };
}

async function resetUnderLoad(t: Test, kind: 'malloc' | 'file', reset: (c: NvmeClient) => unknown) {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const target = await startTarget(t, { reactors: 2 });
  const bdev = kind === 'malloc' ? await target.malloc(MIB) : await target.file(target.image(MIB));
  const client = await target.connect(await target.serve(bdev));
  for (let round = 0; round < 15; round++) {
    let stopped = false;
    const pairs = [await client.createQueuePair(1, 32), await client.createQueuePair(2, 32)];
    const loads = pairs.map((pair, i) => {
      const place = { first: 31 * i, blocks: 31, number: 1_000_000 * round };
      return writeNumbers(client, pair, place, () => stopped);
    });
    for (let turns = random.below(60); turns >= 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    const over = reset(client);
    stopped = true;
    const numbers = await Promise.all(loads);
    await over;
    await client.enable();
    // Each block holds the number whose write was completed, or one that was started after it.
    const check = await client.createQueuePair(3, 8);
    const buffer = client.memory.allocate(512);
    const words = new Int32Array(client.memory.buffer, buffer, 128);
    for (const [i, { completed, started }] of numbers.entries()) {
      for (let block = 0; block < 31; block++) {
        const prp1 = client.memory.iova + buffer;
        const read = { opcode: READ, nsid: 1, prp1, cdw10: 31 * i + block };
        assert.equal((await check.execute(read)).status, 0);
        const value = words[0];
        assert.ok(words.every((word) => word === value));
        assert.ok(value >= completed[block], 'completed data is there');
        assert.ok(value <= started[block]);
      }
    }
    await client.deleteQueuePair(3);
  }
  t.pass('what was completed is there');
  return { target, client };
}

for (const kind of ['malloc', 'file'] as const) {
  for (const [name, reset] of Object.entries(RESETS)) {
    t.test(`${name} under load, on ${kind}`, async (t) => {
      const { client } = await resetUnderLoad(t, kind, reset);
      const random = new Random();
      const pool = new PagePool(random).add(client.memory, 512);
      const pairs = [await client.createQueuePair(1, 16)];
      const copy = new Uint8Array(MIB);
      const pair = pairs[0];
      const zeros = client.memory.allocate(4096);
      for (let block = 0; block < 2048; block += 8) {
        const prp1 = client.memory.iova + zeros;
        const write = { opcode: WRITE, nsid: 1, prp1, cdw10: block, cdw12: 7 };
        assert.equal((await pair.execute(write)).status, 0);
      }
      const load = { pairs, nsid: 1, blockSize: 512, copy, pool, random };
      await runWorkload({ ...load, workers: 4, commands: 20, maxBytes: 65536 });
      t.equal(await client.readRegister(offset.csts), Csts.mask.rdy);
    });
  }
}

t.test('a reset while admin commands wait', { skip: onlyOurs || noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.pinning(disk.path)));
  for (let round = 0; round < 5; round++) {
    const pair = await client.createQueuePair(1, 16);
    await disk.behave({ hold: true });
    pair.setBuffer(0, client.memory.iova + client.memory.allocate(4096), 0);
    pair.push(0, READ, 1, 0, 7);
    pair.ring();
    await disk.held(1);
    const waiting = [
      client.admin.execute({ opcode: AdminOpcode.DELETE_IO_SQ, cdw10: 1 }),
      client.admin.execute({ opcode: AdminOpcode.DELETE_IO_CQ, cdw10: 1 }),
      client.admin.execute({ opcode: AdminOpcode.CREATE_IO_CQ, cdw10: 0x000f_0001 }),
    ].map((promise) => t.rejects(promise, /reset/));
    t.equal((await client.admin.execute({ opcode: AdminOpcode.KEEP_ALIVE })).status, 0);
    await client.readRegister(offset.csts);
    await client.writeRegister(offset.cc, 0);
    t.equal(await client.readRegister(offset.csts), Csts.mask.rdy, 'the reset waits, too');
    await disk.behave({});
    await client.enable();
    await Promise.all(waiting);
    t.equal((await client.identifyController()).vid, 0x4e58);
  }
});

t.test('a shutdown makes the data durable, and a reset takes its notice back', async (t) => {
  const target = await startTarget(t);
  const client = await target.connect(await target.serve(await target.file(target.image(MIB))));
  const cc = await client.readRegister(offset.cc);
  await client.writeRegister(offset.cc, cc | Cc.encode({ shn: 1 }));
  await client.vfio.reset();
  t.equal(await client.readRegister(offset.csts), 0);
  await client.enable();
  t.equal((await client.identifyController()).vid, 0x4e58);
});
