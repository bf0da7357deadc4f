/** Every command, good and bad, over a real socket: the table of docs/vfio-user.md. */

import { fstatSync } from 'node:fs';
import { constants } from 'node:os';
import t, { type Test } from 'tap';
import { MAX_CLIENT_REGIONS } from '../../src/limits.ts';
import { native } from '../../src/native/index.ts';
import { DmaUnmap } from '../../src/spec/vfio-user.ts';
import { closeFds } from '../../src/vfio-user/transport.ts';
import {
  BAR0_SIZE,
  Caller,
  CONFIG_SIZE,
  eventfd,
  hex,
  MSIX_VECTORS,
  memfd,
  openFds,
  SMALL_SIZE,
  startServer,
  type TestDevice,
  words,
} from '../helpers/vfio.ts';

const { EINVAL, EEXIST, ENOSPC, ENOTSUP, EIO, EBUSY } = constants.errno;
const NOTHING = hex('');

async function setUp(t: Test, json?: string): Promise<{ caller: Caller; device: TestDevice }> {
  const { path, device } = startServer(t);
  const caller = await Caller.join(t, path, json);
  t.same(device.take(), [['accept']]);
  return { caller, device };
}

const mapPayload = (
  address: number | bigint,
  size: number | bigint,
  { argsz = 32, flags = 3, offset = 0 as number | bigint } = {},
) => words([4, argsz], [4, flags], [8, offset], [8, address], [8, size]);
const unmapPayload = (address: number | bigint, size: number | bigint, flags = 0, argsz = 24) =>
  words([4, argsz], [4, flags], [8, address], [8, size]);

t.test('DMA_MAP', async (t) => {
  const { caller, device } = await setUp(t);
  const fd = memfd(t, 0x10000);
  const reply = await caller.call(2, mapPayload(0x1000, 0x2000, { offset: 0x4000 }), [fd]);
  t.equal(reply.payload.length, 0);
  const region = { iova: 0x1000, size: 0x2000, offset: 0x4000, readable: true, writable: true };
  t.same(device.take(), [['dmaMap', region, true]]);
  t.equal(fstatSync(device.fds.get('dma 4096')!).ino, fstatSync(fd).ino, 'the same file');

  await caller.call(2, mapPayload(0x8000, 0x1000, { flags: 1 }));
  t.match(device.take(), [['dmaMap', { readable: true, writable: false }, false]], 'without fd');
  await caller.call(2, mapPayload(0x9000, 0x1000, { flags: 2, offset: 5 }));
  t.match(device.take(), [['dmaMap', { readable: false, writable: true }, false]]);
  const longer = Buffer.concat([mapPayload(0x20000, 0x1000, { argsz: 40 }), Buffer.alloc(8)]);
  await caller.call(2, longer);
  device.take();

  const before = await openFds();
  const refusals: [string, Uint8Array, number, number[]?][] = [
    ['the same range again', mapPayload(0x1000, 0x2000, { offset: 0x4000 }), EEXIST, [fd]],
    ['overlap at the start', mapPayload(0, 0x2000), EEXIST],
    ['overlap at the end', mapPayload(0x2000, 0x2000), EEXIST],
    ['overlap inside', mapPayload(0x2000, 0x1000), EEXIST],
    ['overlap around', mapPayload(0, 0x10000), EEXIST],
    ['no bytes', mapPayload(0x100000, 0), EINVAL],
    ['half a page', mapPayload(0x100000, 0x800), EINVAL],
    ['an odd address', mapPayload(0x100800, 0x1000), EINVAL],
    ['an odd file offset', mapPayload(0x100000, 0x1000, { offset: 1 }), EINVAL, [fd]],
    ['a file offset above 2^53', mapPayload(0x100000, 0x1000, { offset: 2n ** 53n }), EINVAL, [fd]],
    ['an address above 2^53', mapPayload(2n ** 53n, 0x1000), EINVAL],
    ['an end above 2^53', mapPayload(2n ** 53n - 0x1000n, 0x2000), EINVAL],
    ['an end above 2^64', mapPayload(2n ** 64n - 0x1000n, 0x2000), EINVAL],
    ['a size above 2^53', mapPayload(0x100000, 2n ** 63n), EINVAL],
    ['no access', mapPayload(0x100000, 0x1000, { flags: 0 }), EINVAL],
    ['neither READ nor WRITE', mapPayload(0x100000, 0x1000, { flags: 0xc }), EINVAL],
    ['an unknown flag', mapPayload(0x100000, 0x1000, { flags: 0x13 }), EINVAL],
    ['two descriptors', mapPayload(0x100000, 0x1000), EINVAL, [fd, fd]],
    ['argsz too small', mapPayload(0x100000, 0x1000, { argsz: 31 }), EINVAL],
    ['too short', mapPayload(0x100000, 0x1000).subarray(0, 31), EINVAL],
    ['nothing', NOTHING, EINVAL],
  ];
  for (const [name, payload, errno, fds] of refusals) {
    t.equal(await caller.refusal(2, payload, fds), errno, name);
  }
  t.same(device.take(), [], 'the device hears of none of these');
  t.equal(await openFds(before), before, 'no descriptor is left');

  device.failure = Object.assign(new Error('no'), { errno: EBUSY });
  t.equal(await caller.refusal(2, mapPayload(0x100000, 0x1000), [fd]), EBUSY, 'as the device says');
  device.failure = new Error('a bug');
  t.equal(await caller.refusal(2, mapPayload(0x100000, 0x1000)), EIO, 'EIO if it does not say');
  await caller.call(2, mapPayload(0x100000, 0x1000));
});

