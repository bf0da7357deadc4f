/** A client that shares no code with the target: an initiator in C, of the kind of SPDK's, against the target as users run it. */
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { native } from '../../src/native/index.ts';
import { callRpc } from '../../src/rpc/client.ts';
import { buildInitiator, Initiator, type InitiatorOutcome } from '../helpers/initiator.ts';
import { shortFolder } from '../helpers/rpc.ts';
import { Doorbell } from '../helpers/rpc-process.ts';

const MIB = 1024 * 1024;
const DISK_BYTES = 32 * MIB;

const folder = shortFolder(t);
const program = buildInitiator(folder);
const disk = join(folder, 'disk.img');
const rpc = join(folder, 'rpc.sock');
const vm = join(folder, 'vm');
const fileSocket = join(vm, 'cntrl');
writeFileSync(disk, '');
truncateSync(disk, DISK_BYTES);

const core = String(native.getAffinity()[0]);
const options = ['--disk', disk, '--socket-dir', vm, '-r', rpc, '--cores', core];
const target = new Doorbell(['serve', ...options, '--log-level', 'error']);
t.teardown(async () => {
  target.child.kill('SIGKILL');
  await target.outcome;
});
await target.printed(/--user-device.*\n/);

/** Serves a bdev that exists in a subsystem of its own; gives the socket. */
async function serve(bdev_name: string): Promise<string> {
  const nqn = `nqn.2026-11.io.doorbell:${bdev_name}`;
  const traddr = join(folder, bdev_name);
  mkdirSync(traddr);
  await callRpc(rpc, 'nvmf_create_subsystem', { nqn, allow_any_host: true });
  await callRpc(rpc, 'nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name } });
  const listen_address = { trtype: 'VFIOUSER', traddr };
  await callRpc(rpc, 'nvmf_subsystem_add_listener', { nqn, listen_address });
  return join(traddr, 'cntrl');
}

function verify(socket: string, pairs: number, rounds: number): Promise<InitiatorOutcome> {
  return new Initiator(program, [socket, 'verify', String(pairs), String(rounds)]).outcome;
}

const GOOD = {
  code: 0,
  stdout: `round 1: ${DISK_BYTES} bytes verified\nround 2: ${DISK_BYTES} bytes verified\n`,
};

t.test('a file, and again after a reconnect', async (t) => {
  t.match(await verify(fileSocket, 1, 2), GOOD);
  const first = readFileSync(disk);
  t.notOk(first.subarray(-4096).equals(Buffer.alloc(4096)), 'the data is in the file');
  t.match(await verify(fileSocket, 3, 2), GOOD);
  t.notOk(readFileSync(disk).equals(first), 'other data is in the file');
});

t.test('a client killed with its queues full, and the next one', async (t) => {
  const killed = new Initiator(program, [fileSocket, 'verify', '2', '1000000']);
  await killed.printed;
  killed.child.kill('SIGKILL');
  t.match(await killed.outcome, { signal: 'SIGKILL', stdout: /^round 1: / });
  t.match(await verify(fileSocket, 2, 2), GOOD);
});

t.test('a RAM disk of 4 KiB blocks', async (t) => {
  const params = { name: 'ram', num_blocks: DISK_BYTES / 4096, block_size: 4096 };
  await callRpc(rpc, 'bdev_malloc_create', params);
  const socket = await serve('ram');
  t.match(await verify(socket, 1, 2), GOOD);
  t.match(await verify(socket, 4, 2), GOOD);
});

t.test('a disk that forgets is found out', async (t) => {
  const params = { name: 'null', num_blocks: DISK_BYTES / 512, block_size: 512 };
  await callRpc(rpc, 'bdev_null_create', params);
  const outcome = await verify(await serve('null'), 1, 1);
  t.match(outcome, { code: 1, stdout: '', stderr: /initiator: reading: .* at 0 is 0/ });
});

t.test('load of each kind', async (t) => {
  for (const [op, bytes] of [
    ['read', 4096],
    ['write', 131072],
  ]) {
    const args = [fileSocket, 'perf', '32', '0.1', String(op), String(bytes)];
    const outcome = await new Initiator(program, args).outcome;
    t.match(outcome, { code: 0 });
    t.match(JSON.parse(outcome.stdout), { op, bytes, depth: 32, iops: Number });
  }
});

t.test('the target ends cleanly', async (t) => {
  target.child.kill('SIGTERM');
  t.match(await target.outcome, { code: 0, stderr: '' });
});
