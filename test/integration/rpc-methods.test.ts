/** Each method over a real socket: what it does, and that what it refuses changes nothing. */
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Column } from '../../src/bdev/counters.ts';
import { VfioClient } from '../../src/client/vfio.ts';
import {
  countingReactors,
  logControl,
  RawClient,
  shortFolder,
  startRealTarget,
  startRpcTarget,
  type TestTarget,
  tally,
} from '../helpers/rpc.ts';

const NQN = 'nqn.2019-07.io.spdk:cnode0';
const DISCOVERY = 'nqn.2014-08.org.nvmexpress.discovery';
const UUID = '0a1b2c3d-4e5f-4001-8203-a4b5c6d7e8f9';
const MIB = 2 ** 20;

/** All that a client can see. */
async function stateOf({ call }: TestTarget): Promise<unknown> {
  return Promise.all(
    ['bdev_get_bdevs', 'nvmf_get_transports', 'nvmf_get_subsystems'].map((method) => call(method)),
  );
}

t.test("the seven commands of SPDK's rpc.py, as it sends them", async (t) => {
  const { path } = await startRealTarget(t);
  const folder = shortFolder(t);
  const image = join(folder, 'disk');
  writeFileSync(image, Buffer.alloc(MIB));
  const listen_address = { trtype: 'VFIOUSER', traddr: folder, trsvcid: '0' };
  const recipe: [string, object | undefined, unknown][] = [
    [
      'nvmf_create_transport',
      {
        no_srq: false,
        c2h_success: true,
        trtype: 'VFIOUSER',
        zcopy: false,
        dif_insert_or_strip: false,
        no_wr_batching: false,
        disable_mappable_bar0: false,
        disable_adaptive_irq: false,
        disable_shadow_doorbells: false,
        disable_command_passthru: false,
      },
      true,
    ],
    [
      'bdev_malloc_create',
      {
        num_blocks: 131072,
        block_size: 512,
        name: 'Malloc0',
        md_interleave: false,
        dif_is_head_of_md: false,
      },
      'Malloc0',
    ],
    [
      'bdev_aio_create',
      { filename: image, name: 'Aio0', readonly: false, fallocate: false, nowait: false },
      'Aio0',
    ],
    [
      'nvmf_create_subsystem',
      {
        nqn: NQN,
        serial_number: 'SPDK0',
        allow_any_host: true,
        ana_reporting: false,
        passthrough: false,
        enable_nssr: false,
      },
      true,
    ],
    [
      'nvmf_subsystem_add_ns',
      {
        nqn: NQN,
        namespace: { bdev_name: 'Malloc0', no_auto_visible: false, hide_metadata: false },
      },
      1,
    ],
    [
      'nvmf_subsystem_add_ns',
      {
        nqn: NQN,
        namespace: {
          bdev_name: 'Aio0',
          nsid: 3,
          uuid: UUID,
          no_auto_visible: false,
          hide_metadata: false,
        },
      },
      3,
    ],
    ['nvmf_subsystem_add_listener', { nqn: NQN, secure_channel: false, listen_address }, true],
  ];
  // rpc.py opens a connection for each command, sends indented JSON, and closes after the answer.
  for (const [method, params, result] of recipe) {
    const client = await RawClient.connect(path);
    client.send(JSON.stringify({ jsonrpc: '2.0', method, id: 1, params }, null, 2));
    t.strictSame(await client.next(), { jsonrpc: '2.0', id: 1, result }, method);
    client.close();
  }
  t.ok(lstatSync(join(folder, 'cntrl')).isSocket());

  // And what it sends to look at it, without params, on one connection.
  const client = await RawClient.connect(path);
  t.teardown(() => client.close());
  client.send(JSON.stringify({ jsonrpc: '2.0', method: 'nvmf_get_subsystems', id: 2 }, null, 2));
  const subsystems = (await client.next()) as { result: Record<string, unknown>[] };
  t.match(subsystems.result[0], { nqn: DISCOVERY, subtype: 'Discovery', hosts: [] });
  const { namespaces, ...subsystem } = subsystems.result[1];
  t.strictSame(subsystem, {
    nqn: NQN,
    subtype: 'NVMe',
    listen_addresses: [{ trtype: 'VFIOUSER', adrfam: 'unknown', traddr: folder, trsvcid: '0' }],
    allow_any_host: true,
    hosts: [],
    serial_number: 'SPDK0',
    model_number: 'Doorbell Controller',
    max_namespaces: 32,
    passthrough: false,
    min_cntlid: 1,
    max_cntlid: 0xffef,
    dmrsl: 0,
    wzsl: 0,
  });
  t.match(namespaces, [
    { nsid: 1, bdev_name: 'Malloc0', name: 'Malloc0' },
    { nsid: 3, bdev_name: 'Aio0', uuid: UUID, nguid: UUID.replaceAll('-', '').toUpperCase() },
  ]);
  const rest: [string, object | undefined, unknown][] = [
    ['nvmf_subsystem_remove_ns', { nqn: NQN, nsid: 1 }, true],
    ['nvmf_subsystem_remove_listener', { nqn: NQN, listen_address }, true],
    ['nvmf_delete_subsystem', { nqn: NQN }, true],
    ['bdev_aio_delete', { name: 'Aio0' }, true],
    ['bdev_malloc_delete', { name: 'Malloc0' }, true],
    ['bdev_get_bdevs', undefined, []],
    ['rpc_get_methods', { current: false, include_aliases: false }, /./],
    ['bdev_get_iostat', { per_channel: false }, { bdevs: [] }],
  ];
  for (const [method, params, result] of rest) {
    client.send(JSON.stringify({ jsonrpc: '2.0', method, id: 3, params }, null, 2));
    t.match(await client.next(), { id: 3, result }, method);
  }
  t.notOk(existsSync(join(folder, 'cntrl')));
});