t.test('as many ranges as VERSION says', async (t) => {
  const { caller, device } = await setUp(t);
  const map = (i: number) => mapPayload(i * 0x2000, 0x1000);
  for (let i = 0; i < MAX_CLIENT_REGIONS; i++) {
    await caller.call(2, map(i));
  }
  t.equal(await caller.refusal(2, map(MAX_CLIENT_REGIONS)), ENOSPC, 'one more');
  await caller.call(3, unmapPayload(0x2000, 0x1000));
  await caller.call(2, map(MAX_CLIENT_REGIONS));
  device.take();
  const all = await caller.call(3, unmapPayload(0, 0, 2));
  t.same(Buffer.from(all.payload), unmapPayload(0, MAX_CLIENT_REGIONS * 0x1000, 2));
});

t.test('DMA_UNMAP', async (t) => {
  const { caller, device } = await setUp(t);
  const fd = memfd(t, 0x10000);
  await caller.call(2, mapPayload(0x1000, 0x2000), [fd]);
  await caller.call(2, mapPayload(0x3000, 0x1000));
  device.take();
  const refusals: [string, Uint8Array, number][] = [
    ['the start of a range', unmapPayload(0x1000, 0x1000), EINVAL],
    ['the end of a range', unmapPayload(0x2000, 0x1000), EINVAL],
    ['a range and part of the one before', unmapPayload(0x2000, 0x2000), EINVAL],
    ['a range and part of the next', unmapPayload(0, 0x2000), EINVAL],
    ['from inside a range to the end', unmapPayload(0x2000, 2n ** 64n - 0x2000n), EINVAL],
    ['no bytes', unmapPayload(0x10000, 0), EINVAL],
    ['no bytes at all', unmapPayload(0, 0), EINVAL],
    ['half a page', unmapPayload(0x10000, 0x800), EINVAL],
    ['an odd address', unmapPayload(0x10800, 0x1000), EINVAL],
    ['an odd address that no double holds', unmapPayload(2n ** 63n + 1n, 0x1000), EINVAL],
    ['an odd size that no double holds', unmapPayload(0x10000, 2n ** 63n + 1n), EINVAL],
    ['an end above 2^64', unmapPayload(0x10000, 2n ** 64n - 0x1000n), EINVAL],
    ['an end above 2^64, from the last page', unmapPayload(2n ** 64n - 0x1000n, 0x2000), EINVAL],
    ['dirty bitmap', Buffer.concat([unmapPayload(0x1000, 0x2000, 1), Buffer.alloc(16)]), ENOTSUP],
    ['all, with an address', unmapPayload(0x1000, 0, 2), EINVAL],
    ['all, with a size', unmapPayload(0, 0x1000, 2), EINVAL],
    ['both flags', unmapPayload(0, 0, 3), EINVAL],
    ['an unknown flag', unmapPayload(0x1000, 0x2000, 4), EINVAL],
    ['argsz too small', unmapPayload(0x1000, 0x2000, 0, 23), EINVAL],
    ['too short', unmapPayload(0x1000, 0x2000).subarray(0, 23), EINVAL],
  ];
  for (const [name, payload, errno] of refusals) {
    t.equal(await caller.refusal(3, payload), errno, name);
  }
  t.same(device.take(), []);

  const reply = await caller.call(3, unmapPayload(0x1000, 0x2000));
  t.same(Buffer.from(reply.payload), unmapPayload(0x1000, 0x2000), 'the request comes back');
  t.same(device.take(), [['dmaUnmap', 0x1000, 0x2000]]);

  const unmap = async (address: number | bigint, size: number | bigint) => {
    const { payload } = await caller.call(3, unmapPayload(address, size));
    const { address: at, size: bytes } = DmaUnmap.read(
      new DataView(new Uint8Array(payload).buffer),
    );
    t.equal(at, Number(address), 'the address comes back');
    return bytes;
  };
  t.equal(await unmap(0x1000, 0x2000), 0, 'it is gone: there is nothing in the range');
  t.equal(await unmap(2n ** 60n, 0x1000), 0, 'nor where nothing can be');
  t.equal(await unmap(2n ** 64n - 0x1000n, 0x1000), 0, 'nor in the last page');
  for (const address of [0x1000, 0x2000, 0x8000, 0x2_0000_0000]) {
    await caller.call(2, mapPayload(address, 0x1000), address === 0x2000 ? [] : [fd]);
  }
  t.equal(await unmap(0, 0x3000), 0x2000, 'two ranges, and room around them');
  await caller.call(2, mapPayload(0x2000, 0x1000));
  t.equal(await unmap(0x4000, 2n ** 64n - 0x4000n), 0x2000, 'a range up to 2^64');
  t.equal(await unmap(0x2000, 0x1000), 0x1000, 'what was outside is left');
  device.take();

  device.failure = Object.assign(new Error('no'), { errno: EBUSY });
  t.equal(await caller.refusal(3, unmapPayload(0x3000, 0x1000)), EBUSY);
  await caller.call(2, mapPayload(0x5000, 0x1000));
  device.take();
  const all = await caller.call(3, unmapPayload(0, 0, 2));
  t.same(Buffer.from(all.payload), unmapPayload(0, 0x2000, 2), 'the bytes of all');
  t.same(device.take(), [['dmaUnmap', 0, 2 ** 64]]);
  t.equal(await unmap(0x3000, 0x1000), 0);
  await caller.call(2, mapPayload(0x3000, 0x3000));

  const before = await openFds();
  await caller.call(3, unmapPayload(0x3000, 0x3000), [fd]);
  t.equal(await openFds(before), before, 'a descriptor is ignored and closed: SPDK sends one');
});

