/** A Linux guest whose memory is not shared with the target: it has its disk all the same, and keeps its data over a reboot. */
import { pino } from 'pino';
import t from 'tap';
import { TestTarget } from '../helpers/target.ts';
import { Vm, vfioUserDevice } from '../helpers/vm.ts';
import { namespaceDevice } from '../helpers/vm-disks.ts';

const MIB = 1024 * 1024;
const FIO_TIMEOUT_MS = 240_000;
/** What the kernel says when a disk misbehaves. */
const TROUBLE = /(nvme|EXT4-fs|JBD2).*(timeout|abort|error|fail|down|corrupt|invalid)|I\/O error/i;

const unavailable = Vm.available();
if (unavailable !== undefined && process.env.CI === 'true') {
  t.fail(unavailable);
} else if (unavailable !== undefined) {
  t.plan(0, unavailable);
} else {
  t.setTimeout(600_000);
  for (const privateMemory of ['anonymous', 'memfd', 'file'] as const) {
    t.test(`a guest with private memory: ${privateMemory}`, async (t) => {
      const lines: string[] = [];
      const log = pino({ level: 'info' }, { write: (line) => lines.push(line) });
      const target = await TestTarget.start(t, { log });
      const bdevs = [
        await target.file(target.image(256 * MIB)),
        await target.file(target.image(64 * MIB)),
      ];
      const { socket } = await target.serve(...bdevs);
      const vm = await Vm.boot({ cpus: 2, privateMemory, devices: [vfioUserDevice(socket)] });
      t.teardown(async () => {
        await vm.kill();
        if (!t.passing()) {
          t.comment(vm.log(), lines.join(''));
        }
      });
      const device = await namespaceDevice(vm, 1);
      await vm.succeed(`mkfs.ext4 -q ${device} && mount ${device} /mnt`);
      await vm.succeed('dd if=/dev/urandom of=/mnt/random bs=1M count=16 && sync');
      const checksum = await vm.succeed('sha256sum </mnt/random');
      await vm.succeed('umount /mnt');
      const output = await vm.succeed(
        `fio --name=verify --filename=${await namespaceDevice(vm, 2)} --rw=randrw ` +
          '--bssplit=512/10:4k/50:64k/30:512k/10 --size=32M --iodepth=16 --ioengine=io_uring ' +
          '--direct=1 --verify=crc32c --do_verify=1 --verify_fatal=1 --verify_state_save=0 ' +
          '--output-format=json',
        FIO_TIMEOUT_MS,
      );
      const [{ error, read, write }] = JSON.parse(output.slice(output.indexOf('{'))).jobs;
      t.equal(error, 0, 'fio found what it wrote');
      t.comment(`${Math.round(read.iops)} reads, ${Math.round(write.iops)} writes a second`);
      t.notMatch(await vm.succeed('dmesg'), TROUBLE, 'the kernel saw no trouble');

      await vm.reboot();
      await vm.succeed(`mount ${await namespaceDevice(vm, 1)} /mnt`);
      t.equal(await vm.succeed('sha256sum </mnt/random'), checksum, 'the data survives a reboot');
      t.notMatch(await vm.succeed('dmesg'), TROUBLE, 'the kernel saw no trouble');
      await vm.powerOff();
    });
  }
}
