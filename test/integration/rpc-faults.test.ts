/** JSON-RPC of delay and error bdevs: parameters, who is on top of whom, what is saved. */
import t from 'tap';
import { planDocument } from '../../src/target/model/plan.ts';
import { startRpcTarget } from '../helpers/rpc.ts';

const NQN = 'nqn.2026-11.io.doorbell:t';
const UUID = '0a1b2c3d-4e5f-4001-8203-a4b5c6d7e8f9';
const LATENCIES = {
  avg_read_latency: 10,
  p99_read_latency: 50,
  avg_write_latency: 30,
  p99_write_latency: 4_294_967_295,
};

t.test('a delay bdev', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  await call('bdev_null_create', { name: 'N', num_blocks: 100, block_size: 4096 });
  const create = { base_bdev_name: 'N', name: 'D', ...LATENCIES };
  t.match(await refusal('bdev_delay_create', { ...create, base_bdev_name: 'x' }), { code: -19 });
  t.match(await refusal('bdev_delay_create', { ...create, name: 'N' }), { code: -17 });
  t.match(await refusal('bdev_delay_create', { ...create, p99_read_latency: 9 }), {
    code: -22,
    message: /'p99_read_latency' must not be less than 'avg_read_latency', 10/,
  });
  for (const key of Object.keys(create)) {
    const { [key as keyof typeof create]: _, ...rest } = create;
    const message = new RegExp(`'${key}'`);
    t.match(await refusal('bdev_delay_create', rest), { code: -32602, message });
  }
  for (const bad of [-1, 0.5, 2 ** 32, '1', null]) {
    const refused = await refusal('bdev_delay_create', { ...create, avg_read_latency: bad });
    t.match(refused, { code: -32602, message: /'avg_read_latency'/ });
  }
  t.match(await call('bdev_get_bdevs', { name: 'N' }), [{ claimed: false }], 'all as before');

  t.equal(await call('bdev_delay_create', create), 'D');
  const delay = { name: 'D', base_bdev_name: 'N', ...LATENCIES };
  t.match(await call('bdev_get_bdevs'), [
    { name: 'N', claimed: true, claim_type: 'exclusive_write' },
    {
      name: 'D',
      product_name: 'delay',
      block_size: 4096,
      num_blocks: 100,
      claimed: false,
      driver_specific: { delay },
    },
  ]);
  const { bdevs } = (await call('doorbell_get_snapshot')) as { bdevs: { claimedBy?: string }[] };
  t.strictSame(
    bdevs.map(({ claimedBy }) => claimedBy),
    ['D', undefined],
  );
  t.match(await refusal('bdev_delay_create', { ...create, name: 'E' }), {
    code: -1,
    message: /claimed by bdev 'D'/,
  });

  const update = { delay_bdev_name: 'D', latency_type: 'p99_write', latency_us: 7 };
  t.equal(await call('bdev_delay_update_latency', update), true, 'even below the average');
  t.match(await call('bdev_get_bdevs', { name: 'D' }), [
    { driver_specific: { delay: { ...delay, p99_write_latency: 7 } } },
  ]);
  t.strictSame(await refusal('bdev_delay_update_latency', { ...update, delay_bdev_name: 'x' }), {
    code: -32602,
    message: 'The requested bdev does not exist.',
  });
  t.strictSame(await refusal('bdev_delay_update_latency', { ...update, delay_bdev_name: 'N' }), {
    code: -32600,
    message: 'The requested bdev is not a delay bdev.',
  });
  t.match(await refusal('bdev_delay_update_latency', { ...update, latency_type: 'avg' }), {
    code: -32602,
    message: /'latency_type'.*avg_read/,
  });

  t.match(await refusal('bdev_null_delete', { name: 'D' }), { code: -19 });
  t.match(await refusal('bdev_error_delete', { name: 'D' }), { code: -19 });
  t.match(await refusal('bdev_delay_delete', { name: 'N' }), { code: -19 });
  t.equal(await call('bdev_delay_delete', { name: 'D' }), true);
  t.match(await call('bdev_get_bdevs'), [{ name: 'N', claimed: false }]);
  const { uuid } = ((await call('bdev_get_bdevs')) as { uuid: string }[])[0];
  await call('bdev_delay_create', create);
  const first = ((await call('bdev_get_bdevs', { name: 'D' })) as { uuid: string }[])[0].uuid;
  await call('bdev_delay_delete', { name: 'D' });
  await call('bdev_delay_create', create);
  t.match(await call('bdev_get_bdevs', { name: 'D' }), [{ uuid: first }], 'always the same');
  t.not(first, uuid);
});

