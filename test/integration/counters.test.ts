/** What is counted of real I/O: by controller, namespace and bdev, and how long it took. */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Op } from '../../src/bdev/op.ts';
import { Dispatcher } from '../../src/rpc/dispatcher.ts';
import { histogramMethods } from '../../src/rpc/methods/histogram.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { snapshot } from '../../src/target/snapshot.ts';
import { log } from '../helpers/rpc.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const READ = { opcode: NvmOpcode.READ, nsid: 1, cdw12: 7 };

t.test('two controllers of one subsystem, and what stays when they go', async (t) => {
  const target = await TestTarget.start(t, { reactors: 2 });
  const names = [await target.malloc(MIB), await target.file(target.image(MIB))];
  const served = await target.serve(...names);
  const traddr = join(target.folder, 'second');
  mkdirSync(traddr);
  const address = { traddr, trsvcid: '', adrfam: 'unknown' };
  const socket = await target.target.addListener(served.nqn, address);
  const clients = [await target.connect(served), await target.connect({ ...served, socket })];
  for (const [i, client] of clients.entries()) {
    const pairs = [await client.createQueuePair(1, 8), await client.createQueuePair(2, 8)];
    const prp1 = client.memory.iova + client.memory.allocate(4096);
    for (let n = 0; n < 50 * (i + 1); n++) {
      for (const nsid of [1, 2, 3]) {
        await pairs[n % 2].execute({ ...READ, prp1, nsid });
      }
    }
  }
  const [{ listeners }] = (await snapshot(target.target)).subsystems;
  for (const [i, { controller }] of listeners.entries()) {
    const reads = 50 * (i + 1);
    assert.ok(controller);
    t.equal(controller.io.readOps, 2 * reads);
    t.equal(controller.io.readBytes, 2 * reads * 4096);
    t.strictSame(controller.io.errors, { '0x00b': reads }, 'there is no namespace 3');
    t.strictSame(
      controller.namespaces.map(({ io }) => io.readOps),
      [reads, reads],
    );
    const timed = controller.namespaces[1].io.readLatency.reduce((sum, [, n]) => sum + n, 0);
    t.equal(timed, reads, 'each command of a file is timed');
    t.ok(controller.namespaces[1].io.readLatencyNs > 0);
  }
  const reads = (name: string): number => {
    const { index } = target.target.bdevs.get(name);
    return [0, 1].reduce((sum, i) => sum + target.pool.bdevTally(index, i).of(Op.READ).ops, 0);
  };
  clients[0].close();
  await clients[0].vfio.closed;
  const next = await target.connect(served);
  t.equal(reads(names[0]), 150);
  const again = (await snapshot(target.target)).subsystems[0].listeners[0].controller;
  t.equal(again?.io.readOps, 0, 'the next client begins anew');
  const pair = await next.createQueuePair(1, 8);
  const prp1 = next.memory.iova + next.memory.allocate(4096);
  await target.target.removeNamespace(served.nqn, 1);
  t.equal(reads(names[0]), 150, 'a bdev keeps what was done');
  await target.target.addNamespace(served.nqn, names[0], { nsid: 1 });
  assert.equal((await pair.execute({ ...READ, prp1 })).status, 0);
  t.equal(reads(names[0]), 151);
  await target.target.removeNamespace(served.nqn, 1);
  await target.target.deleteBdev(names[0], 'malloc');
  t.equal(reads(await target.malloc(MIB)), 0, 'and the next one of its index begins anew');
});

t.test('bdevs in memory are timed by samples', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.null(MIB)));
  const pair = await client.createQueuePair(1, 8);
  for (let n = 0; n < 640; n++) {
    assert.equal((await pair.execute({ ...READ, prp1: client.memory.iova })).status, 0);
  }
  const { readOps, readLatency, readLatencyNs } = (await snapshot(target.target)).bdevs[0].io;
  t.equal(readOps, 640);
  const timed = readLatency.reduce((sum, [, count]) => sum + count, 0);
  t.ok(timed > 0 && timed <= 640, `samples stand for ${timed}`);
  t.ok(readLatency.length <= 10, 'of few commands');
  t.ok(readLatencyNs > 0);
});

t.test('the histogram of a bdev', async (t) => {
  const target = await TestTarget.start(t);
  const name = await target.file(target.image(MIB));
  const client = await target.connect(await target.serve(name));
  const pair = await client.createQueuePair(1, 8);
  const rpc = new Dispatcher(histogramMethods(target.target), log);
  const read = async (count: number): Promise<void> => {
    for (let n = 0; n < count; n++) {
      assert.equal((await pair.execute({ ...READ, prp1: client.memory.iova })).status, 0);
    }
  };
  const total = async (): Promise<number> => {
    const { histogram, bucket_shift, tsc_rate } = (await rpc.dispatch('bdev_get_histogram', {
      name,
    })) as { histogram: string; bucket_shift: number; tsc_rate: number };
    t.equal(tsc_rate, 1e9);
    const counts = Buffer.from(histogram, 'base64');
    // As SPDK's histogram.py walks it.
    let sum = 0;
    for (let range = 0; range < 64 - bucket_shift; range++) {
      for (let j = 0; j < 1 << bucket_shift; j++) {
        sum += Number(counts.readBigUInt64LE(((range << bucket_shift) + j) * 8));
      }
    }
    return sum;
  };
  await read(5);
  await t.rejects(rpc.dispatch('bdev_get_histogram', { name }), { code: -14 });
  t.equal(await rpc.dispatch('bdev_enable_histogram', { name, enable: true }), true);
  t.equal(await total(), 0);
  await read(20);
  t.equal(await total(), 20);
  await rpc.dispatch('bdev_enable_histogram', { name, enable: true });
  t.equal(await total(), 0, 'anew');
  await rpc.dispatch('bdev_enable_histogram', { name, enable: false });
  await t.rejects(rpc.dispatch('bdev_get_histogram', { name }), { code: -14 });
  await t.rejects(rpc.dispatch('bdev_enable_histogram', { name: 'x', enable: true }), {
    code: -19,
  });
});
