/** Rate limits: never exceeded, never a command lost, and nobody else held up. SPDK: bdev_set_qos_limit. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { Op } from '../../src/bdev/op.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { native } from '../../src/native/index.ts';
import { Dispatcher } from '../../src/rpc/dispatcher.ts';
import { bdevMethods } from '../../src/rpc/methods/bdev.ts';
import { qosMethods } from '../../src/rpc/methods/qos.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { log } from '../helpers/rpc.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const READ = { opcode: NvmOpcode.READ, nsid: 1, cdw12: 7 };
/** A whole MiB: at 1 MiB a second what comes next waits for a second. */
const LARGE = { opcode: NvmOpcode.READ, nsid: 1, cdw12: 2047 };
const SLOW = { rwBytes: MIB };

/** Two namespaces, the first a bdev of that kind, on two reactors. */
async function start(t: Test, kind: 'malloc' | 'file') {
  const target = await TestTarget.start(t, { reactors: 2 });
  const name =
    kind === 'malloc' ? await target.malloc(4 * MIB) : await target.file(target.image(4 * MIB));
  const served = await target.serve(name, await target.malloc(MIB));
  const client = await target.connect(served, { memoryBytes: 8 * MIB });
  return { target, name, served, client, buffer: makeBuffer(client) };
}

type Test = Parameters<typeof TestTarget.start>[0];

/** PRPs of a MiB. */
function makeBuffer({ memory }: NvmeClient) {
  const data = memory.allocate(MIB);
  const list = memory.allocate(4096);
  const words = new DataView(memory.buffer, list, 4096);
  for (let page = 1; page < 256; page++) {
    words.setBigUint64(8 * (page - 1), BigInt(memory.iova + data + 4096 * page), true);
  }
  return { prp1: memory.iova + data, prp2: memory.iova + list };
}