t.test('DEVICE_GET_INFO', async (t) => {
  const { caller } = await setUp(t);
  const answer = words([4, 16], [4, 3], [4, 9], [4, 5]);
  const ask = (argsz: number) => words([4, argsz], [4, 0], [4, 0], [4, 0]);
  t.same(Buffer.from((await caller.call(4, ask(16))).payload), answer);
  t.same(Buffer.from((await caller.call(4, ask(32))).payload), answer, 'argsz of Cloud Hypervisor');
  t.equal(await caller.refusal(4, ask(15)), EINVAL);
  t.equal(await caller.refusal(4, ask(16).subarray(0, 15)), EINVAL);
});

const regionAsk = (index: number, argsz = 32) =>
  words([4, argsz], [4, 0], [4, index], [4, 0], [8, 0], [8, 0]);

t.test('DEVICE_GET_REGION_INFO', async (t) => {
  const { caller, device } = await setUp(t);
  const info = (index: number, flags: number, size: number, argsz = 32, capOffset = 0) =>
    words([4, argsz], [4, flags], [4, index], [4, capOffset], [8, size], [8, 0]);
  const sparse = words([2, 1], [2, 1], [4, 0], [4, 1], [4, 0], [8, 0x1000], [8, 0x1000]);

  const short = await caller.call(5, regionAsk(0));
  t.same(Buffer.from(short.payload), info(0, 7, BAR0_SIZE, 64), 'MMAP, and how much room it needs');
  t.same(short.fds, [], 'no descriptor yet');
  t.same((await caller.call(5, regionAsk(0, 63))).payload.length, 32);

  for (const argsz of [64, 4064]) {
    const padding = Buffer.alloc(argsz - 32);
    const full = await caller.call(5, Buffer.concat([regionAsk(0, argsz), padding]));
    const expected = Buffer.concat([info(0, 15, BAR0_SIZE, 64, 32), sparse]);
    t.same(Buffer.from(full.payload), expected, `argsz ${argsz}`);
    t.equal(full.fds.length, 1, 'one descriptor');
    t.equal(fstatSync(full.fds[0]).ino, fstatSync(device.bar0Fd).ino, 'of the BAR');
    closeFds(full.fds);
  }
  const plain: [number, Uint8Array][] = [
    [1, info(1, 0, 0)],
    [4, info(4, 1, SMALL_SIZE)],
    [5, info(5, 2, SMALL_SIZE)],
    [6, info(6, 0, 0)],
    [7, info(7, 3, CONFIG_SIZE)],
    [8, info(8, 0, 0)],
  ];
  for (const [index, expected] of plain) {
    const reply = await caller.call(5, regionAsk(index, 4064));
    t.same(Buffer.from(reply.payload), expected, `region ${index}`);
    t.same(reply.fds, []);
  }
  t.equal(await caller.refusal(5, regionAsk(9)), EINVAL);
  t.equal(await caller.refusal(5, regionAsk(0xffffffff)), EINVAL);
  t.equal(await caller.refusal(5, regionAsk(0, 31)), EINVAL);
  t.equal(await caller.refusal(5, regionAsk(0).subarray(0, 31)), EINVAL);
});

