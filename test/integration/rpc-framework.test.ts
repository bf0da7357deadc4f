/** SPDK's methods about states, threads and options: what is true of this target is told, and what it has not is refused. */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { NvmeClient, succeeded } from '../../src/client/nvme.ts';
import { Lifecycle } from '../../src/rpc/lifecycle.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { RawClient, shortFolder, startRealTarget, startRpcTarget } from '../helpers/rpc.ts';

const NQN = 'nqn.2026-11.io.doorbell:f';
const TOO_LATE = {
  code: -1,
  message: /^Method may only be called before framework is initialized\. Use --wait-for-rpc/,
};
const TOO_EARLY = {
  code: -1,
  message:
    'Method may only be called after framework is initialized using framework_start_init RPC.',
};

t.test('a target that waits for framework_start_init', async (t) => {
  let attempts = 0;
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  const lifecycle = new Lifecycle(async () => {
    attempts += 1;
    if (attempts === 1) {
      throw new Error('the disk is on fire');
    }
    await held;
  });
  const { path, call, refusal } = await startRpcTarget(t, {}, lifecycle);
  const all = (await call('rpc_get_methods')) as string[];
  const early = (await call('rpc_get_methods', { current: true })) as string[];
  for (const name of ['framework_start_init', 'bdev_set_options', 'nvmf_set_config']) {
    t.ok(early.includes(name), name);
  }
  for (const name of ['bdev_get_bdevs', 'nvmf_create_subsystem', 'framework_get_reactors']) {
    t.notOk(early.includes(name), name);
    t.match(await refusal(name, { nonsense: 1 }), TOO_EARLY);
  }
  t.ok(all.length > early.length && early.every((name) => all.includes(name)));
  t.match(await refusal('no_such_method'), { code: -32601 });

  let initialized = false;
  const waiting = call('framework_wait_init').then((result) => {
    initialized = true;
    return result;
  });
  t.equal(await call('bdev_set_options', { bdev_io_pool_size: 65535 }), true);
  t.equal(await call('nvmf_set_max_subsystems', { max_subsystems: 2 }), true);
  t.match(await refusal('nvmf_set_max_subsystems', { max_subsystems: 3 }), {
    code: -32603,
    message: /more than once/,
  });
  t.match(await refusal('framework_start_init'), { code: -32603, message: /on fire/ });
  t.notOk(initialized, 'one who waits is not told before it is so');
  t.match(await refusal('bdev_get_bdevs'), TOO_EARLY, 'nothing changed');
  const client = await RawClient.connect(path);
  t.teardown(() => client.close());
  for (const [id, method] of [
    'framework_start_init',
    'framework_start_init',
    'spdk_get_version',
  ].entries()) {
    client.send(JSON.stringify({ jsonrpc: '2.0', id, method }));
  }
  t.match(await client.next(), { id: 2 }, 'two wait');
  release();
  t.match([await client.next(), await client.next()], [{ result: true }, { result: true }]);
  t.equal(attempts, 2, 'it was initialised once');
  t.equal(await waiting, true);

  const late = (await call('rpc_get_methods', { current: true })) as string[];
  t.ok(late.includes('bdev_get_bdevs') && !late.includes('framework_start_init'));
  t.match(await refusal('framework_start_init'), TOO_LATE);
  t.match(await refusal('bdev_set_options', {}), TOO_LATE);
  await call('nvmf_create_subsystem', { nqn: `${NQN}1` });
  await call('nvmf_create_subsystem', { nqn: `${NQN}2` });
  t.match(await refusal('nvmf_create_subsystem', { nqn: `${NQN}3` }), {
    code: -32603,
    message: /there are 2/,
  });
});

