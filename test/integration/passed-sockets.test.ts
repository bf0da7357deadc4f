/** Sockets that are open when the target starts: from systemd, or by number; that listen, or are connected. */
import type { ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, writeFileSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { nqnOfDisks } from '../../src/app/disks.ts';
import { VfioClient } from '../../src/client/vfio.ts';
import { native } from '../../src/native/index.ts';
import { callRpc } from '../../src/rpc/client.ts';
import { shortFolder } from '../helpers/rpc.ts';
import type { Test } from '../helpers/target.ts';
import { spawnTied } from '../helpers/tied.ts';

/** From dist/test/integration. */
const CLI = fileURLToPath(new URL('../../src/cli/doorbell.js', import.meta.url));

interface Target {
  readonly child: ChildProcess;
  readonly started: Promise<void>;
  readonly outcome: Promise<{ code: number | null; stderr: string }>;
}

/** A target with a disk in a folder, with descriptors 3, 4, … and these as $LISTEN_FDS if there are names for them. */
function start(t: Test, folder: string, fds: readonly number[], names?: string, ...more: string[]) {
  const cpus = native.getAffinity();
  const args = [
    ...['serve', '--default-disk', join(folder, 'disk.img'), '--disk-size', '1M'],
    ...['--cores', String(cpus.at(-1)), '--log-level', 'warn', ...more],
  ];
  const env = {
    ...process.env,
    XDG_RUNTIME_DIR: folder,
    ...(names !== undefined && { LISTEN_FDNAMES: names, LISTEN_FDS: String(fds.length) }),
  };
  // The shell becomes the target: its own number is that of the target.
  const script = names === undefined ? 'exec "$@"' : 'LISTEN_PID=$$ exec "$@"';
  const child = spawnTied('sh', ['-c', script, 'sh', process.execPath, CLI, ...args], {
    env,
    stdio: ['ignore', 'pipe', 'pipe', ...fds],
  });
  t.teardown(() => child.kill('SIGKILL'));
  for (const fd of fds) closeSync(fd);
  let stderr = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const outcome = new Promise<{ code: number | null; stderr: string }>((resolve) => {
    child.on('close', (code) => resolve({ code, stderr }));
  });
  const started = new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve());
    void outcome.then(() => reject(new Error(stderr)));
  });
  started.catch(() => {});
  return { child, started, outcome } satisfies Target;
}

async function greet(client: VfioClient): Promise<number> {
  const { major } = await client.version();
  return major;
}

t.test('systemd passes sockets that listen', async (t) => {
  const folder = shortFolder(t);
  const [rpc, vm] = [join(folder, 'r'), join(folder, 'cntrl')];
  const listeners = [native.socketListen(rpc, 8), native.socketListen(vm, 8)];
  // Who comes before the target is up waits.
  const early = VfioClient.connect(vm);
  const { child, started, outcome } = start(t, folder, listeners, 'rpc:vm');
  t.equal(await greet(early), 0);
  early.close();
  await started;
  const subsystems = await callRpc(rpc, 'nvmf_get_subsystems', {});
  t.match(subsystems, [{}, { listen_addresses: [{ traddr: folder }] }]);

  const nqn = (subsystems as { nqn: string }[])[1].nqn;
  const listen_address = { trtype: 'VFIOUSER', traddr: folder };
  await callRpc(rpc, 'nvmf_subsystem_remove_listener', { nqn, listen_address });
  t.ok(existsSync(vm), 'the socket is not ours to remove');
  await callRpc(rpc, 'nvmf_subsystem_add_listener', { nqn, listen_address });
  const again = VfioClient.connect(vm);
  t.equal(await greet(again), 0, 'a new listener at the same path has it again');
  again.close();

  child.kill('SIGTERM');
  t.strictSame(await outcome, { code: 0, stderr: '' });
  t.ok(existsSync(vm) && existsSync(rpc), 'both are left to who made them');
});

