/** What all commands have in common: JSON alone on stdout, messages on stderr, exit codes, and what only a terminal gets. */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { canPty, ESC, Pty } from '../helpers/pty.ts';
import { shortFolder, startRpcTarget } from '../helpers/rpc.ts';
import { Doorbell, doorbell } from '../helpers/rpc-process.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const CLI = fileURLToPath(new URL('../../src/cli/doorbell.js', import.meta.url));
const QUICK = ['--time', '0.1', '--warmup', '0'];

/** perf tells of a target on its processor. */
const withoutWarning = (stderr: string) => stderr.replace(/^doorbell: warning: .*\n/m, '');

t.test('--json: the result alone on stdout', async (t) => {
  const { path } = await startRpcTarget(t);
  const target = await TestTarget.start(t);
  const { socket } = await target.serve(await target.malloc(MIB));
  const folder = shortFolder(t);
  const config = join(folder, 'vms.yaml');
  writeFileSync(config, 'disks: [{ ram: 1M }]\n');
  const commands = [
    ['identify', socket],
    ['identify', socket, '-n', '1'],
    ['perf', socket, ...QUICK],
    ['top', '-s', path, '--once', '-i', '0.1'],
    ['rpc', 'bdev_get_bdevs', '-s', path],
    ['rpc', '--list', '-s', path],
    ['config', 'check', '--no-host', config],
    ['disk', 'create', join(folder, 'sparse'), '1M'],
    ['disk', 'create', join(folder, 'full'), '1M', '--preallocate'],
  ];
  for (const args of commands) {
    const { code, stdout, stderr } = await doorbell([...args, '--json']);
    const name = args.slice(0, 2).join(' ');
    t.equal(code, 0, `${name}: ${stderr}`);
    t.equal(withoutWarning(stderr), '', `${name}: nothing else, and no progress`);
    t.doesNotThrow(() => JSON.parse(stdout), name);
    t.notOk(stdout.includes(ESC), `${name}: no colours`);
  }
});

t.test('without a terminal nothing is coloured, and there is no progress', async (t) => {
  const { path } = await startRpcTarget(t);
  const target = await TestTarget.start(t);
  const { socket } = await target.serve(await target.malloc(MIB));
  const commands = [
    ['identify', socket, '-a', '-H'],
    ['perf', socket, ...QUICK],
    ['top', '-s', path, '--once', '-i', '0.1'],
    ['--help'],
  ];
  for (const args of commands) {
    const { code, stdout, stderr } = await doorbell(args);
    t.equal(code, 0, stderr);
    t.equal(withoutWarning(stderr), '', args[0]);
    t.notOk(stdout.includes(ESC), `${args[0]}: no colours`);
  }
});

t.test('what goes wrong is told on stderr, with --json, too', async (t) => {
  const folder = shortFolder(t);
  const none = join(folder, 'none');
  const cases: readonly (readonly [number, readonly string[]])[] = [
    [3, ['identify', none]],
    [3, ['perf', none]],
    [3, ['top', '-s', none]],
    [3, ['rpc', 'bdev_get_bdevs', '-s', none]],
    [1, ['disk', 'create', join(none, 'x'), '1M']],
    [2, ['disk', 'create', none, '1X']],
    [2, ['perf', none, '--rw', 'randwrite']],
    [2, ['identify', none, '-n', 'x']],
    [2, ['config', 'check']],
  ];
  for (const [code, args] of cases) {
    const outcome = await doorbell([...args, '--json']);
    t.match(outcome, { code, stdout: '', stderr: /^doorbell: \S.*\n/ }, args.join(' '));
  }
});

t.test('who reads only the beginning is no error', async (t) => {
  const { path } = await startRpcTarget(t);
  const target = await TestTarget.start(t);
  const { socket } = await target.serve(await target.malloc(MIB));
  for (const args of [
    ['identify', socket],
    ['perf', socket, ...QUICK],
    ['rpc', 'rpc.discover', '-s', path],
    ['completion', 'bash'],
  ]) {
    const command = new Doorbell(args);
    command.child.stdout.destroy();
    const { code, stderr } = await command.outcome;
    t.strictSame({ code, stderr: withoutWarning(stderr) }, { code: 0, stderr: '' }, args[0]);
  }
});

t.test('on a terminal perf shows its progress', { skip: !canPty && 'no script(1)' }, async (t) => {
  const target = await TestTarget.start(t);
  const { socket } = await target.serve(await target.malloc(MIB));
  const report = join(target.folder, 'report');
  const args = `perf ${socket} --time 1.5 --warmup 0 --json`;
  const pty = new Pty(t, `${process.execPath} ${CLI} ${args} > ${report}`);
  await pty.shown(/\d+ % {2}[\d,]+ IOPS/);
  t.equal((await pty.outcome).code, 0);
  t.match(JSON.parse(readFileSync(report, 'utf8')), { controllers: [{ socket }] });
});

t.test('who stops reading ends any command without a word', async (t) => {
  const words = [[], ['serve'], ['rpc'], ['perf'], ['top'], ['config'], ['disk', 'create']];
  for (const args of [...words.map((command) => [...command, '--help']), ['--version']]) {
    const { child, outcome } = new Doorbell(args);
    child.stdout.destroy();
    t.match(await outcome, { code: 0, stderr: '' }, args.join(' '));
  }
});

t.test('a disk that is full is told of in a line', async (t) => {
  const full = openSync('/dev/full', 'w');
  t.teardown(() => closeSync(full));
  const { status, stderr } = spawnSync(process.execPath, [CLI, '--help'], {
    stdio: ['ignore', full, 'pipe'],
    encoding: 'utf8',
  });
  t.equal(status, 1);
  t.equal(stderr, 'doorbell: standard output: No space left on device\n');
});
