/** Delay and error bdevs on the data path: what the guest sees, and that nothing waits for a command that is held up. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { Injection } from '../../src/bdev/injections.ts';
import { Op } from '../../src/bdev/op.ts';
import { ErrorBdev } from '../../src/bdev/wrapper.ts';
import { ClientMemory } from '../../src/client/memory.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import type { Completion, QueuePair } from '../../src/client/queue-pair.ts';
import { Fid } from '../../src/spec/features.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { Random } from '../helpers/random.ts';
import { PagePool, Scatter } from '../helpers/scatter.ts';
import { MIB, type Served, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;
const PAGE = 4096;
const HOUR = 3_600_000_000;
const NO_DELAY = { avg_read: 0, p99_read: 0, avg_write: 0, p99_write: 0 };
const ERROR: Injection = {
  error: 'failure',
  count: 1,
  status: 0,
  queueDepth: 0,
  corruptOffset: 0,
  corruptValue: 0,
};

/** Bdevs below: in memory, which finish at once, and files, which do not. */
const BASES = {
  memory: (target: TestTarget) => target.malloc(4 * MIB),
  'a file': (target: TestTarget) => target.file(target.image(4 * MIB)),
  'a file with O_DIRECT': (target: TestTarget) =>
    target.file(target.image(4 * MIB), { direct: true }),
};

async function start(t: Test, make: (target: TestTarget) => Promise<string>, reactors = 1) {
  const target = await TestTarget.start(t, { reactors });
  const served = await target.serve(await make(target), await target.malloc(MIB));
  return { target, served, ...(await drive(target, served)) };
}

async function drive(target: TestTarget, served: Served) {
  const client = await target.connect(served);
  const pair = await client.createQueuePair(1, 512);
  return { client, pair, ...commands(client, pair) };
}

function commands(client: NvmeClient, pair: QueuePair) {
  const offset = client.memory.allocate(PAGE);
  const buffer = client.memory.bytes(offset, PAGE);
  const prp1 = client.memory.iova + offset;
  const run = (opcode: number, nsid = 1) => pair.execute({ opcode, nsid, prp1, cdw12: 7 });
  return { buffer, prp1, run, outcome: async (opcode: number) => code(await run(opcode)) };
}

const delayed =
  (latencies: Partial<typeof NO_DELAY>, below: keyof typeof BASES = 'memory') =>
  async (target: TestTarget) => {
    const base = await BASES[below](target);
    const bdev = await target.target.createDelay({ name: 'slow' }, base, {
      ...NO_DELAY,
      ...latencies,
    });
    return bdev.name;
  };

const faulty = (below: keyof typeof BASES) => async (target: TestTarget) =>
  (await target.target.createError(await BASES[below](target))).name;

function errorBdev({ target }: TestTarget): ErrorBdev {
  const bdev = target.bdevs.list().find((bdev) => bdev instanceof ErrorBdev);
  assert.ok(bdev);
  return bdev;
}

/** What the other namespace does meanwhile. */
async function othersGoOn(run: (opcode: number, nsid: number) => Promise<Completion>) {
  for (let i = 0; i < 20; i++) {
    assert.equal(code(await run(READ, 2)), '0/00');
  }
}

/** Counts the commands that are done. */
function watch(commands: readonly Promise<Completion>[]): { done: number } {
  const watched = { done: 0 };
  for (const command of commands) {
    void command.then(() => {
      watched.done += 1;
    });
  }
  return watched;
}

