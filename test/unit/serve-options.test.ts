/** Options of `doorbell serve` beside others: each applies, or is refused. */
import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import t from 'tap';
import { openConfiguration } from '../../src/app/config/open.ts';
import { refuseBeside, refuseUnusable } from '../../src/app/config/unusable.ts';
import type { DiskOptions } from '../../src/app/disks.ts';
import { refuseDevicePath } from '../../src/bdev/device-path.ts';
import { createDiskImage } from '../../src/bdev/image.ts';
import { BlockingCalls } from '../../src/native/blocking-calls.ts';
import { EMPTY_PLAN, type Plan } from '../../src/target/model/plan.ts';
import { shortFolder } from '../helpers/rpc.ts';

const NOTHING = { disks: [], diskSize: 2 ** 20, direct: false, readonly: false };

const OPTIONS: readonly (readonly [string, Partial<DiskOptions>])[] = [
  ['--readonly', { readonly: true }],
  ['--direct', { direct: true }],
  ['--block-size', { blockSize: 4096 }],
];

t.test('beside --config', async (t) => {
  for (const [flag, option] of [...OPTIONS, ['--disk', { disks: ['a'] }]] as const) {
    const options = { ...NOTHING, config: ['vms.yaml'], ...option };
    const expected = { name: 'InvalidError', message: new RegExp(`${flag}.* --config: write '`) };
    t.throws(() => refuseUnusable(options), expected);
    t.throws(() => refuseUnusable({ ...options, stateDir: '/s' }), expected);
  }
  const fallback = { ...NOTHING, config: ['vms.yaml'], defaultDisk: 'disk.img' };
  t.doesNotThrow(() => refuseUnusable(fallback), 'for the case that there is no other');
});

t.test('without any disk', async (t) => {
  const without = [
    ...OPTIONS,
    ['--trap-doorbells', { trapDoorbells: true }],
    ['--map-file-memory', { mapFileMemory: true }],
    ['--require-shared-memory', { requireSharedMemory: true }],
  ] as const;
  for (const [flag, option] of without) {
    const options = { ...NOTHING, ...option };
    const kept = { ...options, stateDir: '/s' };
    t.doesNotThrow(() => refuseUnusable({ ...options, disks: ['a'] }));
    t.doesNotThrow(() => refuseUnusable({ ...options, defaultDisk: 'a' }));
    const expected = { message: new RegExp(`^${flag} has no effect without a disk`) };
    t.throws(() => refuseUnusable(options), expected);
    t.throws(() => refuseBeside(kept, EMPTY_PLAN, false), expected, 'nothing is kept yet');
  }
});

const plan = (file: Record<string, unknown>, traddr = '/run/a', mapped = true): Plan => ({
  ...EMPTY_PLAN,
  transport: { trtype: 'VFIOUSER', disable_mappable_bar0: !mapped },
  bdevs: new Map([
    ['disk1', { name: 'disk1', create: 'bdev_uring_create', params: file, limits: {} }],
  ]),
  subsystems: new Map([
    [
      'nqn',
      {
        params: {},
        allowAnyHost: true,
        hosts: new Map(),
        namespaces: new Map(),
        listeners: new Map([[traddr, {}]]),
      },
    ],
  ]) as unknown as Plan['subsystems'],
});

t.test('beside a kept configuration', async (t) => {
  const file = { filename: '/srv/a', readonly: false, direct: false, block_size: 512 };
  const check = (option: Partial<DiskOptions>, kept: Plan) =>
    refuseBeside({ ...NOTHING, stateDir: '/state', ...option }, kept, true);
  for (const [option, message, fits] of [
    [{ readonly: true }, /--readonly .*\/state bdev 'disk1'/, plan({ ...file, readonly: true })],
    [{ direct: true }, /--direct .*'disk1' is otherwise/, plan({ ...file, direct: true })],
    [{ blockSize: 4096 }, /--block-size 4096/, plan({ ...file, block_size: 4096 })],
    [{ disks: ['/srv/b'] }, /--disk \/srv\/b has no effect/, plan({ ...file, filename: '/srv/b' })],
    [{ trapDoorbells: true }, /--trap-doorbells has no effect/, plan(file, '/run/a', false)],
  ] as const) {
    t.throws(() => check(option, plan(file)), { name: 'InvalidError', message });
    t.doesNotThrow(() => check(option, fits), 'it is so already');
  }
  t.throws(() => check({ readonly: true }, EMPTY_PLAN), /there is no file/);
  t.doesNotThrow(() => check({ disks: ['/srv/a'], defaultDisk: 'x' }, plan(file)));
});

t.test('doorbells that a file wants mapped', async (t) => {
  const folder = shortFolder(t);
  const config = join(folder, 'spdk.json');
  const call = { method: 'nvmf_create_transport', params: { trtype: 'VFIOUSER' } };
  writeFileSync(config, JSON.stringify({ subsystems: [{ subsystem: 'nvmf', config: [call] }] }));
  const options = { ...NOTHING, config: [config], trapDoorbells: true };
  const log = pino({ level: 'silent' });
  await t.rejects(openConfiguration(options, log), /--trap-doorbells has no effect/);
  writeFileSync(config, '{}');
  await openConfiguration(options, log);
});

t.test('no file is made in /dev', async (t) => {
  const folder = shortFolder(t);
  const calls = new BlockingCalls();
  symlinkSync('/dev', join(folder, 'link'));
  mkdirSync(join(folder, 'real'));
  for (const path of [
    '/dev/db-none',
    '/dev/../dev/db-none',
    '/tmp/../dev/db-none',
    '../../../../../../../../dev/db-none',
    join(folder, 'link', 'db-none'),
  ]) {
    const expected = { code: 'ENOENT', message: /no file is made in \/dev/ };
    await t.rejects(refuseDevicePath(calls, path), expected);
    await t.rejects(createDiskImage(calls, path, 4096), expected);
  }
  t.equal(await createDiskImage(calls, join(folder, 'real', 'dev'), 4096), true);
});

t.test('one file twice', async (t) => {
  const { serveDisks } = await import('../../src/app/disks.ts');
  const folder = shortFolder(t);
  const path = join(folder, 'a');
  writeFileSync(path, Buffer.alloc(4096));
  symlinkSync(path, join(folder, 'symbolic'));
  linkSync(path, join(folder, 'hard'));
  const log = pino({ level: 'silent' });
  for (const twin of ['a', 'symbolic', 'hard', `../${folder.split('/').at(-1)}/a`]) {
    const disks = [path, join(folder, twin)];
    // Refused before anything is asked of the target.
    const serving = serveDisks(undefined as never, { ...NOTHING, disks }, undefined, log);
    await t.rejects(serving, { name: 'InvalidError', message: /two disks that write the same/ });
  }
});
