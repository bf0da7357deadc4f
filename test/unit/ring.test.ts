/** The io_uring that TypeScript drives itself: transfers, syncs, registered files, polls, waiting. */
import assert from 'node:assert/strict';
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { RegisteredFiles } from '../../src/io/files.ts';
import { Ring, UNHEARD } from '../../src/io/ring.ts';
import { Timers } from '../../src/io/timers.ts';
import { native } from '../../src/native/index.ts';
import { UringOp } from '../../src/spec/uring.ts';

const PAGE = 4096;
const EBADF = -9;
const ENOENT = -2;
const ETIME = -62;
const ECANCELED = -125;

function start(t: Test, entries: number) {
  const ring = new Ring(entries, native.getAffinity(), 64, native);
  t.teardown(() => closeSync(ring.fd));
  const files = new RegisteredFiles(ring, native);
  const folder = mkdtempSync(join(tmpdir(), 'db-ring-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const open = (name: string, content: Uint8Array) => {
    const path = join(folder, name);
    writeFileSync(path, content);
    const fd = openSync(path, 'r+');
    t.teardown(() => closeSync(fd));
    return { fd, path };
  };
  const memory = new Uint8Array(native.mapAnonymous(16 * PAGE));
  const address = Float64Array.of(native.addressOf(memory));
  return { ring, files, open, memory, address };
}

/** Completions as they come, until there are `count`: [user data, result]. */
function finish(ring: Ring, count: number): [number, number][] {
  const done: [number, number][] = [];
  while (done.length < count) {
    ring.wait(1_000_000);
    const ready = ring.ready();
    for (let i = 0; i < ready; i++) {
      done.push([ring.userData(i), ring.result(i)]);
    }
    ring.advance(ready);
    ring.inflight -= ready;
  }
  return done;
}

t.test('reads, writes and syncs', async (t) => {
  const { ring, files, open, memory, address } = start(t, 8);
  const { fd, path } = open('a', Buffer.alloc(2 * PAGE, 'x'));
  const file = files.add(fd);
  memory.fill(0x79, 0, PAGE);
  t.equal(ring.wantsEnter, false);
  ring.prepareTransfer(UringOp.WRITE, file, address, 0, PAGE, PAGE, 0, 0, 11);
  t.equal(ring.prepared, 1);
  t.equal(ring.inflight, 1);
  t.equal(ring.wantsEnter, true);
  t.strictSame(finish(ring, 1), [[11, PAGE]]);
  t.equal(ring.prepared, 0);
  ring.prepareSync(file, 12);
  t.strictSame(finish(ring, 1), [[12, 0]]);
  t.equal(readFileSync(path, 'latin1'), 'x'.repeat(PAGE) + 'y'.repeat(PAGE));
  ring.prepareTransfer(UringOp.READ, file, address, 0, 2 * PAGE, PAGE - 1, 0, 0, 13);
  t.strictSame(finish(ring, 1), [[13, PAGE + 1]], 'up to the end of the file');
  t.equal(Buffer.from(memory.subarray(0, 3)).toString(), 'xyy');
});

t.test('offsets above 4 GiB', async (t) => {
  const { ring, files, open, memory, address } = start(t, 8);
  const { fd } = open('a', new Uint8Array(0));
  const file = files.add(fd);
  memory.fill(0x5a, 0, 512);
  ring.prepareTransfer(UringOp.WRITE, file, address, 0, 512, 512, 3, 0, 1);
  t.strictSame(finish(ring, 1), [[1, 512]]);
  memory.fill(0);
  ring.prepareTransfer(UringOp.READ, file, address, 0, 512, 512, 3, 0, 2);
  t.strictSame(finish(ring, 1), [[2, 512]]);
  t.ok(memory.subarray(0, 512).every((byte) => byte === 0x5a));
  ring.prepareTransfer(UringOp.READ, file, address, 0, 512, 512, 4, 0, 3);
  t.strictSame(finish(ring, 1), [[3, 0]], 'after the end');
});

t.test('many at a time, over and over', async (t) => {
  const entries = 64;
  const { ring, files, open, memory, address } = start(t, entries);
  const content = Buffer.alloc(entries * 512);
  for (let i = 0; i < entries; i++) {
    content.fill(i, 512 * i, 512 * (i + 1));
  }
  const file = files.add(open('a', content).fd);
  const addresses = Float64Array.from({ length: entries }, (_, i) => address[0] + 512 * i);
  for (let round = 0; round < 50; round++) {
    memory.fill(0xff);
    for (let i = 0; i < entries; i++) {
      const from = (i + round) % entries;
      ring.prepareTransfer(UringOp.READ, file, addresses, i, 512, 512 * from, 0, 0, i);
    }
    const done = finish(ring, entries);
    assert.equal(new Set(done.map(([data]) => data)).size, entries);
    assert.ok(done.every(([, result]) => result === 512));
    for (let i = 0; i < entries; i++) {
      assert.equal(memory[512 * i], (i + round) % entries);
    }
  }
  t.equal(ring.inflight, 0);
  t.equal(ring.ready(), 0);
});

t.test('registered files', async (t) => {
  const { ring, files, open, memory, address } = start(t, 8);
  const [a, b] = [open('a', Buffer.from('aaaa')), open('b', Buffer.from('bbbb'))];
  const read = (file: number): string | number => {
    ring.prepareTransfer(UringOp.READ, file, address, 0, 4, 0, 0, 0, 1);
    const [[, result]] = finish(ring, 1);
    return result < 0 ? result : Buffer.from(memory.subarray(0, result)).toString();
  };
  const first = files.add(a.fd);
  const second = files.add(b.fd);
  t.not(second, first);
  t.strictSame([read(first), read(second)], ['aaaa', 'bbbb']);
  // The number of a descriptor says nothing about which file it was when it was registered.
  closeSync(a.fd);
  t.equal(openSync(b.path, 'r+'), a.fd, 'the number is used again');
  const third = files.add(a.fd);
  t.strictSame([read(first), read(third)], ['aaaa', 'bbbb']);
  files.release(first);
  t.equal(read(first), EBADF);
  t.strictSame([read(second), read(third)], ['bbbb', 'bbbb']);
});

t.test('a poll goes on telling', async (t) => {
  const { ring } = start(t, 8);
  const eventfd = native.eventfdCreate();
  t.teardown(() => closeSync(eventfd));
  ring.preparePoll(eventfd, 77);
  ring.submit();
  t.equal(ring.ready(), 0);
  t.equal(ring.inflight, 0, 'nothing that would end');
  for (let i = 0; i < 5; i++) {
    native.eventfdSignal(eventfd);
    ring.wait(1_000_000);
    t.equal(ring.ready(), 1);
    t.equal(ring.userData(0), 77);
    t.ok(ring.more(0));
    ring.advance(1);
    native.eventfdRead(eventfd);
  }
});

t.test('a wait comes to its end', async (t) => {
  const { ring, files, open, address } = start(t, 8);
  ring.wait(1000);
  t.equal(ring.ready(), 0);
  const file = files.add(open('a', Buffer.from('a')).fd);
  ring.prepareTransfer(UringOp.READ, file, address, 0, 1, 0, 0, 0, 5);
  t.strictSame(finish(ring, 1), [[5, 1]], 'and it still works');
});

t.test('a descriptor that is no ring', async (t) => {
  const ring = new Ring(8, native.getAffinity(), 64, native);
  closeSync(ring.fd);
  t.throws(() => ring.submit(), /io_uring_enter failed with errno 9/);
});

t.test('timers end by themselves, or when they are cancelled', async (t) => {
  const { ring } = start(t, 64);
  const timers = new Timers(ring, native);
  timers.start(1, 3_600_000_000);
  timers.start(2, 1);
  const before = process.hrtime.bigint();
  timers.start(3, 20_000);
  t.equal(ring.inflight, 3);
  t.strictSame(finish(ring, 1), [[2, ETIME]]);
  t.strictSame(finish(ring, 1), [[3, ETIME]]);
  t.ok(process.hrtime.bigint() - before >= 20_000_000n, 'not before its time');
  timers.cancel(1);
  t.strictSame(finish(ring, 1), [[1, ECANCELED]], 'of the cancellation nothing is heard');
  t.equal(ring.inflight, 0);

  ring.prepareNop(4);
  timers.cancel(4);
  ring.inflight += 1;
  t.strictSame(
    finish(ring, 2),
    [
      [4, 0],
      [UNHEARD, ENOENT],
    ],
    'unless it comes too late',
  );
  t.equal(ring.inflight, 0);

  timers.start(5, 0xffff_ffff);
  timers.cancel(5);
  t.strictSame(finish(ring, 1), [[5, ECANCELED]], 'both in one batch');
});

t.test('more cancellations than the ring has room for', async (t) => {
  const { ring } = start(t, 64);
  const timers = new Timers(ring, native);
  const slots = Array.from({ length: 64 }, (_, slot) => slot);
  for (const slot of slots) {
    timers.start(slot, 3_600_000_000);
  }
  for (const slot of slots) {
    timers.cancel(slot);
  }
  t.strictSame(
    finish(ring, 64).sort(([a], [b]) => a - b),
    slots.map((slot) => [slot, ECANCELED]),
  );
});