t.test('a client that connects is a controller, until its listener goes', async (t) => {
  const { call, refusal } = await startRealTarget(t);
  const folders = [shortFolder(t), shortFolder(t)];
  await call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await call('nvmf_create_subsystem', { nqn: NQN, allow_any_host: true });
  await call('bdev_malloc_create', { name: 'M', num_blocks: 8, block_size: 512 });
  const address = (traddr: string) => ({
    nqn: NQN,
    listen_address: { trtype: 'VFIOUSER', traddr },
  });
  for (const folder of folders) {
    await call('nvmf_subsystem_add_listener', address(folder));
  }
  const clients = folders.map((folder) => VfioClient.connect(join(folder, 'cntrl')));
  t.teardown(() => clients.forEach((client) => void client.close()));
  for (const client of clients) {
    await client.version();
  }
  t.match(await call('nvmf_subsystem_get_controllers', { nqn: NQN }), [
    { cntlid: 1, num_io_qpairs: 0 },
    { cntlid: 2, num_io_qpairs: 0 },
  ]);
  t.strictSame(await call('nvmf_subsystem_get_qpairs', { nqn: NQN }), []);
  t.equal(await call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'M' } }), 1);
  t.equal(await call('bdev_malloc_delete', { name: 'M' }), true, 'taken from both');
  t.equal(await call('nvmf_subsystem_remove_listener', address(folders[0])), true);
  t.match(await call('nvmf_subsystem_get_controllers', { nqn: NQN }), [{ cntlid: 2 }]);
  await t.rejects(clients[0].getInfo(), 'the client is disconnected');
  t.ok(await clients[1].getInfo(), 'the other one is not');

  const other = await startRealTarget(t);
  await other.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await other.call('nvmf_create_subsystem', { nqn: NQN });
  t.match(await other.refusal('nvmf_subsystem_add_listener', address(folders[1])), {
    code: -32602,
    message: /Address already in use/,
  });
  t.ok(await clients[1].getInfo());
  t.equal(await call('nvmf_delete_subsystem', { nqn: NQN }), true);
  await t.rejects(clients[1].getInfo());
  t.match(await refusal('nvmf_subsystem_get_controllers', { nqn: NQN }), { code: -32602 });
  t.strictSame(readdirSync(folders[1]), []);
});

t.test('without allow_any_host no VM is let in', async (t) => {
  const { call } = await startRealTarget(t);
  const folder = shortFolder(t);
  await call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await call('nvmf_create_subsystem', { nqn: NQN });
  const listen_address = { trtype: 'VFIOUSER', traddr: folder };
  await call('nvmf_subsystem_add_listener', { nqn: NQN, listen_address });
  const connect = async () => {
    const client = VfioClient.connect(join(folder, 'cntrl'));
    t.teardown(() => client.close());
    await client.version();
    return client;
  };
  await t.rejects(connect(), { name: 'VfioUserError', code: 'EACCES' });
  await call('nvmf_subsystem_allow_any_host', { nqn: NQN, allow_any_host: true });
  const client = await connect();
  await call('nvmf_subsystem_allow_any_host', { nqn: NQN, allow_any_host: false });
  t.ok(await client.getInfo(), 'one that is in stays');
});

t.test('bdevs', async (t) => {
  const { call, target } = await startRpcTarget(t);
  const image = join(shortFolder(t), 'disk');
  writeFileSync(image, Buffer.alloc(MIB));
  t.equal(await call('bdev_malloc_create', { num_blocks: 8, block_size: 4096 }), 'Malloc0');
  t.equal(
    await call('bdev_malloc_create', { num_blocks: 8, block_size: 512, uuid: UUID }),
    'Malloc1',
  );
  t.equal(await call('bdev_null_create', { name: 'N', num_blocks: 2048, block_size: 512 }), 'N');
  t.equal(await call('bdev_uring_create', { name: 'U', filename: image, direct: true }), 'U');
  t.equal(await call('bdev_aio_create', { name: 'A', filename: image, readonly: true }), 'A');
  const bdevs = (await call('bdev_get_bdevs')) as Record<string, unknown>[];
  t.match(bdevs, [
    { name: 'Malloc0', product_name: 'Malloc disk', block_size: 4096, num_blocks: 8 },
    { name: 'Malloc1', uuid: UUID, aliases: [UUID], driver_specific: {} },
    { name: 'N', product_name: 'Null disk', claimed: false, zoned: false },
    {
      name: 'U',
      product_name: 'URING bdev',
      num_blocks: 2048,
      driver_specific: { uring: { filename: image, direct: true } },
    },
    {
      name: 'A',
      product_name: 'AIO disk',
      supported_io_types: { read: true, write: false, flush: true, unmap: false },
      driver_specific: { aio: { filename: image, readonly: true } },
      assigned_rate_limits: { rw_ios_per_sec: 0 },
    },
  ]);
  t.not(bdevs[3].uuid, bdevs[4].uuid, 'the same file twice');
  t.match(await call('bdev_get_bdevs', { name: UUID.toUpperCase() }), [{ name: 'Malloc1' }]);
  t.strictSame(
    target.bdevs.list().map(({ index }) => index),
    [0, 1, 2, 3, 4],
  );
  t.equal(await call('bdev_null_delete', { name: 'N' }), true);
  t.equal(await call('bdev_null_create', { name: 'M', num_blocks: 1, block_size: 512 }), 'M');
  t.equal(target.bdevs.get('M').index, 2, 'the smallest free index');

  t.equal(await call('bdev_null_resize', { name: 'M', new_size: 2 }), true);
  t.match(await call('bdev_get_bdevs', { name: 'M' }), [{ num_blocks: 4096 }]);
  truncateSync(image, 2 * MIB);
  t.equal(await call('bdev_uring_rescan', { name: 'U' }), true);
  t.equal(await call('bdev_aio_rescan', { name: 'A' }), true);
  t.match(await call('bdev_get_bdevs', { name: 'A' }), [{ num_blocks: 4096 }]);
});