t.test('a client that takes no descriptors is offered no mapping', async (t) => {
  const { caller } = await setUp(t, '{"capabilities":{"max_msg_fds":0}}\0');
  const reply = await caller.call(5, regionAsk(0, 64));
  const expected = words([4, 32], [4, 3], [4, 0], [4, 0], [8, BAR0_SIZE], [8, 0]);
  t.same(Buffer.from(reply.payload), expected);
  t.same(reply.fds, []);
});

t.test('DEVICE_GET_REGION_IO_FDS', async (t) => {
  const { caller } = await setUp(t);
  const ask = (index: number, { argsz = 16, flags = 0, count = 0 } = {}) =>
    words([4, argsz], [4, flags], [4, index], [4, count]);
  for (const index of [0, 1, 8]) {
    const reply = await caller.call(6, ask(index, { argsz: 4096 }));
    t.same(Buffer.from(reply.payload), ask(index), `none for region ${index}`);
  }
  t.equal(await caller.refusal(6, ask(9)), EINVAL);
  t.equal(await caller.refusal(6, ask(0, { argsz: 15 })), EINVAL);
  t.equal(await caller.refusal(6, ask(0, { flags: 1 })), EINVAL);
  t.equal(await caller.refusal(6, ask(0, { count: 1 })), EINVAL);
});

t.test('DEVICE_GET_IRQ_INFO', async (t) => {
  const { caller } = await setUp(t);
  const info = (index: number, flags = 0, count = 0, argsz = 16) =>
    words([4, argsz], [4, flags], [4, index], [4, count]);
  const cases: [number, Uint8Array][] = [
    [0, info(0, 7, 1)],
    [1, info(1, 0, 0)],
    [2, info(2, 9, MSIX_VECTORS)],
    [3, info(3, 1, 1)],
    [4, info(4, 0, 0)],
  ];
  for (const [index, expected] of cases) {
    t.same(Buffer.from((await caller.call(7, info(index))).payload), expected, `index ${index}`);
  }
  t.equal(await caller.refusal(7, info(5)), EINVAL);
  t.equal(await caller.refusal(7, info(0, 0, 0, 15)), EINVAL);
  t.equal(await caller.refusal(7, info(0).subarray(0, 12)), EINVAL);
});

const NONE = 1;
const BOOL = 2;
const EVENTFD = 4;
const MASK = 8;
const UNMASK = 16;
const TRIGGER = 32;

const irqPayload = (flags: number, index: number, start: number, count: number, data = NOTHING) =>
  Buffer.concat([
    words([4, 20 + data.length], [4, flags], [4, index], [4, start], [4, count]),
    data,
  ]);

