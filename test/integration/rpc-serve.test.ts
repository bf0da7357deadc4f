/** `doorbell serve` as a process: start, what it says, how it ends. */
import { existsSync, lstatSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { VfioClient } from '../../src/client/vfio.ts';
import { callRpc } from '../../src/rpc/client.ts';
import { shortFolder } from '../helpers/rpc.ts';
import { Doorbell, doorbell } from '../helpers/rpc-process.ts';

/** A folder, and the options that keep a target inside it. */
function place(t: { teardown(fn: () => unknown): void }) {
  const folder = shortFolder(t);
  const rpc = join(folder, 'rpc.sock');
  const vfio = join(folder, 'vm', 'cntrl');
  const options = ['--rpc-socket', rpc, '--socket-dir', join(folder, 'vm'), '--spin-us', '50'];
  return { folder, rpc, vfio, options };
}

/** A target that is killed at the end of the test if it still runs. */
function serve(t: { teardown(fn: () => unknown): void }, args: string[], cwd?: string): Doorbell {
  const running = new Doorbell(['serve', ...args], cwd);
  t.teardown(async () => {
    running.child.kill('SIGKILL');
    await running.outcome;
  });
  return running;
}

t.test('a default disk, from its making to a clean end', async (t) => {
  const { folder, rpc, vfio, options } = place(t);
  const image = join(folder, 'disk.img');
  const args = ['--default-disk', 'disk.img', '--disk-size', '16M', ...options];
  const first = serve(t, args, folder);
  await first.printed(/--user-device.*\n/);
  t.match(statSync(image), { size: 16 * 2 ** 20, blocks: 0 });
  t.equal(lstatSync(vfio).mode & 0o777, 0o600);
  t.equal(lstatSync(join(folder, 'vm')).mode & 0o777, 0o700);
  t.match(await callRpc(rpc, 'nvmf_get_subsystems', undefined), [
    {},
    {
      nqn: /^nqn\.2026-11\.io\.doorbell:disk-[0-9a-f-]{36}$/,
      serial_number: /^DB[0-9A-F]{16}$/,
      allow_any_host: true,
      namespaces: [{ nsid: 1 }],
    },
  ]);
  t.match(await callRpc(rpc, 'framework_get_reactors', undefined), {
    pid: first.child.pid,
    reactors: [{ idle: Number }],
  });
  const client = VfioClient.connect(vfio);
  await client.version();
  t.match(await client.getInfo(), { numRegions: 9 });
  first.child.kill('SIGINT');
  const { code, stdout } = await first.outcome;
  client.close();
  t.equal(code, 0);
  t.match(stdout, `namespace 1: ${image} (16 MiB)\nvfio-user:   ${vfio}\nJSON-RPC:    ${rpc}\n`);
  t.match(stdout, `"path":"${vfio}"`);
  t.notOk(existsSync(vfio));
  t.notOk(existsSync(rpc));

  const content = Buffer.alloc(10_000, 'precious');
  writeFileSync(image, content);
  const second = serve(t, args, folder);
  await second.printed(/--user-device.*\n/);
  second.child.kill('SIGTERM');
  t.match(await second.outcome, { code: 0 });
  t.strictSame(readFileSync(image), content, 'an image that is there is not touched');
});

t.test('several disks', async (t) => {
  const { folder, rpc, options } = place(t);
  const disks = ['a', 'b', 'c'].map((name) => join(folder, name));
  for (const disk of disks) {
    writeFileSync(disk, Buffer.alloc(8192));
  }
  const running = serve(t, [
    ...disks.flatMap((disk) => ['--disk', disk]),
    '--readonly',
    '--block-size',
    '4096',
    ...options,
  ]);
  await running.printed(/--user-device.*\n/);
  t.match(
    await callRpc(rpc, 'bdev_get_bdevs', undefined),
    disks.map((filename) => ({
      block_size: 4096,
      num_blocks: 2,
      claimed: true,
      driver_specific: { uring: { filename, readonly: true } },
    })),
  );
  t.match(await callRpc(rpc, 'spdk_kill_instance', { sig_name: 'SIGTERM' }), true);
  t.match(await running.outcome, { code: 0 });
});

t.test('no disks: waits for RPC', async (t) => {
  const { rpc, vfio, options } = place(t);
  const running = serve(t, options);
  await running.printed(/No disks yet/);
  t.notOk(existsSync(vfio));
  t.strictSame(await callRpc(rpc, 'bdev_get_bdevs', undefined), []);
  running.child.kill('SIGINT');
  t.match(await running.outcome, { code: 0 });
});

t.test('--wait-for-rpc: options, then framework_start_init, then the disks', async (t) => {
  const { folder, rpc, vfio, options } = place(t);
  const disks = [join(folder, 'a'), join(folder, 'b')];
  writeFileSync(disks[0], Buffer.alloc(8192));
  const args = disks.flatMap((disk) => ['--disk', disk]);
  const running = serve(t, [...args, '--wait-for-rpc', ...options]);
  await running.printed(/doorbell rpc framework_start_init -s .*\n/);
  t.notOk(existsSync(vfio));
  await t.rejects(callRpc(rpc, 'bdev_get_bdevs', undefined), {
    code: -1,
    message: /only be called after/,
  });
  t.equal(await callRpc(rpc, 'nvmf_set_max_subsystems', { max_subsystems: 1 }), true);
  let initialized = false;
  const waiting = callRpc(rpc, 'framework_wait_init', undefined).then(() => {
    initialized = true;
  });
  await t.rejects(callRpc(rpc, 'framework_start_init', undefined), { code: -2, message: /b$/ });
  t.notOk(initialized || existsSync(vfio), 'one disk is missing: none is served');
  writeFileSync(disks[1], Buffer.alloc(4096));
  t.equal(await callRpc(rpc, 'framework_start_init', undefined), true);
  await waiting;
  await running.printed(/--user-device.*\n/);
  t.match(
    await callRpc(rpc, 'bdev_get_bdevs', undefined),
    [{ name: 'disk1' }, { name: 'disk2', num_blocks: 8 }],
    'and nothing is left of the first attempt',
  );
  await t.rejects(callRpc(rpc, 'nvmf_create_subsystem', { nqn: 'nqn.2026-11.io.doorbell:x' }), {
    message: /there are 1$/,
  });
  await t.rejects(callRpc(rpc, 'framework_start_init', undefined), { code: -1 });
  const client = VfioClient.connect(vfio);
  await client.version();
  client.close();
  running.child.kill('SIGTERM');
  t.match(await running.outcome, { code: 0 });
});

t.test('a second signal ends it at once', async (t) => {
  const { rpc, options } = place(t);
  const running = serve(t, options);
  await running.printed(/No disks yet/);
  // A request under way holds up the end.
  const held = t.rejects(callRpc(rpc, 'bdev_get_bdevs', { name: 'never', timeout: 60_000 }));
  await callRpc(rpc, 'framework_wait_init', undefined);
  // Both wait for the process when it goes on.
  for (const signal of ['SIGSTOP', 'SIGINT', 'SIGTERM', 'SIGCONT'] as const) {
    running.child.kill(signal);
  }
  const { code } = await running.outcome;
  t.ok(code === 130 || code === 143, `exit code ${code}`);
  await held;
});

t.test(
  'sockets and disks of a target that was killed are taken over, those of a live one never',
  async (t) => {
    const { folder, rpc, vfio, options } = place(t);
    const args = ['--default-disk', join(folder, 'disk'), '--disk-size', '1M', ...options];
    const killed = serve(t, args);
    await killed.printed(/--user-device.*\n/);
    killed.child.kill('SIGKILL');
    await killed.outcome;
    t.ok(existsSync(rpc) && existsSync(vfio));
    const live = serve(t, args);
    await live.printed(/--user-device.*\n/);

    t.match(await doorbell(['serve', ...args, '--log-level', 'silent']), {
      code: 1,
      stdout: '',
      stderr: `doorbell: Address already in use: ${rpc} (is another target running?`,
    });
    const elsewhere = [...args, '--rpc-socket', join(folder, 'other.sock')];
    t.match(await doorbell(['serve', ...elsewhere, '--log-level', 'silent']), {
      code: 1,
      stdout: '',
      stderr: `${join(folder, 'disk')} is in use: another process has locked it\n`,
    });
    const another = [...elsewhere, '--default-disk', join(folder, 'another')];
    t.match(await doorbell(['serve', ...another, '--log-level', 'silent']), {
      code: 1,
      stdout: '',
      stderr: `doorbell: Address already in use: ${vfio} (is another target running?`,
    });
    t.notOk(existsSync(join(folder, 'other.sock')));
    t.equal(await callRpc(rpc, 'framework_wait_init', undefined), true);
    const client = VfioClient.connect(vfio);
    await client.version();
    client.close();
  },
);

t.test('what is in the way is said in one sentence', async (t) => {
  const { folder, options } = place(t);
  const file = join(folder, 'file');
  writeFileSync(file, Buffer.alloc(8192));
  const cases: [string[], RegExp][] = [
    [['--disk', join(folder, 'none')], /^doorbell: No such file or directory: .*none\n$/],
    [['--disk', folder], /^doorbell: Invalid argument: .* neither a regular file nor .*\n$/],
    [['--disk', file, '--socket-dir', file], /^doorbell: File exists: .*file\n$/],
    [['--disk', file, '--socket-dir', join(folder, 'x'.repeat(110))], /^doorbell: .*\n$/],
    [
      ['--disk', file, '--rpc-socket', join(folder, 'none/s')],
      /^doorbell: No such file or directory: .*none\/s \(there is no folder .*none\)\n$/,
    ],
    [['--cores', '4000'], /^doorbell: CPU 4000 is not one of those this process may use\n$/],
    [['--default-disk', join(folder, 'none/d')], /^doorbell: No such file .*none\/d\n$/],
  ];
  for (const [args, message] of cases) {
    t.match(
      await doorbell(['serve', ...options, '--log-level', 'silent', ...args]),
      { code: 1, stdout: '', stderr: message },
      args.join(' '),
    );
  }
  t.notOk(existsSync(join(folder, 'rpc.sock')));
});