for (const below of Object.keys(BASES) as (keyof typeof BASES)[]) {
  t.test(`delayed: ${below}`, async (t) => {
    const slow = { avg_read: 3000, p99_read: 4000, avg_write: 20_000, p99_write: 20_000 };
    const { target, run, buffer } = await start(t, delayed(slow, below));
    buffer.fill(0x5a);
    assert.equal(code(await run(WRITE)), '0/00');
    buffer.fill(0);
    const reads = await Promise.all(Array.from({ length: 100 }, () => run(READ)));
    t.ok(reads.every((done) => code(done) === '0/00'));
    t.ok(
      buffer.every((byte) => byte === 0x5a),
      'what was written',
    );
    assert.equal(code(await run(FLUSH)), '0/00');
    const { index } = target.target.bdevs.get('slow');
    const tally = target.pool.bdevTally(index, 0);
    t.match(tally.of(Op.READ), { ops: 100, bytes: 100 * PAGE });
    t.ok(tally.of(Op.READ).minLatency >= 3_000_000);
    t.ok(tally.of(Op.WRITE).minLatency >= 20_000_000);
    t.equal(tally.flushes, 1);
  });
}

t.test('one command in a hundred is slow', async (t) => {
  const { target, run, served } = await start(t, delayed({ p99_read: HOUR }));
  const reads = Array.from({ length: 2000 }, () => () => run(READ));
  const started: Promise<Completion>[] = [];
  const watched = { done: 0 };
  // Those that are slow keep their place in the queue.
  for (const [i, read] of reads.entries()) {
    const command = read();
    started.push(command);
    void command.then(() => {
      watched.done += 1;
    });
    if (i % 100 === 99) {
      await othersGoOn(run);
    }
  }
  await othersGoOn(run);
  const slow = 2000 - watched.done;
  t.ok(slow >= 1 && slow <= 100, `${slow} of 2000`);
  await target.target.removeNamespace(served.nqn, 1);
  t.ok((await Promise.all(started)).every((done) => code(done) === '0/00'));
});

t.test('a latency is changed', async (t) => {
  const { target, run, served } = await start(t, delayed({ avg_write: HOUR, p99_write: HOUR }));
  const bdev = target.target.bdevs.get('slow');
  assert.ok('setLatency' in bdev);
  const held = run(WRITE);
  const watched = watch([held]);
  await othersGoOn(run);
  for (const latency of ['avg_write', 'p99_write'] as const) {
    await target.target.setLatency(bdev as never, latency, 0);
  }
  t.equal(code(await run(WRITE)), '0/00');
  t.equal(watched.done, 0, 'what waits already goes on waiting');
  await target.target.removeNamespace(served.nqn, 1);
  t.equal(code(await held), '0/00', 'until somebody waits for it');
});

/** Commands that a delay or an injected error holds up. */
const HELD: Record<
  string,
  {
    make: (target: TestTarget) => Promise<string>;
    /** If its queue or namespace goes; and if its memory goes. Undefined: it has nothing to do with that memory any more. */
    outcome: string;
    withoutMemory?: string | undefined;
  }
> = {
  'a delay': {
    make: delayed({ avg_read: HOUR, p99_read: HOUR }),
    outcome: '0/00',
    withoutMemory: undefined,
  },
  'a delay over a file': {
    make: delayed({ avg_read: HOUR, p99_read: HOUR }, 'a file'),
    outcome: '0/00',
    withoutMemory: undefined,
  },
  'a pending command': {
    make: async (target) => {
      const name = await faulty('a file')(target);
      errorBdev(target).inject(Op.READ, { ...ERROR, error: 'pending', count: 2 ** 32 - 1 });
      return name;
    },
    outcome: '0/07',
  },
  'a command that finds no memory': {
    make: async (target) => {
      const name = await faulty('memory')(target);
      errorBdev(target).inject(Op.READ, { ...ERROR, error: 'nomem', count: 2 ** 32 - 1 });
      return name;
    },
    outcome: '0/07',
    withoutMemory: '0/00',
  },
  'a pending command below a delay below an error bdev': {
    make: async (target) => {
      const name = await faulty('memory')(target);
      errorBdev(target).inject(Op.READ, { ...ERROR, error: 'pending', count: 2 ** 32 - 1 });
      const latencies = { ...NO_DELAY, avg_read: HOUR, p99_read: HOUR };
      await target.target.createDelay({ name: 'slow' }, name, latencies);
      return (await target.target.createError('slow')).name;
    },
    outcome: '0/07',
  },
};

