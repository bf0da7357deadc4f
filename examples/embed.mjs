// A target inside a program: a VM with a RAM disk, a second disk while it runs, a snapshot of the state, and a clean end.
//
//   node examples/embed.mjs [FOLDER]
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTarget } from 'doorbell-nvme';

const folder = process.argv[2] ?? mkdtempSync(join(tmpdir(), 'doorbell-'));

const target = createTarget({ reactors: 1 });
target.onEvent((event) => console.log('event:', event.type));
await target.start();

// The keys are those of a configuration file.
const vm = await target.addVm('web', {
  socket: join(folder, 'web'),
  disks: [{ file: join(folder, 'web.img'), size: '1G' }, { ram: '64M' }],
});
console.log(`VMMs connect to ${vm.sockets[0]}`);

// A guest that runs finds it by itself.
const { bdev, nsid } = await target.addDisk('web', { ram: '16M' });
console.log(`namespace ${nsid} is bdev ${bdev}`);

// Every JSON-RPC method is a function.
await target.rpc.bdev_set_qos_limit({ name: bdev, rw_ios_per_sec: 10_000 });
for (const { name, num_blocks, block_size } of await target.rpc.bdev_get_bdevs()) {
  console.log(`${name}: ${(num_blocks * block_size) / 2 ** 20} MiB`);
}

await target.removeVm('web');
await target.stop();
