/** `doorbell serve --config`, SIGHUP and doorbell_reload: what changed in the file is made, and other VMs do not notice. */
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { Random } from '../helpers/random.ts';
import { Doorbell } from '../helpers/rpc-process.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB, type Test } from '../helpers/target.ts';
import { TargetProcess } from '../helpers/target-process.ts';

const UUIDS: Readonly<Record<string, string>> = {
  one: '11111111-1111-4111-8111-111111111111',
  two: '22222222-2222-4222-8222-222222222222',
};

interface Result {
  readonly changes: string[];
  readonly kept: string[];
  readonly needs_restart: string[];
}

/** A target with a configuration file that can be rewritten. */
class Configured {
  readonly target: TargetProcess;
  readonly file: string;

  constructor(t: Test) {
    this.target = new TargetProcess(t);
    this.file = join(this.target.folder, 'doorbell.yaml');
  }

  path(name: string): string {
    return join(this.target.folder, name);
  }

  write(text: string): void {
    writeFileSync(this.file, text);
  }

  start(...options: string[]): Promise<void> {
    return this.target.start('--config', this.file, ...options);
  }

  reload(params: object = {}): Promise<Result> {
    return this.target.call('doorbell_reload', params) as Promise<Result>;
  }

  /** NSIDs and bdevs by the last part of the subsystem's NQN. */
  async subsystems(): Promise<Record<string, Record<number, string>>> {
    const all = (await this.target.call('nvmf_get_subsystems')) as {
      nqn: string;
      namespaces?: { nsid: number; bdev_name: string }[];
    }[];
    return Object.fromEntries(
      all
        .filter(({ namespaces }) => namespaces !== undefined)
        .map(({ nqn, namespaces = [] }) => [
          nqn.slice(nqn.lastIndexOf(':') + 1),
          Object.fromEntries(namespaces.map(({ nsid, bdev_name }) => [nsid, bdev_name])),
        ]),
    );
  }

  connect(vm: string): Promise<NvmeClient> {
    return NvmeClient.connect(join(this.path(vm), 'cntrl'), { memoryBytes: 16 * MIB });
  }
}

const vm = (name: string, ...disks: string[]) =>
  `  ${name}: { socket: ${name}, disks: [${disks.map((disk) => `{ ${disk} }`).join(', ')}] }\n`;

t.test('a VM works on while others come, go and grow', async (t) => {
  const place = new Configured(t);
  const [a, b, c] = [
    vm('a', 'file: a.img, size: 4M', 'ram: 4M'),
    vm('b', 'file: b.img, size: 1M'),
    vm('c', 'file: c.img, size: 1M'),
  ];
  place.write(`vms:\n${a}${b}${vm('d', 'file: d.img, size: 1M')}`);
  await place.start();
  t.match(await place.subsystems(), { a: { 1: 'a/a.img', 2: 'a/ram1' }, b: {}, d: {} });

  const working = await place.connect('a');
  const leaving = await place.connect('b');
  const growing = await place.connect('d');
  const blocks = async () => Number((await growing.identifyNamespace(1)).nsze);
  t.equal(await blocks(), 2048);
  const left = leaving.vfio.closed;

  const pairs = [await working.createQueuePair(1, 16), await working.createQueuePair(2, 16)];
  const random = new Random();
  const pool = new PagePool(random).add(working.memory, 2048);
  const copies = [new Uint8Array(4 * MIB), new Uint8Array(4 * MIB)];
  let stop = false;
  let rounds = 0;
  const work = (async () => {
    for (; !stop; rounds++) {
      for (const [i, copy] of copies.entries()) {
        const load = { pairs, workers: 3, nsid: i + 1, blockSize: 512, copy, pool, random };
        await runWorkload({ ...load, commands: 5, maxBytes: 64 * 1024 });
      }
    }
  })();
  const before = rounds;
  place.write(`vms:\n${a}${c}${vm('d', 'file: d.img, size: 2M')}`);
  place.target.signal('SIGHUP');
  await left;
  await waitFor(async () => Object.keys(await place.subsystems()).join() === 'a,d,c');
  t.equal(await blocks(), 4096);
  t.equal(statSync(place.path('d.img')).size, 2 * MIB);
  t.notOk(existsSync(join(place.path('b'), 'cntrl')));
  const arrived = await place.connect('c');
  t.equal(Number((await arrived.identifyNamespace(1)).nsze), 2048);

  // The first disk goes: the second one keeps its NSID.
  place.write(`vms:\n${vm('a', 'ram: 4M')}${c}`);
  stop = true;
  await work;
  t.ok(rounds > before);
  t.match(await place.reload(), {
    changes: [
      'nvmf_subsystem_remove_ns nqn.2026-11.io.doorbell:a 1',
      'nvmf_delete_subsystem nqn.2026-11.io.doorbell:d',
      'bdev_uring_delete d/d.img',
      'bdev_uring_delete a/a.img',
    ],
  });
  t.strictSame(await place.subsystems(), { a: { 2: 'a/ram1' }, c: { 1: 'c/c.img' } });
  const load = { pairs, workers: 3, nsid: 2, blockSize: 512, copy: copies[1], pool, random };
  await runWorkload({ ...load, commands: 5 });
  t.strictSame(await place.reload(), { changes: [], kept: [], needs_restart: [] });
  for (const client of [working, growing, arrived]) {
    client.close();
  }
});