t.test('DEVICE_SET_IRQS: eventfds', async (t) => {
  const { caller, device } = await setUp(t);
  const fds = Array.from({ length: MSIX_VECTORS }, () => eventfd(t));
  const connect = async (start: number, list: number[]) => {
    const reply = await caller.call(8, irqPayload(EVENTFD | TRIGGER, 2, start, list.length), list);
    t.equal(reply.payload.length, 0);
  };
  await connect(0, fds.slice(0, 16));
  t.same(device.take(), [['setIrqEventfds', 2, 0, Array(16).fill(true)]], '16 at a time');
  await connect(16, fds.slice(16));
  t.same(device.take(), [['setIrqEventfds', 2, 16, Array(4).fill(true)]]);

  const signalled = () => fds.map((fd) => native.eventfdRead(fd));
  const expected = (...on: number[]) => fds.map((_, i) => (on.includes(i) ? 1 : 0));
  await caller.call(8, irqPayload(NONE | TRIGGER, 2, 3, 2));
  t.same(signalled(), expected(3, 4), 'fires just the range');
  await caller.call(8, irqPayload(BOOL | TRIGGER, 2, 17, 3, hex('01 00 ff')));
  t.same(signalled(), expected(17, 19), 'where the byte is not 0');
  device.take();

  await caller.call(8, irqPayload(EVENTFD | TRIGGER, 2, 2, 3));
  t.same(device.take(), [['setIrqEventfds', 2, 2, [false, false, false]]], 'disconnects');
  await caller.call(8, irqPayload(NONE | TRIGGER, 2, 0, MSIX_VECTORS));
  t.same(
    signalled(),
    expected(...fds.keys()).map((v, i) => (i >= 2 && i <= 4 ? 0 : v)),
  );
  device.take();

  const before = await openFds();
  await caller.call(8, irqPayload(NONE | TRIGGER, 2, 0, 0));
  t.same(device.take(), [['disableIrqs', 2]]);
  t.equal(
    await openFds(before - (MSIX_VECTORS - 3)),
    before - (MSIX_VECTORS - 3),
    'and closes them',
  );

  await caller.call(8, irqPayload(EVENTFD | TRIGGER, 3, 0, 1), [fds[0]]);
  t.same(device.take(), [['setIrqEventfds', 3, 0, [true]]], 'ERR');
});

t.test('DEVICE_SET_IRQS: masks', async (t) => {
  const { caller, device } = await setUp(t);
  const fd = eventfd(t);
  await caller.call(8, irqPayload(NONE | MASK, 0, 0, 1));
  await caller.call(8, irqPayload(NONE | UNMASK, 0, 0, 1));
  await caller.call(8, irqPayload(BOOL | MASK, 2, 4, 2, hex('00 01')));
  await caller.call(8, irqPayload(BOOL | UNMASK, 0, 0, 1, hex('00')));
  await caller.call(8, irqPayload(EVENTFD | UNMASK, 0, 0, 1), [fd]);
  await caller.call(8, irqPayload(EVENTFD | UNMASK, 0, 0, 1));
  t.same(device.take(), [
    ['maskIrqs', 0, 0, [true], true],
    ['maskIrqs', 0, 0, [true], false],
    ['maskIrqs', 2, 4, [false, true], true],
    ['maskIrqs', 0, 0, [false], false],
    ['setIrqUnmaskEventfd', 0, true],
    ['setIrqUnmaskEventfd', 0, false],
  ]);
});

t.test('DEVICE_SET_IRQS: every combination of flags', async (t) => {
  const { caller, device } = await setUp(t);
  const fd = eventfd(t);
  const allowed = new Set([
    NONE | MASK,
    NONE | UNMASK,
    NONE | TRIGGER,
    BOOL | MASK,
    BOOL | UNMASK,
    BOOL | TRIGGER,
    EVENTFD | UNMASK,
    EVENTFD | TRIGGER,
  ]);
  for (let flags = 0; flags < 0x80; flags++) {
    const data = flags & BOOL ? hex('01') : NOTHING;
    const fds = flags & EVENTFD ? [fd] : [];
    const payload = irqPayload(flags, 0, 0, 1, data);
    if (allowed.has(flags)) await caller.call(8, payload, fds);
    else if ((await caller.refusal(8, payload, fds)) !== EINVAL) t.fail(`flags ${flags}`);
  }
  t.equal(device.take().length, allowed.size, 'one call for each that is allowed');
});

