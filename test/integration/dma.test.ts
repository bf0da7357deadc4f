/** Guest memory in many pieces: regions of all sizes, queues and buffers that span them, what is not mapped or only read. */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { native } from '../../src/native/index.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { CQE_SIZE, SQE_SIZE, Status } from '../../src/spec/nvme.ts';
import { startTarget } from '../helpers/any-target.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { createPair, type Room } from '../helpers/queues.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB } from '../helpers/target.ts';

const PAGE = 4096;
const IOVA = 0x4000_0000;
const { READ, WRITE, FLUSH } = NvmOpcode;

async function map(t: Test, client: NvmeClient, size: number, iova: number, writable = true) {
  const memory = new ClientMemory(size, iova);
  t.teardown(() => memory.close());
  await client.vfio.dmaMap({ iova, size: memory.size, fd: memory.fd, writable });
  return memory;
}

/** One room over several memories that follow each other in IOVA space, from an offset in the first on. */
function across(memories: readonly ClientMemory[], offset: number, bytes: number): Room {
  const views = memories.map((memory) => memory.bytes(0, memory.size));
  const buffer = native.mapAlias(
    Float64Array.from(views, (view) => native.addressOf(view)),
    Float64Array.from(memories, ({ size }) => size),
  );
  return { iova: memories[0].iova + offset, words: new Int32Array(buffer, offset, bytes / 4) };
}

t.test('buffers, PRP lists and queues all over many regions', async (t) => {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const target = await startTarget(t, { reactors: 2 });
  const disk = 16 * MIB;
  const bdevs = [
    await target.malloc(disk),
    await target.file(target.image(disk), { direct: true }),
  ];
  const client = await target.connect(await target.serve(...bdevs), { memoryBytes: MIB });
  const memories: ClientMemory[] = [];
  for (let i = 0, iova = 2 ** 36; i < 100; i++) {
    const size = PAGE * (i < 16 ? 1 : random.size(256));
    memories.push(await map(t, client, size, iova));
    // Some touch the one before, some lie terabytes away.
    iova +=
      size + (i < 16 || random.chance(0.3) ? 0 : PAGE * random.pick([1, 7, 2 ** 18, 2 ** 32]));
  }
  const span = memories.slice(0, 16);
  const pairs = [
    await createPair(client, {
      qid: 1,
      depth: 300,
      sq: across(span, PAGE, 300 * SQE_SIZE),
      cq: across(span, 6 * PAGE, 300 * CQE_SIZE),
    }),
    await createPair(client, {
      qid: 2,
      depth: 64,
      cqDepth: 1000,
      sq: across(span, 8 * PAGE, 64 * SQE_SIZE),
      cq: across(span, 9 * PAGE, 1000 * CQE_SIZE),
    }),
  ];
  const pool = new PagePool(random);
  for (const memory of memories.slice(16)) {
    pool.add(memory);
  }
  const copies = bdevs.map(() => new Uint8Array(disk));
  const work = async (commands: number) => {
    for (const [i, copy] of copies.entries()) {
      const load = { pairs, workers: 6, commands, nsid: i + 1, blockSize: 512, copy, pool, random };
      await runWorkload({ ...load, maxBytes: 512 * 1024 });
    }
  };
  await work(60);
  t.pass('every byte was as it should be');
  // One piece of the queues goes and comes back.
  const waiting = async (memory: ClientMemory) => {
    await client.vfio.dmaUnmap(memory.iova, memory.size);
    const commands = pairs.map((pair) => pair.execute({ opcode: FLUSH, nsid: 1 }));
    await client.identifyController();
    await client.vfio.dmaMap({ iova: memory.iova, size: memory.size, fd: memory.fd });
    return Promise.all(commands);
  };
  for (const memory of span) {
    for (const { status } of await waiting(memory)) {
      assert.equal(status, 0);
    }
  }
  await work(10);
  t.pass('every byte was as it should be, after each piece of the queues went and came back');
});

t.test('what is not mapped, and what may only be read', async (t) => {
  const target = await startTarget(t);
  for (const bdev of [await target.malloc(MIB), await target.file(target.image(MIB))]) {
    const client = await target.connect(await target.serve(bdev));
    const pair = await client.createQueuePair(1, 16);
    const memory = await map(t, client, 4 * PAGE, IOVA);
    const rom = await map(t, client, 4 * PAGE, IOVA + 4 * PAGE, false);
    memory.bytes(0, memory.size).fill(0x11);
    rom.bytes(0, rom.size).fill(0x22);
    const status = async (opcode: number, prp1: number, prp2 = 0, bytes = PAGE) => {
      const command = { opcode, nsid: 1, prp1, prp2, cdw12: bytes / 512 - 1 };
      return (await pair.execute(command)).status;
    };
    const fault = Status.DATA_TRANSFER_ERROR;
    t.equal(await status(WRITE, rom.iova), 0, 'a write may come from memory that is read only');
    t.equal(await status(READ, rom.iova), fault, 'a read may not go there');
    t.equal(await status(READ, memory.iova, rom.iova, 2 * PAGE), fault, 'nor its second page');
    t.equal(await status(READ, 0), fault);
    t.equal(await status(READ, IOVA - PAGE), fault);
    t.equal(await status(READ, IOVA + 8 * PAGE), fault);
    t.equal(await status(READ, 2 ** 52), fault);
    t.equal(await status(READ, 2 ** 53 - PAGE), fault);
    t.equal(await status(READ, 2 ** 63), fault);
    t.equal(await status(READ, 2 ** 64 - PAGE), fault);
    t.equal(await status(WRITE, memory.iova, 0, 2 * PAGE), fault, 'no second page');
    t.equal(await status(WRITE, memory.iova, 2 ** 40, 3 * PAGE), fault, 'no list');
    t.equal(await status(READ, memory.iova + 2), Status.INVALID_PRP_OFFSET);
    t.equal(
      await status(READ, memory.iova, memory.iova + 512, 2 * PAGE),
      Status.INVALID_PRP_OFFSET,
    );
    t.equal(await status(READ, memory.iova, memory.iova + 4, 3 * PAGE), Status.INVALID_PRP_OFFSET);
    t.ok(
      memory.bytes(0, memory.size).every((byte) => byte === 0x11),
      'a refused read moves nothing',
    );
    t.ok(rom.bytes(0, rom.size).every((byte) => byte === 0x22));
    t.equal(await status(READ, memory.iova + 3 * PAGE), 0);
    t.ok(
      memory.bytes(3 * PAGE, PAGE).every((byte) => byte === 0x22),
      'nor did a refused write',
    );
  }
});