t.test('the UUID of a file survives a restart', async (t) => {
  const image = join(shortFolder(t), 'disk');
  writeFileSync(image, Buffer.alloc(MIB));
  const uuids: unknown[] = [];
  for (const name of ['a', 'b']) {
    const { call } = await startRpcTarget(t);
    await call('bdev_aio_create', { name, filename: image });
    uuids.push(((await call('bdev_get_bdevs')) as { uuid: string }[])[0].uuid);
  }
  t.equal(uuids[0], uuids[1]);
});

t.test('bdev_get_bdevs waits for a bdev', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  const waiting = call('bdev_get_bdevs', { name: 'late', timeout: 60_000 });
  await call('bdev_null_create', { name: 'late', num_blocks: 1, block_size: 512 });
  t.match(await waiting, [{ name: 'late' }]);
  t.match(await refusal('bdev_get_bdevs', { name: 'never', timeout: 10 }), {
    code: -110,
    message: "Connection timed out: no bdev 'never' within 10 ms",
  });
});

t.test('claims', async (t) => {
  const started = await startRpcTarget(t);
  const { call, refusal } = started;
  const image = join(shortFolder(t), 'disk');
  writeFileSync(image, Buffer.alloc(MIB));
  await call('bdev_aio_create', { name: 'A', filename: image });
  await call('bdev_null_create', { name: 'N', num_blocks: 1, block_size: 512 });
  for (const nqn of [NQN, `${NQN}1`]) {
    await call('nvmf_create_subsystem', { nqn });
  }
  t.equal(await call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'A' } }), 1);
  t.equal(await call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'N' } }), 2);
  t.match(await call('bdev_get_bdevs', { name: 'A' }), [
    { claimed: true, claim_type: 'exclusive_write' },
  ]);
  for (const nqn of [NQN, `${NQN}1`]) {
    t.match(await refusal('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'A' } }), {
      code: -32602,
      message: /claimed/,
    });
  }
  t.equal(await call('bdev_aio_rescan', { name: 'A' }), true, 'nothing changed');
  truncateSync(image, 2 * MIB);
  t.equal(await call('bdev_aio_rescan', { name: 'A' }), true, 'while a namespace uses it');
  t.match(await call('bdev_get_bdevs', { name: 'A' }), [{ block_size: 512, num_blocks: 4096 }]);
  t.equal(await call('bdev_null_resize', { name: 'N', new_size: 3 }), true);
  truncateSync(image, MIB);
  for (const [method, params] of [
    ['bdev_aio_rescan', { name: 'A' }],
    ['bdev_null_resize', { name: 'N', new_size: 1 }],
  ] as const) {
    t.match(await refusal(method, params), { code: -16, message: /in use.*'force'/ });
    t.equal(await call(method, { ...params, force: true }), true);
    t.match(await call('bdev_get_bdevs', { name: params.name }), [{ num_blocks: 2048 }]);
  }
  await call('nvmf_subsystem_remove_ns', { nqn: NQN, nsid: 1 });
  t.match(await call('bdev_get_bdevs', { name: 'A' }), [{ claimed: false, claim_type: undefined }]);
  t.equal(await call('bdev_aio_rescan', { name: 'A' }), true);
  t.equal(
    await call('nvmf_subsystem_add_ns', { nqn: `${NQN}1`, namespace: { bdev_name: 'A' } }),
    1,
  );
  await call('nvmf_delete_subsystem', { nqn: `${NQN}1` });
  t.match(await call('bdev_get_bdevs', { name: 'A' }), [{ claimed: false }]);
});

t.test('deleting a bdev takes its namespace away first', async (t) => {
  const { call, calls } = await startRpcTarget(t);
  const folder = shortFolder(t);
  await call('bdev_null_create', { name: 'N', num_blocks: 1, block_size: 512 });
  await call('nvmf_create_transport', { trtype: 'vfiouser' });
  await call('nvmf_create_subsystem', { nqn: NQN });
  const listen_address = { trtype: 'vfiouser', traddr: folder };
  await call('nvmf_subsystem_add_listener', { nqn: NQN, listen_address });
  await call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'N', nsid: 5 } });
  await call('bdev_null_delete', { name: 'N' });
  t.strictSame(calls, ['add 5 N', 'remove 5']);
  t.match(await call('nvmf_get_subsystems', { nqn: NQN }), [{ namespaces: [] }]);
});

