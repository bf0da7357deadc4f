/** `doorbell serve --state-dir`: what was answered outlasts `kill -9`, and nothing is lost in silence. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Random } from '../helpers/random.ts';
import { Doorbell } from '../helpers/rpc-process.ts';
import { TargetProcess } from '../helpers/target-process.ts';

const NQN = 'nqn.2026-11.io.doorbell:kept';
const MIB = 1024 * 1024;

interface Call {
  readonly method: string;
  readonly params?: Record<string, unknown>;
}

async function configuration(target: TargetProcess): Promise<Call[]> {
  const parts = await Promise.all(
    ['bdev', 'nvmf'].map((name) => target.call('framework_get_config', { name })),
  );
  return parts.flat() as Call[];
}

/** The names of what there is: bdevs, subsystems, namespaces, limits. */
function namesOf(calls: readonly Call[]): Set<string> {
  return new Set(
    calls.map(({ method, params }) => {
      const { name, nqn, namespace, host } = (params ?? {}) as Record<string, string> & {
        namespace?: { bdev_name: string };
      };
      return `${method} ${[name, nqn, namespace?.bdev_name, host].filter(Boolean).join(' ')}`;
    }),
  );
}

t.test('killed at any moment, again and again', async (t) => {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const target = new TargetProcess(t);
  const state = join(target.folder, 'state');
  let expected = new Map<string, string>();
  let answered = 0;
  for (let life = 0; life < 5; life++) {
    await target.start('--state-dir', state);
    const calls = await configuration(target);
    const there = new Map(calls.map((call) => [[...namesOf([call])][0], JSON.stringify(call)]));
    for (const [name, call] of expected) {
      assert.equal(there.get(name), call, `${name} after ${answered} changes`);
    }
    // At most the one change that was under way, which can have brought a thing or two.
    t.ok(there.size - expected.size <= 2, `${there.size} things, ${expected.size} were answered`);
    expected = there;
    if (life === 0) {
      await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
    }
    const killed = sleep(50 + random.below(250)).then(() => target.kill());
    for (let i = 0; ; i++) {
      const name = `b${life}.${i}`;
      const nqn = `${NQN}${life}.${i}`;
      try {
        await target.call('bdev_null_create', { name, num_blocks: 8, block_size: 512 });
        await target.call('bdev_set_qos_limit', { name, rw_ios_per_sec: 1000 });
        await target.call('nvmf_create_subsystem', { nqn, serial_number: `S${i}` });
        await target.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: name } });
        await target.call('nvmf_subsystem_add_host', { nqn, host: `${nqn}host` });
        const now = await configuration(target);
        expected = new Map(now.map((call) => [[...namesOf([call])][0], JSON.stringify(call)]));
        answered += 5;
      } catch {
        break;
      }
    }
    await killed;
    // Some changes may have been answered after the configuration was looked at.
    const { subsystems } = JSON.parse(readFileSync(join(state, 'state.json'), 'utf8')) as {
      subsystems: { subsystem: string; config: Call[] | null }[];
    };
    const all = subsystems
      .filter(({ subsystem }) => subsystem !== 'scheduler')
      .flatMap(({ config }) => config ?? []);
    for (const [name, call] of expected) {
      assert.ok(
        all.some((kept) => JSON.stringify(kept) === call),
        `${name} is in the file`,
      );
    }
    expected = new Map(all.map((call) => [[...namesOf([call])][0], JSON.stringify(call)]));
  }
  t.ok(answered > 0, `${answered} changes were answered`);
});

t.test('a disk keeps its data, its NSID and its UUID', async (t) => {
  const target = new TargetProcess(t);
  const state = join(target.folder, 'state');
  const image = join(target.folder, 'disk.img');
  writeFileSync(image, '');
  truncateSync(image, MIB);
  const traddr = join(target.folder, 'vm');
  mkdirSync(traddr);
  await target.start('--state-dir', state);
  await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await target.call('bdev_aio_create', { name: 'disk', filename: image, block_size: 512 });
  await target.call('bdev_malloc_create', { name: 'ram', num_blocks: 2048, block_size: 512 });
  await target.call('nvmf_create_subsystem', { nqn: NQN, allow_any_host: true });
  await target.call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'ram' } });
  const namespace = { bdev_name: 'disk', nsid: 7 };
  await target.call('nvmf_subsystem_add_ns', { nqn: NQN, namespace });
  const listen_address = { trtype: 'VFIOUSER', traddr };
  await target.call('nvmf_subsystem_add_listener', { nqn: NQN, listen_address });
  t.equal(statSync(join(state, 'state.json')).mode & 0o777, 0o600);
  const before = await configuration(target);
  const use = async (opcode: number, byte: number): Promise<number> => {
    const client = await NvmeClient.connect(join(traddr, 'cntrl'));
    try {
      const pair = await client.createQueuePair(1, 8);
      const offset = client.memory.allocate(4096);
      client.memory.bytes(offset, 4096).fill(byte);
      const prp1 = client.memory.iova + offset;
      const { status } = await pair.execute({ opcode, nsid: 7, prp1, cdw10: 16, cdw12: 7 });
      assert.equal(status, 0);
      return client.memory.bytes(offset, 4096)[4095];
    } finally {
      client.close();
    }
  };
  await use(NvmOpcode.WRITE, 0x5a);
  await target.kill();
  await target.start('--state-dir', state);
  t.strictSame(await configuration(target), before, 'the same, every identifier');
  t.equal(await use(NvmOpcode.READ, 0), 0x5a);

  await target.call('bdev_aio_delete', { name: 'disk' });
  await target.kill();
  await target.start('--state-dir', state, '--wait-for-rpc');
  await target.call('nvmf_set_max_subsystems', { max_subsystems: 99 });
  await target.call('framework_start_init');
  await target.call('framework_set_scheduler', { name: 'dynamic', core_busy: 90 });
  await target.kill();
  await target.start('--state-dir', state);
  const scheduler = { scheduler_name: 'dynamic', scheduler_period: 1_000_000, core_busy: 90 };
  t.match(await target.call('framework_get_scheduler'), scheduler);
  await target.call('framework_set_scheduler', { name: 'static' });
  await target.kill();
  await target.start('--state-dir', state);
  t.match(await target.call('framework_get_scheduler'), { scheduler_name: 'static' });
  t.notOk([...namesOf(await configuration(target))].some((name) => name.includes('disk')));
});

