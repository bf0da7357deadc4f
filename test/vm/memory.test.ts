/**
 * Guests whose memory comes and goes for the device: behind an IOMMU, which maps what the driver says, page by page, and unmaps all at a
 * reset; and with memory that is plugged and unplugged. Each keeps its data, over resets of both kinds.
 */
import t, { type Test } from 'tap';
import { MIB, TestTarget } from '../helpers/target.ts';
import { Vm, type VmOptions, vfioUserDevice } from '../helpers/vm.ts';
import { namespaceDevice } from '../helpers/vm-disks.ts';

const DISK_MIB = 64;
const DATA_MIB = 8;
const PLUGGED_MIB = 512;
/** What the kernel says when a disk, or the IOMMU before it, misbehaves. */
const TROUBLE = /nvme.*(timeout|abort|error|fail|down|invalid)|I\/O error|DMAR.*fault/i;

async function boot(t: Test, options: Omit<VmOptions, 'devices'>): Promise<Vm> {
  const target = await TestTarget.start(t, { reactors: 2 });
  const { socket } = await target.serve(await target.file(target.image(DISK_MIB * MIB)));
  const vm = await Vm.boot({ ...options, devices: [vfioUserDevice(socket)] });
  t.teardown(async () => {
    await vm.kill();
    if (!t.passing()) {
      t.comment(vm.log());
    }
  });
  return vm;
}

/** Random data on the disk. Resolves with its checksum. */
async function fill(vm: Vm): Promise<string> {
  const disk = await namespaceDevice(vm, 1);
  await vm.succeed(`dd if=/dev/urandom of=/tmp/random bs=1M count=${DATA_MIB}`);
  await vm.succeed(`dd if=/tmp/random of=${disk} bs=1M oflag=direct conv=fsync`);
  const written = await vm.succeed('sha256sum </tmp/random');
  if ((await checksum(vm)) !== written) {
    throw new Error('what was written reads differently');
  }
  return written;
}

async function checksum(vm: Vm): Promise<string> {
  const disk = await namespaceDevice(vm, 1);
  return vm.succeed(
    `dd if=${disk} bs=64k count=${DATA_MIB * 16} iflag=direct 2>/dev/null | sha256sum`,
  );
}

async function expectNoTrouble(t: Test, vm: Vm): Promise<void> {
  t.notMatch(await vm.succeed('dmesg'), TROUBLE, 'the kernel saw no trouble');
}

/** The machine is reset by its button, and by the guest, in turn, and finds its data each time. */
async function resets(t: Test, vm: Vm, ways: readonly ('reset' | 'reboot')[]): Promise<void> {
  for (const way of ways) {
    const data = await fill(vm);
    await vm[way]();
    t.equal(await checksum(vm), data, `the data is there after a ${way}`);
    await expectNoTrouble(t, vm);
  }
}

const unavailable = Vm.available();
if (unavailable !== undefined && process.env.CI === 'true') {
  t.fail(unavailable);
} else if (unavailable !== undefined) {
  t.plan(0, unavailable);
} else {
  t.setTimeout(400_000);

  t.test('a guest behind an IOMMU', async (t) => {
    const vm = await boot(t, { iommu: true });
    t.match(await vm.succeed('dmesg'), /DMAR: Intel\(R\) Virtualization Technology/, 'it uses it');
    await resets(t, vm, ['reset', 'reboot']);
    t.ok(await fill(vm), 'and goes on');
    await vm.powerOff();
  });

  t.test('a guest whose memory is plugged and unplugged', async (t) => {
    const vm = await boot(t, { pluggableMiB: PLUGGED_MIB });
    const total = async () => Number(await vm.succeed("awk '/MemTotal/ {print $2}' /proc/meminfo"));
    const before = await total();
    // More than there is without it: buffers of the disk are in what was plugged.
    const useIt = async () => {
      await vm.plug(PLUGGED_MIB);
      t.ok((await total()) > before + (PLUGGED_MIB - 64) * 1024, 'the guest has more memory');
      await vm.succeed('mount -t tmpfs -o size=750m tmpfs /mnt');
      await vm.succeed('dd if=/dev/zero of=/mnt/fill bs=1M count=600');
      const sum = await fill(vm);
      await vm.succeed('umount /mnt');
      return sum;
    };
    await useIt();
    await vm.plug(0);
    const data = await useIt();
    await vm.plug(0);
    t.equal(await checksum(vm), data, 'and with less again');
    for (const way of ['reset', 'reboot'] as const) {
      // The machine's reset takes the memory away.
      await useIt();
      await resets(t, vm, [way]);
    }
    await useIt();
    await vm.powerOff();
  });
}
