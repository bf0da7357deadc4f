/** Queues of all shapes: full, wrapping, with fewer completions than submissions, shared, as many and as deep as there can be. */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { onlyOurs, startTarget } from '../helpers/any-target.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { Cq, createPair, deleteCq, deleteSq, type Entry, Sq } from '../helpers/queues.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const BLOCK = 512;

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A client of a disk whose block n begins with the number n. */
async function start(t: Test, kind: 'malloc' | 'file', blocks: number): Promise<NvmeClient> {
  const target = await startTarget(t);
  const bytes = blocks * BLOCK;
  const bdev =
    kind === 'malloc' ? await target.malloc(bytes) : await target.file(target.image(bytes));
  const client = await target.connect(await target.serve(bdev), { memoryBytes: 16 * MIB });
  const offset = client.memory.allocate(bytes);
  const words = new Int32Array(client.memory.buffer, offset, bytes / 4);
  for (let block = 0; block < blocks; block++) {
    words[(block * BLOCK) / 4] = block;
  }
  const pair = await client.createQueuePair(64, 2);
  for (let block = 0; block < blocks; block += 8) {
    const prp1 = client.memory.iova + offset + block * BLOCK;
    const command = { opcode: NvmOpcode.WRITE, nsid: 1, prp1, cdw10: block, cdw12: 7 };
    assert.deepEqual(await pair.execute(command), { status: 0, dw0: 0 });
  }
  await client.deleteQueuePair(64);
  return client;
}

/** Buffers of a block for command ids 0 to `count` − 1. Gives the first word of each. */
function giveBuffers(client: NvmeClient, pair: QueuePair, count: number): (cid: number) => number {
  const offset = client.memory.allocate(count * BLOCK);
  for (let cid = 0; cid < count; cid++) {
    pair.setBuffer(cid, client.memory.iova + offset + cid * BLOCK, 0);
  }
  const words = new Int32Array(client.memory.buffer, offset, (count * BLOCK) / 4);
  return (cid) => words[(cid * BLOCK) / 4];
}

/** Polls until nothing is in flight, with `turns` more turns of the event loop between two polls. Counts the completions of each id. */
async function drain(pair: QueuePair, counts: Int32Array, turns = 0): Promise<void> {
  while (pair.inflight > 0) {
    const count = pair.poll();
    for (let i = 0; i < count; i++) {
      assert.equal(pair.doneStatus[i], 0);
      counts[pair.doneIds[i]] += 1;
    }
    for (let i = 0; i <= turns; i++) {
      await turn();
    }
  }
}

for (const kind of ['malloc', 'file'] as const) {
  t.test(`${kind}: 4096 entries, full`, async (t) => {
    const client = await start(t, kind, 4096);
    const pair = await client.createQueuePair(1, 4096);
    const word = giveBuffers(client, pair, 4095);
    const counts = new Int32Array(4095);
    for (let round = 1; round <= 3; round++) {
      for (let cid = 0; cid < 4095; cid++) {
        pair.push(cid, NvmOpcode.READ, 1, (cid + round) % 4096, 0);
      }
      pair.ring();
      await drain(pair, counts);
      t.ok(
        counts.every((count) => count === round),
        'one completion a command',
      );
      t.ok(
        counts.every((_, cid) => word(cid) === (cid + round) % 4096),
        'each got its own block',
      );
    }
  });

  for (const [depth, cqDepth] of [
    [256, 2],
    [256, 3],
    [100, 17],
    [2, 2],
    [3, 4096],
  ]) {
    t.test(`${kind}: ${depth} submissions, ${cqDepth} completions`, async (t) => {
      const client = await start(t, kind, 512);
      const pair = await createPair(client, { qid: 1, depth, cqDepth });
      const word = giveBuffers(client, pair, depth - 1);
      const counts = new Int32Array(depth - 1);
      const rounds = Math.ceil(300 / depth) + 2;
      for (let round = 1; round <= rounds; round++) {
        for (let cid = 0; cid < depth - 1; cid++) {
          pair.push(cid, NvmOpcode.READ, 1, (cid + round) % 512, 0);
        }
        pair.ring();
        await drain(pair, counts, round === 1 ? 20 : 0);
        assert.ok(counts.every((count) => count === round));
        assert.ok(counts.every((_, cid) => word(cid) === (cid + round) % 512));
      }
      t.equal(pair.poll(), 0, 'and no completion too many');
    });
  }

  t.test(`${kind}: several submission queues, one completion queue`, async (t) => {
    const client = await start(t, kind, 512);
    const cq = await Cq.create(client, 1, 16);
    const sqs: Sq[] = [];
    for (const [qid, depth] of [
      [1, 64],
      [2, 3],
      [3, 100],
      [7, 16],
    ]) {
      sqs.push(await Sq.create(client, qid, depth, 1));
    }
    const expected: string[] = [];
    for (const sq of sqs) {
      for (let cid = 0; cid < sq.depth - 1; cid++) {
        sq.push({ opcode: NvmOpcode.FLUSH, nsid: 1, cid: cid + 1000 });
        expected.push(`${sq.qid}:${cid + 1000}`);
      }
      sq.ring();
    }
    const entries: Entry[] = [];
    while (entries.length < expected.length) {
      entries.push(...cq.reap(3));
      await turn();
    }
    t.ok(entries.every(({ status }) => status === 0));
    t.same(entries.map(({ sqid, cid }) => `${sqid}:${cid}`).sort(), expected.sort());
    t.strictSame(cq.reap(), []);
    for (const { qid, depth } of sqs) {
      const last = entries.filter(({ sqid }) => sqid === qid).pop();
      t.equal(last?.sqhd, depth - 1, 'all entries of the queue may be used again');
    }
    t.equal((await deleteCq(client, 1)).status & 0x7ff, 0x10c, 'the completion queue is needed');
    // Queues go while their neighbours work.
    for (const [i, sq] of sqs.entries()) {
      for (const other of sqs.slice(i)) {
        other.push({ opcode: NvmOpcode.FLUSH, nsid: 1, cid: other.qid });
        other.ring();
      }
      t.equal((await deleteSq(client, sq.qid)).status, 0);
      const left = new Set(sqs.slice(i + 1).map(({ qid }) => qid));
      while (left.size > 0) {
        for (const { sqid } of cq.reap()) {
          left.delete(sqid);
        }
        await turn();
      }
    }
    t.equal((await deleteCq(client, 1)).status, 0);
  });
}

