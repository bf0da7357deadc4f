/** Changes of one thing wait for each other, those of another do not: where a guest or a disk hangs, and what can be done about it then. */
import t from 'tap';
import { Target } from '../../src/target/target.ts';
import { countingReactors, log, RecordingEndpoint, shortFolder } from '../helpers/rpc.ts';
import type { Test } from '../helpers/target.ts';

const GEOMETRY = { blockSize: 512, numBlocks: 8 };
const TRANSPORT = {
  options: {
    maxQueueDepth: 64,
    maxIoQpairsPerCtrlr: 4,
    maxIoSize: 8192,
    disableMappableBar0: false,
    mapFileMemory: false,
    requireSharedMemory: false,
    shadowDoorbells: false,
    adaptiveInterrupts: true,
  },
  report: {},
};

const nqnOf = (name: string) => `nqn.2026-11.io.doorbell:${name}`;

/** A listener whose guest answers nothing from `hang` on, as one with a disk that hangs; what it was asked ends with the client. */
class HangingEndpoint extends RecordingEndpoint {
  #hangs = false;
  #gone: () => void = () => {};
  readonly #over = new Promise<void>((resolve) => {
    this.#gone = resolve;
  });

  constructor(socketPath: string, calls: string[]) {
    super(socketPath, calls);
    this.before = async (call) => {
      if (call === 'close') {
        this.#gone();
      } else if (this.#hangs) {
        calls.push(`${call}?`);
        await this.#over;
      }
    };
  }

  hang(): void {
    this.#hangs = true;
  }
}

/** A target with a VM for each name, whose namespace 1 is a bdev of its name. */
async function startTarget(t: Test, ...names: string[]) {
  const calls: string[] = [];
  const endpoints = new Map<string, HangingEndpoint>();
  const target = new Target({
    log,
    reactors: countingReactors(),
    listen: async ({ subsystem, socketPath }) => {
      const endpoint = new HangingEndpoint(socketPath, calls);
      endpoints.set(subsystem.nqn, endpoint);
      return endpoint;
    },
  });
  await target.createTransport(TRANSPORT);
  for (const name of names) {
    await target.createNull({ name }, GEOMETRY);
    await target.createSubsystem({ nqn: nqnOf(name) });
    await target.addNamespace(nqnOf(name), name, {});
    const traddr = shortFolder(t);
    await target.addListener(nqnOf(name), { traddr, trsvcid: '', adrfam: 'unknown' });
  }
  calls.length = 0;
  const hang = (name: string) => endpoints.get(nqnOf(name))?.hang();
  return { target, calls, hang };
}

/** Fails unless a promise is still pending after everything that can happen now has happened. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const later = new Promise<string>((resolve) => {
    setImmediate(() => setImmediate(() => resolve('pending')));
  });
  return (await Promise.race([promise.catch(() => {}), later])) === 'pending';
}

/** Every kind of change of a VM whose guest does not answer. */
const HANGING: Readonly<Record<string, (target: Target) => Promise<unknown>>> = {
  'a namespace that is added': (target) => target.addNamespace(nqnOf('a'), 'spare', {}),
  'a namespace that is removed': (target) => target.removeNamespace(nqnOf('a'), 1),
  'a bdev that is deleted': (target) => target.deleteBdev('a', 'null'),
  'a bdev that is resized': (target) => target.resizeNull('a', 1),
  'rate limits that are set': (target) => target.limit('a', { rwIos: 1000 }),
};

for (const [what, change] of Object.entries(HANGING)) {
  t.test(`${what}: others go on`, async (t) => {
    const { target, hang } = await startTarget(t, 'a', 'b');
    await target.createNull({ name: 'spare' }, GEOMETRY);
    hang('a');
    const hanging = change(target);
    const outcome = hanging.then(
      () => 'done',
      (error: Error) => error.message,
    );
    t.ok(await isPending(hanging));

    await target.createNull({ name: 'new' }, GEOMETRY);
    await target.addNamespace(nqnOf('b'), 'new', { nsid: 2 });
    await target.resizeNull('new', 2);
    await target.limit('b', { rwIos: 1000 });
    await target.removeNamespace(nqnOf('b'), 2);
    await target.deleteBdev('b', 'null');
    await target.createSubsystem({ nqn: nqnOf('c') });
    const traddr = shortFolder(t);
    await target.addListener(nqnOf('c'), { traddr, trsvcid: '', adrfam: 'unknown' });
    await target.removeListener(nqnOf('c'), traddr);
    await target.deleteSubsystem(nqnOf('b'));

    const next = target.configureSubsystem(nqnOf('a'), () => {});
    t.ok(await isPending(next), 'the next change of the same VM waits');
    const deletion = target.deleteSubsystem(nqnOf('a'));
    await t.rejects(target.removeNamespace(nqnOf('a'), 1), { message: /is being deleted/ });
    await Promise.all([next, deletion]);
    t.type(await outcome, 'string', 'it has an end');
    t.equal(target.findSubsystem(nqnOf('a')), undefined, 'the VM is gone');
    for (const name of ['a', 'spare']) {
      const bdev = target.bdevs.find(name);
      t.ok(bdev === undefined || target.bdevs.ownerOf(bdev) === undefined, `${name} is free`);
    }
    await target.close();
  });
}