t.test('an error bdev', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  await call('bdev_malloc_create', { name: 'M', num_blocks: 8, block_size: 512 });
  t.match(await refusal('bdev_error_create', { base_name: 'x' }), { code: -19 });
  t.equal(await call('bdev_error_create', { base_name: 'M', uuid: UUID }), true);
  t.match(await call('bdev_get_bdevs', { name: 'EE_M' }), [
    {
      product_name: 'Error Injection Disk',
      uuid: UUID,
      driver_specific: { error_disk: { base_bdev: 'M' } },
    },
  ]);
  t.match(await refusal('bdev_error_create', { base_name: 'M' }), { code: -17 });

  const inject = { name: 'EE_M', io_type: 'read', error_type: 'failure' };
  for (const io_type of ['read', 'write', 'flush', 'unmap', 'all', 'clear']) {
    for (const error_type of ['failure', 'pending', 'nomem']) {
      const request = { ...inject, io_type, error_type, num: 4_294_967_295 };
      t.equal(await call('bdev_error_inject_error', request), true);
    }
  }
  const corrupt = { ...inject, error_type: 'corrupt_data', corrupt_offset: 10 };
  t.equal(await call('bdev_error_inject_error', { ...corrupt, corrupt_value: 3 }), true);
  t.match(await refusal('bdev_error_inject_error', corrupt), {
    code: -22,
    message: /corrupt_value/,
  });
  t.match(await refusal('bdev_error_inject_error', { ...corrupt, corrupt_value: 256 }), {
    code: -32602,
  });
  const nvme = { ...inject, error_type: 'nvme_failure' };
  t.match(await refusal('bdev_error_inject_error', nvme), { code: -22, message: /nvme_sct/ });
  t.match(await refusal('bdev_error_inject_error', { ...inject, nvme_sc: 1 }), { code: -22 });
  t.match(await refusal('bdev_error_inject_error', { ...nvme, nvme_sct: 8 }), {
    code: -32602,
    message: /'nvme_sct'.*0 to 7/,
  });
  t.equal(await call('bdev_error_inject_error', { ...nvme, nvme_sct: 2 }), true);
  t.match(await refusal('bdev_error_inject_error', { ...inject, name: 'M' }), { code: -19 });
  t.match(await refusal('bdev_error_inject_error', { ...inject, name: 'x' }), { code: -19 });
  t.match(await refusal('bdev_error_inject_error', { ...inject, io_type: 'compare' }), {
    code: -32602,
  });
});

t.test('what is on top goes first; what is below is nobody else’s', async (t) => {
  const { call, refusal, target } = await startRpcTarget(t);
  const events: string[] = [];
  target.events.subscribe((event) => {
    if ('bdev' in event && event.type === 'bdev-deleted') {
      events.push(event.bdev);
    }
  });
  await call('bdev_null_create', { name: 'N', num_blocks: 8, block_size: 512 });
  await call('bdev_error_create', { base_name: 'N' });
  await call('bdev_delay_create', { base_bdev_name: 'EE_N', name: 'D', ...LATENCIES });
  await call('nvmf_create_subsystem', { nqn: NQN });
  for (const name of ['N', 'EE_N']) {
    t.match(await refusal('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: name } }), {
      code: -32602,
      message: /claimed by bdev/,
    });
  }
  t.equal(await call('nvmf_subsystem_add_ns', { nqn: NQN, namespace: { bdev_name: 'D' } }), 1);
  t.match(
    await refusal('bdev_delay_create', { base_bdev_name: 'D', name: 'DD', ...LATENCIES }),
    { code: -1, message: /claimed by nqn/ },
    'nor a namespace',
  );
  await call('bdev_null_resize', { name: 'N', new_size: 1 });
  t.match(await call('bdev_get_bdevs'), [
    { num_blocks: 2048 },
    { num_blocks: 2048 },
    { num_blocks: 2048 },
  ]);
  t.equal(await call('bdev_null_delete', { name: 'N' }), true);
  t.strictSame(events, ['D', 'EE_N', 'N']);
  t.strictSame(await call('bdev_get_bdevs'), []);
  t.equal(target.subsystem(NQN).namespaces.size, 0);
});

t.test('rate limits are those of the bdev on top', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  const limit = (name: string, rw_ios_per_sec: number) => ({ name, rw_ios_per_sec });
  await call('bdev_null_create', { name: 'N', num_blocks: 8, block_size: 512 });
  await call('bdev_set_qos_limit', limit('N', 1000));
  t.match(await refusal('bdev_error_create', { base_name: 'N' }), {
    code: -1,
    message: /'N' has rate limits/,
  });
  await call('bdev_set_qos_limit', limit('N', 0));
  t.equal(await call('bdev_error_create', { base_name: 'N' }), true);
  t.match(await refusal('bdev_set_qos_limit', limit('N', 1000)), { code: -1, message: /'EE_N'/ });
  t.equal(await call('bdev_set_qos_limit', limit('EE_N', 1000)), true);
  await call('bdev_error_delete', { name: 'EE_N' });
  t.equal(await call('bdev_set_qos_limit', limit('N', 1000)), true);
});

t.test('a saved configuration makes them again', async (t) => {
  const first = await startRpcTarget(t);
  await first.call('bdev_null_create', { name: 'N', num_blocks: 8, block_size: 512 });
  await first.call('bdev_error_create', { base_name: 'N' });
  await first.call('bdev_delay_create', { base_bdev_name: 'EE_N', name: 'D', ...LATENCIES });
  const before = first.target.revision;
  const update = { delay_bdev_name: 'D', latency_type: 'avg_read', latency_us: 3 };
  await first.call('bdev_delay_update_latency', update);
  t.ok(first.target.revision > before, 'which is to be saved, too');
  const saved = planDocument(first.target.model.plan);
  const second = await startRpcTarget(t);
  for (const { config } of saved.subsystems) {
    for (const { method, params } of config ?? []) {
      await second.call(method, params);
    }
  }
  t.strictSame(await second.call('bdev_get_bdevs'), await first.call('bdev_get_bdevs'));
});