t.test('the transport', async (t) => {
  const { call, refusal, target } = await startRpcTarget(t);
  t.strictSame(await call('nvmf_get_transports'), []);
  t.match(await refusal('nvmf_get_transports', { trtype: 'VFIOUSER' }), { code: -19 });
  const options = { max_io_qpairs_per_ctrlr: 32, max_queue_depth: 128, max_io_size: 262144 };
  t.equal(
    await call('nvmf_create_transport', {
      trtype: 'vfiouser',
      ...options,
      max_aq_depth: 64,
      disable_mappable_bar0: true,
      map_file_memory: true,
      require_shared_memory: true,
      some_future_key: 1,
    }),
    true,
  );
  t.strictSame(await call('nvmf_get_transports', { trtype: 'VfioUser' }), [
    {
      trtype: 'VFIOUSER',
      ...options,
      max_aq_depth: 64,
      in_capsule_data_size: 0,
      iobuf_small_cache_size: 0,
      iobuf_large_cache_size: 0,
      dif_insert_or_strip: false,
      zcopy: false,
      abort_timeout_sec: 0,
      ack_timeout: 0,
      data_wr_pool_size: 0,
      disable_command_passthru: false,
      kas: 100,
      min_kato: 10000,
    },
  ]);
  t.strictSame(target.transport?.options, {
    maxQueueDepth: 128,
    maxIoQpairsPerCtrlr: 32,
    maxIoSize: 262144,
    disableMappableBar0: true,
    mapFileMemory: true,
    requireSharedMemory: true,
    shadowDoorbells: true,
    adaptiveInterrupts: true,
  });
  t.match(await refusal('nvmf_create_transport', { trtype: 'VFIOUSER' }), {
    code: -32603,
    message: "Transport type 'VFIOUSER' already exists",
  });
  t.match(await refusal('nvmf_get_transports', { trtype: 'TCP' }), { code: -19 });
});

t.test('subsystems, hosts', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  t.match(await call('nvmf_get_subsystems'), [{ nqn: DISCOVERY }]);
  t.match(await call('nvmf_get_subsystems', { nqn: DISCOVERY }), [{ subtype: 'Discovery' }]);
  await call('nvmf_create_subsystem', { nqn: NQN, model_number: 'M', max_namespaces: 4 });
  t.match(await call('nvmf_get_subsystems', { nqn: NQN }), [
    {
      serial_number: /^DB[0-9A-F]{18}$/,
      model_number: 'M',
      max_namespaces: 4,
      allow_any_host: false,
    },
  ]);
  const host = 'nqn.2014-08.org.nvmexpress:uuid:0a1b2c3d-4e5f-4001-8203-a4b5c6d7e8f9';
  t.equal(await call('nvmf_subsystem_add_host', { nqn: NQN, host }), true);
  t.equal(await call('nvmf_subsystem_add_host', { nqn: NQN, host }), true, 'again');
  t.equal(await call('nvmf_subsystem_allow_any_host', { nqn: NQN, allow_any_host: true }), true);
  t.match(await call('nvmf_get_subsystems', { nqn: NQN }), [
    { allow_any_host: true, hosts: [{ nqn: host }] },
  ]);
  t.equal(await call('nvmf_subsystem_remove_host', { nqn: NQN, host }), true);
  t.match(await refusal('nvmf_subsystem_remove_host', { nqn: NQN, host }), { code: -32603 });
  t.match(await refusal('nvmf_create_subsystem', { nqn: NQN }), {
    code: -32603,
    message: /^Unable to create subsystem nqn/,
  });
  t.match(await refusal('nvmf_create_subsystem', { nqn: DISCOVERY }), { code: -32603 });
  t.match(await refusal('nvmf_get_subsystems', { nqn: `${NQN}9` }), {
    code: -19,
    message: `No such device: there is no subsystem ${NQN}9`,
  });
  t.equal(await call('nvmf_delete_subsystem', { nqn: NQN }), true);
  t.match(await call('nvmf_get_subsystems'), [{ nqn: DISCOVERY }]);
});

t.test('namespaces take the smallest free NSID, up to the limit', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  await call('nvmf_create_subsystem', { nqn: NQN, max_namespaces: 3 });
  const add = (bdev_name: string, rest: object = {}) =>
    call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name, ...rest } });
  for (const name of ['a', 'b', 'c', 'd']) {
    await call('bdev_null_create', { name, num_blocks: 1, block_size: 512 });
  }
  t.equal(await add('a', { nsid: 2 }), 2);
  t.equal(await add('b', { nsid: 0 }), 1);
  t.equal(await add('c', { nguid: 'ab'.repeat(16), eui64: 'cd'.repeat(8) }), 3);
  t.match(await refusal('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'd' } }), {
    code: -32602,
  });
  t.match(await call('nvmf_get_subsystems', { nqn: NQN }), [
    {
      namespaces: [
        { nsid: 1, bdev_name: 'b' },
        { nsid: 2, bdev_name: 'a' },
        { nsid: 3, nguid: 'AB'.repeat(16), eui64: 'CD'.repeat(8) },
      ],
    },
  ]);
});