async function waitFor(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

t.test('a file that cannot be used changes nothing', async (t) => {
  const place = new Configured(t);
  const good = `vms:\n${vm('a', 'file: a.img, size: 1M', 'ram: 1M')}`;
  place.write(good);
  await place.start();
  const before = await place.subsystems();
  writeFileSync(place.path('short'), 'x');
  const cases: readonly (readonly [string, RegExp])[] = [
    ['vms: [', /doorbell\.yaml:1:\d+: /],
    [
      `${good}${vm('b', 'file: no-size.img')}`,
      /:3:\d+: vms\.b\.disks\[0\].*no-size\.img does not exist/,
    ],
    [`${good}${vm('b', 'file: no/folder.img, size: 1M')}`, /there is no folder \S+no$/m],
    [`${good}${vm('b', 'file: short')}`, /shorter than one block of 512 bytes/],
    [`${good}${vm('b', 'file: ./a.img')}`, /a\.img is disk 'a\/a\.img', too/],
    [`${good}${vm('b', 'file: .')}`, /is neither a regular file nor a block device/],
    [`${good}  b: { socket: short }\n`, /short cannot be made: \S+short is not a folder/],
    [good.replace('ram: 1M', 'ram: 2M'), /the RAM disk 'a\/ram1' would lose what is in it/],
    [`${good}  b: { socket: a }\n`, /:3:\d+: vms\.b\.socket: .*:a listens at .* already/],
  ];
  for (const [text, message] of cases) {
    place.write(text);
    await t.rejects(place.reload(), { code: -32603, message });
    t.strictSame(await place.subsystems(), before, text);
  }
  // By signal it is in the log, and the target lives.
  place.target.signal('SIGHUP');
  place.write(good);
  t.strictSame((await place.reload()).changes, []);
});

t.test('what JSON-RPC changed', async (t) => {
  const place = new Configured(t);
  const nqn = 'nqn.2026-11.io.doorbell:a';
  const other = 'nqn.2026-11.io.example:other';
  const state = place.path('state');
  const options = ['--state-dir', state];
  place.write(`vms:\n${vm('a', 'ram: 1M', 'null: 1M')}`);
  await place.start(...options);
  const { call } = {
    call: (method: string, params: object) => place.target.call(method, params),
  };
  await call('bdev_null_create', { name: 'mine', num_blocks: 8, block_size: 512 });
  await call('nvmf_create_subsystem', { nqn: other });
  await call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'mine' } });
  await call('nvmf_subsystem_remove_ns', { nqn, nsid: 2 });
  await call('bdev_set_qos_limit', { name: 'a/ram1', rw_ios_per_sec: 1000 });
  const mine = { a: { 1: 'a/ram1', 3: 'mine' }, other: {} };
  t.strictSame(await place.subsystems(), mine);

  t.strictSame(await place.reload(), {
    changes: [],
    kept: [`bdev_set_qos_limit a/ram1`, `nvmf_subsystem_add_ns ${nqn} a/null1`],
    needs_restart: [],
  });
  t.strictSame(await place.subsystems(), mine, 'stays');
  await place.target.kill();
  await place.start(...options);
  t.strictSame(await place.subsystems(), mine, 'also over a restart');

  // A change in the file, made while the target does not run.
  await place.target.kill();
  place.write(`reactors: 1\nvms:\n${vm('a', 'ram: 1M', 'null: 1M')}${vm('b', 'null: 1M')}`);
  await place.start(...options);
  t.strictSame(await place.subsystems(), { ...mine, b: { 1: 'b/null1' } });
  place.write(`spin-us: 3\nvms:\n${vm('a', 'ram: 1M', 'null: 1M')}`);
  t.strictSame((await place.reload()).needs_restart, ['reactors', 'spinUs']);
  t.strictSame(await place.subsystems(), mine);

  const { changes, kept } = await place.reload({ overwrite: true });
  t.strictSame(kept, []);
  t.strictSame(changes, [`bdev_set_qos_limit a/ram1`, `nvmf_subsystem_add_ns ${nqn} a/null1`]);
  t.strictSame(await place.subsystems(), {
    a: { 1: 'a/ram1', 2: 'a/null1', 3: 'mine' },
    other: {},
  });
  await place.target.kill();
  await place.start(...options);
  t.strictSame(await place.subsystems(), {
    a: { 1: 'a/ram1', 2: 'a/null1', 3: 'mine' },
    other: {},
  });
});