t.test('a socket by number, with a path of its own', async (t) => {
  const folder = shortFolder(t);
  const path = join(folder, 'vm0.sock');
  const listener = native.socketListen(path, 8);
  const rpc = join(folder, 'r');
  const args = ['--fd', '3', '--rpc-socket', rpc];
  const { child, started, outcome } = start(t, folder, [listener], undefined, ...args);
  await started;
  const client = VfioClient.connect(path);
  t.equal(await greet(client), 0);
  t.match(await callRpc(rpc, 'nvmf_get_subsystems', {}), [
    {},
    { listen_addresses: [{ traddr: path }] },
  ]);
  child.kill('SIGTERM');
  t.strictSame(await outcome, { code: 0, stderr: '' });
  t.ok(existsSync(path));
  t.notOk(existsSync(rpc), 'what it made itself it removes');
});

t.test('sockets that are connected: to one VM and one JSON-RPC client', async (t) => {
  const folder = shortFolder(t);
  const [vmHere, vmThere] = native.socketPair();
  const [rpcHere, rpcThere] = native.socketPair();
  const args = ['--fd', '3', '--rpc-fd', '4'];
  const { started, outcome } = start(t, folder, [vmThere, rpcThere], undefined, ...args);
  const client = new VfioClient(vmHere);
  const rpc = new Socket({ fd: rpcHere, readable: true, writable: true });
  t.teardown(() => rpc.destroy());
  await started;
  t.equal(await greet(client), 0);
  const answer = new Promise((resolve) => rpc.once('data', resolve));
  rpc.write('{"jsonrpc":"2.0","id":1,"method":"nvmf_subsystem_get_controllers",');
  rpc.write(`"params":{"nqn":"${nqnOfDisks([join(folder, 'disk.img')])}"}}`);
  t.match(JSON.parse(String(await answer)), { id: 1, result: [{ cntlid: 1 }] });
  client.close();
  t.strictSame(await outcome, { code: 0, stderr: '' }, 'nobody else can come: the target ends');
});

t.test('what is no fit socket is refused', async (t) => {
  const folder = shortFolder(t);
  const file = join(folder, 'file');
  writeFileSync(file, '');
  const refusal = async (fds: number[], names: string | undefined, ...args: string[]) => {
    const rpc = args.includes('--rpc-fd') ? [] : ['--rpc-socket', join(folder, 'r')];
    const { outcome } = start(t, folder, fds, names, ...rpc, ...args);
    const { code, stderr } = await outcome;
    t.equal(code, 1, stderr);
    return stderr;
  };
  t.match(await refusal([openSync(file, 'r')], undefined, '--fd', '3'), /--fd: fd 3 is no UNIX/);
  t.match(await refusal([], undefined, '--rpc-fd', '999'), /--rpc-fd: fd 999 is no .*bad file/);
  t.match(await refusal([openSync(file, 'r')], 'vm'), /\$LISTEN_FDS, 'vm': fd 3 is no UNIX/);
  const both = [
    native.socketListen(join(folder, 'a'), 1),
    native.socketListen(join(folder, 'b'), 1),
  ];
  t.match(await refusal(both, 'rpc:rpc'), /two sockets were passed for JSON-RPC: fd 3 and fd 4/);
  const anonymous = [native.socketPair(), native.socketPair()].flat();
  t.match(await refusal(anonymous.slice(0, 2), 'a:b'), /fd 4 \('b'\) has no path/);
  for (const fd of anonymous.slice(2)) closeSync(fd);
  const nameless = [native.socketListen(join(folder, 'vm.sock'), 1)];
  const kept = ['--fd', '3', '--state-dir', join(folder, 'state')];
  t.match(await refusal(nameless, undefined, ...kept), /vm\.sock was passed, but --state-dir can/);
});

t.test('what was passed to another process is left alone', async (t) => {
  const folder = shortFolder(t);
  const rpc = join(folder, 'r');
  t.teardown(() => {
    delete process.env.LISTEN_PID;
    delete process.env.LISTEN_FDS;
  });
  process.env.LISTEN_PID = '1';
  process.env.LISTEN_FDS = '1';
  const { child, started, outcome } = start(t, folder, [], undefined, '--rpc-socket', rpc);
  await started;
  t.ok(existsSync(join(folder, 'doorbell', 'cntrl')));
  child.kill('SIGTERM');
  t.strictSame(await outcome, { code: 0, stderr: '' });
});