t.test('DEVICE_SET_IRQS: refused', async (t) => {
  const { caller, device } = await setUp(t);
  const fd = eventfd(t);
  const before = await openFds();
  const trigger = NONE | TRIGGER;
  const last = MSIX_VECTORS;
  const cases: [string, Uint8Array, number[]?][] = [
    ['an index that does not exist', irqPayload(trigger, 5, 0, 1)],
    ['an index without vectors', irqPayload(trigger, 1, 0, 1)],
    ['disabling an index without vectors', irqPayload(trigger, 4, 0, 0)],
    ['a start beyond the end', irqPayload(trigger, 2, last, 1)],
    ['a count beyond the end', irqPayload(trigger, 2, last - 1, 2)],
    ['a sum that wraps in 32 bits', irqPayload(trigger, 2, 1, 0xffffffff)],
    ['no vectors, but a start', irqPayload(trigger, 2, 1, 0)],
    ['no vectors, masked', irqPayload(NONE | MASK, 2, 0, 0)],
    ['no vectors, by bytes', irqPayload(BOOL | TRIGGER, 2, 0, 0)],
    ['no vectors, by descriptors', irqPayload(EVENTFD | TRIGGER, 2, 0, 0)],
    ['fewer descriptors', irqPayload(EVENTFD | TRIGGER, 2, 0, 3), [fd, fd]],
    ['more descriptors', irqPayload(EVENTFD | TRIGGER, 2, 0, 1), [fd, fd]],
    ['a descriptor with NONE', irqPayload(trigger, 2, 0, 1), [fd]],
    ['a descriptor with BOOL', irqPayload(BOOL | TRIGGER, 2, 0, 1, hex('01')), [fd]],
    ['fewer bytes', irqPayload(BOOL | TRIGGER, 2, 0, 2, hex('01'))],
    ['more bytes', irqPayload(BOOL | TRIGGER, 2, 0, 1, hex('01 01'))],
    ['bytes with NONE', irqPayload(trigger, 2, 0, 1, hex('01'))],
    ['masking ERR', irqPayload(NONE | MASK, 3, 0, 1)],
    ['an unmask eventfd for ERR', irqPayload(EVENTFD | UNMASK, 3, 0, 1), [fd]],
    ['an unmask eventfd of vector 1', irqPayload(EVENTFD | UNMASK, 2, 1, 1), [fd]],
    ['two unmask eventfds', irqPayload(EVENTFD | UNMASK, 2, 0, 2), [fd, fd]],
    ['argsz too small', words([4, 19], [4, trigger], [4, 2], [4, 0], [4, 1])],
    ['too short', irqPayload(trigger, 2, 0, 1).subarray(0, 19)],
    ['nothing', NOTHING],
  ];
  for (const [name, payload, fds] of cases) {
    t.equal(await caller.refusal(8, payload, fds), EINVAL, name);
  }
  t.same(device.take(), []);
  t.equal(await openFds(before), before, 'no descriptor is left');
});

const access = (offset: number | bigint, region: number, count: number, data = NOTHING) =>
  Buffer.concat([words([8, offset], [4, region], [4, count]), data]);