t.test('listeners and controllers', async (t) => {
  const started = await startRpcTarget(t);
  const { call, target, endpoints, refusal } = started;
  const folder = shortFolder(t);
  const listen_address = { trtype: 'VFIOUSER', traddr: folder, adrfam: 'ipv4', trsvcid: '' };
  await call('nvmf_create_subsystem', { nqn: NQN, allow_any_host: true });
  t.match(await refusal('nvmf_subsystem_add_listener', { nqn: NQN, listen_address }), {
    code: -32602,
    message: /nvmf_create_transport/,
  });
  await call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await call('nvmf_subsystem_add_listener', { nqn: NQN, listen_address, extra: 1 });
  t.strictSame(await call('nvmf_subsystem_get_listeners', { nqn: NQN }), [
    { address: { ...listen_address } },
  ]);
  t.match(await refusal('nvmf_subsystem_add_listener', { nqn: NQN, listen_address }), {
    code: -32602,
    message: /already/,
  });
  t.strictSame(await call('nvmf_subsystem_get_controllers', { nqn: NQN }), []);
  t.strictSame(await call('nvmf_subsystem_get_qpairs', { nqn: NQN }), []);

  const subsystem = target.subsystem(NQN);
  const cntlid = subsystem.allocateCntlid();
  Object.assign(endpoints[0], {
    controller: {
      cntlid,
      enabled: true,
      qpairs: [
        { qid: 1, reactor: 0 },
        { qid: 2, reactor: 1 },
      ],
    },
  });
  t.match(await call('nvmf_subsystem_get_controllers', { nqn: NQN }), [
    { cntlid: 1, cntrltype: 'io', hostnqn: '', num_io_qpairs: 2 },
  ]);
  t.match(await call('nvmf_subsystem_get_qpairs', { nqn: NQN }), [
    { cntlid: 1, qid: 0, state: 'enabled', thread: 'app_thread', listen_address },
    { cntlid: 1, qid: 1, state: 'enabled', thread: 'reactor_0', listen_address },
    { cntlid: 1, qid: 2, thread: 'reactor_1' },
  ]);
});

t.test('I/O statistics are added up', async (t) => {
  const busy = (shortest: number, longest: number, errors: number) =>
    tally({
      [Column.OPS]: 2,
      [Column.BYTES]: 4096,
      [Column.TIMED]: 2,
      [Column.LATENCY]: 30,
      [Column.MIN_LATENCY]: shortest + 1,
      [Column.MAX_LATENCY]: longest,
      [Column.BACKEND_ERRORS]: errors,
    });
  const reactors = countingReactors([busy(10, 20, 1), tally(), busy(5, 25, 0)]);
  const { call, refusal } = await startRpcTarget(t, { reactors });
  for (const name of ['a', 'b']) {
    await call('bdev_null_create', { name, num_blocks: 1, block_size: 512 });
  }
  const all = (await call('bdev_get_iostat')) as { bdevs: object[]; ticks: number };
  t.ok(all.ticks > 0);
  t.equal(all.bdevs.length, 2);
  t.match(all.bdevs[0], {
    name: 'a',
    bytes_read: 8192,
    num_read_ops: 4,
    read_latency_ticks: 60,
    min_read_latency_ticks: 5,
    max_read_latency_ticks: 25,
    min_write_latency_ticks: 0,
    io_error: { failed: 1 },
  });
  t.match(await call('bdev_get_iostat', { names: ['b'], per_channel: true, reset_mode: 'all' }), {
    tick_rate: 1e9,
    name: 'b',
    channels: [
      { thread_id: 1, num_read_ops: 2 },
      { thread_id: 2, num_read_ops: 0, io_error: {} },
      { thread_id: 3 },
    ],
  });
  t.strictSame(reactors.resets, [[1, 'all']]);
  t.equal(await call('bdev_reset_iostat'), true);
  t.equal(await call('bdev_reset_iostat', { name: 'a', mode: 'all' }), true);
  t.equal(await call('bdev_reset_iostat', { name: 'a', mode: 'maxmin' }), true);
  t.equal(await call('bdev_reset_iostat', { mode: 'none' }), true);
  t.strictSame(reactors.resets.slice(1), [
    [0, 'all'],
    [1, 'all'],
    [0, 'all'],
    [0, 'maxmin'],
  ]);
  const bad: [object, number][] = [
    [{ per_channel: true }, -22],
    [{ per_channel: true, names: ['a', 'b'] }, -22],
    [{ name: 'a', names: ['b'] }, -22],
    [{ names: ['a', 'x'], reset_mode: 'all' }, -19],
    [{ reset_mode: 'some' }, -32602],
  ];
  for (const [params, code] of bad) {
    t.match(await refusal('bdev_get_iostat', params), { code }, JSON.stringify(params));
  }
  t.match(await refusal('bdev_reset_iostat', { name: 'x' }), { code: -19 });
  t.equal(reactors.resets.length, 5, 'nothing was reset');
});

t.test('the process', async (t) => {
  const { call } = await startRpcTarget(t);
  const methods = (await call('rpc_get_methods')) as string[];
  t.ok(methods.includes('rpc_get_methods') && methods.includes('bdev_null_resize'));
  t.equal(new Set(methods).size, methods.length);
  t.strictSame(await call('spdk_get_version'), {
    version: 'Doorbell v1.2.3-test',
    fields: { major: 1, minor: 2, patch: 3, suffix: '-test' },
  });
  t.match(await call('framework_get_reactors'), {
    pid: process.pid,
    reactors: [
      { lcore: 1, busy: 0, idle: 10, lw_threads: [{ name: 'reactor_0', cpumask: '2' }] },
      { lcore: 2, busy: 1, lw_threads: [{ name: 'reactor_1', cpumask: '4' }] },
    ],
  });
  t.equal(await call('framework_wait_init'), true);
});