for (const [name, held] of Object.entries(HELD)) {
  const { make, outcome } = held;
  const withoutMemory = 'withoutMemory' in held ? held.withoutMemory : outcome;
  t.test(`${name}: its namespace goes`, async (t) => {
    const { target, served, run } = await start(t, make);
    const held = Array.from({ length: 300 }, () => run(READ));
    const watched = watch(held);
    await othersGoOn(run);
    t.equal(watched.done, 0);
    await target.target.removeNamespace(served.nqn, 1);
    const outcomes = new Set((await Promise.all(held)).map(code));
    t.strictSame([...outcomes], [outcome]);
    await othersGoOn(run);
  });

  t.test(`${name}: its memory goes`, async (t) => {
    const { target, served, client, pair, run } = await start(t, make);
    const memory = new ClientMemory(PAGE, 0x4000_0000);
    t.teardown(() => memory.close());
    await client.vfio.dmaMap({ iova: 0x4000_0000, size: PAGE, fd: memory.fd });
    const held = pair.execute({ opcode: READ, nsid: 1, prp1: 0x4000_0000, cdw12: 7 });
    const watched = watch([held]);
    await othersGoOn(run);
    t.equal(watched.done, 0);
    await client.vfio.dmaUnmap(0x4000_0000, PAGE);
    if (withoutMemory === undefined) {
      await othersGoOn(run);
      t.equal(watched.done, 0);
      await target.target.removeNamespace(served.nqn, 1);
    }
    t.equal(code(await held), withoutMemory ?? outcome);
  });

  t.test(`${name}: the guest resets the controller, and hangs up`, async (t) => {
    const { target, served, client, pair, run } = await start(t, make);
    for (let i = 0; i < 100; i++) {
      run(READ).catch(() => {});
    }
    await othersGoOn(run);
    await client.disable();
    pair.abandon();
    await client.enable();
    const again = commands(client, await client.createQueuePair(1, 64));
    await othersGoOn(again.run);
    again.run(READ).catch(() => {});
    await othersGoOn(again.run);
    client.close();
    await client.vfio.closed;
    const next = await drive(target, served);
    await othersGoOn(next.run);
    t.equal(code(await next.run(FLUSH)), '0/00');
    next.run(READ).catch(() => {});
    await othersGoOn(next.run);
    // The target stops at the end of the test, with a command held up.
  });
}

/** Things that a guest or an operator does, which are no end of what another queue and another namespace have under way. */
for (const name of ['a pending command', 'a pending command below a delay below an error bdev']) {
  t.test(`${name}: what does not concern it does not end it`, async (t) => {
    const { target, served, client, pair, run } = await start(t, HELD[name].make);
    const other = await client.createQueuePair(2, 8);
    const held = [run(READ), run(READ), run(READ)];
    const watched = watch(held);
    await othersGoOn(run);
    await client.vfio.dmaMap({ iova: 0x4000_0000, size: PAGE, fd: client.memory.fd });
    await client.vfio.dmaUnmap(0x4000_0000, PAGE);
    await client.deleteQueuePair(2);
    other.abandon();
    await target.target.removeNamespace(served.nqn, 2);
    await target.target.addNamespace(served.nqn, await target.malloc(MIB), { nsid: 2 });
    const admin = new AdminCaller(client);
    t.equal((await admin.setFeature(Fid.VOLATILE_WRITE_CACHE, 0)).code, '0/00');
    const again = await client.createQueuePair(2, 8);
    await othersGoOn(run);
    t.equal(watched.done, 0);
    t.equal(code(await again.execute({ opcode: FLUSH, nsid: 2 })), '0/00');
    await client.deleteQueuePair(1);
    t.strictSame(new Set((await Promise.all(held)).map(code)), new Set(['0/07']));
    pair.abandon();
  });
}

