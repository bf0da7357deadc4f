/** Queues that move between two reactors while their guest works: no command is lost, none is done twice, and the data is right. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Op } from '../../src/bdev/op.ts';
import { DelayBdev } from '../../src/bdev/wrapper.ts';
import { ClientMemory } from '../../src/client/memory.ts';
import type { NvmeClient, NvmeClientOptions } from '../../src/client/nvme.ts';
import type { PlaneMessage } from '../../src/reactor/control.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Csts, Register } from '../../src/spec/registers.ts';
import type { EndpointView } from '../../src/target/types.ts';
import { Cq, createSq, room, writeDoorbell } from '../helpers/queues.ts';
import { Random } from '../helpers/random.ts';
import { MIB, type Served, TestTarget, type TestTargetOptions } from '../helpers/target.ts';
import { VerifiedLoad } from '../helpers/verified-load.ts';

const PAIRS = 2;
const ENTRIES = 64;
const PAGES = 512;
const MOVES = 100;
const TRAPPED = { disableMappableBar0: true };
const SHADOWED = { disableMappableBar0: true, shadowDoorbells: true };
const READ = { opcode: NvmOpcode.READ, nsid: 1, cdw12: 0 };

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

function endpointOf(target: TestTarget, { nqn, socket }: Served): EndpointView {
  const listener = target.target.subsystem(nqn).listeners.get(socket);
  assert.ok(listener);
  return listener.endpoint;
}

/** Where a submission queue is. */
function reactorOf(endpoint: EndpointView, qid: number): number {
  const pair = endpoint.controller?.qpairs.find((each) => each.qid === qid);
  assert.ok(pair);
  return pair.reactor;
}

interface Load {
  readonly make: (target: TestTarget) => Promise<string>;
  readonly transport?: TestTargetOptions['transport'] & object;
  readonly client?: NvmeClientOptions;
  /** Queues, namespaces, memory and limits come and go meanwhile. */
  readonly disturbed?: true;
}

function underLoad(name: string, { make, transport = {}, client = {}, disturbed }: Load): void {
  void t.test(name, async (t) => {
    const random = new Random();
    t.comment(`SEED=${random.seed}`);
    const target = await TestTarget.start(t, { reactors: 2, transport });
    const disk = await make(target);
    const served = await target.serve(disk);
    const endpoint = endpointOf(target, served);
    const guest = await target.connect(served, client);
    const loads: VerifiedLoad[] = [];
    for (let i = 0; i < PAIRS; i++) {
      const pair = await guest.createQueuePair(i + 1, ENTRIES);
      const interrupts = client.interrupts === true;
      const range = { firstPage: i * PAGES, pages: PAGES };
      loads.push(
        new VerifiedLoad({ client: guest, pair, random, depth: ENTRIES - 1, interrupts, ...range }),
      );
    }
    let moving = true;
    let prevented = 0;
    const move = async (): Promise<void> => {
      const qid = 1 + random.below(PAIRS);
      const to = 1 - reactorOf(endpoint, qid);
      try {
        await endpoint.moveQueue(qid, to);
      } catch (error) {
        assert.match(String(error), /the guest changes its queues/);
        assert.ok(disturbed);
        assert.equal(reactorOf(endpoint, qid), 1 - to);
        prevented += 1;
        await turn();
        return move();
      }
      t.equal(reactorOf(endpoint, qid), to);
    };
    const mover = (async () => {
      for (let moves = 0; moves < MOVES; moves++) {
        await move();
        for (let pause = random.below(4); pause > 0; pause--) {
          await turn();
        }
      }
    })().finally(() => {
      moving = false;
    });
    const disturber = disturbed && disturb(target, served, disk, guest, random, () => moving);
    while (moving) {
      for (const load of loads) {
        load.turn();
      }
      await turn();
    }
    await mover;
    // What disturbs waits for the commands in flight, and these for nothing.
    await Promise.all([disturber, ...loads.map((load) => load.finish(turn))]);

    const reads = loads.reduce((sum, load) => sum + load.reads, 0);
    const writes = loads.reduce((sum, load) => sum + load.writes, 0);
    t.comment(`${reads} reads, ${writes} writes, ${MOVES} moves, ${prevented} prevented`);
    const tally = endpoint.controller?.tally();
    assert.ok(tally);
    t.equal(tally.of(Op.READ).ops, reads);
    t.equal(tally.of(Op.WRITE).ops, writes);
    t.equal(tally.errors.size, 0);
    // Doorbells that were messages have arrived when a later message is answered.
    await guest.readRegister(Register.offset.csts);
    await target.pool.report();
    for (const queue of endpoint.controller?.queues() ?? []) {
      t.match(queue, { outstanding: 0, stopped: false });
      t.equal(queue.cqHead, queue.cqTail);
    }
  });
}

