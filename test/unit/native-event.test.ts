/** The addon's eventfds. */
import { spawnSync } from 'node:child_process';
import { closeSync, readFileSync, writeSync } from 'node:fs';
import t from 'tap';
import { native } from '../../src/native/index.ts';

t.test('signals add up until they are read', async (t) => {
  const fd = native.eventfdCreate();
  t.match(
    readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'),
    /^flags:\s+02004\d{3}$/m,
    'close-on-exec, non-blocking',
  );
  t.equal(native.eventfdRead(fd), 0);
  t.equal(native.eventfdSignal(fd), 0);
  t.equal(native.eventfdSignal(fd), 0);
  t.equal(native.eventfdRead(fd), 2);
  t.equal(native.eventfdRead(fd), 0);
  closeSync(fd);
});

t.test('a full counter stays full, and is cleared by a read', async (t) => {
  const fd = native.eventfdCreate();
  const most = Buffer.alloc(8);
  most.writeBigUInt64LE(0xffff_ffff_ffff_fffen);
  writeSync(fd, most);
  t.equal(native.eventfdSignal(fd), 0);
  t.equal(native.eventfdRead(fd), 2 ** 64, 'as exact as a double is');
  t.equal(native.eventfdSignal(fd), 0);
  closeSync(fd);
});

t.test('neither a signal nor a read waits, whatever another process does', async (t) => {
  t.equal(native.eventfdSignalCannotBlock(), true);
  const fd = native.eventfdCreate();
  // O_NONBLOCK is of the open file, which a child shares: libuv takes it away from what becomes the child's standard input.
  spawnSync('true', { stdio: [fd, 'ignore', 'ignore'] });
  t.match(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /^flags:\s+02000\d{3}$/m, 'it blocks');
  t.equal(native.eventfdRead(fd), 0);
  const most = Buffer.alloc(8);
  most.writeBigUInt64LE(0xffff_ffff_ffff_fffen);
  writeSync(fd, most);
  for (let i = 0; i < 1000; i++) {
    t.equal(native.eventfdSignal(fd), 0);
  }
  t.equal(native.eventfdRead(fd), 2 ** 64);
  t.equal(native.eventfdSignal(fd), 0);
  t.equal(native.eventfdRead(fd), 1);
  closeSync(fd);
});

t.test('an eventfd of another process stays as it was: that may read it by waiting', async (t) => {
  const fd = native.eventfdCreate();
  spawnSync('true', { stdio: [fd, 'ignore', 'ignore'] });
  native.eventfdAdopt(fd);
  t.match(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /^flags:\s+02000\d{3}$/m, 'it blocks');
  closeSync(fd);
});

t.test('nothing but an eventfd is signalled', async (t) => {
  const [a, b] = native.socketPair();
  const memory = native.memfdCreate('memory', 8);
  for (const fd of [a, memory]) {
    t.equal(native.eventfdSignal(fd), -22, 'EINVAL');
  }
  t.equal(native.socketReceive(b, Buffer.alloc(8), new Int32Array(254)), -1, 'nothing came');
  for (const fd of [a, b, memory]) {
    closeSync(fd);
  }
});

t.test('errors are returned', async (t) => {
  const fd = native.eventfdCreate();
  closeSync(fd);
  for (const bad of [fd, -1, undefined, 'x', {}] as number[]) {
    t.equal(native.eventfdSignal(bad), -9, `${bad}`);
    t.equal(native.eventfdRead(bad), -9, `${bad}`);
  }
  const [a, b] = native.socketPair();
  closeSync(b);
  t.equal(native.eventfdRead(a), 0, 'a socket at its end');
  closeSync(a);
});
