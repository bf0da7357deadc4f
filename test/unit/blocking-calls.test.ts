/** Calls that may never answer: what they give, whose turn it is, and that one that hangs holds up its owner only. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  fstatSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import t, { type Test } from 'tap';
import { BlockingCalls, BlockingThreads } from '../../src/native/blocking-calls.ts';
import { native } from '../../src/native/index.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';

const MODULE = new URL('../../src/native/blocking-calls.js', import.meta.url).href;
const { O_CREAT, O_EXCL, O_RDONLY, O_RDWR } = constants;

function folderOf(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'db-blocking-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Opening one waits for a writer, for ever: a call that hangs, and that a signal can end. */
function fifoOf(t: Test): string {
  const path = join(folderOf(t), 'fifo');
  spawnSync('mkfifo', [path]);
  return path;
}

/** Ends what waits for a writer of the FIFO. */
function release(fifo: string): void {
  closeSync(openSync(fifo, O_RDWR));
}

/** Lets promises settle that only wait for a thread to end. */
async function turns(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 50));
}

t.test('what the calls give is what Node gives', async (t) => {
  const calls = new BlockingCalls();
  const folder = folderOf(t);
  const inner = join(folder, 'inner');
  await calls.run('mkdir', inner, 0o700);
  t.match(statSync(inner), { mode: 0o040700 });
  const path = join(inner, 'file');
  const fd = await calls.run('open', path, O_RDWR | O_CREAT | O_EXCL, 0o600);
  t.match(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /^flags:\s+02\d{6}$/m, 'close-on-exec');
  await calls.run('ftruncate', fd, 10_000);
  t.equal(await calls.run('pwrite', fd, Buffer.from('hello'), 4096), 5);
  t.same(await calls.run('pread', fd, 7, 4095), Buffer.from('\0hello\0'));
  t.equal((await calls.run('pread', fd, 100, 9_990)).length, 10, 'to the end of the file');
  await calls.run('fdatasync', fd);
  await calls.run('fsync', fd);
  const stats = fstatSync(fd, { bigint: true });
  const told = await calls.run('fstat', fd);
  t.match(told, { kind: 'file', mode: 0o600, size: 10_000, dev: stats.dev, ino: stats.ino });
  t.same(await calls.run('stat', path), told);
  t.equal((await calls.run('lstat', '/proc/self/exe')).kind, 'other');
  t.equal((await calls.run('stat', folder)).kind, 'folder');
  t.equal(
    (await calls.run('stat', '/dev/null')).rdev,
    statSync('/dev/null', { bigint: true }).rdev,
  );
  t.same(await calls.run('directAlignment', fd), native.directAlignment(fd));
  t.equal(await calls.run('lockFile', fd, true), true);
  const other = await calls.run('open', path, O_RDONLY, 0);
  t.equal(await calls.run('lockFile', other, false), false);
  await calls.run('close', other);
  await calls.run('rename', path, `${path}2`);
  t.same(readdirSync(inner), ['file2']);
  await calls.run('unlink', `${path}2`);
  await calls.run('close', fd);
  t.same(readdirSync(inner), []);
  t.equal(calls.underWay, 0);
});

t.test('errors are the system’s', async (t) => {
  const calls = new BlockingCalls();
  await t.rejects(calls.run('open', '/nonexistent/file', O_RDONLY, 0), {
    message: 'ENOENT: No such file or directory, open',
    code: 'ENOENT',
    errno: 2,
    syscall: 'open',
  });
  await t.rejects(calls.run('close', 1_000_000), { code: 'EBADF', errno: 9, syscall: 'close' });
  await t.rejects(calls.run('stat', '/dev/null/x'), { code: 'ENOTDIR', syscall: 'stat' });
  const file = openSync('/proc/self/exe', 'r');
  await t.rejects(calls.run('blockDeviceInfo', file), { code: 'ENOTTY', syscall: 'ioctl' });
  await t.rejects(calls.run('pwrite', file, Buffer.from('x'), 0), { code: 'EBADF' });
  closeSync(file);
  await t.rejects(calls.run('pread', 0, 0, 0), { code: 'ERR_OUT_OF_RANGE' });
  await t.rejects(calls.run('stat', 'a\0b'), { code: 'ERR_OUT_OF_RANGE' });
  await t.rejects(calls.run('open', 5 as unknown as string, 0, 0), {
    code: 'ERR_INVALID_ARG_TYPE',
  });
  t.equal(calls.underWay, 0, 'none of them keeps a thread');
});

