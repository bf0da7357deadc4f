/** The addon's view of block devices, against sysfs. */
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import t from 'tap';
import { native } from '../../src/native/index.ts';

/** The first block device that may be opened, with its name. */
function anyDevice(): { name: string; fd: number } | undefined {
  for (const name of readdirSync('/sys/block')) {
    try {
      return { name, fd: openSync(`/dev/${name.replace('!', '/')}`, 'r') };
    } catch {} // not ours to open, or no medium: the next
  }
  return undefined;
}

t.test('a device has the geometry that sysfs tells', async (t) => {
  const device = anyDevice();
  if (device === undefined) {
    t.pass('no block device may be opened', { skip: true });
    return;
  }
  const sysfs = (file: string) => Number(readFileSync(`/sys/block/${device.name}/${file}`, 'utf8'));
  t.same(native.blockDeviceInfo(device.fd), {
    size: sysfs('size') * 512,
    logicalBlockSize: sysfs('queue/logical_block_size'),
    physicalBlockSize: sysfs('queue/physical_block_size'),
  });
  closeSync(device.fd);
});

t.test('anything else is refused', async (t) => {
  const file = openSync('/proc/self/exe', 'r');
  t.throws(() => native.blockDeviceInfo(file), { code: 'ENOTTY', errno: 25, syscall: 'ioctl' });
  closeSync(file);
  t.throws(() => native.blockDeviceInfo(file), { code: 'EBADF', errno: 9, syscall: 'ioctl' });
  t.throws(() => native.blockDeviceInfo(-1), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => native.blockDeviceInfo(undefined as unknown as number), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
});