t.test('the listener of a guest that hangs can be removed, and with it what waits', async (t) => {
  const { target, calls, hang } = await startTarget(t, 'a');
  hang('a');
  const removal = target.removeNamespace(nqnOf('a'), 1);
  t.ok(await isPending(removal));
  const [listener] = target.subsystem(nqnOf('a')).listeners.values();
  await target.removeListener(nqnOf('a'), listener.address.traddr);
  await removal;
  t.strictSame(calls, ['remove 1?', 'close', 'remove 1', 'close']);
  t.equal(target.subsystem(nqnOf('a')).listeners.size, 0);
  await target.deleteSubsystem(nqnOf('a'));
});

t.test(
  'a bdev that is being deleted: nobody gets it, its name is free when it is gone',
  async (t) => {
    const { target, hang } = await startTarget(t, 'a', 'b');
    hang('a');
    const deletion = target.deleteBdev('a', 'null');
    t.ok(await isPending(deletion));
    await t.rejects(target.createError('a'), { code: 'EBUSY' });
    await t.rejects(target.addNamespace(nqnOf('b'), 'a', {}), { message: /being deleted|claimed/ });
    const again = target.createNull({ name: 'a' }, GEOMETRY);
    const twice = t.rejects(target.deleteBdev('a', 'null'), { code: 'ENODEV' });
    t.ok(await isPending(again));
    t.equal(target.bdevs.list().length, 2, 'it is listed');
    await target.deleteSubsystem(nqnOf('a'));
    await deletion;
    await twice;
    t.equal((await again).name, 'a');
    await target.close();
  },
);

t.test('requests that come at once are carried out in their order', async (t) => {
  const { target } = await startTarget(t);
  const nqn = nqnOf('x');
  const traddr = shortFolder(t);
  const all = [
    target.createNull({ name: 'n' }, GEOMETRY),
    target.createDelay({ name: 'd' }, 'n', {
      avg_read: 1,
      p99_read: 1,
      avg_write: 1,
      p99_write: 1,
    }),
    target.createSubsystem({ nqn }),
    target.addNamespace(nqn, 'd', {}),
    target.addListener(nqn, { traddr, trsvcid: '', adrfam: 'unknown' }),
    target.limit('d', { rwIos: 1000 }),
    target.removeListener(nqn, traddr),
    target.addListener(nqn, { traddr, trsvcid: '', adrfam: 'unknown' }),
    target.removeNamespace(nqn, 1),
    target.addNamespace(nqn, 'd', {}),
  ];
  const outcomes = await Promise.allSettled(all);
  t.strictSame(
    outcomes.map((outcome) => (outcome.status === 'rejected' ? outcome.reason.message : '')),
    all.map(() => ''),
  );
  await Promise.all([
    target.removeNamespace(nqn, 1),
    target.deleteSubsystem(nqn),
    target.createSubsystem({ nqn }),
    target.deleteBdev('d', 'delay'),
    target.createNull({ name: 'd' }, GEOMETRY),
  ]);
  t.equal(target.subsystem(nqn).namespaces.size, 0);
  t.equal(target.bdevs.get('d').module, 'null');
  await target.close();
});

t.test('the end: what hangs holds up nothing else', async (t) => {
  const { target } = await startTarget(t, 'a', 'b', 'c');
  const synced: string[] = [];
  for (const bdev of target.bdevs.list()) {
    bdev.sync = async () => {
      synced.push(bdev.name);
      if (bdev.name === 'b') {
        await new Promise(() => {});
      }
    };
  }
  const [stuck] = target.subsystem(nqnOf('a')).listeners.values();
  stuck.endpoint.close = () => new Promise(() => {});
  const end = target.close();
  t.ok(await isPending(end));
  t.strictSame(synced, ['b', 'c'], 'all at once');
  t.strictSame(
    target.subsystems.map(({ nqn }) => nqn),
    [nqnOf('a')],
    'the guest that does not go is left',
  );
  while (!synced.includes('a')) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  t.ok(await isPending(end), 'its disk is durable all the same');
  t.strictSame(
    target.bdevs.list().map(({ name }) => name),
    ['a', 'b'],
    'what is not done is left',
  );
});
