/** What save_config gives, and that load_config makes the same target of it. */
import { deepStrictEqual, strictEqual } from 'node:assert';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { Lifecycle } from '../../src/rpc/lifecycle.ts';
import {
  apply,
  type Call,
  change,
  loadAsClient,
  prepareFolder,
  saveAsClient,
} from '../helpers/config.ts';
import { shortFolder, startRpcTarget } from '../helpers/rpc.ts';

const NQN = 'nqn.2026-11.io.example:vm0';

t.test('an empty target', async (t) => {
  const { call, refusal } = await startRpcTarget(t);
  t.strictSame(await call('framework_get_subsystems'), [
    { subsystem: 'iobuf', depends_on: [] },
    { subsystem: 'accel', depends_on: ['iobuf'] },
    { subsystem: 'bdev', depends_on: ['accel', 'iobuf'] },
    { subsystem: 'scheduler', depends_on: [] },
    { subsystem: 'nvmf', depends_on: ['bdev'] },
  ]);
  t.equal(await call('framework_get_config', { name: 'iobuf' }), null);
  t.strictSame(await call('framework_get_config', { name: 'nvmf' }), []);
  t.match(await refusal('framework_get_config', { name: 'nosuch' }), {
    code: -32602,
    message: /'nosuch' not found/,
  });
  t.match(await refusal('framework_get_config'), { code: -32602, message: /missing key 'name'/ });
});

t.test('a target with one of everything', async (t) => {
  const { call } = await startRpcTarget(t);
  const folder = shortFolder(t);
  prepareFolder(folder);
  const uuid = '11111111-2222-3333-4444-555555555555';
  const filename = join(folder, 'a.img');
  await call('bdev_aio_create', { name: 'aio', filename, block_size: 4096, readonly: true, uuid });
  await call('nvmf_create_transport', { trtype: 'vfiouser', max_queue_depth: 64 });
  await call('nvmf_create_subsystem', { nqn: NQN, serial_number: 'S1', max_cntlid: 7 });
  await call('nvmf_subsystem_add_host', { nqn: NQN, host: 'nqn.2026-11.io.example:h' });
  const namespace = { bdev_name: 'aio', nsid: 3, eui64: '0011223344556677' };
  await call('nvmf_subsystem_add_ns', { nqn: NQN, namespace });
  const traddr = join(folder, 'vm0');
  const listen_address = { trtype: 'VFIOUSER', traddr, trsvcid: '0' };
  await call('nvmf_subsystem_add_listener', { nqn: NQN, listen_address });

  t.strictSame(await call('framework_get_config', { name: 'bdev' }), [
    {
      method: 'bdev_aio_create',
      params: { name: 'aio', filename, block_size: 4096, readonly: true, uuid },
    },
    { method: 'bdev_wait_for_examine' },
  ]);
  const nvmf = (await call('framework_get_config', { name: 'nvmf' })) as { method: string }[];
  t.strictSame(
    nvmf.map(({ method }) => method),
    [
      'nvmf_create_transport',
      'nvmf_create_subsystem',
      'nvmf_subsystem_add_host',
      'nvmf_subsystem_add_ns',
      'nvmf_subsystem_add_listener',
    ],
  );
  t.match(nvmf, [
    { params: { trtype: 'VFIOUSER', max_queue_depth: 64, max_io_size: 131072 } },
    { params: { nqn: NQN, serial_number: 'S1', min_cntlid: 1, max_cntlid: 7 } },
    { params: { host: 'nqn.2026-11.io.example:h' } },
    {
      params: {
        namespace: {
          nsid: 3,
          bdev_name: 'aio',
          uuid,
          nguid: '11111111222233334444555555555555',
          eui64: '0011223344556677',
        },
      },
    },
    { params: { nqn: NQN, listen_address } },
  ]);
});

t.test(
  'random changes, saved and loaded into another target, give the same configuration',
  async (t) => {
    let made = 0;
    let asked = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 5, maxLength: 60 }), async (changes) => {
        const teardowns: (() => unknown)[] = [];
        const test = { teardown: (fn: () => unknown) => teardowns.unshift(fn) };
        try {
          const folder = shortFolder(test);
          prepareFolder(folder);
          const first = await startRpcTarget(test);
          asked += changes.length;
          made += await apply(first.call, folder, changes);
          const saved = await saveAsClient(first.call);
          const { bdevs, subsystems } = await describe(first.call);
          const second = await startRpcTarget(test);
          strictEqual(
            (await loadAsClient(second.call, saved)).length,
            0,
            'all of it can be loaded',
          );
          deepStrictEqual(await saveAsClient(second.call), saved);
          deepStrictEqual(await describe(second.call), { bdevs, subsystems });
        } finally {
          for (const teardown of teardowns) {
            await teardown();
          }
        }
      }),
      { numRuns: 40 },
    );
    t.ok(made > asked / 8, `${made} of ${asked} changes were possible`);
  },
);

/** What the target says of itself, but for whether the block size was asked for: a saved one always is. */
async function describe(call: Call): Promise<{ bdevs: unknown; subsystems: unknown }> {
  const bdevs = JSON.stringify(await call('bdev_get_bdevs'));
  return {
    bdevs: JSON.parse(bdevs.replaceAll(/"block_size_override":(true|false)/g, '"override":0')),
    subsystems: await call('nvmf_get_subsystems'),
  };
}

t.test(
  'what must be set before initialisation comes back in a target that waits for it',
  async (t) => {
    const source = await startRpcTarget(t, {}, new Lifecycle(async () => {}));
    await source.call('nvmf_set_max_subsystems', { max_subsystems: 3 });
    await source.call('framework_start_init');
    await source.call('bdev_null_create', { name: 'n', block_size: 512, num_blocks: 8 });
    const saved = await saveAsClient(source.call);

    const copy = await startRpcTarget(t, {}, new Lifecycle(async () => {}));
    t.strictSame(await loadAsClient(copy.call, saved), []);
    t.strictSame(await saveAsClient(copy.call), saved);

    const late = await startRpcTarget(t);
    t.strictSame(await loadAsClient(late.call, saved), ['nvmf_set_max_subsystems']);
  },
);