t.test('REGION_READ', async (t) => {
  const { caller, device } = await setUp(t);
  device.memory.get(7)!.set(hex('5e4e0100'));
  const read = async (offset: number, region: number, count: number) => {
    const reply = await caller.call(9, access(offset, region, count));
    t.same(Buffer.from(reply.payload.subarray(0, 16)), access(offset, region, count));
    return Buffer.from(reply.payload.subarray(16));
  };
  t.same(await read(0, 7, 4), hex('5e4e0100'));
  t.same(await read(1, 7, 2), hex('4e01'));
  t.same((await read(0, 7, CONFIG_SIZE)).length, CONFIG_SIZE);
  t.same(await read(SMALL_SIZE - 1, 4, 1), hex('44'), 'the last byte');
  t.equal(device.take().length, 4);
  t.same(await read(0, 7, 0), NOTHING, 'no bytes');
  t.same(await read(0, 5, 8), Buffer.alloc(8), 'a region that cannot be read is zeros');
  t.same(await read(0x1234, 1, 4), Buffer.alloc(4), 'so is one that does not exist');
  t.same(await read(0, 6, 4), Buffer.alloc(4), 'the ROM');
  t.same(device.take(), [], 'the device is not asked');

  const refusals: [string, Uint8Array][] = [
    ['a region that cannot exist', access(0, 9, 4)],
    ['one byte beyond the end', access(SMALL_SIZE - 3, 4, 4)],
    ['beyond the end', access(SMALL_SIZE, 4, 1)],
    ['far beyond the end', access(2n ** 53n - 1n, 4, 1)],
    ['an offset above 2^53', access(2n ** 64n - 2n, 4, 4)],
    ['more than 1 MiB', access(0, 1, 1024 * 1024 + 1)],
    ['more than memory has', access(0, 7, 0xffffffff)],
    ['too short', access(0, 7, 4).subarray(0, 15)],
  ];
  for (const [name, payload] of refusals) t.equal(await caller.refusal(9, payload), EINVAL, name);
  t.same(device.take(), []);
  const largest = await caller.call(9, access(0, 1, 1024 * 1024));
  t.equal(largest.payload.length, 16 + 1024 * 1024, '1 MiB is the most');
  device.failure = Object.assign(new Error('no'), { errno: -EBUSY });
  t.equal(await caller.refusal(9, access(0, 7, 4)), EBUSY, "negative like Node's own");
});

t.test('REGION_WRITE', async (t) => {
  const { caller, device } = await setUp(t);
  const write = async (offset: number, region: number, data: Buffer) => {
    const reply = await caller.call(10, access(offset, region, data.length, data));
    t.same(Buffer.from(reply.payload), access(offset, region, data.length));
  };
  await write(4, 7, hex('0404'));
  await write(0x14, 0, hex('01004600'));
  t.same(device.take(), [
    ['regionWrite', 7, 4, '0404'],
    ['regionWrite', 0, 0x14, '01004600'],
  ]);
  await write(0, 4, hex('ffff'));
  await write(0, 1, hex('ffffffff'));
  await write(0, 7, NOTHING);
  t.same(device.take(), [], 'dropped');
  await write(0, 1, Buffer.alloc(1024 * 1024));

  const refusals: [string, Uint8Array][] = [
    ['a region that cannot exist', access(0, 9, 1, hex('00'))],
    ['beyond the end', access(SMALL_SIZE - 1, 5, 2, hex('0000'))],
    ['an offset above 2^53', access(2n ** 63n, 5, 1, hex('00'))],
    ['fewer bytes than count', access(0, 7, 4, hex('0000'))],
    ['more bytes than count', access(0, 7, 1, hex('0000'))],
    ['too short', access(0, 7, 0).subarray(0, 8)],
  ];
  for (const [name, payload] of refusals) t.equal(await caller.refusal(10, payload), EINVAL, name);
  t.same(device.take(), []);
});

t.test('REGION_WRITE_MULTI', async (t) => {
  const json = `{"capabilities":{"write_multiple":true,"max_msg_fds":16,"max_data_xfer_size":1}}\0`;
  const { caller, device } = await setUp(t, json);
  const entry = (offset: number, region: number, count: number, data: string) =>
    Buffer.concat([
      words([8, offset], [4, region], [4, count]),
      Buffer.concat([hex(data), Buffer.alloc(8)]).subarray(0, 8),
    ]);
  const multi = (count: number | bigint, ...entries: Buffer[]) =>
    Buffer.concat([words([8, count]), ...entries]);
  const first = entry(0x1000, 0, 4, '11000000');
  const second = entry(0x1008, 0, 8, '0102030405060708');
  const done = (reply: { payload: Uint8Array }) => Buffer.from(reply.payload).readBigUInt64LE();

  t.equal(done(await caller.call(15, multi(2, first, second))), 2n);
  t.same(device.take(), [
    ['regionWrite', 0, 0x1000, '11000000'],
    ['regionWrite', 0, 0x1008, '0102030405060708'],
  ]);
  t.equal(done(await caller.call(15, multi(0))), 0n, 'nothing to do');
  const beyond = entry(BAR0_SIZE, 0, 4, '00');
  t.equal(done(await caller.call(15, multi(3, first, beyond, second))), 1n, 'up to the bad one');
  t.equal(device.take().length, 1);
  t.equal(await caller.refusal(15, multi(2, beyond, first)), EINVAL, 'none done');
  t.equal(await caller.refusal(15, multi(1, entry(0, 0, 9, '00'))), EINVAL, '9 bytes');
  t.equal(await caller.refusal(15, multi(1, first, second)), EINVAL, 'fewer than there are');
  t.equal(await caller.refusal(15, multi(3, first, second)), EINVAL, 'more than there are');
  t.equal(await caller.refusal(15, multi(2n ** 60n, first)), EINVAL, 'more than there can be');
  t.equal(await caller.refusal(15, hex('00')), EINVAL);
  t.same(device.take(), []);

  caller.send(15, multi(1, first), [], 0x10);
  await caller.call(13, NOTHING);
  t.same(device.take(), [['regionWrite', 0, 0x1000, '11000000'], ['reset']], 'posted');
});