async function disturb(
  test: TestTarget,
  { nqn }: Served,
  disk: string,
  guest: NvmeClient,
  random: Random,
  goesOn: () => boolean,
): Promise<void> {
  const { target } = test;
  const other = await test.malloc(MIB);
  const extra = new ClientMemory(MIB, 0x8000_0000);
  const { iova, size, fd } = extra;
  const steps = [
    async () => {
      await guest.createQueuePair(PAIRS + 1, 8);
      await turn();
      await guest.deleteQueuePair(PAIRS + 1);
    },
    async () => {
      await target.addNamespace(nqn, other, { nsid: 2 });
      await target.removeNamespace(nqn, 2);
    },
    async () => {
      await guest.vfio.dmaMap({ iova, size, fd });
      await guest.vfio.dmaUnmap(iova, size);
    },
    async () => {
      await target.limit(disk, { rwIos: 50_000 });
      await turn();
      await target.limit(disk, { rwIos: 0 });
    },
  ];
  while (goesOn()) {
    await steps[random.below(steps.length)]();
    for (let pause = random.below(8); pause > 0; pause--) {
      await turn();
    }
  }
  extra.close();
}

const malloc = (target: TestTarget) => target.malloc(PAIRS * PAGES * 4096);
const file = (target: TestTarget) => target.file(target.image(PAIRS * PAGES * 4096));
const interrupts = { interrupts: true };
const shadow = { shadowDoorbells: true };

underLoad('RAM, mapped doorbells', { make: malloc });
underLoad('a file, mapped doorbells, interrupts', { make: file, client: interrupts });
underLoad('a file, trapped doorbells', { make: file, transport: TRAPPED });
underLoad('RAM, trapped doorbells, interrupts', {
  make: malloc,
  transport: TRAPPED,
  client: interrupts,
});
underLoad('RAM, shadow doorbells', { make: malloc, transport: SHADOWED, client: shadow });
underLoad('a file, shadow doorbells, interrupts', {
  make: file,
  transport: SHADOWED,
  client: { ...shadow, ...interrupts },
});
underLoad('RAM, mapped doorbells, interrupts, while other things come and go', {
  make: malloc,
  client: interrupts,
  disturbed: true,
});
underLoad('a file, shadow doorbells, interrupts, while other things come and go', {
  make: file,
  transport: SHADOWED,
  client: { ...shadow, ...interrupts },
  disturbed: true,
});

async function start(
  t: Test,
  bdev?: (target: TestTarget) => Promise<string>,
  options?: NvmeClientOptions,
) {
  const target = await TestTarget.start(t, { reactors: 2 });
  const served = await target.serve(await (bdev ?? ((target) => target.malloc(MIB)))(target));
  const endpoint = endpointOf(target, served);
  const client = await target.connect(served, options);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  return { target, served, endpoint, client, read: { ...READ, prp1 } };
}

