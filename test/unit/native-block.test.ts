/** The addon's view of block devices, against sysfs; what it knows of files. */
import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
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

t.test('what O_DIRECT asks for', async (t) => {
  const file = openSync(fileURLToPath(import.meta.url), 'r');
  const told = native.directAlignment(file);
  // Older kernels and some file systems do not say.
  if (told !== undefined && told.offset > 0) {
    for (const bytes of [told.memory, told.offset]) {
      t.ok(bytes > 0 && (bytes & (bytes - 1)) === 0, `${bytes} is a power of two`);
    }
  }
  closeSync(file);
  t.throws(() => native.directAlignment(file), { code: 'EBADF', errno: 9, syscall: 'statx' });
  t.throws(() => native.directAlignment(-1), { code: 'ERR_OUT_OF_RANGE' });
  const proc = openSync('/proc/self/exe', 'r');
  t.doesNotThrow(() => native.directAlignment(proc));
  closeSync(proc);
  const none = openSync('/proc/self/status', 'r');
  t.equal(native.directAlignment(none), undefined, 'a file without such a thing');
  closeSync(none);
});

t.test('locks', async (t) => {
  const path = join(t.testdir({ file: 'x' }), 'file');
  const [first, second] = [openSync(path, 'r+'), openSync(path, 'r+')];
  t.equal(native.lockFile(first, true), true);
  t.equal(native.lockFile(first, true), true, 'once more');
  t.equal(native.lockFile(second, true), false);
  t.equal(native.lockFile(second, false), false);
  t.equal(native.lockFile(first, false), true, 'shared instead');
  t.equal(native.lockFile(second, false), true);
  t.equal(native.lockFile(first, true), false);
  closeSync(second);
  t.equal(native.lockFile(first, true), true);
  closeSync(first);
  t.throws(() => native.lockFile(first, true), { code: 'EBADF', syscall: 'fcntl' });
  const reader = openSync(path, 'r');
  t.throws(() => native.lockFile(reader, true), { code: 'EBADF' }, 'not open for writing');
  closeSync(reader);
  t.throws(() => native.lockFile(1, 'yes' as unknown as boolean), { code: 'ERR_INVALID_ARG_TYPE' });
});
