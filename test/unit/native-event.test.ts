/** The addon's eventfds. */
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

t.test('a full counter says so, and is cleared by a read', async (t) => {
  const fd = native.eventfdCreate();
  const most = Buffer.alloc(8);
  most.writeBigUInt64LE(0xffff_ffff_ffff_fffen);
  writeSync(fd, most);
  t.equal(native.eventfdSignal(fd), -11, 'EAGAIN');
  t.equal(native.eventfdRead(fd), 2 ** 64, 'as exact as a double is');
  t.equal(native.eventfdSignal(fd), 0);
  closeSync(fd);
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