t.test('a command that finds no memory does not mind who else is waited for', async (t) => {
  const make = HELD['a command that finds no memory'].make;
  const { target, served, run } = await start(t, make);
  const held = run(READ);
  const watched = watch([held]);
  await othersGoOn(run);
  await target.target.removeNamespace(served.nqn, 2);
  t.equal(watched.done, 0);
  await target.target.removeNamespace(served.nqn, 1);
  t.equal(code(await held), '0/07');
});

t.test('an injected error is told like one of a real disk', async (t) => {
  const { target, outcome } = await start(t, faulty('memory'));
  const { events } = target.target;
  const before = events.last;
  errorBdev(target).inject(Op.WRITE, { ...ERROR, count: 1 });
  t.equal(await outcome(WRITE), '0/06');
  let told = events.since(before).filter(({ type }) => type === 'error');
  while (told.length === 0) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    told = events.since(before).filter(({ type }) => type === 'error');
  }
  t.match(told, [{ bdev: 'EE_malloc1', message: /^write at LBA 0 failed: injected/ }]);
});

for (const below of Object.keys(BASES) as (keyof typeof BASES)[]) {
  t.test(`errors are injected: ${below}`, async (t) => {
    const { target, run, outcome, buffer } = await start(t, faulty(below));
    const bdev = errorBdev(target);
    for (const opcode of [READ, WRITE, FLUSH]) {
      t.equal(await outcome(opcode), '0/00', 'none at first');
    }
    bdev.inject(Op.READ, { ...ERROR, count: 3 });
    const outcomes = (await Promise.all(Array.from({ length: 20 }, () => run(READ)))).map(code);
    t.equal(outcomes.filter((outcome) => outcome === '0/06').length, 3);
    t.equal(outcomes.filter((outcome) => outcome === '0/00').length, 17);
    bdev.inject(Op.WRITE, { ...ERROR, error: 'nvme_failure', count: 2, status: 0x286 });
    bdev.inject(Op.FLUSH, { ...ERROR, error: 'nvme_failure', status: 0x7ff });
    t.equal(await outcome(READ), '0/00', 'each kind for itself');
    t.equal(await outcome(WRITE), '2/86');
    t.equal(await outcome(WRITE), '2/86');
    t.equal(await outcome(WRITE), '0/00');
    t.equal(await outcome(FLUSH), '7/ff');
    t.equal(await outcome(FLUSH), '0/00');

    buffer.fill(0x33);
    for (const op of [Op.READ, Op.WRITE, Op.FLUSH]) {
      bdev.inject(op, { ...ERROR, error: 'nomem', count: 5 });
    }
    t.equal(await outcome(WRITE), '0/00', 'tried again until there is memory');
    buffer.fill(0);
    t.equal(await outcome(READ), '0/00');
    t.ok(
      buffer.every((byte) => byte === 0x33),
      'with the right data',
    );
    t.equal(await outcome(FLUSH), '0/00');

    bdev.inject(Op.READ, { ...ERROR, count: 2 ** 32 - 1 });
    t.equal(await outcome(READ), '0/06');
    bdev.clear();
    t.equal(await outcome(READ), '0/00');
    const { errors } = target.pool.bdevTally(bdev.index, 0);
    t.strictSame(Object.fromEntries(errors), { 6: 4, 646: 2, 2047: 1 }, 'and counted');
  });

  t.test(`data are corrupted: ${below}`, async (t) => {
    const { target, client, pair } = await start(t, faulty(below));
    const bdev = errorBdev(target);
    const random = new Random();
    t.comment(`SEED=${random.seed}`);
    const pool = new PagePool(random).add(client.memory);
    for (let round = 0; round < 24; round++) {
      // At the ends of pieces too, and as many pieces as there can be.
      const length = round < 3 ? MIB : 512 * (1 + random.below(64));
      const offset = round % 2 === 0 ? 4 * (1 + random.below(1023)) : 0;
      const scatter = new Scatter(pool, length, random, offset);
      const data = Uint8Array.from({ length }, () => random.below(256));
      const ends = [0, length - 1, PAGE - offset - 1, PAGE - offset];
      const at = (round % 5 < 4 ? ends[round % 5] : random.below(length)) % length;
      const value = 1 + random.below(255);
      const wrong = data.slice();
      wrong[at] ^= value;
      const { prp1, prp2 } = scatter;
      const command = { nsid: 1, prp1, prp2, cdw10: 0, cdw12: length / 512 - 1 };
      const go = async (opcode: number): Promise<void> => {
        assert.equal(code(await pair.execute({ opcode, ...command })), '0/00');
      };
      const corrupt = { ...ERROR, error: 'corrupt_data', corruptOffset: at, corruptValue: value };
      scatter.write(data);
      bdev.inject(Op.WRITE, corrupt as Injection);
      await go(WRITE);
      assert.deepEqual(scatter.read(), data, "the guest's buffer stays as it is");
      scatter.write(new Uint8Array(length));
      await go(READ);
      assert.deepEqual(scatter.read(), wrong, 'written wrong');
      await go(READ);
      scatter.write(data);
      await go(WRITE);
      scatter.write(new Uint8Array(length));
      bdev.inject(Op.READ, corrupt as Injection);
      await go(READ);
      assert.deepEqual(scatter.read(), wrong, 'read wrong');
      await go(READ);
      assert.deepEqual(scatter.read(), data, 'once');
      bdev.inject(Op.READ, { ...corrupt, corruptOffset: length } as Injection);
      await go(READ);
      assert.deepEqual(scatter.read(), data, 'a byte beyond the command');
      t.ok(scatter.intact);
      scatter.release();
    }
    const { base } = bdev;
    if (base.module === 'uring') {
      const { uring } = base.driverSpecific as { uring: { filename: string } };
      t.equal(readFileSync(uring.filename).length, 4 * MIB);
    }
  });
}