/** Starts, and resolves with what it says on its way out. */
async function refused(...args: string[]): Promise<string> {
  const { code, stderr } = await new Doorbell(['serve', '--log-level', 'silent', ...args]).outcome;
  assert.equal(code, 1);
  return stderr;
}

t.test('what cannot be restored', async (t) => {
  const target = new TargetProcess(t);
  const state = join(target.folder, 'state');
  const file = join(state, 'state.json');
  const rpc = ['-r', join(target.folder, 'other.sock')];
  const image = join(target.folder, 'disk.img');
  writeFileSync(image, Buffer.alloc(4096));
  await target.start('--state-dir', state);
  await target.call('bdev_aio_create', { name: 'disk', filename: image, block_size: 512 });
  t.match(await refused(...rpc, '--state-dir', state), /another target uses the state folder/);
  await target.kill();

  rmSync(image);
  const kept = readFileSync(file, 'utf8');
  const gone = await refused(...rpc, '--state-dir', state);
  t.match(
    gone,
    /state\.json:\d+:\d+: subsystems\[2\]\.config\[0\]: .*disk\.img does not exist: .*take the entry out/,
  );
  t.equal(readFileSync(file, 'utf8'), kept, 'nothing was overwritten');
  writeFileSync(file, kept.slice(0, 100));
  t.match(await refused(...rpc, '--state-dir', state), /state\.json is damaged: .*backup/);
  writeFileSync(file, '{"version": 1, "subsystems": [{"subsystem": 5, "config": null}]}');
  t.match(
    await refused(...rpc, '--state-dir', state),
    /damaged:\n.*state\.json:1:31: subsystems\[0\]: must have the name/,
  );
  writeFileSync(file, '{"version": 9, "subsystems": []}');
  t.match(await refused(...rpc, '--state-dir', state), /has version 9/);
});

t.test('a state folder without room', async (t) => {
  const target = new TargetProcess(t);
  const state = join(target.folder, 'small');
  mkdirSync(state);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8k', 'none', state], { stdio: 'ignore' });
  } catch {
    t.comment('skipped: tmpfs cannot be mounted');
    return;
  }
  t.teardown(async () => {
    await target.kill();
    execFileSync('umount', ['-l', state]);
  });
  await target.start('--state-dir', state);
  const create = (i: number) =>
    target.call('bdev_null_create', { name: `n${i}`, num_blocks: 8, block_size: 512 });
  await t.rejects(
    (async () => {
      for (let i = 0; i < 100; i++) {
        await create(i);
      }
    })(),
    { code: -32603, message: /will not outlast a restart: No space left/ },
  );
  const file = join(state, 'state.json');
  t.ok(JSON.parse(readFileSync(file, 'utf8')).version, 'the old file is whole');
  const bdevs = (await target.call('bdev_get_bdevs')) as { name: string }[];
  t.ok(bdevs.length > 1, 'who only asks is answered');
  execFileSync('mount', ['-o', 'remount,size=1m', state]);
  await target.call('spdk_get_version');
  // It asks only, and is answered before that.
  const isKept = (text: string) => bdevs.every(({ name }) => text.includes(`"${name}"`));
  while (!isKept(readFileSync(file, 'utf8'))) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  t.pass('made good once there is room');
});

t.test('a start that fails tells what was in the way', async (t) => {
  const target = new TargetProcess(t);
  const place = join(target.folder, 'place');
  writeFileSync(place, '');
  const state = ['--state-dir', join(target.folder, 'state')];
  const { code, stderr } = await new Doorbell(['serve', '--rpc-socket', place, ...state]).outcome;
  t.equal(code, 1);
  t.match(stderr, /place exists and is not a socket/);
});
