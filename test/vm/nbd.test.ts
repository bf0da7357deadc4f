/** A Linux guest whose disk is an export of an NBD server: its file shrinks when the guest trims, and a server that is killed is a pause. */
import { statSync, truncateSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { NbdServer, noNbdkit } from '../helpers/nbd-server.ts';
import { TestTarget } from '../helpers/target.ts';
import { Vm, vfioUserDevice } from '../helpers/vm.ts';
import { namespaceDevice } from '../helpers/vm-disks.ts';

const MIB = 1024 * 1024;
const FIO_TIMEOUT_MS = 240_000;
const KILLS = 5;
/** What the kernel says when a disk misbehaves. */
const TROUBLE = /(nvme|EXT4-fs|JBD2).*(timeout|abort|error|fail|down|corrupt|invalid)|I\/O error/i;

const unavailable = Vm.available();
if (unavailable !== undefined && process.env.CI === 'true') {
  t.fail(unavailable);
} else if (unavailable !== undefined || noNbdkit !== false) {
  t.plan(0, unavailable ?? String(noNbdkit));
} else {
  t.setTimeout(500_000);
  t.test('a guest, and a server that is killed', async (t) => {
    const target = await TestTarget.start(t);
    const file = target.image(0);
    writeFileSync(file, '');
    truncateSync(file, 192 * MIB);
    const server = await NbdServer.nbdkit(t, 'file', file);
    // What the server has taken is in the host's page cache, which outlives it.
    const params = { name: 'n', uri: server.uri(), on_reconnect: 'trust', reconnect_delay: 1 };
    await target.target.createBdev('nbd', params);
    const { socket } = await target.serve('n');
    const vm = await Vm.boot({ cpus: 2, devices: [vfioUserDevice(socket)] });
    t.teardown(async () => {
      await vm.kill();
      if (!t.passing()) {
        t.comment(vm.log());
      }
    });
    const device = await namespaceDevice(vm, 1);
    await vm.succeed(`mkfs.ext4 -q ${device} && mount ${device} /mnt`);
    await vm.succeed('dd if=/dev/urandom of=/mnt/random bs=1M count=32 && sync');
    const full = statSync(file).blocks * 512;
    t.ok(full >= 32 * MIB, `${full} bytes are written`);
    await vm.succeed('rm /mnt/random && sync && fstrim /mnt');
    const trimmed = statSync(file).blocks * 512;
    t.ok(trimmed < full - 24 * MIB, `the server's file shrinks to ${trimmed} bytes`);
    await vm.succeed('dd if=/dev/urandom of=/mnt/random bs=1M count=16 && sync');
    const checksum = await vm.succeed('sha256sum </mnt/random');

    let working = true;
    const verified = vm
      .run(
        'fio --name=verify --filename=/mnt/fio --rw=randrw --bssplit=4k/60:64k/40 --size=48M --iodepth=16 ' +
          '--ioengine=io_uring --direct=1 --time_based=0 --loops=3 --verify=crc32c --do_verify=1 --verify_fatal=1 ' +
          '--verify_state_save=0',
        FIO_TIMEOUT_MS,
      )
      .finally(() => {
        working = false;
      });
    let kills = 0;
    while (working && kills < KILLS) {
      await sleep(700);
      await server.restart();
      kills += 1;
    }
    t.equal((await verified).status, 0, 'fio found what it wrote');
    t.ok(kills > 0, `the server was killed ${kills} times`);
    await vm.succeed('umount /mnt');
    t.notMatch(await vm.succeed('dmesg'), TROUBLE, 'the guest saw a pause');

    await vm.reboot();
    await vm.succeed(`mount ${await namespaceDevice(vm, 1)} /mnt`);
    t.equal(await vm.succeed('sha256sum </mnt/random'), checksum, 'the data is there');
    await vm.powerOff();
  });
}