t.test('a completion queue takes all its submission queues along', async (t) => {
  const { target, endpoint, client, read } = await start(t);
  const cq = await Cq.create(client, 1, 16);
  const sqs = [1, 2, 3].map((qid) => ({ qid, ...room(client.memory, 64 * 8), tail: 0 }));
  for (const { qid, iova } of sqs) {
    t.equal((await createSq(client, { qid, depth: 8, iova, cqid: 1 })).status, 0);
  }
  for (let round = 0; round < 20; round++) {
    const moved = endpoint.moveQueue(1, 1 - reactorOf(endpoint, 1));
    for (const sq of sqs) {
      sq.words.set([read.opcode | (round << 16), 1], 16 * sq.tail);
      sq.words.set([read.prp1 | 0, Math.floor(read.prp1 / 2 ** 32)], 16 * sq.tail + 6);
      sq.tail = (sq.tail + 1) % 8;
      const doorbells = client.admin.place.doorbells;
      if (doorbells === undefined) {
        writeDoorbell(client, 2 * sq.qid, sq.tail);
      } else {
        Atomics.store(doorbells, 2 * sq.qid, sq.tail);
      }
    }
    const entries: ReturnType<Cq['reap']> = [];
    while (entries.length < sqs.length) {
      entries.push(...cq.reap());
      await turn();
    }
    const bySqid = entries.sort((a, b) => a.sqid - b.sqid);
    t.strictSame(
      bySqid,
      sqs.map(({ qid, tail }) => ({ sqid: qid, sqhd: tail, cid: round, status: 0 })),
    );
    await moved;
    t.equal(new Set(sqs.map(({ qid }) => reactorOf(endpoint, qid))).size, 1);
  }
  t.strictSame(cq.reap(), []);
  const queues = endpoint.controller?.queues().map(({ qid, cqid }) => ({ qid, cqid }));
  t.strictSame(queues, [
    { qid: 1, cqid: 1 },
    { qid: 2, cqid: 1 },
    { qid: 3, cqid: 1 },
  ]);
  t.ok(target.pool.state(0).alive && target.pool.state(1).alive);
});

t.test('commands that do not end keep the queue where it is, and working', async (t) => {
  const { target, endpoint, client, read } = await start(t, async (target) => {
    const latencies = { avg_read: 0, p99_read: 0, avg_write: 0, p99_write: 0 };
    await target.target.createDelay({ name: 'slow' }, await target.malloc(MIB), latencies);
    return 'slow';
  });
  const slow = target.target.bdevs.get('slow');
  assert.ok(slow instanceof DelayBdev);
  const pair = await client.createQueuePair(1, 8);
  const from = reactorOf(endpoint, 1);
  // From now on the other one knows the controller, and a move begins at once.
  await endpoint.moveQueue(1, 1 - from);
  await endpoint.moveQueue(1, from);
  await target.target.setLatency(slow, 'avg_read', 3_600_000_000);
  const held = pair.execute(read);
  while (endpoint.controller?.queues()[0].inFlight !== 1) {
    await target.pool.report();
  }
  await target.target.setLatency(slow, 'avg_read', 0);
  const late = endpoint.moveQueue(1, 1 - from);
  await t.rejects(endpoint.moveQueue(1, 1 - from), { code: 'EBUSY' });
  await turn();
  const meanwhile = pair.execute(read);
  for (let round = 0; round < 3; round++) {
    await target.pool.report();
    t.match(endpoint.controller?.queues()[0], { inFlight: 1, outstanding: 2 }, 'not taken');
  }
  await t.rejects(late, { code: 'EBUSY', message: /commands of completion queue 1 do not end/ });
  t.equal(reactorOf(endpoint, 1), from);
  t.equal((await meanwhile).status, 0);
  t.equal((await pair.execute(read)).status, 0);
  // A guest that deletes the queue does not wait for the move.
  const interrupted = endpoint.moveQueue(1, 1 - from);
  const deleted = client.deleteQueuePair(1);
  await t.rejects(interrupted, { code: 'EBUSY', message: /the guest changes its queues/ });
  await t.rejects(endpoint.moveQueue(1, 1 - from));
  await held.catch(() => {});
  await deleted;
  await t.rejects(endpoint.moveQueue(1, 1 - from), { name: 'InvalidError' });
});