t.test('without a file there is nothing to reload, and SIGHUP is no end', async (t) => {
  const target = new TargetProcess(t);
  await target.start();
  await t.rejects(target.call('doorbell_reload'), {
    code: -32603,
    message: /no configuration file/,
  });
  target.signal('SIGHUP');
  t.ok(await target.call('spdk_get_version'));
});

t.test('before anything starts', async (t) => {
  const place = new Configured(t);
  const rpc = place.path('rpc.sock');
  const refused = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await new Doorbell(['serve', '-r', rpc, ...args]).outcome;
    assert.deepEqual({ code, stdout }, { code: 1, stdout: '' });
    assert.ok(!existsSync(rpc));
    return stderr;
  };
  t.match(await refused('-c', place.file), /doorbell\.yaml: No such file or directory/);
  place.write(`vms:\n${vm('a', 'file: a.img, size: 1M', 'file: gone.img')}`);
  t.match(await refused('-c', place.file), /doorbell\.yaml:2:\d+: .*gone\.img does not exist/);
  t.notOk(existsSync(place.path('a.img')), 'nothing is made before all is checked');
  t.match(await refused('-c', place.file, '-d', 'x'), /--disk.* do not go with --config/);
  t.match(await refused('-c', place.target.folder), /not a file of at most 16 MiB/);
});

t.test('a VM with several sockets: each of them sees the disks', async (t) => {
  const place = new Configured(t);
  place.write('vms: { pair: { sockets: [one, two], disks: [{ ram: 1M }] } }');
  await place.start();
  for (const name of ['one', 'two']) {
    const client = await place.connect(name);
    t.equal(Number((await client.identifyNamespace(1)).nsze), 2048);
    client.close();
  }
});