t.test('many corrupted writes in one batch', async (t) => {
  const { target, client, pair } = await start(t, faulty('memory'));
  const bdev = errorBdev(target);
  bdev.inject(Op.WRITE, {
    ...ERROR,
    error: 'corrupt_data',
    count: 64,
    corruptOffset: 7,
    corruptValue: 1,
  });
  const buffers = Array.from({ length: 64 }, (_, i) => {
    const offset = client.memory.allocate(PAGE);
    const bytes = client.memory.bytes(offset, PAGE).fill(2 * i);
    return { bytes, prp1: client.memory.iova + offset };
  });
  const all = (opcode: number) =>
    Promise.all(
      buffers.map(({ prp1 }, i) => pair.execute({ opcode, nsid: 1, prp1, cdw10: 8 * i, cdw12: 7 })),
    );
  t.ok((await all(WRITE)).every((done) => code(done) === '0/00'));
  for (const { bytes } of buffers) {
    bytes.fill(0xff);
  }
  t.ok((await all(READ)).every((done) => code(done) === '0/00'));
  for (const [i, { bytes }] of buffers.entries()) {
    assert.equal(bytes[7], 2 * i + 1, `command ${i}`);
    assert.ok(bytes.every((byte, at) => at === 7 || byte === 2 * i));
  }
});

t.test('an error happens as often as it should, on two reactors', async (t) => {
  const target = await TestTarget.start(t, { reactors: 2 });
  const served = await target.serve(await faulty('memory')(target));
  const client = await target.connect(served);
  const pairs = [await client.createQueuePair(1, 256), await client.createQueuePair(2, 256)];
  const { prp1 } = commands(client, pairs[0]);
  errorBdev(target).inject(Op.READ, { ...ERROR, count: 1000 });
  let failed = 0;
  for (let round = 0; round < 10; round++) {
    const reads = Array.from({ length: 200 }, (_, i) =>
      pairs[i % 2].execute({ opcode: READ, nsid: 1, prp1, cdw12: 7 }),
    );
    failed += (await Promise.all(reads)).filter((done) => code(done) === '0/06').length;
  }
  t.equal(failed, 1000);
});

