import { spawnSync } from 'node:child_process';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { MallocBdev, NullBdev } from '../../src/bdev/create.ts';
import type { BdevIdentity } from '../../src/bdev/disk.ts';
import { FailedFiles } from '../../src/bdev/failed-files.ts';
import { FileBdev, fileIdentity } from '../../src/bdev/file.ts';
import { UncorrectableFiles } from '../../src/bdev/uncorrectable-files.ts';
import { isUuid, uuidFromName } from '../../src/util/uuid.ts';
import { shortFolder } from '../helpers/rpc.ts';

const context = {
  reactors: 2,
  failed: new FailedFiles(() => {}),
  uncorrectable: new UncorrectableFiles(),
};
const identity: BdevIdentity = {
  index: 3,
  name: 'b',
  uuid: '00112233-4455-6677-8899-aabbccddeeff',
};

function openFds(): number {
  return readdirSync('/proc/self/fd').length;
}

function residentKiB(): number {
  return Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]);
}

t.test('null', async (t) => {
  const bdev = new NullBdev(identity, { blockSize: 4096, numBlocks: 10 });
  t.match(bdev, { ...identity, module: 'null', productName: 'Null disk', readonly: false });
  t.strictSame(bdev.aliases, [identity.uuid]);
  t.equal(bdev.numBlocks, 10);
  t.strictSame(structuredClone(bdev.backend), { kind: 'null' }, 'goes to a worker');
  bdev.setNumBlocks(20);
  t.equal(bdev.numBlocks, 20);
  t.throws(() => bdev.setNumBlocks(0), { name: 'InvalidError' });
  t.equal(bdev.numBlocks, 20);
  await bdev.sync();
  await bdev.close();
});

t.test('geometry', async (t) => {
  const bad = [
    [0, 1, /block_size/],
    [1024, 1, /block_size/],
    [513, 1, /block_size/],
    [512, 0, /num_blocks/],
    [512, -1, /num_blocks/],
    [512, 1.5, /num_blocks/],
    [4096, 2 ** 42, /num_blocks/],
  ] as const;
  for (const [blockSize, numBlocks, message] of bad) {
    for (const Kind of [NullBdev, MallocBdev]) {
      t.throws(() => new Kind(identity, { blockSize, numBlocks }), {
        name: 'InvalidError',
        message,
      });
    }
  }
});

t.test('malloc: zeros, taken when written, given back at close', async (t) => {
  const MIB = 2 ** 20;
  const before = residentKiB();
  const bdev = new MallocBdev(identity, { blockSize: 512, numBlocks: (256 * MIB) / 512 });
  const { memory } = bdev.backend;
  t.equal(memory.byteLength, 256 * MIB);
  t.ok(residentKiB() - before < 1024, 'not resident');
  const bytes = new Uint8Array(memory);
  t.equal(bytes[100 * MIB], 0);
  bytes.subarray(0, 32 * MIB).fill(1);
  t.ok(residentKiB() - before >= 32 * 1024, 'resident once written');
  await bdev.sync();
  await bdev.close();
  await bdev.close();
  // A large mapping is taken down by a thread of its own.
  while (residentKiB() - before >= 16 * 1024) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  t.pass('given back');
  t.equal(bytes[0], 0, 'a late reader sees zeros, and is not killed');
});

t.test('malloc: a size that is not whole pages', async (t) => {
  const bdev = new MallocBdev(identity, { blockSize: 512, numBlocks: 9 });
  t.equal(bdev.backend.memory.byteLength, 8192);
  await bdev.close();
});

t.test('malloc: more than there are addresses', async (t) => {
  const geometry = { blockSize: 4096, numBlocks: 2 ** 40 };
  t.throws(() => new MallocBdev(identity, geometry), { code: 'ENOMEM', errno: 12 });
});

t.test('file: size, block size, descriptors', async (t) => {
  const path = join(shortFolder(t), 'disk');
  writeFileSync(path, Buffer.alloc(10_000, 7));
  const before = openFds();
  const bdev = await FileBdev.open(identity, { module: 'uring', filename: path }, context);
  t.match(bdev, { blockSize: 512, numBlocks: 19, readonly: false, productName: 'URING bdev' });
  t.match(bdev.backend, { kind: 'uring', fds: [Number, Number], alignment: 1 });
  t.strictSame(bdev.driverSpecific, {
    uring: { filename: path, readonly: false, direct: false, write_back_failed: false },
  });
  t.equal(openFds(), before + 4, 'the file for main and each reactor, and its lock');
  t.equal(fstatSync(bdev.backend.fds[0]).size, 10_000, 'the file keeps its size');
  await bdev.sync();
  await bdev.close();
  await bdev.close();
  await bdev.sync();
  t.equal(openFds(), before);
  t.strictSame(readFileSync(path), Buffer.alloc(10_000, 7), 'and its content');

  const large = await FileBdev.open(
    identity,
    { module: 'aio', filename: path, blockSize: 4096 },
    context,
  );
  t.match(large, { blockSize: 4096, numBlocks: 2, productName: 'AIO disk' });
  t.match(large.driverSpecific, { aio: { block_size_override: true, fallocate: false } });
  await large.close();
});