t.test('what is refused says why, and changes nothing', async (t) => {
  const started = await startRpcTarget(t, {
    listen: async ({ socketPath }) => {
      throw Object.assign(new Error(`listen EADDRINUSE ${socketPath}`), {
        code: 'EADDRINUSE',
        errno: 98,
      });
    },
  });
  const { call, refusal } = started;
  const folder = shortFolder(t);
  const image = join(folder, 'disk');
  writeFileSync(image, Buffer.alloc(MIB));
  await call('bdev_malloc_create', { name: 'M', num_blocks: 8, block_size: 512, uuid: UUID });
  await call('bdev_null_create', { name: 'N', num_blocks: 8, block_size: 512 });
  await call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await call('nvmf_create_subsystem', { nqn: NQN });
  await call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'N', nsid: 2 } });
  const before = await stateOf(started);

  const address = { trtype: 'VFIOUSER', traddr: folder };
  const geometry = { num_blocks: 8, block_size: 512 };
  const long = 'nqn.2019-07.io.spdk:'.padEnd(224, 'x');
  const deep = join(folder, 'x'.repeat(100));
  mkdirSync(deep);
  const INVALID = -32602;
  const bad: [string, unknown, number, RegExp][] = [
    ['bdev_aio_create', undefined, INVALID, /'name'/],
    ['bdev_aio_create', { name: 'a' }, INVALID, /'filename'/],
    ['bdev_aio_create', { name: 'a', filename: image, foo: 1 }, INVALID, /unknown key 'foo'/],
    ['bdev_aio_create', { name: '', filename: image }, INVALID, /'name'/],
    ['bdev_aio_create', { name: 'a\nb', filename: image }, INVALID, /'name'/],
    ['bdev_aio_create', { name: 'x'.repeat(256), filename: image }, INVALID, /'name'/],
    ['bdev_aio_create', { name: 7, filename: image }, INVALID, /'name'/],
    ['bdev_aio_create', { name: 'a', filename: 'a\0b' }, INVALID, /'filename'/],
    ['bdev_aio_create', { name: 'a', filename: '/none/x' }, -2, /^No such file .*\/none\/x/],
    ['bdev_aio_create', { name: 'a', filename: folder }, -22, /^Invalid argument/],
    ['bdev_aio_create', { name: 'a', filename: image, block_size: 1024 }, INVALID, /'block_size'/],
    ['bdev_aio_create', { name: 'a', filename: image, uuid: 'x' }, INVALID, /'uuid'/],
    [
      'bdev_aio_create',
      { name: 'M', filename: image },
      -17,
      /^File exists: there is a bdev '.+' already$/,
    ],
    ['bdev_uring_create', { name: 'a', filename: image, fallocate: false }, INVALID, /'fallocate'/],
    ['bdev_uring_create', { name: 'a', filename: image, uuid: UUID }, -17, /./],
    ['bdev_malloc_create', { block_size: 512 }, INVALID, /'num_blocks'/],
    ['bdev_malloc_create', { num_blocks: 8 }, INVALID, /'block_size'/],
    ['bdev_malloc_create', { ...geometry, num_blocks: 0 }, INVALID, /'num_blocks'/],
    ['bdev_malloc_create', { ...geometry, num_blocks: 2 ** 53 }, INVALID, /'num_blocks'/],
    ['bdev_malloc_create', { ...geometry, num_blocks: 2 ** 50 }, INVALID, /'num_blocks'/],
    ['bdev_malloc_create', { ...geometry, num_blocks: 2 ** 43 }, -12, /^Cannot allocate memory/],
    ['bdev_malloc_create', { ...geometry, num_blocks: '8' }, INVALID, /'num_blocks'/],
    ['bdev_malloc_create', { ...geometry, md_size: 8 }, INVALID, /'md_size' must be 0/],
    ['bdev_malloc_create', { ...geometry, dif_type: 1 }, INVALID, /'dif_type'/],
    ['bdev_malloc_create', { ...geometry, name: 'M' }, -17, /./],
    ['bdev_null_create', geometry, INVALID, /'name'/],
    ['bdev_null_create', { ...geometry, name: UUID }, -17, /./],
    [
      'bdev_aio_delete',
      { name: 'M' },
      -19,
      /^No such device: (?:there is no bdev|bdev '.+' is no) /,
    ],
    ['bdev_malloc_delete', { name: 'x' }, -19, /./],
    ['bdev_malloc_delete', {}, INVALID, /'name'/],
    ['bdev_aio_rescan', { name: 'M' }, -19, /./],
    ['bdev_null_resize', { name: 'N' }, INVALID, /'new_size'/],
    ['bdev_null_resize', { name: 'M', new_size: 1 }, -19, /./],
    ['bdev_get_bdevs', { name: 'x' }, -19, /./],
    ['bdev_get_bdevs', { nome: 'x' }, INVALID, /'nome'/],
    ['nvmf_create_transport', { trtype: 'TCP' }, INVALID, /'trtype'.*TCP/],
    ['nvmf_create_transport', {}, INVALID, /'trtype'/],
    [
      'nvmf_create_transport',
      { trtype: 'VFIOUSER', max_queue_depth: 1 },
      INVALID,
      /max_queue_depth/,
    ],
    ['nvmf_create_transport', { trtype: 'VFIOUSER', max_io_size: 5000 }, INVALID, /max_io_size/],
    ['nvmf_create_transport', { trtype: 'VFIOUSER', zcopy: 1 }, INVALID, /'zcopy'/],
    ['nvmf_create_transport', { trtype: 'VFIOUSER', masked_oncs: ['x'] }, INVALID, /masked_oncs/],
    ['nvmf_create_subsystem', {}, INVALID, /'nqn'/],
    ['nvmf_create_subsystem', { nqn: 'nonsense' }, -32603, /nonsense/],
    ['nvmf_create_subsystem', { nqn: long }, -32603, /223/],
    ['nvmf_create_subsystem', { nqn: `${NQN}1`, serial_number: 'x'.repeat(21) }, INVALID, /serial/],
    ['nvmf_create_subsystem', { nqn: `${NQN}1`, model_number: 'ü' }, INVALID, /model_number/],
    ['nvmf_create_subsystem', { nqn: `${NQN}1`, max_namespaces: 257 }, INVALID, /max_namespaces/],
    ['nvmf_create_subsystem', { nqn: `${NQN}1`, ana_reporting: true }, INVALID, /ana_reporting/],
    ['nvmf_create_subsystem', { nqn: `${NQN}1`, min_cntlid: 0 }, INVALID, /min_cntlid/],
    ['nvmf_create_subsystem', { nqn: `${NQN}1`, max_cntlid: 0xfff0 }, INVALID, /max_cntlid/],
    ['nvmf_create_subsystem', { nqn: `${NQN}1`, min_cntlid: 9, max_cntlid: 8 }, INVALID, /\[9-8\]/],
    ['nvmf_create_subsystem', { nqn: `${NQN}1`, typo: 1 }, INVALID, /'typo'/],
    ['nvmf_delete_subsystem', { nqn: `${NQN}1` }, INVALID, /'nqn'/],
    ['nvmf_delete_subsystem', { nqn: DISCOVERY }, INVALID, /discovery/],
    ['nvmf_subsystem_add_ns', { nqn: NQN }, INVALID, /'namespace'/],
    ['nvmf_subsystem_add_ns', { nqn: NQN, namespace: {} }, INVALID, /'namespace.bdev_name'/],
    ['nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'x' } }, INVALID, /bdev_name/],
    [
      'nvmf_subsystem_add_ns',
      { nqn: NQN, namespace: { bdev_name: 'M', nsid: 2 } },
      INVALID,
      /'namespace.nsid'/,
    ],
    [
      'nvmf_subsystem_add_ns',
      { nqn: NQN, namespace: { bdev_name: 'M', nsid: 33 } },
      INVALID,
      /'namespace.nsid'/,
    ],
    [
      'nvmf_subsystem_add_ns',
      { nqn: NQN, namespace: { bdev_name: 'M', nguid: 'xyz' } },
      INVALID,
      /'namespace.nguid'/,
    ],
    [
      'nvmf_subsystem_add_ns',
      { nqn: NQN, namespace: { bdev_name: 'M', no_auto_visible: true } },
      INVALID,
      /no_auto_visible/,
    ],
    [
      'nvmf_subsystem_add_ns',
      { nqn: NQN, namespace: { bdev_name: 'M', ptpl: '/x' } },
      INVALID,
      /unknown key 'namespace.ptpl'/,
    ],
    ['nvmf_subsystem_add_ns', { nqn: `${NQN}1`, namespace: { bdev_name: 'M' } }, INVALID, /'nqn'/],
    ['nvmf_subsystem_remove_ns', { nqn: NQN, nsid: 1 }, INVALID, /'nsid'/],
    ['nvmf_subsystem_remove_ns', { nqn: NQN, nsid: 0 }, INVALID, /'nsid'/],
    ['nvmf_subsystem_remove_ns', { nqn: NQN }, INVALID, /'nsid'/],
    ['nvmf_subsystem_add_listener', { nqn: NQN }, INVALID, /'listen_address'/],
    [
      'nvmf_subsystem_add_listener',
      { nqn: NQN, listen_address: { trtype: 'VFIOUSER' } },
      INVALID,
      /'listen_address.traddr'/,
    ],
    [
      'nvmf_subsystem_add_listener',
      { nqn: NQN, listen_address: { ...address, trtype: 'TCP' } },
      INVALID,
      /'listen_address.trtype'/,
    ],
    [
      'nvmf_subsystem_add_listener',
      { nqn: NQN, listen_address: { ...address, traddr: '/none' } },
      INVALID,
      /folder \/none/,
    ],
    [
      'nvmf_subsystem_add_listener',
      { nqn: NQN, listen_address: { ...address, traddr: image } },
      INVALID,
      /no folder/,
    ],
    [
      'nvmf_subsystem_add_listener',
      { nqn: NQN, listen_address: { ...address, traddr: 'relative' } },
      INVALID,
      /absolute/,
    ],
    [
      'nvmf_subsystem_add_listener',
      { nqn: NQN, listen_address: { ...address, traddr: deep } },
      INVALID,
      /traddr': File name too long: .*cntrl \(\d{3} bytes, and the path of a socket has at most 107\)/,
    ],
    [
      'nvmf_subsystem_add_listener',
      { nqn: NQN, listen_address: address, secure_channel: true },
      INVALID,
      /'secure_channel'/,
    ],
    [
      'nvmf_subsystem_add_listener',
      { nqn: NQN, listen_address: address },
      INVALID,
      /'listen_address.traddr': Address already in use/,
    ],
    [
      'nvmf_subsystem_remove_listener',
      { nqn: NQN, listen_address: address },
      INVALID,
      /does not listen/,
    ],
    ['nvmf_subsystem_get_controllers', { nqn: `${NQN}1` }, INVALID, /'nqn'/],
    ['nvmf_subsystem_get_qpairs', {}, INVALID, /'nqn'/],
    ['nvmf_subsystem_get_listeners', { nqn: DISCOVERY }, INVALID, /discovery/],
    ['nvmf_subsystem_add_host', { nqn: NQN, host: 'x' }, INVALID, /'host'/],
    ['nvmf_subsystem_add_host', { nqn: NQN, host: NQN, dhchap_key: 'k' }, INVALID, /dhchap_key/],
    ['nvmf_subsystem_allow_any_host', { nqn: NQN }, INVALID, /'allow_any_host'/],
    ['spdk_kill_instance', {}, INVALID, /'sig_name'/],
    ['spdk_kill_instance', { sig_name: 'SIGUSR1' }, INVALID, /'sig_name'/],
    ['rpc_get_methods', { current: 'x' }, INVALID, /'current'/],
    ['framework_get_reactors', { x: 1 }, INVALID, /'x'/],
    ['no_such_method', {}, -32601, /^Method not found$/],
    ['__proto__', {}, -32601, /^Method not found$/],
  ];
  for (const [method, params, code, message] of bad) {
    t.match(
      await refusal(method, params),
      { code, message },
      `${method} ${JSON.stringify(params)}`,
    );
  }
  t.strictSame(await stateOf(started), before);
  t.notOk(existsSync(join(folder, 'cntrl')));
});

