/** What an administrator does to a disk in a Linux guest, with nvme-cli and the tools of file systems; and what becomes of the host's file. */
import { statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { TestTarget } from '../helpers/target.ts';
import { Vm, vfioUserDevice } from '../helpers/vm.ts';
import { namespaceDevice } from '../helpers/vm-disks.ts';

const MIB = 1024 * 1024;
const CONTROLLER = '/dev/nvme0';

/** Bytes of the host's disk that a file takes. */
const allocated = (path: string): number => statSync(path).blocks * 512;

const unavailable = Vm.available();
if (unavailable !== undefined && process.env.CI === 'true') {
  t.fail(unavailable);
} else if (unavailable !== undefined) {
  t.plan(0, unavailable);
} else {
  t.setTimeout(400_000);
  t.test('a guest with nvme-cli', async (t) => {
    const target = await TestTarget.start(t);
    const [first, second] = [target.image(128 * MIB), target.image(64 * MIB)];
    const bdevs = [await target.file(first), await target.file(second)];
    const { socket } = await target.serve(...bdevs);
    const vm = await Vm.boot({ cpus: 2, devices: [vfioUserDevice(socket)] });
    t.teardown(async () => {
      await vm.kill();
      if (!t.passing()) {
        t.comment(vm.log());
      }
    });
    const [files, raw] = [await namespaceDevice(vm, 1), await namespaceDevice(vm, 2)];
    await space(t, vm, files, first);
    await blocks(t, vm, raw);
    await reservations(t, vm, raw);
    await management(t, vm, raw, second);
    await vm.powerOff();
  });
}

async function space(t: Test, vm: Vm, device: string, file: string): Promise<void> {
  await vm.succeed(`mkfs.ext4 -q ${device} && mount ${device} /mnt`);
  await vm.succeed('dd if=/dev/urandom of=/mnt/random bs=1M count=48 && sync');
  const full = allocated(file);
  t.ok(full >= 48 * MIB, `${full} bytes are written`);
  await vm.succeed('rm /mnt/random && sync && fstrim /mnt');
  const trimmed = allocated(file);
  t.ok(trimmed < full - 40 * MIB, `fstrim: the host's file shrinks to ${trimmed} bytes`);
  await vm.succeed('umount /mnt');
  await vm.succeed(`blkdiscard ${device}`);
  t.ok(allocated(file) < MIB, 'blkdiscard: nothing is left of it');
}

async function blocks(t: Test, vm: Vm, device: string): Promise<void> {
  const at = (lba: number) => `${device} --start-block=${lba} --block-count=7`;
  const same = (lba: number) => vm.run(`nvme compare ${at(lba)} --data-size=4096 --data=/data`);
  await vm.succeed('dd if=/dev/urandom of=/data bs=4096 count=1');
  await vm.succeed(`nvme write ${at(0)} --data-size=4096 --data=/data`);
  t.equal((await same(0)).status, 0, 'compare');
  t.not((await same(8)).status, 0, 'compare, with other data');
  await vm.succeed(`nvme verify ${at(0)}`);
  await vm.succeed(`nvme copy ${device} --sdlba=64 --slbs=0 --blocks=7`);
  t.equal((await same(64)).status, 0, 'copy');
  await vm.succeed(`nvme write-zeroes ${at(64)}`);
  t.not((await same(64)).status, 0, 'write-zeroes');
  await vm.succeed(`nvme write-uncor ${at(0)}`);
  const read = `dd if=${device} of=/dev/null bs=4096 count=1 iflag=direct`;
  t.not((await vm.run(read)).status, 0, 'write-uncor: it cannot be read');
  await vm.succeed(`nvme write ${at(0)} --data-size=4096 --data=/data`);
  await vm.succeed(read);
  await vm.succeed(`nvme dsm ${device} --ad --slbs=0 --blocks=8`);
  t.not((await same(0)).status, 0, 'dsm');
  await vm.succeed(`nvme flush ${device}`);
}

async function reservations(t: Test, vm: Vm, device: string): Promise<void> {
  await vm.succeed(`nvme resv-register ${device} --nrkey=0x11 --rrega=0`);
  await vm.succeed(`nvme resv-acquire ${device} --crkey=0x11 --rtype=1 --racqa=0`);
  t.match(await vm.succeed(`nvme resv-report ${device} --eds`), /rtype\s*:\s*1/, 'resv-report');
  await vm.succeed(`nvme resv-release ${device} --crkey=0x11 --rtype=1 --rrela=0`);
  await vm.succeed(`nvme resv-register ${device} --crkey=0x11 --rrega=1`);
}

async function management(t: Test, vm: Vm, device: string, file: string): Promise<void> {
  const until = async (command: string, pattern: RegExp): Promise<void> => {
    for (;;) {
      if (pattern.test(await vm.succeed(command))) {
        return;
      }
      await sleep(200);
    }
  };
  await vm.succeed(`nvme device-self-test ${CONTROLLER} -n 0xffffffff -s 1`);
  await until(
    `nvme self-test-log ${CONTROLLER}`,
    /Current operation\s*:\s*0(x0)?\s[\s\S]*Operation Result\s*:\s*0/i,
  );
  t.pass('device-self-test');
  await vm.succeed(`nvme set-feature ${device} -f 0x84 --value=1 -n 2`);
  const write = `dd if=/dev/zero of=${device} bs=4096 count=1 oflag=direct`;
  t.not((await vm.run(write)).status, 0, 'write protection');
  await vm.succeed(`nvme set-feature ${device} -f 0x84 --value=0 -n 2`);
  await vm.succeed(`blockdev --setrw ${device}; ${write}`);
  await vm.succeed(`dd if=/dev/urandom of=${device} bs=1M count=8 oflag=direct`);
  await vm.succeed(`nvme format ${device} --ses=1 --force`);
  t.ok(allocated(file) < MIB, 'format: the data is gone');
  await vm.succeed(`dd if=/dev/urandom of=${device} bs=1M count=8 oflag=direct`);
  await vm.succeed(`nvme sanitize ${CONTROLLER} -a 2`);
  await until(`nvme sanitize-log ${CONTROLLER}`, /\(SSTAT\)\s*:\s*(0x)?[0-9a-f]*1\b/i);
  t.ok(allocated(file) < MIB, 'sanitize: the data is gone');
  for (const page of ['error-log', 'smart-log', 'fw-log', 'supported-log-pages']) {
    await vm.succeed(`nvme ${page} ${CONTROLLER}`);
  }
  // Without a command set it wants to read the registers itself, past the driver.
  await vm.succeed(`nvme effects-log ${CONTROLLER} --csi=0`);
  await vm.succeed(`nvme reset ${CONTROLLER}`);
  t.pass('logs, and a reset');
}
