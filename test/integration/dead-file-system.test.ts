/** A file system that answers nothing: what concerns it waits by itself, and the target, its other VMs and its operator go on. */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Cc, Csts, Register, Shst } from '../../src/spec/registers.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { MIB, type Test } from '../helpers/target.ts';
import { TargetProcess } from '../helpers/target-process.ts';

const nqnOf = (name: string) => `nqn.2026-11.io.doorbell:${name}`;

/** A target with a VM on a healthy disk. */
async function start(t: Test, ...options: string[]) {
  const disk = await FuseDisk.mount(t, MIB);
  const target = new TargetProcess(t);
  await target.start(...options);
  await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  const create = (name: string, filename: string) =>
    target.call('bdev_uring_create', { name, filename, block_size: 512 });
  const connect = async (name: string) => {
    const nqn = nqnOf(name);
    await target.call('nvmf_create_subsystem', { nqn, allow_any_host: true });
    await target.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: name } });
    const traddr = join(target.folder, name);
    mkdirSync(traddr);
    const listen_address = { trtype: 'VFIOUSER', traddr };
    await target.call('nvmf_subsystem_add_listener', { nqn, listen_address });
    const client = await NvmeClient.connect(join(traddr, 'cntrl'));
    t.teardown(() => client.close());
    return client;
  };
  const image = join(target.folder, 'good.img');
  writeFileSync(image, Buffer.alloc(MIB));
  await create('good', image);
  const good = await connect('good');
  return { disk, target, create, connect, good };
}

/** How a promise ends, in words; 'pending' as long as it does not. */
function watch(promise: Promise<unknown>): { end: string } {
  const state = { end: 'pending' };
  promise.then(
    (value) => {
      state.end = `done: ${JSON.stringify(value)}`;
    },
    (error: Error & { code?: number }) => {
      state.end = `${error.code}: ${error.message}`;
    },
  );
  return state;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

t.test('calls about it wait, or are given up; others go on', { skip: noFuse }, async (t) => {
  const { disk, target, create, connect, good } = await start(t);
  const folder = dirname(disk.path);
  await create('used', disk.path);
  const used = await connect('used');
  const pair = await used.createQueuePair(1, 8);
  const prp1 = used.memory.iova + used.memory.allocate(4096);
  // After a write the kernel asks for the size anew.
  await pair.execute({ opcode: NvmOpcode.WRITE, nsid: 1, prp1, cdw12: 7 });
  disk.freeze();
  t.teardown(() => disk.resume());
  const made = watch(create('made', disk.path));
  const held = [
    made,
    watch(target.call('bdev_uring_rescan', { name: 'used' })),
    watch(target.call('doorbell_create_disk_file', { filename: join(folder, 'a'), size: 4096 })),
    watch(target.call('doorbell_create_socket_folder', { folder: join(folder, 'b/c') })),
    watch(
      target.call('nvmf_subsystem_add_listener', {
        nqn: nqnOf('used'),
        listen_address: { trtype: 'VFIOUSER', traddr: join(folder, 'd') },
      }),
    ),
    // On a disk that is not there yet: that waits, and the VM's other changes do not wait for it.
    watch(
      target.call('nvmf_subsystem_add_ns', {
        nqn: nqnOf('good'),
        namespace: { bdev_name: 'made' },
      }),
    ),
  ];
  await target.call('spdk_get_version');
  t.equal(((await target.call('bdev_get_bdevs')) as unknown[]).length, 2);
  await target.call('framework_get_config', { name: 'nvmf' });
  t.match(await good.identifyController(), { nn: 32 });
  await target.call('bdev_null_create', { name: 'new', num_blocks: 8, block_size: 512 });
  await connect('new');
  await target.call('bdev_null_create', { name: 'more', num_blocks: 8, block_size: 512 });
  await target.call('nvmf_subsystem_add_ns', {
    nqn: nqnOf('good'),
    namespace: { bdev_name: 'more' },
  });
  await t.rejects(create('made', '/dev/null'), { code: -17, message: /is being made/ });
  t.strictSame(
    held.map(({ end }) => end),
    held.map(() => 'pending'),
  );

  t.equal(await target.call('bdev_uring_delete', { name: 'made' }), true);
  await until(() => made.end !== 'pending' && held[5].end !== 'pending');
  t.match(made.end, /^-125: .*deleted before it was there/);
  t.match(held[5].end, /^-32602: .*there is no bdev 'made'/);
  t.equal(await target.call('nvmf_delete_subsystem', { nqn: nqnOf('used') }), true);
  t.equal(await target.call('bdev_uring_delete', { name: 'used' }), true, 'one in use, too');
  t.match(await good.identifyController(), { nn: 32 });

  disk.resume();
  await until(() => held.every(({ end }) => end !== 'pending'));
  const open = () => readdirSync(`/proc/${target.pid}/fd`).length;
  const fds = open();
  t.equal(await create('made', disk.path), 'made', 'as if nothing had been');
  await target.call('bdev_uring_delete', { name: 'made' });
  await until(() => open() <= fds);
});

t.test('guests that shut down on it, and the end', { skip: noFuse }, async (t) => {
  const { disk, target, create, connect, good } = await start(t, '--stop-timeout', '4');
  const names = ['a', 'b', 'c', 'd', 'e'];
  const clients: NvmeClient[] = [];
  for (const name of names) {
    await create(name, disk.path);
    clients.push(await connect(name));
  }
  await disk.behave({ hold: true });
  const { cc, csts } = Register.offset;
  const status = async (client: NvmeClient) => (await client.readRegister(csts)) & Csts.mask.shst;
  for (const client of [...clients, good]) {
    const enabled = await client.readRegister(cc);
    await client.writeRegister(cc, enabled | Cc.encode({ shn: 1 }));
  }
  while ((await status(good)) !== Csts.encode({ shst: Shst.COMPLETE })) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  for (const client of clients) {
    t.not(await status(client), Csts.encode({ shst: Shst.COMPLETE }));
  }
  await target.call('bdev_null_create', { name: 'n', num_blocks: 8, block_size: 512 });

  target.signal('SIGTERM');
  const { outcome } = target;
  await disk.held(1);
  // The kernel ends no process that has an operation at this disk.
  const release = setTimeout(() => void disk.behave({}), 12_000);
  t.teardown(() => clearTimeout(release));
  const { code, stderr } = await outcome;
  t.equal(code, 128 + 9);
  const last = stderr.split('\n').find((line) => line.includes('not stopped in time')) ?? '';
  t.strictSame(JSON.parse(last).bdevs, names, 'what was left; the others are durable and closed');
});