t.test('options before initialisation', async (t) => {
  const { call, refusal } = await startRpcTarget(t, {}, new Lifecycle(async () => {}));
  // As SPDK's save_config writes them.
  const saved: [string, object][] = [
    ['iobuf_set_options', { small_pool_count: 8192, large_bufsize: 135168, enable_numa: false }],
    ['bdev_set_options', { bdev_io_pool_size: 65535, bdev_auto_examine: true }],
    [
      'nvmf_set_config',
      {
        discovery_filter: 'match_any',
        discovery_filters: ['transport', 'address'],
        admin_cmd_passthru: { identify_ctrlr: false },
        dhchap_digests: ['sha256', 'sha384'],
        dhchap_dhgroups: ['null', 'ffdhe2048'],
      },
    ],
    ['nvmf_set_max_subsystems', { max_subsystems: 1024 }],
    ['nvmf_set_crdt', { crdt1: 0, crdt2: 0, crdt3: 0 }],
    ['framework_set_scheduler', { name: 'static' }],
    ['framework_set_scheduler', { name: 'static', period: 1000000 }],
  ];
  for (const [method, params] of saved) {
    t.equal(await call(method, params), true, method);
  }
  const bad: [string, object, number, RegExp][] = [
    ['nvmf_set_config', { admin_cmd_passthru: { sanitize: true } }, -32602, /passthru\.sanitize/],
    ['nvmf_set_config', { admin_cmd_passthru: { x: 1 } }, -32602, /'admin_cmd_passthru\.x'/],
    ['nvmf_set_crdt', { crdt1: 65536 }, -32602, /crdt1/],
    ['framework_set_scheduler', {}, -32602, /'name'/],
    ['framework_set_scheduler', { name: 'gscheduler' }, -32603, /'gscheduler'.*'static'/],
    ['framework_set_scheduler', { name: 'dynamic', core_busy: 101 }, -32602, /core_busy/],
    ['framework_set_scheduler', { name: 'dynamic', period: 1e12 }, -32602, /period/],
    ['framework_set_scheduler', { name: 'static', mappings: '1:2' }, -32602, /mappings/],
  ];
  for (const [method, params, code, message] of bad) {
    t.match(
      await refusal(method, params),
      { code, message },
      `${method} ${JSON.stringify(params)}`,
    );
  }
});

t.test('hosts, ANA and other things that a vfio-user client has not', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  await call('nvmf_create_subsystem', { nqn: NQN });
  await call('bdev_null_create', { name: 'N', num_blocks: 8, block_size: 512 });
  await call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'N' } });
  const host = 'nqn.2026-11.io.doorbell:host';
  const listen_address = { trtype: 'VFIOUSER', traddr: '/x' };
  const bad: [string, object, RegExp][] = [
    ['nvmf_ns_add_host', { nqn: NQN, nsid: 1, host }, /visible to all hosts/],
    ['nvmf_ns_remove_host', { nqn: NQN, nsid: 1, host }, /visible to all hosts/],
    ['nvmf_ns_add_host', { nqn: NQN, nsid: 2, host }, /no namespace 2/],
    ['nvmf_ns_add_host', { nqn: `${NQN}x`, nsid: 1, host }, /'nqn'/],
    [
      'nvmf_subsystem_listener_set_ana_state',
      { nqn: NQN, listen_address, ana_state: 'optimized' },
      /ANA reporting/,
    ],
    [
      'nvmf_subsystem_listener_set_ana_state',
      { nqn: NQN, listen_address, ana_state: 'bad' },
      /'ana_state'/,
    ],
    ['nvmf_subsystem_set_ns_ana_group', { nqn: NQN, nsid: 1, anagrpid: 2 }, /ANA reporting/],
    ['nvmf_subsystem_set_ns_ana_group', { nqn: NQN, nsid: 9, anagrpid: 2 }, /no namespace 9/],
  ];
  for (const [method, params, message] of bad) {
    t.match(await refusal(method, params), { code: -32602, message }, method);
  }
  t.equal(await call('bdev_wait_for_examine'), true);
  t.equal(await call('bdev_examine', { name: 'N' }), true);
  t.strictSame(await call('iobuf_get_stats'), []);
  t.strictSame(await call('framework_get_governor'), {});
  t.match(await call('framework_get_scheduler'), {
    scheduler_name: 'static',
    scheduler_period: 0,
    scheduling_core: 1,
  });
});