t.test(
  '64 queue pairs, on two reactors, with data in all of them',
  { skip: onlyOurs },
  async (t) => {
    const target = await TestTarget.start(t, { reactors: 2 });
    const client = await target.connect(await target.serve(await target.malloc(16 * MIB)));
    const pairs: QueuePair[] = [];
    for (let qid = 1; qid <= 64; qid++) {
      pairs.push(await client.createQueuePair(qid, 2 + qid));
    }
    const random = new Random();
    t.comment(`SEED=${random.seed}`);
    const pool = new PagePool(random).add(client.memory);
    const copy = new Uint8Array(16 * MIB);
    const load = { pairs, nsid: 1, blockSize: BLOCK, copy, pool, random };
    await runWorkload({ ...load, workers: 2, commands: 20, maxBytes: 32 * 1024 });
    const info = target.target.subsystems[0].listeners.values().next().value?.endpoint.controller;
    const reactors = info?.qpairs.map(({ reactor }) => reactor) ?? [];
    t.equal(reactors.length, 64);
    t.ok(reactors.filter((reactor) => reactor === 0).length >= 31, 'spread evenly');
    t.ok(reactors.filter((reactor) => reactor === 1).length >= 31, 'spread evenly');
    for (let qid = 1; qid <= 64; qid++) {
      await client.deleteQueuePair(qid);
    }
    t.strictSame(
      target.target.subsystems[0].listeners.values().next().value?.endpoint.controller?.qpairs,
      [],
    );
  },
);

t.test('a queue of the same number, again and again', async (t) => {
  const client = await start(t, 'malloc', 512);
  for (let round = 0; round < 30; round++) {
    const depth = 2 + round * 7;
    const pair = await client.createQueuePair(1, depth);
    const word = giveBuffers(client, pair, 1);
    for (let i = 0; i < depth + 3; i++) {
      pair.push(0, NvmOpcode.READ, 1, i, 0);
      pair.ring();
      await drain(pair, new Int32Array(1));
      assert.equal(word(0), i);
    }
    await client.deleteQueuePair(1);
  }
  t.pass('each began at its first entry');
});

t.test('doorbells that come as messages', { skip: onlyOurs }, async (t) => {
  const target = await startTarget(t, { transport: { disableMappableBar0: true } });
  const client = await target.connect(await target.serve(await target.malloc(16 * MIB)));
  t.equal(client.admin.place.doorbells, undefined, 'the page is not offered');
  const pairs = [await client.createQueuePair(1, 8), await client.createQueuePair(2, 64)];
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const pool = new PagePool(random).add(client.memory);
  const copy = new Uint8Array(16 * MIB);
  await runWorkload({
    pairs,
    workers: 8,
    commands: 30,
    nsid: 1,
    blockSize: BLOCK,
    copy,
    pool,
    random,
  });
  t.pass('every byte was as it should be');
});