t.test('a guest that has not consumed its completions is interrupted once more', async (t) => {
  const { endpoint, client, read } = await start(t, undefined, { interrupts: true });
  const pair = await client.createQueuePair(1, 8);
  pair.onInterrupt = () => {};
  const ended = pair.execute(read);
  const adminInterrupts = client.interruptCount;
  for (let interrupts = 1; interrupts <= 5; interrupts++) {
    while (client.interruptCount < adminInterrupts + interrupts) {
      await turn();
    }
    await endpoint.moveQueue(1, 1 - reactorOf(endpoint, 1));
  }
  pair.poll();
  t.equal((await ended).status, 0);
});

t.test('memory of a queue that goes while it moves, and comes back', async (t) => {
  const { target, endpoint, client, read } = await start(t);
  const pair = await client.createQueuePair(1, 8);
  const { iova, size, fd } = client.memory;
  for (let round = 0; round < 20; round++) {
    const moved = endpoint.moveQueue(1, 1 - reactorOf(endpoint, 1));
    await client.vfio.dmaUnmap(iova, size);
    await moved;
    const ended = pair.execute(read);
    await target.pool.report();
    t.match(endpoint.controller?.queues()[0], { stopped: true });
    const again = round % 2 === 0 && endpoint.moveQueue(1, 1 - reactorOf(endpoint, 1));
    await client.vfio.dmaMap({ iova, size, fd });
    t.equal((await ended).status, 0);
    await again;
  }
});

for (const victim of ['from', 'to'] as const) {
  t.test(`the reactor that queues move ${victim} dies meanwhile`, async (t) => {
    const { target, endpoint, client, read } = await start(t);
    const pair = await client.createQueuePair(1, 8);
    const from = reactorOf(endpoint, 1);
    const to = 1 - from;
    // A reactor that dies in its first second is taken for one that cannot live.
    await sleep(1100);
    const moved = endpoint.moveQueue(1, to);
    const nonsense = undefined as unknown as PlaneMessage;
    const died = target.pool.request(victim === 'from' ? from : to, nonsense);
    await t.rejects(died, { name: 'ReactorLostError' });
    await moved.catch(() => {});
    // Where it is now, it works; if it is lost, the guest is told.
    const gone = async (): Promise<string> => {
      while (((await client.readRegister(Register.offset.csts)) & Csts.mask.cfs) === 0) {
        await sleep(5);
      }
      return 'lost';
    };
    const works = pair.execute(read).then(
      ({ status }) => status,
      () => 'lost',
    );
    const outcome = await Promise.race([works, gone()]);
    t.ok(outcome === 0 || outcome === 'lost', `${outcome}`);
    if (outcome === 0) {
      await endpoint.moveQueue(1, 1 - reactorOf(endpoint, 1));
      t.equal((await pair.execute(read)).status, 0);
    }
    await client.enable();
    const again = await client.createQueuePair(2, 8);
    await endpoint.moveQueue(2, 1 - reactorOf(endpoint, 2));
    t.equal((await again.execute(read)).status, 0);
  });
}

t.test('what cannot be moved', async (t) => {
  const { endpoint, client } = await start(t);
  await t.rejects(endpoint.moveQueue(1, 0), {
    name: 'InvalidError',
    message: `key 'cqid': there is no completion queue 1`,
  });
  await client.createQueuePair(1, 8);
  await t.resolves(endpoint.moveQueue(1, reactorOf(endpoint, 1)), 'it is there already');
  await client.disable();
  await t.rejects(endpoint.moveQueue(1, 1), { name: 'InvalidError' });
  client.close();
  while (endpoint.controller !== undefined) {
    await turn();
  }
  await t.rejects(endpoint.moveQueue(1, 1), { message: /no client is connected/ });
});
