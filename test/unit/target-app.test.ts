/** The small parts of the application: processors, sizes, the commands it prints, its log lines. */
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { banner, cloudHypervisorCommand, qemuCommand, shellQuote } from '../../src/app/banner.ts';
import { chooseCpus, parseCpuList, parseCpuMask } from '../../src/app/cpus.ts';
import { parseSize } from '../../src/app/size.ts';
import { defaultSocketFolder, prepareSocketFolder } from '../../src/app/socket-folder.ts';
import { createDiskImage } from '../../src/bdev/image.ts';
import { BlockingCalls } from '../../src/native/blocking-calls.ts';
import { describeError, ErrnoError, strerror } from '../../src/util/errors.ts';
import { shortFolder } from '../helpers/rpc.ts';

t.test('processors', async (t) => {
  t.strictSame(parseCpuMask('0x5'), [0, 2]);
  t.strictSame(parseCpuMask('F0'), [4, 5, 6, 7]);
  t.strictSame(parseCpuMask('0x10000000000000000'), [64]);
  t.strictSame(parseCpuMask('[0,2-4]'), [0, 2, 3, 4]);
  t.strictSame(parseCpuList('3,1-2,2'), [1, 2, 3]);
  for (const mask of ['', '0', '0x', 'xyz', '-1', '[0', '[]', '1.5', ' ']) {
    t.throws(() => parseCpuMask(mask), { name: 'InvalidError' }, mask);
  }
  for (const list of ['', 'a', '1-', '-1', '3-1', '1,,2', '4096', '1-99999', '0x1']) {
    t.throws(() => parseCpuList(list), { name: 'InvalidError' }, list);
  }
  t.strictSame(chooseCpus(undefined, [0, 1, 2]), [1, 2]);
  t.strictSame(chooseCpus(undefined, [5]), [5]);
  t.strictSame(chooseCpus([0, 2], [0, 1, 2]), [0, 2]);
  t.throws(() => chooseCpus([3], [0, 1, 2]), { message: /CPU 3/ });
  const many = Array.from({ length: 100 }, (_, cpu) => cpu);
  t.equal(chooseCpus(undefined, many).length, 64);
  t.throws(() => chooseCpus(many, many), { message: /64 reactors/ });
});

t.test('sizes', async (t) => {
  t.equal(parseSize('1G'), 2 ** 30);
  t.equal(parseSize('512m'), 512 * 2 ** 20);
  t.equal(parseSize('10KiB'), 10240);
  t.equal(parseSize('4096'), 4096);
  t.equal(parseSize('2TB'), 2 ** 41);
  t.equal(parseSize('1.5G'), 1.5 * 2 ** 30);
  for (const size of [
    '',
    '0',
    '4095',
    '1X',
    '-1G',
    '1.0001K',
    '1.G',
    'G',
    '1 G',
    '99999999T',
    '0x1000',
  ]) {
    t.throws(() => parseSize(size), { name: 'InvalidError' }, size);
  }
});

t.test('what is printed can be pasted into a shell', async (t) => {
  const words = fc.array(
    fc.string({ minLength: 1 }).filter((text) => !text.includes('\0')),
    {
      minLength: 1,
      maxLength: 5,
    },
  );
  fc.assert(
    fc.property(words, (texts) => {
      const script = `printf '%s\\0' ${texts.map(shellQuote).join(' ')}`;
      const { stdout } = spawnSync('sh', ['-c', script], { encoding: 'utf8' });
      t.strictSame(stdout.split('\0').slice(0, -1), texts);
    }),
    { numRuns: 40 },
  );
});

/** The words that a shell makes of a command. */
function wordsOf(command: string): string[] {
  const script = `f() { printf '%s\\0' "$@"; }\nf ${command}`;
  const { stdout } = spawnSync('sh', ['-c', script], { encoding: 'utf8' });
  return stdout.split('\0').slice(0, -1);
}