t.test('file: the size is read again', async (t) => {
  const path = join(shortFolder(t), 'disk');
  writeFileSync(path, Buffer.alloc(8192));
  const bdev = await FileBdev.open(identity, { module: 'aio', filename: path }, context);
  truncateSync(path, 20_000);
  t.equal(await bdev.currentBlocks(), 39);
  t.equal(bdev.numBlocks, 16, 'until it is set');
  truncateSync(path, 100);
  await t.rejects(bdev.currentBlocks(), { code: 'EINVAL' });
  await bdev.close();
});

t.test('file: read only', async (t) => {
  const path = join(shortFolder(t), 'disk');
  writeFileSync(path, Buffer.alloc(8192));
  const bdev = await FileBdev.open(
    identity,
    { module: 'aio', filename: path, readonly: true },
    context,
  );
  t.equal(bdev.readonly, true);
  const flags = /flags:\s+(\d+)/.exec(
    readFileSync(`/proc/self/fdinfo/${bdev.backend.fds[0]}`, 'utf8'),
  );
  t.equal(Number.parseInt(flags?.[1] ?? '', 8) & 3, 0, 'O_RDONLY');
  t.throws(() => ftruncateSync(bdev.backend.fds[0], 0), { code: 'EINVAL' });
  await bdev.sync();
  await bdev.close();
});

t.test('file: O_DIRECT', async (t) => {
  const path = join(shortFolder(t), 'disk');
  writeFileSync(path, Buffer.alloc(8192));
  const before = openFds();
  const bdev = await FileBdev.open(
    identity,
    { module: 'uring', filename: path, direct: true },
    context,
  );
  const {
    fds: [fd],
    alignment,
  } = bdev.backend;
  t.ok([512, 1024, 2048, 4096].includes(alignment), `alignment ${alignment}`);
  t.equal(openFds(), before + 4, 'the file for main and each reactor, and its lock');
  const flags = /flags:\s+(\d+)/.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))?.[1] ?? '';
  t.equal(Number.parseInt(flags, 8) & 0o40000, 0o40000);
  await bdev.close();
  t.equal(openFds(), before);
});

t.test('file: what is refused leaves nothing open', async (t) => {
  const folder = shortFolder(t);
  const path = join(folder, 'disk');
  writeFileSync(path, Buffer.alloc(8192));
  const short = join(folder, 'short');
  writeFileSync(short, Buffer.alloc(511));
  const dangling = join(folder, 'dangling');
  symlinkSync(join(folder, 'nowhere'), dangling);
  const fifo = join(folder, 'fifo');
  t.equal(spawnSync('mkfifo', [fifo]).status, 0);
  mkdirSync(join(folder, 'sub'));
  const before = openFds();
  const bad = [
    [{ filename: join(folder, 'none') }, { code: 'ENOENT', message: /none$/ }],
    [{ filename: dangling }, { code: 'ENOENT' }],
    [{ filename: join(path, 'x') }, { code: 'ENOTDIR' }],
    [{ filename: join(folder, 'sub') }, { code: 'EINVAL', message: /neither/ }],
    [{ filename: fifo }, { code: 'EINVAL', message: /neither/ }],
    [{ filename: '/dev/null' }, { code: 'EINVAL', message: /neither/ }],
    [{ filename: short }, { code: 'EINVAL', message: /shorter/ }],
    [
      { filename: path, blockSize: 16384 },
      { name: 'InvalidError', message: /block_size/ },
    ],
    [
      { filename: path, blockSize: 1024 },
      { name: 'InvalidError', message: /block_size/ },
    ],
    [
      { filename: path, blockSize: 100 },
      { name: 'InvalidError', message: /block_size/ },
    ],
  ] as const;
  for (const [options, error] of bad) {
    for (const direct of [false, true]) {
      await t.rejects(
        FileBdev.open(identity, { module: 'aio', direct, ...options }, context),
        error,
        JSON.stringify(options),
      );
    }
  }
  t.equal(openFds(), before);
});

t.test('block device', async (t) => {
  const path = join(shortFolder(t), 'image');
  closeSync(openSync(path, 'w'));
  truncateSync(path, 3 * 2 ** 20 + 512);
  const losetup = (...args: string[]) => spawnSync('losetup', args, { encoding: 'utf8' });
  const made = losetup('--find', '--show', '--sector-size', '4096', path);
  if (made.status !== 0) {
    t.comment(`no loop devices here: ${made.stderr?.trim() || made.error?.message}`);
    return;
  }
  const device = made.stdout.trim();
  t.teardown(() => losetup('--detach', device));
  const bdev = await FileBdev.open(
    identity,
    { module: 'aio', filename: device, direct: true },
    context,
  );
  t.match(bdev, { blockSize: 4096, numBlocks: 768, backend: { alignment: 4096 } });
  await bdev.close();
  await t.rejects(
    FileBdev.open(identity, { module: 'aio', filename: device, blockSize: 512 }, context),
    {
      name: 'InvalidError',
      message: /4096/,
    },
  );
});

t.test('the UUID of a file', async (t) => {
  t.equal(fileIdentity('/a/../b/disk'), '/b/disk');
  const uuid = uuidFromName('/b/disk');
  t.ok(isUuid(uuid));
  t.match(uuid, /^.{14}5.{4}[89ab]/, 'version 5');
  t.equal(uuidFromName('/b/disk'), uuid, 'always the same');
  t.not(uuidFromName('/b/disk2'), uuid);
});
