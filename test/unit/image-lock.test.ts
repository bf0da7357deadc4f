/** Files of bdevs are locked against other processes. */
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { FailedFiles } from '../../src/bdev/failed-files.ts';
import { FileBdev } from '../../src/bdev/file.ts';
import { UncorrectableFiles } from '../../src/bdev/uncorrectable-files.ts';
import { native } from '../../src/native/index.ts';
import { shortFolder } from '../helpers/rpc.ts';
import { spawnTied } from '../helpers/tied.ts';

const IN_USE = { code: 'EBUSY', message: /is in use: another process has locked it/ };

function open(filename: string, readonly = false): Promise<FileBdev> {
  const identity = { index: 0, name: 'b', uuid: '00112233-4455-6677-8899-aabbccddeeff' };
  const context = {
    reactors: 1,
    failed: new FailedFiles(() => {}),
    uncorrectable: new UncorrectableFiles(),
  };
  return FileBdev.open(identity, { module: 'uring', filename, readonly }, context);
}

function makeFile(t: Parameters<typeof shortFolder>[0]): string {
  const file = join(shortFolder(t), 'disk.img');
  writeFileSync(file, Buffer.alloc(8192));
  return file;
}

/** As another process sees it: locks belong to open files. */
function canLock(file: string, exclusive: boolean): boolean {
  const fd = openSync(file, 'r+');
  const got = native.lockFile(fd, exclusive);
  closeSync(fd);
  return got;
}

t.test('a bdev that may be written excludes others', async (t) => {
  const file = makeFile(t);
  const bdev = await open(file);
  t.equal(canLock(file, false), false);
  await bdev.close();
  t.equal(canLock(file, true), true, 'until it is closed');
});

t.test('one that is only read excludes who writes', async (t) => {
  const file = makeFile(t);
  const bdev = await open(file, true);
  t.equal(canLock(file, true), false);
  t.equal(canLock(file, false), true);
  await bdev.close();
  t.equal(canLock(file, true), true);
});

t.test('bdevs of one process share a file', async (t) => {
  const file = makeFile(t);
  const reader = await open(file, true);
  const writer = await open(file);
  t.equal(canLock(file, false), false, 'as the one that asks for more');
  await reader.close();
  t.equal(canLock(file, false), false);
  const another = await open(file);
  await writer.close();
  t.equal(canLock(file, false), false);
  await another.close();
  await another.close();
  t.equal(canLock(file, true), true, 'the last one lets go');
});

t.test('a file that others use is refused', async (t) => {
  const file = makeFile(t);
  const fd = openSync(file, 'r+');
  const before = readdirSync('/proc/self/fd').length;
  native.lockFile(fd, true);
  await t.rejects(open(file), IN_USE);
  await t.rejects(open(file, true), IN_USE);
  t.equal(readdirSync('/proc/self/fd').length, before, 'nothing stays open');

  native.lockFile(fd, false);
  await t.rejects(open(file), IN_USE, 'to write it');
  const reader = await open(file, true);
  await t.rejects(open(file), IN_USE, 'the same beside a bdev that reads it');
  t.equal(canLock(file, true), false, 'which keeps its lock');
  closeSync(fd);
  t.equal(canLock(file, true), false);
  const writer = await open(file);
  t.equal(canLock(file, false), false);
  await reader.close();
  await writer.close();
  t.equal(readdirSync('/proc/self/fd').length, before - 1);
});

t.test('a process that is killed lets go', async (t) => {
  const file = makeFile(t);
  const { href } = new URL('../../src/bdev/', import.meta.url);
  const script = `
    const { FailedFiles } = await import('${href}failed-files.js');
    const { UncorrectableFiles } = await import('${href}uncorrectable-files.js');
    const { FileBdev } = await import('${href}file.js');
    const context = { reactors: 1, failed: new FailedFiles(() => {}), uncorrectable: new UncorrectableFiles() };
    const options = { module: 'aio', filename: ${JSON.stringify(file)} };
    await FileBdev.open({ index: 0, name: 'b', uuid: '' }, options, context);
    console.log('locked');
    setInterval(() => {}, 1000);`;
  const child = spawnTied(process.execPath, ['--input-type=module', '-e', script]);
  await once(child.stdout, 'data');
  await t.rejects(open(file), IN_USE);
  child.kill('SIGKILL');
  await once(child, 'exit');
  await (await open(file)).close();
});
