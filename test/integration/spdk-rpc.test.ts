/**
 * What SPDK's rpc.py sends, and the configuration that SPDK saves. The requests in test/fixtures were recorded from its command lines
 * (rpc.py --dry-run): whatever it sends by itself, defaults and false, has to be accepted.
 */
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { checkFiles } from '../../src/app/config/check.ts';
import { methodTable } from '../../src/app/config/methods.ts';
import { Lifecycle } from '../../src/rpc/lifecycle.ts';
import { RpcError } from '../../src/rpc/protocol.ts';
import type { ConfigDocument } from '../../src/target/model/plan.ts';
import { loadAsClient, saveAsClient } from '../helpers/config.ts';
import { shortFolder, startRpcTarget } from '../helpers/rpc.ts';

/** A command line of rpc.py, the request that it makes, and what comes back: this result, this error, or something. */
interface Recorded {
  readonly command: string;
  readonly method: string;
  readonly params?: object;
  readonly result?: unknown;
  readonly error?: number;
}

const MIB = 2 ** 20;

/** From dist/test/integration; `@FOLDER@` in it becomes the folder. */
function fixture(name: string, folder: string): unknown {
  const path = fileURLToPath(new URL(`../../../test/fixtures/${name}`, import.meta.url));
  return JSON.parse(readFileSync(path, 'utf8').replaceAll('@FOLDER@', folder));
}

/** With the files and folders that the fixtures speak of. */
function prepare(t: Test): string {
  const folder = shortFolder(t);
  for (const name of ['a.img', 'b.img']) {
    writeFileSync(join(folder, name), '');
    truncateSync(join(folder, name), MIB);
  }
  for (const name of ['vm0', 'vm1']) {
    mkdirSync(join(folder, name));
  }
  return folder;
}

const requests = (folder: string) =>
  fixture('spdk-rpc-requests.json', folder) as Record<'running' | 'waiting', Recorded[]>;

async function replay(
  t: Test,
  recorded: readonly Recorded[],
  call: (method: string, params?: object) => Promise<unknown>,
): Promise<void> {
  for (const { command, method, params, ...expected } of recorded) {
    try {
      const result = await call(method, params);
      t.notOk('error' in expected, `${command}: refused`);
      if ('result' in expected) {
        t.strictSame(result, expected.result, command);
      } else {
        // Of the shape that the method's schema says: `call` checks it.
        t.not(result, undefined, command);
      }
    } catch (error) {
      const code = error instanceof RpcError ? error.code : error;
      t.equal(code, expected.error, `${command}: ${error}`);
    }
  }
}

t.test('every command of rpc.py, with its defaults and with its options', async (t) => {
  const { running } = requests(prepare(t));
  const { call } = await startRpcTarget(t);
  await replay(t, running, call);
});

t.test('what rpc.py sends to a target that waits for it', async (t) => {
  const { waiting } = requests(prepare(t));
  const { call } = await startRpcTarget(t, {}, new Lifecycle(async () => {}));
  await replay(t, waiting, call);
});

t.test('a configuration that SPDK saved', async (t) => {
  const folder = prepare(t);
  const saved = fixture('spdk-save-config.json', folder) as ConfigDocument;

  await t.test('is loaded by rpc.py', async (t) => {
    const { call } = await startRpcTarget(t, {}, new Lifecycle(async () => {}));
    // rpc.py refuses the whole file otherwise.
    const known = (await call('rpc_get_methods', {})) as string[];
    const calls = saved.subsystems.flatMap(({ config }) => config ?? []).flat();
    t.strictSame(
      calls.filter(({ method }) => !known.includes(method)),
      [],
    );
    t.strictSame(await loadAsClient(call, saved), []);
    await check(t, call);
    const ours = await saveAsClient(call);
    const again = await startRpcTarget(t, {}, new Lifecycle(async () => {}));
    t.strictSame(await loadAsClient(again.call, ours), []);
    t.strictSame(await saveAsClient(again.call), ours);
  });

  await t.test('is loaded by --config', async (t) => {
    const file = join(folder, 'spdk.json');
    writeFileSync(file, JSON.stringify(saved));
    const { plan, ignored } = await checkFiles([file], methodTable(), true);
    t.strictSame([...plan.bdevs.keys()], ['Malloc0', 'Null0', 'Aio0', 'Uring0']);
    const [subsystem] = plan.subsystems.values();
    t.equal(subsystem.namespaces.size, 3);
    t.equal(subsystem.listeners.size, 1);
    t.ok(ignored.length > 10);
  });
});

/** What the guests and the operator see of it. */
async function check(t: Test, call: (method: string, params?: object) => Promise<unknown>) {
  t.match(await call('nvmf_get_transports'), [
    { trtype: 'VFIOUSER', max_queue_depth: 256, max_io_qpairs_per_ctrlr: 64, max_io_size: 131072 },
  ]);
  t.match(await call('nvmf_get_subsystems', { nqn: 'nqn.2019-07.io.spdk:cnode0' }), [
    {
      serial_number: 'SPDK0',
      model_number: 'SPDK bdev Controller',
      allow_any_host: true,
      listen_addresses: [{ trtype: 'VFIOUSER', adrfam: 'IPv4', trsvcid: '0' }],
      namespaces: [
        { nsid: 1, bdev_name: 'Malloc0', uuid: 'e5f5c5b8-5a36-4b57-9a3b-6d0e4b1c7a10' },
        { nsid: 2, bdev_name: 'Aio0', nguid: '5B5A9A6E6F6C4A868B530D8F1D2F3C12' },
        { nsid: 3, bdev_name: 'Uring0' },
      ],
    },
  ]);
  t.match(await call('bdev_get_bdevs', { name: 'Malloc0' }), [
    { num_blocks: 131072, assigned_rate_limits: { rw_ios_per_sec: 20000 } },
  ]);
  t.match(await call('bdev_get_bdevs', { name: 'Uring0' }), [{ block_size: 4096 }]);
}
