/** The target's registry where a listener fails, is slow, or comes and goes. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MAX_BDEVS } from '../../src/limits.ts';
import { KeptReservations } from '../../src/target/kept-reservations.ts';
import { MAX_LISTENERS, SubsystemModel } from '../../src/target/model/subsystem.ts';
import { Subsystem } from '../../src/target/subsystem.ts';
import { Target, type TargetOptions } from '../../src/target/target.ts';
import { countingReactors, log, RecordingEndpoint, shortFolder } from '../helpers/rpc.ts';

const NQN = 'nqn.2026-11.io.doorbell:t';
const GEOMETRY = { blockSize: 512, numBlocks: 8 };
const TRANSPORT = {
  options: {
    maxQueueDepth: 64,
    maxIoQpairsPerCtrlr: 4,
    maxIoSize: 4096,
    disableMappableBar0: false,
    mapFileMemory: false,
    requireSharedMemory: false,
    shadowDoorbells: false,
    adaptiveInterrupts: true,
  },
  report: {},
};

function startTarget(options: Partial<TargetOptions> = {}) {
  const calls: string[] = [];
  const endpoints: RecordingEndpoint[] = [];
  const target = new Target({
    log,
    reactors: countingReactors(),
    listen: async ({ socketPath }) => {
      const endpoint = new RecordingEndpoint(socketPath, calls);
      endpoints.push(endpoint);
      return endpoint;
    },
    ...options,
  });
  return { target, calls, endpoints };
}

const address = (traddr: string) => ({ traddr, trsvcid: '', adrfam: 'unknown' });

t.test('a listener that cannot take a namespace: nothing is kept', async (t) => {
  const { target, calls, endpoints } = startTarget();
  await target.createTransport(TRANSPORT);
  await target.createSubsystem({ nqn: NQN });
  await target.createNull({ name: 'a' }, GEOMETRY);
  for (let i = 0; i < 2; i++) {
    await target.addListener(NQN, address(shortFolder(t)));
  }
  endpoints[1].before = async (call) => {
    if (call.startsWith('add')) {
      throw new Error('no room');
    }
  };
  await t.rejects(target.addNamespace(NQN, 'a', {}), { message: 'no room' });
  t.strictSame(calls, ['add 1 a', 'remove 1', 'remove 1']);
  t.equal(target.subsystem(NQN).namespaces.size, 0);
  t.equal(target.bdevs.claimOf(target.bdevs.get('a')), undefined);
});

t.test('a listener that does not let go of a namespace: its bdev stays', async (t) => {
  const { target, endpoints } = startTarget();
  await target.createTransport(TRANSPORT);
  await target.createSubsystem({ nqn: NQN });
  await target.createNull({ name: 'a' }, GEOMETRY);
  await target.addListener(NQN, address(shortFolder(t)));
  await target.addNamespace(NQN, 'a', {});
  endpoints[0].before = async () => {
    throw new Error('stuck');
  };
  await t.rejects(target.deleteBdev('a', 'null'), { message: 'stuck' });
  t.ok(target.bdevs.find('a'));
  await t.rejects(target.deleteBdev('a', 'null'), { code: 'EBUSY' });
  await t.rejects(target.addNamespace(NQN, 'a', {}), { name: 'InvalidError' });
  await target.close();
});

t.test('a guest that looks while it is told sees the change', async (t) => {
  const { target, endpoints } = startTarget();
  await target.createTransport(TRANSPORT);
  await target.createSubsystem({ nqn: NQN });
  await target.createNull({ name: 'a' }, GEOMETRY);
  await target.addListener(NQN, address(shortFolder(t)));
  const { namespaces } = target.subsystem(NQN);
  const seen: [string, number][] = [];
  endpoints[0].before = async (call) => {
    seen.push([call, namespaces.size]);
  };
  await target.addNamespace(NQN, 'a', { nsid: 7 });
  await target.removeNamespace(NQN, 7);
  t.strictSame(seen, [
    ['add 7 a', 1],
    ['remove 7', 0],
  ]);
});

t.test('a failed listen leaves nothing; the limit of listeners', async (t) => {
  let refuse = true;
  const { target } = startTarget({
    listen: async ({ socketPath }) => {
      if (refuse) {
        throw new Error('no');
      }
      return new RecordingEndpoint(socketPath, []);
    },
  });
  await target.createTransport(TRANSPORT);
  await target.createSubsystem({ nqn: NQN });
  const folder = shortFolder(t);
  await t.rejects(target.addListener(NQN, address(folder)), { name: 'InvalidError' });
  t.equal(target.subsystem(NQN).listeners.size, 0);
  refuse = false;
  t.equal(await target.addListener(NQN, address(`${folder}/`)), join(folder, 'cntrl'));
  await t.rejects(target.addListener(NQN, address(folder)), { message: /already/ });
  for (let i = 1; i < MAX_LISTENERS; i++) {
    await target.addListener(NQN, address(shortFolder(t)));
  }
  await t.rejects(target.addListener(NQN, address(shortFolder(t))), { message: /16 listeners/ });
  await target.removeListener(NQN, folder);
  await target.addListener(NQN, address(folder));
});

t.test('the limit of bdevs, and indices that are used again', async (t) => {
  const { target } = startTarget();
  for (let i = 0; i < MAX_BDEVS; i++) {
    await target.createNull({ name: `n${i}` }, GEOMETRY);
  }
  await t.rejects(target.createNull({ name: 'more' }, GEOMETRY), { code: 'ENOSPC' });
  for (const name of ['n700', 'n20']) {
    await target.deleteBdev(name, 'null');
  }
  t.equal((await target.createNull({ name: 'x' }, GEOMETRY)).index, 20);
  t.equal((await target.createNull({ name: 'y' }, GEOMETRY)).index, 700);
});

t.test('close: everybody is disconnected, data is synced, nothing more is done', async (t) => {
  const { target, calls, endpoints } = startTarget();
  const file = join(shortFolder(t), 'disk');
  writeFileSync(file, Buffer.alloc(8192));
  await target.createTransport(TRANSPORT);
  await target.createSubsystem({ nqn: NQN });
  const bdev = await target.createFile({ name: 'a' }, { module: 'aio', filename: file });
  const order: string[] = [];
  const sync = bdev.sync.bind(bdev);
  bdev.sync = async () => {
    order.push(`sync after ${calls.length} calls`);
    await sync();
    throw Object.assign(new Error('lost'), { code: 'EIO', errno: -5 });
  };
  await target.addNamespace(NQN, 'a', {});
  await target.addListener(NQN, address(shortFolder(t)));
  await target.addListener(NQN, address(shortFolder(t)));
  endpoints[0].before = async () => {
    throw new Error('broken');
  };
  const waiting = target.bdevs.waitFor('never', 1_000_000);
  const late = target.removeNamespace(NQN, 1);
  const refused = t.rejects(late, { message: /shutting down/ }, 'one that had not begun');
  t.strictSame(await target.close(), [
    'closing a listener failed: broken',
    "syncing bdev 'a' failed: Input/output error",
  ]);
  await refused;
  t.equal(await waiting, undefined);
  t.strictSame(calls, ['close'], 'the other listener is closed all the same');
  t.strictSame(order, ['sync after 1 calls'], 'after the guests are gone');
  t.strictSame(target.bdevs.list(), []);
  await t.rejects(target.createNull({ name: 'b' }, GEOMETRY), { message: /shutting down/ });
  await target.close();
});

t.test('controller ids go round and are unique', async (t) => {
  const model = new SubsystemModel({ nqn: NQN, minCntlid: 5, maxCntlid: 7 });
  const subsystem = new Subsystem(model, new KeptReservations());
  t.throws(() => subsystem.allocateCntlid(), { code: 'EACCES' });
  subsystem.model.allowAnyHost = true;
  t.strictSame(
    [1, 2, 3].map(() => subsystem.allocateCntlid()),
    [5, 6, 7],
  );
  t.throws(() => subsystem.allocateCntlid(), { code: 'ENOSPC' });
  subsystem.releaseCntlid(6);
  t.equal(subsystem.allocateCntlid(), 6);
  subsystem.releaseCntlid(5);
  subsystem.releaseCntlid(6);
  t.equal(subsystem.allocateCntlid(), 5, 'not the one that was used last');
});