t.test('REGION_WRITE_MULTI that was not agreed on', async (t) => {
  const { caller, device } = await setUp(t);
  t.equal(await caller.refusal(15, words([8, 0])), EINVAL);
  t.same(device.take(), []);
});

t.test('DEVICE_RESET', async (t) => {
  const { caller, device } = await setUp(t);
  t.equal((await caller.call(13, NOTHING)).payload.length, 0);
  t.same(device.take(), [['reset']]);
  t.equal(await caller.refusal(13, hex('00')), EINVAL);
  device.gate = () => Promise.reject(Object.assign(new Error('no'), { errno: EBUSY }));
  t.equal(await caller.refusal(13, NOTHING), EBUSY);
});

t.test('what there is no support for', async (t) => {
  const { caller, device } = await setUp(t);
  const cases: [string, number, Uint8Array, number][] = [
    ['VERSION again', 1, words([2, 0], [2, 0]), EINVAL],
    ['DMA_READ', 11, words([8, 0], [8, 4]), ENOTSUP],
    ['DMA_WRITE', 12, words([8, 0], [8, 4], [4, 0]), ENOTSUP],
    ['DIRTY_PAGES', 14, words([4, 8], [4, 1]), ENOTSUP],
    ['DEVICE_FEATURE: GET MIGRATION', 16, words([4, 16], [4, 0x10001]), ENOTSUP],
    ['DEVICE_FEATURE: PROBE', 16, words([4, 8], [4, 0x50002]), ENOTSUP],
    ['DEVICE_FEATURE, too short', 16, words([4, 8]), EINVAL],
    ['MIG_DATA_READ', 17, words([4, 4096], [4, 4088]), ENOTSUP],
    ['MIG_DATA_READ, too short', 17, NOTHING, EINVAL],
    ['MIG_DATA_WRITE', 18, words([4, 12], [4, 4], [4, 0]), ENOTSUP],
    ['command 0', 0, NOTHING, EINVAL],
    ['command 19', 19, hex('00'), EINVAL],
    ['command 65535', 0xffff, NOTHING, EINVAL],
  ];
  const fd = eventfd(t);
  const before = await openFds();
  for (const [name, command, payload, errno] of cases) {
    t.equal(await caller.refusal(command, payload, [fd]), errno, name);
  }
  t.equal(await openFds(before), before, 'descriptors are closed');
  t.same(device.take(), []);
});

t.test('No_reply suppresses every reply, errors too', async (t) => {
  const { caller, device } = await setUp(t);
  const silent: [number, Uint8Array][] = [
    [2, mapPayload(0x1000, 0x1000)],
    [2, mapPayload(0x1000, 0x1000)],
    [3, unmapPayload(0x1000, 0x1000)],
    [4, words([4, 16], [4, 0], [4, 0], [4, 0])],
    [5, regionAsk(0, 64)],
    [5, regionAsk(99)],
    [9, access(0, 7, 4)],
    [10, access(0, 7, 1, hex('00'))],
    [13, NOTHING],
    [14, NOTHING],
    [99, NOTHING],
  ];
  for (const [command, payload] of silent) caller.send(command, payload, [], 0x10);
  // The next reply is that of this command, so the ones before had none.
  await caller.call(13, NOTHING);
  t.same(
    device.take().map(([name]) => name),
    ['dmaMap', 'dmaUnmap', 'regionRead', 'regionWrite', 'reset', 'reset'],
  );
});