t.test("the VMM's commands", async (t) => {
  for (const path of ['/run/doorbell/cntrl', `/tmp/it's "here", $HOME/cntrl`]) {
    const qemu = wordsOf(qemuCommand(path));
    t.strictSame(JSON.parse(qemu[qemu.indexOf('-device') + 1]), {
      driver: 'vfio-user-pci',
      socket: { type: 'unix', path },
    });
    t.equal(qemu[qemu.indexOf('-machine') + 1], 'q35,memory-backend=mem');
    t.match(qemu[qemu.indexOf('-object') + 1], /^memory-backend-memfd,id=mem,size=2G,share=on$/);
    t.equal(qemu[qemu.indexOf('-m') + 1], '2G');
  }
  const hypervisor = wordsOf(cloudHypervisorCommand('/run/x y/cntrl'));
  t.strictSame(hypervisor.slice(-2), ['--user-device', 'socket=/run/x y/cntrl']);
  t.equal(wordsOf(cloudHypervisorCommand('/a,b/cntrl')).at(-1), 'socket="/a,b/cntrl"');
  const text = banner({
    rpcSocket: '/r',
    vfioUserSocket: '/v/cntrl',
    disks: [{ nsid: 1, path: '/d', bytes: 1.5 * 2 ** 30 }],
  });
  t.match(text, /namespace 1: \/d \(1\.5 GiB\)/);
  t.match(text, /vfio-user:\s+\/v\/cntrl\n/);
  t.match(text, /JSON-RPC:\s+\/r\n/);
  t.match(banner({ rpcSocket: '/r', disks: [] }), /No disks/);
});

t.test('a default disk is made once, sparse, and never touched again', async (t) => {
  const path = join(shortFolder(t), 'disk.img');
  const calls = new BlockingCalls();
  t.equal(await createDiskImage(calls, path, 2 ** 30), true);
  t.match(statSync(path), { size: 2 ** 30, blocks: 0 });
  t.equal(statSync(path).mode & 0o777, 0o600);
  writeFileSync(path, 'precious');
  t.equal(await createDiskImage(calls, path, 2 ** 30), false);
  t.equal(readFileSync(path, 'utf8'), 'precious');
  await t.rejects(createDiskImage(calls, '/none/disk', 4096), {
    code: 'ENOENT',
    message: /\/none\/disk/,
  });
  const huge = join(shortFolder(t), 'huge');
  await t.rejects(createDiskImage(calls, huge, Number.MAX_SAFE_INTEGER), { code: 'EFBIG' });
  t.notOk(existsSync(huge), 'nothing is left of one that could not be made');
});

t.test('the folder of the socket', async (t) => {
  const base = shortFolder(t);
  const folder = await prepareSocketFolder(join(base, 'a/b'));
  t.equal(folder, join(base, 'a/b'));
  t.equal(lstatSync(folder).mode & 0o777, 0o700);
  t.equal(await prepareSocketFolder(folder), folder, 'again');
  writeFileSync(join(base, 'file'), '');
  await t.rejects(prepareSocketFolder(join(base, 'file')), { code: 'EEXIST' });

  const { XDG_RUNTIME_DIR } = process.env;
  t.teardown(() => {
    if (XDG_RUNTIME_DIR === undefined) {
      delete process.env.XDG_RUNTIME_DIR;
    } else {
      process.env.XDG_RUNTIME_DIR = XDG_RUNTIME_DIR;
    }
  });
  process.env.XDG_RUNTIME_DIR = base;
  t.equal(defaultSocketFolder(), join(base, 'doorbell'));
  t.equal(await prepareSocketFolder(undefined), join(base, 'doorbell'));
  const open = join(base, 'open');
  mkdirSync(join(open, 'doorbell'), { recursive: true, mode: 0o777 });
  spawnSync('chmod', ['777', join(open, 'doorbell')]);
  process.env.XDG_RUNTIME_DIR = open;
  await t.rejects(prepareSocketFolder(undefined), { name: 'FailedError' });
});

t.test('errors in words', async (t) => {
  t.equal(strerror(2), 'No such file or directory');
  t.equal(strerror(16), 'Device or resource busy');
  t.match(strerror(71), /protocol/i, 'one that is not in our table');
  t.equal(strerror(9999), 'Unknown error 9999');
  t.equal(describeError(new ErrnoError('ENODEV', '')), 'No such device');
  t.equal(describeError(new ErrnoError('EBUSY', 'x')), 'Device or resource busy: x');
  t.equal(describeError(new Error('plain')), 'plain');
  t.equal(describeError('text'), 'text');
  try {
    readFileSync('/none');
  } catch (error) {
    t.equal(describeError(error), 'No such file or directory: /none');
  }
});
