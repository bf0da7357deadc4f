/** Interrupt coalescing: held back by threshold and time, and not of vectors left out. NVMe Base 2.0 §5.27.1.6, §5.27.1.7. */
import t, { type Test } from 'tap';
import { Fid, InterruptCoalescing, InterruptVectorConfig } from '../../src/spec/features.ts';
import { Flush, Read } from '../../src/spec/nvm.ts';
import { AdminCaller } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

async function start(t: Test) {
  const target = await TestTarget.start(t, { reactors: 2 });
  const served = await target.serve(await target.malloc(MIB), await target.file(target.image(MIB)));
  const client = await target.connect(served, { interrupts: true });
  const admin = new AdminCaller(client);
  const set = async (thrZ: number, time: number) => {
    const value = InterruptCoalescing.encode({ thrZ, time });
    t.equal((await admin.setFeature(Fid.INTERRUPT_COALESCING, value)).code, '0/00');
  };
  return { target, client, admin, set };
}

/** Milliseconds that something takes. */
async function took(work: () => Promise<unknown>): Promise<number> {
  const begin = performance.now();
  await work();
  return performance.now() - begin;
}

t.test(
  'a lone completion is told after the time, several as soon as they are enough',
  async (t) => {
    const { client, admin, set } = await start(t);
    const before = await client.createQueuePair(1, 64);
    await set(7, 250);
    const later = await client.createQueuePair(2, 64);
    for (const pair of [before, later]) {
      for (const nsid of [1, 2]) {
        const flush = () => pair.execute(Flush.fields({ nsid }));
        const lone = await took(flush);
        t.ok(lone >= 24, `${lone} ms for one`);
        const many = await took(() => Promise.all(Array.from({ length: 8 }, flush)));
        t.ok(many < 20, `${many} ms for eight`);
      }
    }
    await set(0, 250);
    const single = await took(() => before.execute(Flush.fields({ nsid: 1 })));
    t.ok(single < 20, `${single} ms with a threshold of one`);
    await set(7, 0);
    const timeless = await took(() => before.execute(Flush.fields({ nsid: 1 })));
    t.ok(timeless < 20, `${timeless} ms with a time of none`);
    await set(255, 255);
    const admins = await took(() => admin.getFeature(Fid.ARBITRATION));
    t.ok(admins < 20, `${admins} ms for an admin command`);
  },
);

t.test('vectors that are left out', async (t) => {
  const { client, admin, set } = await start(t);
  const pairs = [await client.createQueuePair(1, 64), await client.createQueuePair(2, 64)];
  await set(7, 250);
  const leaveOut = (cd: boolean) =>
    admin.setFeature(Fid.INTERRUPT_VECTOR_CONFIG, InterruptVectorConfig.encode({ iv: 2, cd }));
  const time = (pair: (typeof pairs)[number]) =>
    took(() => pair.execute(Read.fields({ nsid: 1, slba: 0, nlbZ: 0, prp1: admin.buffer })));
  t.equal((await leaveOut(true)).code, '0/00');
  t.ok((await time(pairs[0])) >= 24);
  t.ok((await time(pairs[1])) < 20);
  await leaveOut(false);
  t.ok((await time(pairs[1])) >= 24);
});

t.test('fewer interrupts, no completion lost, and none of it after a reset', async (t) => {
  const { client, set } = await start(t);
  const run = async () => {
    const pair = await client.createQueuePair(1, 256);
    const first = client.interruptCount;
    for (let i = 0; i < 20; i++) {
      const reads = Array.from({ length: 100 }, () => pair.execute(Flush.fields({ nsid: 1 })));
      const done = await Promise.all(reads);
      t.ok(done.every(({ status }) => status === 0));
    }
    return client.interruptCount - first;
  };
  await set(49, 20);
  const coalesced = await run();
  t.ok(coalesced <= 60, `${coalesced} interrupts for 2000 completions`);
  await client.disable();
  await client.enable();
  const pair = await client.createQueuePair(1, 16);
  t.ok((await took(() => pair.execute(Flush.fields({ nsid: 1 })))) < 20);
});

t.test('a queue that has moved', async (t) => {
  const { target, client, set } = await start(t);
  const pair = await client.createQueuePair(1, 64);
  await set(7, 250);
  const [{ nqn }] = target.target.subsystems;
  const [socket] = target.target.subsystem(nqn).listeners.keys();
  for (const reactor of [0, 1, 0]) {
    await target.target.moveQueue(nqn, socket, 1, reactor);
    const lone = await took(() => pair.execute(Flush.fields({ nsid: 1 })));
    t.ok(lone >= 24, `${lone} ms at reactor ${reactor}`);
  }
});
