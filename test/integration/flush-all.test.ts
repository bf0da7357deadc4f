/** Flush of all namespaces at once: NSID FFFFFFFFh. NVMe Base 2.0 §7.1. */
import t, { type Test } from 'tap';
import { Op } from '../../src/bdev/op.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { DeleteIoSq } from '../../src/spec/admin.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { NSID_ALL } from '../../src/spec/nvme.ts';
import { code } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { FLUSH, READ } = NvmOpcode;
const INJECTION = { status: 0, queueDepth: 0, corruptOffset: 0, corruptValue: 0 };

const flush = async (pair: QueuePair): Promise<string> =>
  code(await pair.execute({ opcode: FLUSH, nsid: NSID_ALL }));

interface ErrorDisk {
  inject(op: number, injection: unknown): void;
}

async function start(t: Test) {
  const target = await TestTarget.start(t);
  const { name } = await target.target.createError(await target.file(target.image(MIB)));
  const bdevs = [await target.malloc(MIB), await target.file(target.image(MIB)), name];
  const served = await target.serve(...bdevs);
  const client = await target.connect(served);
  const error = target.target.bdevs.get(name) as unknown as ErrorDisk;
  const flushes = () =>
    bdevs.map((bdev) => target.pool.bdevTally(target.target.bdevs.get(bdev).index, 0).flushes);
  return { target, bdevs, served, client, error, flushes };
}

t.test('each namespace, and one completion', async (t) => {
  const { client, flushes } = await start(t);
  const pair = await client.createQueuePair(1, 8);
  t.equal(await flush(pair), '0/00');
  t.strictSame(flushes(), [1, 1, 1]);
  const many = await Promise.all(Array.from({ length: 50 }, () => flush(pair)));
  t.ok(many.every((status) => status === '0/00'));
  t.strictSame(flushes(), [51, 51, 51]);
  t.equal(code(await pair.execute({ opcode: READ, nsid: NSID_ALL })), '0/0b', 'nothing else');
  t.equal(code(await pair.execute({ opcode: FLUSH, nsid: NSID_ALL - 1 })), '0/0b');
  t.equal(((await client.identifyController()).vwc >> 1) & 3, 3, 'Identify says so');
});

t.test('one that fails fails it', async (t) => {
  const { client, error, flushes } = await start(t);
  const pair = await client.createQueuePair(1, 8);
  error.inject(Op.FLUSH, { ...INJECTION, count: 1, error: 'failure' });
  t.equal(await flush(pair), '0/06');
  t.strictSame(flushes(), [1, 1, 0], 'the others were carried out');
  t.equal(await flush(pair), '0/00');
});

t.test('no namespace', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve());
  t.equal(await flush(await client.createQueuePair(1, 8)), '0/00');
});

t.test('one that does not end is waited for, and goes with what it belongs to', async (t) => {
  const { target, client, served, error, bdevs } = await start(t);
  const pair = await client.createQueuePair(1, 8);
  const hold = () => error.inject(Op.FLUSH, { ...INJECTION, count: 1, error: 'pending' });
  const settled = async (promise: Promise<unknown>) => {
    const wait = new Promise((resolve) => setTimeout(resolve, 100, 'waits'));
    return (await Promise.race([promise, wait])) !== 'waits';
  };
  hold();
  const first = flush(pair);
  t.notOk(await settled(first));
  t.equal(code(await pair.execute({ opcode: FLUSH, nsid: 1 })), '0/00', 'others go on');
  t.equal(code(await client.admin.execute(DeleteIoSq.fields({ qid: 1 }))), '0/00');
  t.match(await first, /^0\/0[78]$/, 'its queue is deleted');
  const second = await client.createQueuePair(2, 8);
  hold();
  const of = flush(second);
  t.notOk(await settled(of));
  await target.target.removeNamespace(served.nqn, 3);
  t.match(await of, /^0\/0[07]$/, 'its namespace is removed');
  await target.target.addNamespace(served.nqn, bdevs[2], {});
  t.equal(await flush(second), '0/00');
  hold();
  flush(second).catch(() => {});
  await client.disable();
  await client.enable();
  t.equal(await flush(await client.createQueuePair(3, 8)), '0/00', 'after a reset');
});

t.test('it waits in line with other commands of each namespace', async (t) => {
  const { target, client, bdevs } = await start(t);
  const pair = await client.createQueuePair(1, 64);
  await target.target.limit(bdevs[1], { rwIos: 1000 });
  const buffer = client.memory.iova + client.memory.allocate(4096);
  const read = { opcode: READ, nsid: 2, prp1: buffer, cdw12: 0 };
  const reads = Array.from({ length: 20 }, () => pair.execute(read));
  const flushed = Array.from({ length: 5 }, () => flush(pair));
  t.ok((await Promise.all(reads)).every(({ status }) => status === 0));
  t.ok((await Promise.all(flushed)).every((status) => status === '0/00'));
});