t.test('changes do not interleave', async (t) => {
  const started = await startRpcTarget(t);
  const { call, endpoints, calls } = started;
  const folder = shortFolder(t);
  await call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await call('nvmf_create_subsystem', { nqn: NQN });
  const listen_address = { trtype: 'VFIOUSER', traddr: folder };
  await call('nvmf_subsystem_add_listener', { nqn: NQN, listen_address });
  await call('bdev_null_create', { name: 'N', num_blocks: 1, block_size: 512 });
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let reached = () => {};
  const inside = new Promise<void>((resolve) => {
    reached = resolve;
  });
  endpoints[0].before = async () => {
    reached();
    await held;
  };
  const adding = call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'N' } });
  await inside;
  const deleting = call('bdev_null_delete', { name: 'N' });
  const creating = call('bdev_null_create', { name: 'N', num_blocks: 2, block_size: 512 });
  t.match(await call('bdev_get_bdevs'), [{ name: 'N', num_blocks: 1 }], 'reads do not wait');
  t.strictSame(calls, []);
  release();
  t.strictSame(await Promise.all([adding, deleting, creating]), [1, true, 'N']);
  t.strictSame(calls, ['add 1 N', 'remove 1']);
  t.match(await call('bdev_get_bdevs'), [{ name: 'N', num_blocks: 2 }]);
});