t.test('settings of the process', async (t) => {
  const place = new Configured(t);
  const rpc = place.path('other.sock');
  place.write(
    `rpc-socket: other.sock\nrpc-socket-mode: "660"\nhttp: 0\ndisks: [{ ram: 1M }]\nsocket: vm`,
  );
  const running = new Doorbell(['serve', '--config', place.file, '--log-level', 'warn']);
  t.teardown(() => running.child.kill('SIGKILL'));
  await running.printed(/^HTTP: +http:/m);
  await running.printed(/^vfio-user: +\S+vm\/cntrl \(nqn\S+:disk-\S+, 1 disk\)$/m);
  await running.printed(/--user-device.*\n/);
  t.equal(statSync(rpc).mode & 0o777, 0o660);
  running.child.kill('SIGTERM');
  t.match(await running.outcome, { code: 0 });
  t.notOk(existsSync(rpc));
  t.match(readFileSync(place.file, 'utf8'), /rpc-socket/);
});

t.test('a reload that failed halfway can be mended, or taken back', async (t) => {
  const place = new Configured(t);
  const other = createServer();
  const occupied = (on: boolean) =>
    new Promise<void>((resolve) =>
      on ? other.listen(place.path('taken/cntrl'), resolve) : other.close(() => resolve()),
    );
  mkdirSync(place.path('taken'));
  t.teardown(() => other.close());
  for (const way of ['back', 'mend'] as const) {
    const start = `vms:\n${vm('a', 'ram: 1M')}${vm('b', 'file: b.img, size: 1M')}`;
    const next = `vms:\n  a: { socket: taken, disks: [ram: 1M] }\n${vm('b', 'file: b.img, size: 1M, direct: true')}`;
    place.write(start);
    await place.start('--state-dir', place.path('state'));
    await occupied(true);
    place.write(next);
    await t.rejects(place.reload(), /taken\/cntrl/);
    await occupied(false);
    t.notOk(existsSync(place.path('a/cntrl')));
    // What is known of the attempt outlasts a restart, too.
    if (way === 'back') {
      place.write(start);
      await place.reload();
    } else {
      await place.target.kill();
      await place.start('--state-dir', place.path('state'));
    }
    t.strictSame(await place.subsystems(), { a: { 1: 'a/ram1' }, b: { 1: 'b/b.img' } }, way);
    const socket = way === 'back' ? 'a' : 'taken';
    t.ok(existsSync(place.path(`${socket}/cntrl`)), `the socket of a is in ${socket}`);
    const [{ direct }] = (
      (await place.target.call('framework_get_config', { name: 'bdev' })) as {
        params: { name: string; direct: boolean };
      }[]
    )
      .filter(({ params }) => params?.name === 'b/b.img')
      .map(({ params }) => params);
    t.equal(direct === true, way === 'mend');
    await place.target.kill();
    rmSync(place.path('state'), { recursive: true });
  }
});

t.test('a disk moves onto another base that the files bring', async (t) => {
  const place = new Configured(t);
  const file = (base: string, ...bdevs: string[]) =>
    place.write(
      JSON.stringify({
        subsystems: [
          {
            subsystem: 'bdev',
            config: [
              ...bdevs.map((name) => ({
                method: 'bdev_null_create',
                params: { name, num_blocks: 2048, block_size: 512, uuid: UUIDS[name] },
              })),
              {
                method: 'bdev_delay_create',
                params: {
                  name: 'slow',
                  base_bdev_name: base,
                  avg_read_latency: 1,
                  p99_read_latency: 1,
                  avg_write_latency: 1,
                  p99_write_latency: 1,
                },
              },
            ],
          },
          {
            subsystem: 'nvmf',
            config: [
              { method: 'nvmf_create_subsystem', params: { nqn: 'nqn.2026-11.io.doorbell:a' } },
              {
                method: 'nvmf_subsystem_add_ns',
                params: { nqn: 'nqn.2026-11.io.doorbell:a', namespace: { bdev_name: 'slow' } },
              },
            ],
          },
        ],
      }),
    );
  file('one', 'one');
  await place.start();
  file('two', 'one', 'two');
  await place.reload();
  t.strictSame(await place.subsystems(), { a: { 1: 'slow' } });
  const bdevs = (await place.target.call('bdev_get_bdevs')) as { name: string }[];
  t.strictSame(bdevs.map(({ name }) => name).sort(), ['one', 'slow', 'two']);
});