for (const kind of ['malloc', 'file'] as const) {
  t.test(`${kind}: I/Os a second, over two reactors`, async (t) => {
    const { target, name, client, buffer } = await start(t, kind);
    const pairs = [await client.createQueuePair(1, 32), await client.createQueuePair(2, 32)];
    const { index } = target.target.bdevs.get(name);
    const done = (): number =>
      [0, 1].reduce((sum, i) => sum + target.pool.bdevTally(index, i).of(Op.READ).ops, 0);
    await target.target.limit(name, { rwIos: 2000 });
    const from = native.clock();
    const reads = Array.from({ length: 300 }, (_, i) =>
      pairs[i % 2].execute({ ...READ, prp1: buffer.prp1, cdw10: i }),
    );
    let last = 0;
    while (last < 300) {
      last = done();
      // Two a millisecond; a slice that has just begun, and a debt of each reactor.
      const most = (2 * (native.clock() - from)) / 1e6 + 6;
      assert.ok(last <= most, `${last} commands where ${most} were allowed`);
      await sleep(3);
    }
    t.ok((await Promise.all(reads)).every(({ status }) => status === 0));
    t.equal(done(), 300, 'each was carried out once');
  });

  t.test(`${kind}: bytes a second; others go on, and an end of the limit frees`, async (t) => {
    const { target, name, client, buffer } = await start(t, kind);
    const pair = await client.createQueuePair(1, 64);
    await target.target.limit(name, SLOW);
    const order: number[] = [];
    const reads = Array.from({ length: 40 }, (_, i) =>
      pair.execute({ ...LARGE, ...buffer }).then(({ status }) => {
        assert.equal(status, 0);
        order.push(i);
      }),
    );
    for (let i = 0; i < 50; i++) {
      const { status } = await pair.execute({ ...READ, nsid: 2, prp1: buffer.prp1, cdw10: i });
      assert.equal(status, 0);
    }
    t.ok(order.length < 40, 'those of the other namespace came first');
    assert.equal((await pair.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 })).status, 0);
    const { status } = await pair.execute({ ...READ, prp1: buffer.prp1, cdw10: 0xffff_ffff });
    t.equal(status & 0xff, 0x80, 'what is wrong is refused at once');
    await target.target.limit(name, { rwBytes: 0 });
    await Promise.all(reads);
    if (kind === 'malloc') {
      t.strictSame(
        order,
        [...order].sort((a, b) => a - b),
        'in their order',
      );
    }
  });

  t.test(`${kind}: the wait is part of the latency`, async (t) => {
    const { target, name, client, buffer } = await start(t, kind);
    const pair = await client.createQueuePair(1, 32);
    await target.target.limit(name, SLOW);
    // A sixteenth of a second each, the first at once.
    const read = { ...LARGE, ...buffer, cdw12: 127 };
    const reads = Array.from({ length: 4 }, () => pair.execute(read));
    t.ok((await Promise.all(reads)).every(({ status }) => status === 0));
    const { index } = target.target.bdevs.get(name);
    const tallies = [0, 1].map((i) => target.pool.bdevTally(index, i));
    const timed = tallies.flatMap((tally) => [...tally.histogram(Op.READ)]);
    t.equal(
      timed.reduce((sum, n) => sum + n, 0),
      4,
      'each is timed',
    );
    const longest = Math.max(...tallies.map((tally) => tally.of(Op.READ).maxLatency));
    const sum = tallies.reduce((sum, tally) => sum + tally.of(Op.READ).timedLatency, 0);
    // Less than they wait, as a thread that has to wait for a processor may ask late.
    t.ok(longest >= 0.12e9, `${longest} ns`);
    t.ok(sum >= 0.2e9, `${sum} ns`);
  });

  t.test(`${kind}: nothing that waits for a limit holds up a change`, async (t) => {
    const { target, name, served, client, buffer } = await start(t, kind);
    await target.target.limit(name, SLOW);
    const begun = native.clock();
    for (const change of ['unmap', 'delete', 'namespace', 'reset', 'gone'] as const) {
      const pair = await client.createQueuePair(1, 64);
      const reads = Array.from({ length: 30 }, () => pair.execute({ ...LARGE, ...buffer }));
      const outcomes = Promise.allSettled(reads);
      await sleep(10);
      if (change === 'unmap') {
        await client.vfio.dmaMap({ iova: 0x7000_0000, size: 8 * MIB, fd: client.memory.fd });
        await client.vfio.dmaUnmap(0x7000_0000, 8 * MIB);
      } else if (change === 'delete') {
        await client.deleteQueuePair(1);
        continue;
      } else if (change === 'namespace') {
        await target.target.removeNamespace(served.nqn, 1);
        await target.target.addNamespace(served.nqn, name, { nsid: 1 });
      } else if (change === 'reset') {
        await client.enable();
        pair.abandon();
        await outcomes;
        continue;
      } else {
        client.close();
        await client.vfio.closed;
        await outcomes;
        continue;
      }
      t.ok(
        (await outcomes).every((o) => o.status === 'fulfilled' && o.value.status === 0),
        `${change}: all were carried out`,
      );
      await client.deleteQueuePair(1);
    }
    const seconds = (native.clock() - begun) / 1e9;
    t.comment(`${seconds.toFixed(1)} s for what the limit stretches to 150 s`);
    const next = await target.connect(served);
    const pair = await next.createQueuePair(1, 8);
    await target.target.limit(name, { rwBytes: 0 });
    t.equal((await pair.execute({ ...READ, prp1: next.memory.iova })).status, 0);
  });
}

t.test('bdev_set_qos_limit', async (t) => {
  const target = await TestTarget.start(t);
  const name = await target.malloc(MIB);
  const rpc = new Dispatcher([...qosMethods(target.target), ...bdevMethods(target.target)], log);
  const set = (params: object) => rpc.dispatch('bdev_set_qos_limit', { name, ...params });
  const shown = async () => {
    const [bdev] = (await rpc.dispatch('bdev_get_bdevs', { name })) as [
      { assigned_rate_limits: object },
    ];
    return bdev.assigned_rate_limits;
  };
  const none = {
    rw_ios_per_sec: 0,
    rw_mbytes_per_sec: 0,
    r_mbytes_per_sec: 0,
    w_mbytes_per_sec: 0,
  };
  t.strictSame(await shown(), none);
  t.equal(await set({ rw_ios_per_sec: 20_001, w_mbytes_per_sec: 3 }), true);
  t.strictSame(await shown(), { ...none, rw_ios_per_sec: 21_000, w_mbytes_per_sec: 3 });
  t.equal(await set({ rw_ios_per_sec: 0, r_mbytes_per_sec: 7 }), true);
  t.strictSame(await shown(), { ...none, r_mbytes_per_sec: 7, w_mbytes_per_sec: 3 });
  await t.rejects(set({}), { code: -22 });
  await t.rejects(set({ rw_ios_per_sec: -1 }), { code: -32602 });
  await t.rejects(rpc.dispatch('bdev_set_qos_limit', { name: 'x', rw_ios_per_sec: 1 }), {
    code: -19,
  });
});