interface Named {
  readonly name: string;
}

t.test('threads, and what they do for guests', async (t) => {
  const { call } = await startRealTarget(t);
  const folder = join(shortFolder(t), 's');
  mkdirSync(folder);
  t.match(await call('nvmf_get_stats'), {
    tick_rate: 1e9,
    poll_groups: [{ name: 'reactor_0', transports: [] }, { name: 'app_thread' }],
  });
  await call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await call('bdev_malloc_create', { name: 'M', num_blocks: 64, block_size: 512 });
  await call('nvmf_create_subsystem', { nqn: NQN, allow_any_host: true });
  await call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'M' } });
  const listen_address = { trtype: 'VFIOUSER', traddr: folder };
  await call('nvmf_subsystem_add_listener', { nqn: NQN, listen_address });
  const client = await NvmeClient.connect(join(folder, 'cntrl'));
  t.teardown(() => client.close());
  const pair = await client.createQueuePair(1, 16);
  await client.createQueuePair(2, 16);
  await client.deleteQueuePair(2);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  for (let i = 0; i < 3; i++) {
    succeeded(await pair.execute({ opcode: NvmOpcode.READ, nsid: 1, prp1, cdw10: i }));
  }

  const { reactors } = (await call('framework_get_reactors')) as {
    reactors: { tid: number; lcore: number; numa_id: number; usr: number }[];
  };
  const [{ tid, lcore, numa_id, usr }] = reactors;
  t.equal(readFileSync(`/proc/self/task/${tid}/comm`, 'utf8'), 'reactor_0\n', 'its thread');
  t.match(readFileSync(`/proc/self/task/${tid}/status`, 'utf8'), `Cpus_allowed_list:\t${lcore}\n`);
  t.ok(Number.isInteger(numa_id) && usr > 0);

  t.match(await call('thread_get_stats'), {
    threads: [
      { name: 'reactor_0', id: 1, active_pollers_count: 1, timed_pollers_count: 0 },
      { name: 'app_thread', id: 2, cpumask: '', active_pollers_count: 0 },
    ],
  });
  const { threads } = (await call('thread_get_stats')) as { threads: { busy: number }[] };
  t.ok(threads.every(({ busy }) => busy > 0));
  t.match(await call('thread_get_pollers'), {
    threads: [
      { name: 'reactor_0', active_pollers: [{ name: `${NQN}/1/1`, id: 1 }], timed_pollers: [] },
      { name: 'app_thread', active_pollers: [] },
    ],
  });
  t.strictSame(
    ((await call('thread_get_io_channels')) as { threads: (Named & object)[] }).threads,
    [
      { name: 'reactor_0', io_channels: [{ name: 'M', ref: 1 }] },
      { name: 'app_thread', io_channels: [] },
    ],
  );
  t.strictSame(((await call('nvmf_get_stats')) as { poll_groups: object[] }).poll_groups, [
    {
      name: 'reactor_0',
      admin_qpairs: 0,
      io_qpairs: 2,
      current_admin_qpairs: 0,
      current_io_qpairs: 1,
      current_unassociated_qpairs: 0,
      pending_bdev_io: 0,
      completed_nvme_io: 3,
      transports: [{ trtype: 'VFIOUSER' }],
    },
    {
      name: 'app_thread',
      admin_qpairs: 1,
      io_qpairs: 0,
      current_admin_qpairs: 1,
      current_io_qpairs: 0,
      current_unassociated_qpairs: 0,
      pending_bdev_io: 0,
      completed_nvme_io: 0,
      transports: [{ trtype: 'VFIOUSER' }],
    },
  ]);
});