t.test('an error that comes with load', async (t) => {
  const make = async (target: TestTarget) => {
    const latencies = { ...NO_DELAY, avg_read: HOUR, p99_read: HOUR };
    await target.target.createDelay({ name: 'slow' }, await target.malloc(MIB), latencies);
    return (await target.target.createError('slow')).name;
  };
  const { target, served, run } = await start(t, make);
  errorBdev(target).inject(Op.READ, { ...ERROR, count: 100, queueDepth: 10 });
  const reads = Array.from({ length: 15 }, () => run(READ));
  const failed = await Promise.all(reads.slice(10));
  t.ok(
    failed.every((done) => code(done) === '0/06'),
    'ten are under way',
  );
  await target.target.removeNamespace(served.nqn, 1);
  const others = await Promise.all(reads.slice(0, 10));
  t.ok(others.every((done) => code(done) === '0/00'));
});

t.test('with a rate limit, too', async (t) => {
  const { target, served, run } = await start(t, delayed({ avg_read: 2000, p99_read: 2000 }));
  await target.target.limit('slow', { rwIos: 20_000 });
  const reads = await Promise.all(Array.from({ length: 300 }, () => run(READ)));
  t.ok(reads.every((done) => code(done) === '0/00'));
  const bdev = target.target.bdevs.get('slow');
  await target.target.setLatency(bdev as never, 'avg_read', HOUR);
  await target.target.setLatency(bdev as never, 'p99_read', HOUR);
  const held = Array.from({ length: 200 }, () => run(READ));
  const watched = watch(held);
  await target.target.removeNamespace(served.nqn, 1);
  const outcomes = (await Promise.all(held)).map(code);
  t.equal(watched.done, 200, 'parked commands and delayed ones');
  t.ok(outcomes.every((outcome) => outcome === '0/00' || outcome === '0/0b'));
});

t.test('a base of another size', async (t) => {
  const target = await TestTarget.start(t);
  const name = await target.null(MIB);
  await target.target.createDelay({ name: 'slow' }, name, NO_DELAY);
  const served = await target.serve((await target.target.createError('slow')).name);
  const { client, outcome } = await drive(target, served);
  t.equal(await outcome(READ), '0/00');
  await target.target.resizeNull(name, 8);
  t.equal((await client.namespaceGeometry(1)).lbas, (8 * MIB) / 512);
  t.equal(target.target.bdevs.get('slow').numBlocks, (8 * MIB) / 512);
});

for (const [where, make] of Object.entries(BASES)) {
  t.test(`on ${where}: pending commands go on when told to, and only those`, async (t) => {
    const { target, client, pair, buffer, prp1, run, outcome } = await start(t, async (target) => {
      const base = await make(target);
      await target.target.createError(base);
      return `EE_${base}`;
    });
    buffer.fill(0x5a);
    t.equal(await outcome(WRITE), '0/00');
    const bdev = errorBdev(target);
    bdev.inject(Op.READ, { ...ERROR, error: 'pending', count: 3 });
    bdev.resumePending();
    buffer.fill(0);
    const reads = [run(READ), run(READ)];
    let ended = 0;
    for (const read of reads) {
      read.then(() => {
        ended += 1;
      });
    }
    t.equal(code(await run(FLUSH)), '0/00', 'others go on');
    await new Promise((resolve) => setTimeout(resolve, 50));
    t.equal(ended, 0, 'they wait, also if others before them were let go');
    bdev.resumePending();
    t.strictSame((await Promise.all(reads)).map(code), ['0/00', '0/00']);
    t.ok(
      buffer.every((byte) => byte === 0x5a),
      'with their data',
    );
    const third = pair.execute({ opcode: READ, nsid: 1, prp1, cdw12: 7 });
    await new Promise((resolve) => setTimeout(resolve, 30));
    await client.deleteQueuePair(1);
    t.equal(code(await third), '0/07', 'a later one is pending anew, and ends with its queue');
  });
}
