/** `doorbell rpc` as a process, against a target in this one. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { shortFolder, startRpcTarget } from '../helpers/rpc.ts';
import { Doorbell, doorbell } from '../helpers/rpc-process.ts';

t.test('doorbell rpc', async (t) => {
  const { path } = await startRpcTarget(t);
  const rpc = (...args: string[]) => doorbell(['rpc', ...args, '-s', path]);
  t.strictSame(await rpc('framework_wait_init'), { code: 0, stdout: 'true\n', stderr: '' });
  t.strictSame(await rpc('bdev_null_create', '{"name":"n","num_blocks":8,"block_size":512}'), {
    code: 0,
    stdout: '"n"\n',
    stderr: '',
  });
  t.match(await doorbell(['rpc', 'bdev_get_bdevs', '-', '--socket', path], '{"name":"n"}'), {
    code: 0,
    stdout: /^\[\n {2}\{\n {4}"name": "n",\n/,
  });
  t.match(await doorbell(['rpc', 'bdev_get_bdevs', '-', '-s', path], ' \n'), { code: 0 });
  t.strictSame(await rpc('bdev_null_delete', '{"name":"x"}'), {
    code: 1,
    stdout: '',
    stderr: "doorbell: No such device: there is no bdev 'x' (code -19)\n",
  });
  t.match(await rpc('bdev_null_delete', '{"nome":"x"}'), { code: 1, stderr: /'n[ao]me'/ });
  t.match(await rpc('bdev_null_delete', '{name'), { code: 2, stderr: /not JSON/ });
  t.match(await rpc('bdev_get_bdevs', '{"name":"late","timeout":60000}', '-t', '1'), {
    code: 1,
    stderr: /no answer/,
  });
  const nobody = join(shortFolder(t), 's');
  t.match(await doorbell(['rpc', 'rpc_get_methods', '-s', nobody]), {
    code: 3,
    stdout: '',
    stderr: /^doorbell: cannot reach a target: No such file or directory: .*\/s/,
  });
});

t.test('the environment says where the target is, for all commands', async (t) => {
  const { path } = await startRpcTarget(t);
  const saved = process.env.DOORBELL_RPC_SOCKET;
  t.teardown(() => {
    delete process.env.DOORBELL_RPC_SOCKET;
    Object.assign(process.env, saved !== undefined && { DOORBELL_RPC_SOCKET: saved });
  });
  process.env.DOORBELL_RPC_SOCKET = path;
  t.match(await doorbell(['rpc', 'framework_wait_init']), { code: 0, stdout: 'true\n' });
  t.match(await doorbell(['top', '--once', '--json']), { code: 0, stdout: /reactors/ });
  const other = join(shortFolder(t), 's');
  t.match(
    await doorbell(['rpc', 'framework_wait_init', '-s', other]),
    { code: 3 },
    'an option wins',
  );
  process.env.DOORBELL_RPC_SOCKET = '';
  t.match(await doorbell(['rpc', 'framework_wait_init']), { code: 2, stderr: /must not be empty/ });
  process.env.DOORBELL_RPC_SOCKET = join(shortFolder(t), 'no', 's');
  t.match(await doorbell(['serve']), {
    code: 1,
    stderr: /\/no\/s \(there is no folder .*\/no\)\n$/,
  });
});

t.test('a socket that does not talk JSON', async (t) => {
  const path = join(shortFolder(t), 's');
  const server = createServer((client) => client.end('\0\x01\x02'));
  server.listen(path);
  await once(server, 'listening');
  t.teardown(() => server.close());
  t.match(await doorbell(['rpc', 'spdk_get_version', '-s', path]), {
    code: 1,
    stdout: '',
    stderr: /^doorbell: .*\/s does not answer in JSON: it is no JSON-RPC socket\n$/,
  });
});

t.test('words, batches, suggestions', async (t) => {
  const { path } = await startRpcTarget(t);
  const rpc = (...args: string[]) => doorbell(['rpc', ...args, '-s', path]);
  t.match(await rpc('bdev_null_create', 'name=n', 'num_blocks=8', 'block_size=512', '--json'), {
    code: 0,
    stdout: '"n"\n',
  });
  t.match(await rpc('bdev_get_bdevs', 'name=n', '-j'), {
    code: 0,
    stdout: /^\[\{"name":"n",.*\n$/,
  });
  t.match(await rpc('bdev_get_bdevs', 'name'), { code: 2, stderr: /not JSON/ });
  t.match(await rpc('bdev_get_bdevs', 'name=n', 'x'), { code: 2, stderr: /'x' is not key=value/ });
  t.match(await rpc('bdev_get_bdev'), {
    code: 1,
    stdout: '',
    stderr: /^doorbell: Method not found: bdev_get_bdev: did you mean bdev_get_bdevs\? .*\n$/,
  });
  t.match(await rpc('xyzzy'), { code: 1, stderr: /xyzzy: doorbell rpc --list shows all/ });

  t.match((await rpc('--list')).stdout, /^bdev_get_bdevs\b/m);
  const names = JSON.parse((await rpc('--list', '--json')).stdout);
  t.ok(names.includes('nvmf_create_subsystem'));
  t.match(await rpc('x', '--list'), { code: 2, stderr: /--list takes no method/ });

  const batch = (lines: string[]) => doorbell(['rpc', '--batch', '-s', path], lines.join('\n'));
  t.strictSame(
    await batch([
      '# three calls',
      '',
      'bdev_null_create name="m" num_blocks=8 block_size=512',
      '  bdev_null_create {"name": "o", "num_blocks": 8, "block_size": 512}',
      'bdev_null_delete name=m',
    ]),
    { code: 0, stdout: '"m"\n"o"\ntrue\n', stderr: '' },
  );
  t.strictSame(
    await batch(['bdev_null_delete name=o', 'bdev_null_delete name=o', 'framework_wait_init']),
    {
      code: 1,
      stdout: 'true\n',
      stderr: "doorbell: line 2: No such device: there is no bdev 'o' (code -19)\n",
    },
  );
  t.match(await batch(['bdev_null_delete name="o']), {
    code: 2,
    stderr: /line 1: a " is not closed/,
  });
});

t.test('as the target describes its methods', async (t) => {
  const { path } = await startRpcTarget(t);
  const rpc = (...args: string[]) => doorbell(['rpc', ...args, '-s', path]);
  const size = ['num_blocks=8', 'block_size=512'];
  t.match(await rpc('bdev_null_create', 'name=7', ...size), { code: 0, stdout: '"7"\n' });
  t.match(await rpc('bdev_null_create', 'name=x', 'num_blocks=many', 'block_size=512'), {
    code: 2,
    stderr: /^doorbell: 'num_blocks' takes an integer from 1 .*, not 'many'\n$/,
  });
  t.match(await rpc('bdev_null_create', '--help'), {
    code: 0,
    stdout: /^Usage: doorbell rpc bdev_null_create [\s\S]*^num_blocks +required +an integer/m,
  });
  t.match(await rpc('bdev_null_craete', '--help'), { code: 1, stderr: /mean bdev_null_create\?/ });
  t.match((await rpc('--list')).stdout, /^bdev_null_create +\S/m);
  const { stdout } = await doorbell([
    '__complete',
    '--',
    'rpc',
    '-s',
    path,
    'bdev_null_create',
    '',
  ]);
  t.match(stdout, /^num_blocks=\t[\s\S]*^:nospace$/m);
});

t.test('following notifications', async (t) => {
  const target = await startRpcTarget(t);
  const rpc = new Doorbell(['rpc', 'doorbell_watch', '--follow', '-s', target.path]);
  await rpc.printed(/\n/);
  await target.call('bdev_null_create', { name: 'n', num_blocks: 8, block_size: 512 });
  const [line] = await rpc.printed(/^\{.*"bdev-created".*\}$/m);
  t.match(JSON.parse(line), { type: 'bdev-created', bdev: 'n' });
  await target.server.close();
  t.match(await rpc.outcome, { code: 3, stderr: /^doorbell: .* the target has gone\n$/ });
  t.match(await doorbell(['rpc', 'nonsense', '--follow', '-s', target.path]), { code: 3 });
});

t.test('help, version, wrong options', async (t) => {
  t.match(await doorbell(['--version']), { code: 0, stdout: /^\d+\.\d+\.\d+\n$/ });
  t.match(await doorbell(['serve', '--help']), {
    code: 0,
    stdout: /--default-disk[\s\S]*Examples/,
  });
  t.match(await doorbell(['rpc', '--help']), { code: 0, stdout: /Examples/ });
  const bad: [string[], RegExp][] = [
    [['nonsense'], /^doorbell: unknown command 'nonsense'/],
    [['identfy'], /Did you mean identify\?/],
    [['serve', '--raedonly'], /Did you mean --readonly\?/],
    [['rpc'], /method/],
    [['serve', '--nope'], /--nope/],
    [['serve', '--disk-size', '1X'], /--disk-size.*1X/],
    [['serve', '--cores', 'x'], /--cores.*'x'/],
    [['serve', '-m', 'xyz'], /--cpumask/],
    [['serve', '-m', '1', '--cores', '0'], /--c.*cannot be used with/],
    [['serve', '--block-size', '1024'], /512, 4096/],
    [['serve', '--max-sleep-us', '-1'], /--max-sleep-us/],
    [['serve', '--spin-us', '1.5'], /--spin-us/],
    [['serve', '--log-level', 'loud'], /--log-level/],
    [['serve', '--disk', 'x', '--disk-size', '1M'], /--disk-size is .* --default-disk/],
    [['serve', '--http-token-file', 'x'], /--http-token-file goes with --http/],
    [['serve', '--http-origin', 'https://x'], /--http-origin goes with --http/],
    [['serve', '--rpc-fd', '3', '--rpc-socket', 'x'], /--rpc-socket does not go with --rpc-fd/],
    [['serve', '--rpc-fd', '3', '--rpc-socket-mode', '600'], /--rpc-socket-mode does not go/],
    [['rpc', 'x', '-t', '0'], /--timeout/],
  ];
  for (const [args, message] of bad) {
    t.match(await doorbell(args), { code: 2, stdout: '', stderr: message }, args.join(' '));
  }
});
