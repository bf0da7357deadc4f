/** A target in another program: its life, VMs and disks, methods, events; and what it must leave alone. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { connect } from '../../src/client/index.ts';
import { createTarget, type EventType, FailedError, RpcError } from '../../src/index.ts';
import { startTestTarget } from '../../src/library/testing.ts';
import { callRpc } from '../../src/rpc/client.ts';
import { shortFolder } from '../helpers/rpc.ts';

/** From dist/test/integration. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
const MIB = 2 ** 20;

t.test('a target is started, changed while it runs, and stopped', async (t) => {
  const folder = shortFolder(t);
  const target = createTarget({ reactors: 1, rpcSocket: join(folder, 'rpc') });
  t.teardown(() => target.stop());
  const events: EventType[] = [];
  const end = target.onEvent(({ type }) => events.push(type));
  t.throws(() => target.rpc, FailedError, 'nothing can be called before');
  t.equal(await target.start(), target);
  await t.rejects(target.start(), /started already/);
  t.equal(target.listening.rpcSocket, join(folder, 'rpc'));

  const file = join(folder, 'web.img');
  const vm = await target.addVm('web', {
    socket: join(folder, 'web'),
    disks: [{ file, size: '8M' }, { ram: '4M' }],
  });
  t.strictSame(vm, {
    name: 'web',
    nqn: 'nqn.2026-11.io.doorbell:web',
    sockets: [join(folder, 'web/cntrl')],
    disks: [
      { bdev: 'web/web.img', nsid: 1, bytes: 8 * MIB },
      { bdev: 'web/ram1', nsid: 2, bytes: 4 * MIB },
    ],
  });
  t.equal(statSync(file).size, 8 * MIB);
  const added = await target.addDisk('web', { ram: '1M' });
  t.strictSame(added, { bdev: 'web/ram2', nsid: 3, bytes: MIB }, 'with a name that is free');
  const drive = await connect(vm.sockets[0]);
  t.strictSame(await drive.namespaces(), [1, 2, 3]);
  await target.removeDisk('web/ram1');
  t.strictSame(await drive.namespaces(), [1, 3]);
  t.strictSame(
    (await callRpc(join(folder, 'rpc'), 'bdev_get_bdevs', {})) as unknown[],
    await target.rpc.bdev_get_bdevs(),
    'as over the socket',
  );

  await target.removeVm('web');
  t.match(await drive.closed, /./);
  drive.close();
  t.strictSame(target.vms, []);
  t.strictSame(await target.rpc.bdev_get_bdevs(), []);
  t.ok(existsSync(file), 'the file stays');
  for (const type of ['namespace-added', 'client-connected', 'subsystem-deleted'] as const) {
    t.ok(events.includes(type), type);
  }
  end();
  const count = events.length;
  await target.rpc.bdev_malloc_create({ num_blocks: 8, block_size: 512 });
  t.equal(events.length, count, 'no longer told');

  await target.stop();
  t.notOk(existsSync(join(folder, 'rpc')));
  t.throws(() => target.vms, FailedError);
  await t.rejects(target.addVm('late', {}), FailedError);
  await t.rejects(target.start(), /started already/);
  await target.stop();
});

t.test('what cannot be is refused, and leaves nothing behind', async (t) => {
  const folder = shortFolder(t);
  writeFileSync(join(folder, 'occupied'), '');
  t.throws(
    () => createTarget({ reactor: 1 } as object),
    /no option 'reactor', did you mean 'reactors'/,
  );
  const blocked = createTarget({ rpcSocket: join(folder, 'occupied'), reactors: 1 });
  await t.rejects(blocked.start(), /not a socket/);
  await t.rejects(blocked.start(), /not a socket/, 'and can be tried again');
  await blocked.stop();

  const target = await createTarget({ reactors: 1 }).start();
  t.teardown(() => target.stop());
  const socket = join(folder, 'vm');
  await t.rejects(
    target.addVm('vm', { socket, disks: [{ ram: '4M', size: 3 }] }),
    /VM 'vm': disks\[0\]\.size: only a disk with a 'file' has 'size'/,
  );
  await t.rejects(target.addVm('a/b', { socket }), /name of a VM/);
  await t.rejects(target.addVm('vm', { socket, disks: [join(folder, 'missing')] }), {
    name: 'RpcError',
    message: /missing/,
  });
  // Its second disk cannot be made, or its socket: the first one is taken back.
  mkdirSync(join(folder, 'taken/cntrl'), { recursive: true });
  for (const vm of [
    { socket, disks: [{ ram: '4M' }, folder] },
    { socket: join(folder, 'taken'), disks: [{ ram: '4M' }] },
  ]) {
    await t.rejects(target.addVm('vm', vm), RpcError);
    t.strictSame([target.vms, await target.rpc.bdev_get_bdevs()], [[], []]);
  }
  await target.addVm('vm', { socket, disks: [{ ram: '4M' }] });
  await t.rejects(target.addVm('vm', { socket, disks: [{ ram: '4M' }] }), RpcError, 'twice');
  t.equal(target.vms[0].disks.length, 1, 'and the first one stays');
  await t.rejects(target.addDisk('none', { ram: '4M' }), /no VM 'none'/);
  await t.rejects(target.removeVm('none'), /no VM 'none'/);
  await t.rejects(target.removeDisk('none'), /no disk 'none'/);
  await t.rejects(
    target.rpc.bdev_malloc_create({ num_blocks: 0, block_size: 512 }),
    { code: -32602, message: /num_blocks/ },
    'checked as over the socket',
  );
});

t.test('what a program gets is its own', async (t) => {
  const test = await startTestTarget({ disks: [{ ram: '4M' }] });
  t.teardown(() => test.stop());
  const { rpc } = test.target;
  const [before] = await rpc.bdev_get_bdevs();
  before.aliases.push('mine');
  const events = await rpc.doorbell_get_events();
  Object.assign(events[0], { type: 'error' });
  t.notOk((await rpc.bdev_get_bdevs())[0].aliases.includes('mine'));
  t.not((await rpc.doorbell_get_events())[0].type, 'error');
  test.target.onEvent(() => {
    throw new Error('a listener that fails');
  });
  await rpc.bdev_malloc_create({ name: 'other', num_blocks: 8, block_size: 512 });
});

t.test('a test target has a folder of its own, and leaves none', async (t) => {
  const test = await startTestTarget({ disks: ['/dev/null'] }).catch((error: Error) => error);
  t.match(test, { message: /\/dev\/null/ });
  const [a, b] = await Promise.all([startTestTarget(), startTestTarget()]);
  t.not(a.folder, b.folder);
  await b.addVm('other', { disks: [{ ram: '1M' }] });
  for (const [vm, bytes] of [
    ['vm', 64 * MIB],
    ['other', MIB],
  ] as const) {
    const drive = await b.connect(vm);
    t.equal((await drive.namespace()).bytes, bytes);
  }
  await Promise.all([a.stop(), b.stop()]);
  t.notOk(existsSync(a.folder) || existsSync(b.folder));
});

t.test('the sockets and signals of the process are left alone', async (t) => {
  const program = `
    import { createTarget } from ${JSON.stringify(new URL('../../src/index.js', import.meta.url).href)};
    const events = ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'uncaughtException', 'unhandledRejection', 'exit'];
    const handlers = () => events.map((name) => process.listenerCount(name));
    const before = handlers();
    const target = await createTarget({ reactors: 1 }).start();
    const during = handlers();
    await target.stop();
    const after = handlers();
    console.log(JSON.stringify({ before, during, after, listen: process.env.LISTEN_FDS }));`;
  const file = join(t.testdir(), 'program.mjs');
  writeFileSync(file, program);
  const run = (...args: string[]) =>
    spawnSync(process.execPath, args, {
      encoding: 'utf8',
      env: { ...process.env, LISTEN_FDS: '2', LISTEN_FDNAMES: 'a:b' },
    });
  // However the program is given to Node, its reactors start.
  const limited = run('--max-old-space-size=300', file);
  t.equal(limited.status, 0, limited.stderr);
  const { stdout, stderr, status } = run('--input-type=module', '-e', program);
  t.equal(status, 0, stderr);
  const { before, during, after, listen } = JSON.parse(stdout);
  t.strictSame(during.slice(0, -1), before.slice(0, -1), 'handlers of the process');
  t.strictSame(after, before, 'its threads need to know of its exit while they run');
  t.equal(listen, '2');
  t.equal(stderr, '', 'nothing to say, and it ends by itself');
});

for (const name of readdirSync(join(ROOT, 'examples')).filter((file) => file.endsWith('.mjs'))) {
  t.test(`examples/${name} runs`, async (t) => {
    const argument = name === 'embed.mjs' ? [shortFolder(t)] : [];
    const { stdout, stderr, status } = spawnSync(
      process.execPath,
      [join(ROOT, 'examples', name), ...argument],
      { encoding: 'utf8' },
    );
    t.equal(status, 0, stderr);
    t.match(stdout, name === 'embed.mjs' ? /namespace 3 is bdev web\/ram2/ : /read again/);
  });
}
