/** Connections: one at a time, dying anywhere, misbehaving; and what of it may stay behind, which is nothing. */
import { closeSync, existsSync, mkdirSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { constants } from 'node:os';
import fc from 'fast-check';
import t from 'tap';
import { native } from '../../src/native/index.ts';
import { VfioUserServer } from '../../src/vfio-user/server.ts';
import {
  Caller,
  eventfd,
  hex,
  memfd,
  openFds,
  RawPeer,
  raw,
  socketPath,
  startServer,
  TestDevice,
  words,
} from '../helpers/vfio.ts';

const { EINVAL } = constants.errno;
const NOTHING = hex('');
const VERSION = raw(1, 1, words([2, 0], [2, 0]));
const MAX_MESSAGE = 16 + 16 + 1024 * 1024;

const connectIrqs = (start: number, count: number) =>
  words([4, 20], [4, 0x24], [4, 2], [4, start], [4, count]);
const map = (address: number, size = 0x1000) =>
  words([4, 32], [4, 3], [8, 0], [8, address], [8, size]);
const write = (offset: number, data: string) =>
  Buffer.concat([words([8, offset], [4, 7], [4, hex(data).length]), hex(data)]);

/** A promise and how to resolve it. */
function gate(): { promise: Promise<void>; open: () => void } {
  let open = () => {};
  const promise = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { promise, open };
}

t.test('a client can die at every byte of a message with descriptors', async (t) => {
  const { path, device, gone } = startServer(t);
  const fds = Array.from({ length: 4 }, () => eventfd(t));
  const message = Buffer.concat([VERSION, raw(2, 8, connectIrqs(0, 4))]);
  let clients = 0;
  let before = 0;
  for (let length = 0; length <= message.length; length++) {
    const peer = RawPeer.connect(path);
    peer.send(message.subarray(0, Math.min(length, VERSION.length)));
    if (length >= VERSION.length) await peer.next();
    if (length > VERSION.length) peer.send(message.subarray(VERSION.length, length), fds);
    peer.close();
    clients += 1;
    await gone(clients);
    if (length === 0) before = await openFds();
    else t.equal(await openFds(before), before, `none left after ${length} bytes`);
  }
  const names = device.take().map(([name]) => name);
  const met = message.length - VERSION.length + 1;
  t.equal(names.filter((name) => name === 'accept').length, met);
  t.equal(names.filter((name) => name === 'clientGone').length, met, 'told of each it met');
  t.equal(names.filter((name) => name === 'setIrqEventfds').length, 1, 'only the whole message');
  t.equal(await openFds(before), before);
});

t.test('bytes and descriptors may come in any pieces', async (t) => {
  const { path, device } = startServer(t);
  const fd = eventfd(t);
  const peer = RawPeer.connect(path);
  t.teardown(() => peer.close());
  const message = Buffer.concat([VERSION, raw(2, 8, connectIrqs(3, 1))]);
  for (let i = 0; i < message.length; i++) {
    peer.send(message.subarray(i, i + 1), i === VERSION.length ? [fd] : []);
    if (i % 3 === 0) await new Promise(setImmediate);
  }
  t.equal((await peer.next()).header.messageId, 1);
  const reply = await peer.next();
  t.same({ ...reply.header }, { messageId: 2, command: 8, size: 16, flags: 1, error: 0 });
  t.same(device.take().slice(1), [['setIrqEventfds', 2, 3, [true]]]);
});

t.test('pipelined messages keep their own descriptors', async (t) => {
  const { path, device } = startServer(t);
  const caller = await Caller.join(t, path);
  const fds = Array.from({ length: 20 }, () => eventfd(t));
  fds.forEach((fd, i) => {
    caller.send(13, NOTHING);
    caller.send(8, connectIrqs(i, 1), [fd]);
  });
  for (let i = 0; i < 40; i++) t.equal((await caller.peer.next()).header.flags, 1);
  for (let i = 0; i < 20; i++) {
    native.eventfdSignal(device.fds.get(`irq 2:${i}`)!);
    t.equal(native.eventfdRead(fds[i]), 1, `vector ${i}`);
  }
});

t.test('further clients wait until the device has dropped the one before', async (t) => {
  const { path, device, server } = startServer(t);
  const first = await Caller.join(t, path);
  const second = RawPeer.connect(path);
  const third = RawPeer.connect(path);
  t.teardown(() => second.close());
  t.teardown(() => third.close());
  second.send(VERSION);
  third.send(VERSION);
  await first.call(13, NOTHING);
  await first.call(13, NOTHING);
  t.same(
    device.take().map(([name]) => name),
    ['accept', 'reset', 'reset'],
    'the second has not been looked at',
  );
  const { promise, open } = gate();
  const told = gate();
  device.gate = () => {
    told.open();
    return promise;
  };
  first.peer.close();
  await told.promise;
  await new Promise(setImmediate);
  t.same(device.take(), [['clientGone']], 'nor has it while the first is cleaned up after');
  t.equal(server.busy, true);
  open();
  t.equal((await second.next()).header.messageId, 1);
  t.same(device.take(), [['accept']]);
  second.close();
  t.equal((await third.next()).header.messageId, 1);
});

t.test('what a client had is gone with it', async (t) => {
  const { path, device, gone } = startServer(t);
  const fd = memfd(t, 0x1000);
  const first = await Caller.join(t, path);
  await first.call(2, map(0x1000), [fd]);
  await first.call(8, connectIrqs(0, 1), [eventfd(t)]);
  t.equal(device.fds.size, 2);
  first.peer.close();
  await gone(1);
  t.equal(device.fds.size, 0);
  const second = await Caller.join(t, path);
  await second.call(2, map(0x1000), [fd]);
});

t.test('commands are carried out in order, also when one takes its time', async (t) => {
  const { path, device } = startServer(t);
  const caller = await Caller.join(t, path);
  device.take();
  const { promise, open } = gate();
  const started = gate();
  device.gate = () => {
    started.open();
    return promise;
  };
  const ids = [caller.send(13, NOTHING)];
  // More than is kept in the meantime, so that reading stops too.
  for (let i = 0; i < 100; i++) ids.push(caller.send(10, write(i, '01')));
  await started.promise;
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  t.same(device.take(), [['reset']], 'nothing else is done meanwhile');
  open();
  for (const id of ids) t.equal((await caller.peer.next()).header.messageId, id);
  t.same(
    device.take(),
    Array.from({ length: 100 }, (_, i) => ['regionWrite', 7, i, '01']),
  );
});

t.test('what comes while the device is at work is kept only up to a bound', async (t) => {
  const { path, device } = startServer(t);
  const caller = await Caller.join(t, path);
  const fd = eventfd(t);
  const { promise, open } = gate();
  const started = gate();
  device.gate = () => {
    started.open();
    return promise;
  };
  caller.send(13, NOTHING);
  await started.promise;
  const before = await openFds();
  for (let i = 0; i < 100; i++) caller.send(8, connectIrqs(0, 1), [fd]);
  for (let i = 0; i < 20; i++) await new Promise(setImmediate);
  const kept = (await openFds()) - before;
  t.ok(kept > 0 && kept <= 16, `${kept} messages are kept, the others wait in the socket`);
  open();
  for (let i = 0; i < 101; i++) await caller.peer.next();
  t.equal(await openFds(before + 1), before + 1, 'the last one is connected');
});

t.test('a message larger than the socket takes at once', async (t) => {
  const [a, b] = native.socketPair();
  const sender = new RawPeer(a);
  const receiver = new RawPeer(b);
  t.teardown(() => sender.close());
  t.teardown(() => receiver.close());
  const payload = Buffer.from(Array.from({ length: 1024 * 1024 }, (_, i) => i % 251));
  for (let id = 0; id < 3; id++) sender.send(raw(id, 10, payload), [eventfd(t)]);
  for (let id = 0; id < 3; id++) {
    const message = await receiver.next();
    t.equal(message.header.messageId, id);
    t.ok(payload.equals(message.payload), 'every byte');
    t.equal(message.fds.length, 1, 'its descriptor, once');
    message.fds.forEach(closeSync);
  }
});

t.test('a client that goes away while the device is at work', async (t) => {
  const { path, device, gone, events } = startServer(t);
  const caller = await Caller.join(t, path);
  device.take();
  const before = await openFds();
  const { promise, open } = gate();
  const started = gate();
  device.gate = () => {
    started.open();
    return promise;
  };
  caller.send(13, NOTHING);
  caller.send(8, connectIrqs(0, 1), [eventfd(t)]);
  await started.promise;
  caller.peer.close();
  // The connection is closed at once: its two descriptors, and the eventfd of the message that was kept.
  t.equal(await openFds(before + 1 - 2), before + 1 - 2);
  t.same(device.take(), [['reset']], 'it is let finish');
  t.notOk(events.some((event) => event.type === 'disconnected'));
  open();
  await gone(1);
  t.same(device.take(), [['clientGone']], 'what was kept is dropped');
});

t.test('the device may fail to let a client go', async (t) => {
  const { path, device, gone, events } = startServer(t);
  const caller = await Caller.join(t, path);
  device.failure = new Error('a bug');
  caller.peer.close();
  await gone(1);
  t.match(events, [{ type: 'connected' }, { type: 'failed' }, { type: 'disconnected' }]);
  await Caller.join(t, path);
});

t.test('a client that does not read gets no more done', async (t) => {
  const { path, device, gone } = startServer(t);
  const caller = await Caller.join(t, path);
  device.take();
  caller.peer.stopReading();
  const read = words([8, 0], [4, 7], [4, 4096]);
  const total = 4000;
  const ids = Array.from({ length: total }, () => caller.send(9, read));
  // Settles when the server has stopped: when it no longer reads, turns of the loop change nothing.
  let done = -1;
  for (let quiet = 0; quiet < 50; ) {
    await new Promise(setImmediate);
    quiet = device.calls.length === done ? quiet + 1 : 0;
    done = device.calls.length;
  }
  t.ok(done > 0 && done < 1000, `${done} of ${total} reads are done: bounded by what is unsent`);
  caller.peer.resumeReading();
  for (const id of ids) {
    const reply = await caller.peer.next();
    if (reply.header.messageId !== id || reply.payload.length !== 16 + 4096) t.fail('reply');
  }
  t.equal(device.take().length, total, 'and then goes on');

  caller.peer.stopReading();
  for (let i = 0; i < total; i++) caller.send(9, read);
  caller.peer.close();
  await gone(1);
  t.pass('its death is noticed');
});

t.test('messages that are no commands', async (t) => {
  const { path, device, events } = startServer(t);
  const caller = await Caller.join(t, path);
  device.take();
  const { peer } = caller;
  const next = async () => {
    const { header } = await peer.next();
    return [header.messageId, header.flags, header.error];
  };
  // Too large: the announced body is skipped, wherever it ends.
  for (const size of [MAX_MESSAGE + 1, MAX_MESSAGE + 300_000]) {
    const header = words([2, 7], [2, 10], [4, size], [4, 0], [4, 0]);
    peer.send(header, [eventfd(t)]);
    t.same(await next(), [7, 0x21, EINVAL], 'answered before the body comes');
    peer.send(Buffer.alloc(size - 16, 0xff));
    await caller.call(13, NOTHING);
  }
  const largest = Buffer.concat([
    words([8, 0], [4, 1], [4, 1024 * 1024]),
    Buffer.alloc(1024 * 1024),
  ]);
  t.equal(largest.length + 16, MAX_MESSAGE);
  await caller.call(10, largest);

  peer.send(raw(8, 13, NOTHING, 1), [eventfd(t)]);
  t.same(await next(), [8, 0x21, EINVAL], 'a reply to nothing');
  const many = Array(200).fill(eventfd(t));
  const payload = connectIrqs(0, 1);
  peer.send(raw(9, 8, payload).subarray(0, 8), many);
  peer.send(raw(9, 8, payload).subarray(8), many);
  t.same(await next(), [9, 0x21, EINVAL], 'too many descriptors');
  await caller.call(13, NOTHING);
  t.match(
    events.filter((event) => event.type === 'refused'),
    Array(4).fill({ errno: EINVAL, known: true }),
  );
});

t.test('headers that make no sense', async (t) => {
  const { path, gone } = startServer(t);
  const headers = [
    words([2, 3], [2, 13], [4, 15], [4, 0], [4, 0]),
    words([2, 3], [2, 13], [4, 0], [4, 0], [4, 0]),
    words([2, 3], [2, 13], [4, 16], [4, 2], [4, 0]),
  ];
  let clients = 0;
  let before = 0;
  for (const header of headers) {
    const { peer } = await Caller.join(t, path);
    before ||= (await openFds()) - 2;
    peer.send(header, [eventfd(t)]);
    peer.send(raw(4, 13, NOTHING));
    const rest = await peer.rest();
    t.match(rest, [{ header: { messageId: 3, flags: 0x21, error: EINVAL } }]);
    t.equal(rest.length, 1, 'an error, then the end');
    clients += 1;
    await gone(clients);
  }
  t.equal(
    await openFds(before + headers.length),
    before + headers.length,
    'but for the eventfds of the test',
  );
});

t.test('the version comes first, and has to be agreed on', async (t) => {
  const { path, device, gone } = startServer(t);
  const first: [string, Buffer][] = [
    ['a command', raw(5, 4, words([4, 16], [4, 0], [4, 0], [4, 0]))],
    ['a command that does not exist', raw(5, 77, NOTHING)],
    ['another major version', raw(5, 1, words([2, 1], [2, 0]))],
    ['broken JSON', raw(5, 1, Buffer.concat([words([2, 0], [2, 0]), Buffer.from('{\0')]))],
    ['no payload', raw(5, 1, NOTHING)],
  ];
  let clients = 0;
  for (const [name, message] of first) {
    const peer = RawPeer.connect(path);
    t.teardown(() => peer.close());
    peer.send(message);
    peer.send(VERSION);
    const rest = await peer.rest();
    t.match(rest, [{ header: { messageId: 5, flags: 0x21, size: 16, error: EINVAL } }], name);
    t.equal(rest.length, 1);
    clients += 1;
    await gone(clients);
  }
  const withFd = RawPeer.connect(path);
  t.teardown(() => withFd.close());
  withFd.send(VERSION, [eventfd(t)]);
  t.match(await withFd.rest(), [{ header: { error: EINVAL } }], 'a descriptor');
  await gone(clients + 1);
  t.same(device.take(), [], 'the device has met none of them');
});

t.test('a client that says nothing does not keep the others out', async (t) => {
  const { path, events } = startServer(t, { negotiationTimeoutMs: 20 });
  const silent = RawPeer.connect(path);
  t.teardown(() => silent.close());
  const caller = await Caller.join(t, path);
  t.match(events, [{ type: 'disconnected' }, { type: 'connected' }]);
  await caller.call(13, NOTHING);
});

t.test('garbage', async (t) => {
  const { path, gone, device } = startServer(t);
  const before = await openFds();
  const fd = eventfd(t);
  let clients = 0;
  // A plausible header in front, so that something behind it is reached; sizes that do not match; bytes that are nothing.
  const part = fc.oneof(
    fc
      .record({
        command: fc.nat(20),
        payload: fc.uint8Array({ maxLength: 80 }),
        flags: fc.constantFrom(0, 0, 0, 0x10, 1),
        slack: fc.constantFrom(0, 0, 0, 0, 1, 17),
      })
      .map(({ command, payload, flags, slack }) => {
        const message = raw(1, command, payload, flags);
        message.writeUInt32LE(message.length + slack, 4);
        return message;
      }),
    fc
      .record({
        command: fc.integer({ min: 2, max: 18 }),
        fields: fc.array(fc.nat(64), { maxLength: 10 }),
      })
      .map(({ command, fields }) => raw(1, command, words(...fields.map((f) => [4, f] as const)))),
    fc.uint8Array({ maxLength: 40 }),
  );
  const property = fc.asyncProperty(
    fc.array(fc.tuple(part, fc.nat(3)), { maxLength: 12 }),
    async (parts) => {
      const peer = RawPeer.connect(path);
      peer.send(VERSION);
      for (const [bytes, fds] of parts) {
        if (bytes.length > 0) peer.send(bytes, Array(fds).fill(fd));
      }
      await peer.next();
      for (const reply of await settled(peer)) reply.fds.forEach(closeSync);
      peer.close();
      clients += 1;
      await gone(clients);
      device.take();
      const left = (await openFds(before + 1)) - before - 1;
      if (left !== 0) throw new Error(`${left} descriptors left`);
    },
  );
  await fc.assert(property, { numRuns: 150 });
});

/** Lets a connection run until nothing more comes of it; gives the messages that came. */
async function settled(peer: RawPeer) {
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
  return peer.taken();
}

t.test('hundreds of clients leave no descriptor', async (t) => {
  const { path, gone } = startServer(t);
  const memory = memfd(t, 0x4000);
  const fds = Array.from({ length: 8 }, () => eventfd(t));
  let before = 0;
  for (let i = 0; i < 300; i++) {
    const peer = RawPeer.connect(path);
    const caller = new Caller(peer);
    peer.send(VERSION);
    await peer.next();
    await caller.call(2, map(0x1000), [memory]);
    await caller.refusal(2, map(0x1000), [memory]);
    await caller.call(8, connectIrqs(0, 8), fds);
    await caller.refusal(8, connectIrqs(0, 3), fds);
    const region = words([4, 64], [4, 0], [4, 0], [4, 0], [8, 0], [8, 0]);
    const info = await caller.call(5, region);
    info.fds.forEach(closeSync);
    if (i % 2 === 0) caller.send(5, region);
    peer.close();
    await gone(i + 1);
    if (i === 0) before = await openFds();
  }
  t.equal(await openFds(before), before);
});

t.test('the path', async (t) => {
  const path = socketPath(t);
  const device = new TestDevice();
  const accept = () => device.accept();
  t.teardown(() => closeSync(device.bar0Fd));
  const before = await openFds();
  const first = new VfioUserServer({ path, accept });
  t.throws(() => new VfioUserServer({ path, accept }), { code: 'EADDRINUSE' }, 'in use');
  t.ok(existsSync(path), 'and left alone');
  await first.close();
  await first.close();
  t.notOk(existsSync(path), 'removed');

  closeSync(native.socketListen(path, 1));
  t.ok(existsSync(path), 'a server has died');
  const second = new VfioUserServer({ path, accept });
  const caller = await Caller.join(t, path);
  await caller.call(13, NOTHING);
  unlinkSync(path);
  writeFileSync(path, '');
  await second.close();
  t.ok(existsSync(path), 'a file that is not its own is left');
  t.same(device.take().slice(-1), [['clientGone']], 'close has let the client go');

  t.throws(() => new VfioUserServer({ path, accept }), { code: 'EADDRINUSE' }, 'not a socket');
  unlinkSync(path);
  mkdirSync(path);
  t.throws(() => new VfioUserServer({ path, accept }), { code: 'EADDRINUSE' }, 'a directory');
  renameSync(path, `${path}.d`);
  t.throws(() => new VfioUserServer({ path: `${path}/x`, accept }), { code: 'ENOENT' });
  caller.peer.close();
  t.equal(await openFds(before), before);
});

t.test('closing turns away who waits, and waits for the device', async (t) => {
  const { path, device, server } = startServer(t);
  const caller = await Caller.join(t, path);
  const waiting = RawPeer.connect(path);
  t.teardown(() => waiting.close());
  const { promise, open } = gate();
  const started = gate();
  device.gate = () => {
    started.open();
    return promise;
  };
  caller.send(13, NOTHING);
  await started.promise;
  let closed = false;
  const closing = server.close().then(() => {
    closed = true;
  });
  await waiting.rest();
  await caller.peer.rest();
  t.equal(closed, false);
  device.take();
  open();
  await closing;
  t.same(device.take(), [['clientGone']]);
  t.throws(() => native.socketConnect(path), { code: 'ENOENT' });
});

t.test('disconnect sends a client away and takes the next', async (t) => {
  const { path, server, events } = startServer(t);
  const first = await Caller.join(t, path);
  await server.disconnect('for a test');
  t.same(await first.peer.rest(), []);
  t.match(events.at(-1), { type: 'disconnected', reason: 'for a test' });
  await Caller.join(t, path);
});