t.test('many clients change things at the same time', async (t) => {
  const started = await startRpcTarget(t);
  const { call, target } = started;
  await call('nvmf_create_subsystem', { nqn: NQN });
  await Promise.all(
    Array.from({ length: 30 }, async (_, i) => {
      const name = `n${i}`;
      await call('bdev_null_create', { name, num_blocks: 1, block_size: 512 });
      const nsid = await call('nvmf_subsystem_add_ns', {
        nqn: NQN,
        namespace: { bdev_name: name },
      });
      if (i % 3 === 0) {
        await call('nvmf_subsystem_remove_ns', { nqn: NQN, nsid });
      } else if (i % 3 === 1) {
        await call('bdev_null_delete', { name });
      }
    }),
  );
  const subsystem = target.subsystem(NQN);
  t.equal(subsystem.namespaces.size, 10);
  t.equal(target.bdevs.list().length, 20);
  t.equal(new Set(target.bdevs.list().map(({ index }) => index)).size, 20);
  for (const { bdev } of subsystem.namespaces.values()) {
    t.equal(target.bdevs.claimOf(bdev), NQN);
  }
});

t.test('what is logged', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  t.equal(await call('log_get_print_level'), 'INFO');
  for (const level of ['ERROR', 'WARNING', 'NOTICE', 'INFO', 'DEBUG']) {
    t.equal(await call('log_set_print_level', { level }), true);
    t.equal(await call('log_get_print_level'), level);
    t.equal(await call('log_get_level'), level, 'there is one log');
  }
  t.equal(await call('log_set_level', { level: 'warning' }), true, 'any case, as in SPDK');
  t.equal(logControl.level, 'warn');
  t.equal(await call('log_get_level'), 'WARNING');
  t.match(await refusal('log_set_level', { level: 'LOUD' }), { code: -32602, message: /ERROR, / });
  t.match(await refusal('log_set_level', {}), { code: -32602, message: /'level'/ });
  t.match(await refusal('log_get_level', { level: 'INFO' }), { code: -32602 });
  t.equal(logControl.level, 'warn', 'what was refused changed nothing');

  const flags = {
    app: false,
    bdev: false,
    http: false,
    nvme: false,
    reactor: false,
    rpc: false,
    target: false,
    'vfio-user': false,
  };
  t.strictSame(await call('log_get_flags'), flags);
  t.equal(await call('log_set_flag', { flag: 'nvme' }), true);
  t.strictSame(await call('log_get_flags'), { ...flags, nvme: true });
  t.match(await refusal('log_set_flag', { flag: 'ftl' }), { code: -32602, message: /vfio-user/ });
  t.match(await refusal('log_clear_flag', { flag: '__proto__' }), { code: -32602 });
  t.equal(await call('log_set_flag', { flag: 'all' }), true);
  t.ok(Object.values((await call('log_get_flags')) as object).every((set) => set === true));
  t.equal(await call('log_clear_flag', { flag: 'all' }), true);
  t.strictSame(await call('log_get_flags'), flags);

  t.equal(await call('log_enable_timestamps', { enabled: false }), true);
  t.equal(logControl.timestamps, false);
  t.match(await refusal('log_enable_timestamps', { enabled: 1 }), { code: -32602 });
  t.equal(await call('log_enable_timestamps', { enabled: true }), true);
  t.equal(await call('log_set_level', { level: 'INFO' }), true);
});

t.test('every schema can be compiled, and refuses what is no object', async (t) => {
  const { dispatcher } = await startRpcTarget(t);
  t.ok(dispatcher.names.length > 50);
  for (const name of dispatcher.names) {
    t.match(dispatcher.violation(name, []), /must be object/, name);
  }
});
