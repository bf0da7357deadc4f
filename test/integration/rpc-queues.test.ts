/** doorbell_move_queue, and the scheduler that moves queues by itself. */
import t, { type Test } from 'tap';
import { NvmeClient, succeeded } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import type { Snapshot } from '../../src/target/snapshot.ts';
import { serveBdev, startRealTarget, startRpcTarget, type TestTarget } from '../helpers/rpc.ts';

const NQN = 'nqn.2026-11.io.doorbell:m';

async function serve(t: Test, target: TestTarget, names: readonly string[]): Promise<string[]> {
  await target.call('bdev_null_create', { name: 'n', block_size: 512, num_blocks: 2048 });
  return serveBdev(t, target, NQN, 'n', names);
}

async function connect(t: Test, socket: string): Promise<NvmeClient> {
  const client = await NvmeClient.connect(socket);
  t.teardown(() => client.close());
  return client;
}

async function read(pair: QueuePair, prp1: number): Promise<void> {
  succeeded(await pair.execute({ opcode: NvmOpcode.READ, nsid: 1, prp1, cdw12: 0 }));
}

/** Where the queues of the connected guests are. */
async function reactors({ call }: TestTarget): Promise<number[]> {
  const { subsystems } = (await call('doorbell_get_snapshot')) as Snapshot;
  return subsystems.flatMap(({ listeners }) =>
    listeners.flatMap(({ controller }) => controller?.queues.map(({ reactor }) => reactor) ?? []),
  );
}

t.test('an operator moves a queue', async (t) => {
  const target = await startRealTarget(t, 2);
  const { call, refusal } = target;
  const [a, b] = await serve(t, target, ['a', 'b']);
  const client = await connect(t, a);
  const pair = await client.createQueuePair(1, 8);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  for (let i = 0; i < 10; i++) {
    const [before] = await reactors(target);
    t.equal(await call('doorbell_move_queue', { socket: a, cqid: 1, reactor: 1 - before }), true);
    t.strictSame(await reactors(target), [1 - before]);
    await read(pair, prp1);
  }
  const [here] = await reactors(target);
  t.equal(await call('doorbell_move_queue', { nqn: NQN, cqid: 1, reactor: here }), true);
  const moves = target.target.events.since().filter(({ type }) => type === 'queue-moved');
  t.equal(moves.length, 10, 'a queue that is there already is not moved');
  t.match(moves.at(-1), { nqn: NQN, socket: a, cqid: 1, from: 1 - here, reactor: here });

  const bad: [object, number, RegExp][] = [
    [{ socket: a, cqid: 2, reactor: 0 }, -32602, /no completion queue 2/],
    [{ socket: a, cqid: 0, reactor: 0 }, -32602, /cqid/],
    [{ socket: a, cqid: 1, reactor: 2 }, -32602, /'reactor'.*there are 2/],
    [{ socket: a, cqid: 1, reactor: -1 }, -32602, /reactor/],
    [{ socket: a, cqid: 1 }, -32602, /reactor/],
    [{ cqid: 1, reactor: 1 }, -32602, /nqn.*socket/],
    [{ socket: b, cqid: 1, reactor: 1 }, -19, /no client is connected/],
    [{ socket: a, cntlid: 77, cqid: 1, reactor: 1 }, -19, /no such controller/],
  ];
  for (const [params, code, message] of bad) {
    t.match(
      await refusal('doorbell_move_queue', params),
      { code, message },
      JSON.stringify(params),
    );
  }
  await connect(t, b);
  t.match(await refusal('doorbell_move_queue', { nqn: NQN, cqid: 1, reactor: 1 }), {
    code: -32602,
    message: /several controllers/,
  });
  await read(pair, prp1);
});

t.test('the dynamic scheduler moves queues away from a busy reactor', async (t) => {
  const target = await startRealTarget(t, 2);
  const { call } = target;
  const [socket] = await serve(t, target, ['a']);
  const client = await connect(t, socket);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  const pairs = [];
  for (let qid = 1; qid <= 3; qid++) {
    pairs.push(await client.createQueuePair(qid, 8));
    await call('doorbell_move_queue', { socket, cqid: qid, reactor: 0 });
  }
  t.strictSame(await reactors(target), [0, 0, 0]);
  const { last } = target.target.events;
  // This guest keeps no reactor busy, and need not: any time is too much here.
  const limits = { core_busy: 0, core_limit: 100 };
  await call('framework_set_scheduler', { name: 'dynamic', period: 20_000, ...limits });
  const moved = () => target.target.events.since(last).filter(({ type }) => type === 'queue-moved');
  while (moved().length === 0) {
    await Promise.all(pairs.map((pair) => read(pair, prp1)));
  }
  t.match(moved()[0], { from: 0, reactor: 1 });
  await call('framework_set_scheduler', { name: 'static' });
  await Promise.all(pairs.map((pair) => read(pair, prp1)));
});

t.test('the scheduler is saved', async (t) => {
  const { call } = await startRpcTarget(t);
  const method = 'framework_set_scheduler';
  const saved = () => call('framework_get_config', { name: 'scheduler' });
  t.strictSame(await saved(), [{ method, params: { name: 'static' } }]);
  t.equal(await call(method, { name: 'dynamic' }), true);
  const params = {
    name: 'dynamic',
    period: 1_000_000,
    load_limit: 20,
    core_limit: 80,
    core_busy: 95,
  };
  t.strictSame(await saved(), [{ method, params }]);
  t.equal(await call(method, { name: 'dynamic', period: 500_000, core_busy: 90 }), true);
  t.strictSame(await call('framework_get_scheduler'), {
    scheduler_name: 'dynamic',
    scheduler_period: 500_000,
    isolated_core_mask: '0',
    scheduling_core: 1,
    load_limit: 20,
    core_limit: 80,
    core_busy: 90,
  });
  t.equal(await call(method, { name: 'dynamic', period: 0 }), true);
  t.match(await call('framework_get_scheduler'), { scheduler_period: 500_000 });
  t.equal(await call(method, { name: 'static' }), true);
  t.strictSame(await saved(), [{ method, params: { name: 'static' } }]);
});