t.test('an owner has its share, and its calls keep their order', async (t) => {
  const calls = new BlockingCalls({ limit: 1 });
  const fifo = fifoOf(t);
  const order: string[] = [];
  const first = calls.run('open', fifo, O_RDONLY, 0).then((fd) => {
    order.push('open');
    closeSync(fd);
  });
  const second = calls.run('stat', '/').then(() => order.push('stat'));
  const third = calls.run('stat', '/nonexistent').catch(() => order.push('failed'));
  await turns();
  t.same([calls.underWay, calls.waiting, order], [1, 2, []]);
  const other = new BlockingCalls({ limit: 1 });
  t.equal((await other.run('stat', '/')).kind, 'folder', 'another owner does not wait');
  release(fifo);
  await Promise.all([first, second, third]);
  t.same(order, ['open', 'stat', 'failed']);
});

t.test('of the last threads everyone gets one before anyone gets two', async (t) => {
  const threads = new BlockingThreads({ calls: 4, further: 1 });
  const [a, b, c, d] = [2, 2, 2, 2].map((limit) => new BlockingCalls({ limit }, threads));
  const fifo = fifoOf(t);
  const opens: Promise<void>[] = [];
  const open = (owner: BlockingCalls) =>
    opens.push(owner.run('open', fifo, O_RDONLY, 0).then(closeSync));
  for (const owner of [a, a, b, b, c]) {
    open(owner);
  }
  await turns();
  t.same(
    [a, b, c].map((owner) => owner.underWay),
    [2, 1, 1],
    'b would be one further too many',
  );
  open(d);
  t.equal(d.underWay, 0, 'all four are taken');
  // Those that waited for a thread wait for a writer next.
  const releasing = setInterval(release, 10, fifo);
  await Promise.all(opens);
  clearInterval(releasing);
  t.same(
    [a, b, c, d].map((owner) => owner.underWay + owner.waiting),
    [0, 0, 0, 0],
  );
  t.equal(threads.take(0), true, 'and all are given back');
  t.equal(threads.take(1), true);
  t.equal(threads.take(1), false);
});

t.test('calls that hang in the kernel hold up their owner only', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, 1 << 20);
  const hung = new BlockingCalls();
  const fd = await hung.run('open', disk.path, O_RDWR, 0);
  await hung.run('pwrite', fd, Buffer.from('x'), 0);
  await disk.behave({ hold: true });
  const syncs = Promise.allSettled(Array.from({ length: 20 }, () => hung.run('fdatasync', fd)));
  await disk.held(1);
  await turns();
  t.same([hung.underWay, hung.waiting], [4, 16]);
  const path = join(folderOf(t), 'file');
  writeFileSync(path, '');
  for (let i = 0; i < 20; i++) {
    const healthy = new BlockingCalls();
    const other = await healthy.run('open', path, O_RDWR, 0);
    await healthy.run('fdatasync', other);
    await healthy.run('close', other);
  }
  await disk.behave({ fsync: 5 });
  const results = await syncs;
  t.ok(
    results.every((result) => result.status === 'fulfilled' || result.reason.code === 'EIO'),
    'all of them end',
  );
  t.ok(results.some((result) => result.status === 'rejected'));
  await hung.run('close', fd);
});

/** A program of its own that begins to open the FIFO. */
function program(fifo: string, rest: string): string {
  return `import { BlockingCalls } from '${MODULE}';
    const calls = new BlockingCalls();
    calls.run('open', ${JSON.stringify(fifo)}, 0, 0).then((fd) => console.log('opened', fd));
    ${rest}`;
}

t.test('a process ends while a call hangs', async (t) => {
  const fifo = fifoOf(t);
  const text = program(fifo, "setTimeout(() => { console.log('exits'); process.exit(7); }, 100);");
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', text], {
    encoding: 'utf8',
    timeout: 30_000,
  });
  t.match(child, { status: 7, stdout: 'exits\n', stderr: '' });
});

t.test('a call under way keeps its process', async (t) => {
  const fifo = fifoOf(t);
  const child = spawn(process.execPath, ['--input-type=module', '-e', program(fifo, '')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const over = once(child, 'exit');
  // Opening the other end waits until the child has come so far.
  const writer = await new BlockingCalls().run('open', fifo, constants.O_WRONLY, 0);
  t.match(String((await once(child.stdout, 'data'))[0]), /^opened \d+\n$/);
  closeSync(writer);
  t.same(await over, [0, null]);
});

t.test('a worker ends while a call hangs, and what it opens late is closed', async (t) => {
  const fifo = fifoOf(t);
  const text = program(
    fifo,
    `import { parentPort } from 'node:worker_threads'; parentPort.postMessage('begun');`,
  );
  const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(text)}`));
  await once(worker, 'message');
  await turns();
  await worker.terminate();
  const before = readdirSync('/proc/self/fd').length;
  release(fifo);
  await turns();
  t.equal(readdirSync('/proc/self/fd').length, before);
});
