/** The client against this project's server, and against one that misbehaves. */
import { closeSync, fstatSync } from 'node:fs';
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import { VfioClient, VfioUserError } from '../../src/client/vfio.ts';
import { native } from '../../src/native/index.ts';
import { IrqSetAction, IrqSetData, PciIrq, PciRegion } from '../../src/spec/vfio-user.ts';
import {
  BAR0_SIZE,
  CONFIG_SIZE,
  eventfd,
  hex,
  MSIX_VECTORS,
  openFds,
  RawPeer,
  raw,
  startServer,
  words,
} from '../helpers/vfio.ts';

async function setUp(t: Test) {
  const testServer = startServer(t);
  const client = VfioClient.connect(testServer.path);
  t.teardown(() => client.close());
  return { ...testServer, client };
}

t.test('talks to the server', async (t) => {
  const { client, device, path } = await setUp(t);
  t.match(await client.version(), {
    major: 0,
    minor: 2,
    capabilities: {
      max_msg_fds: 8,
      max_data_xfer_size: 1048576,
      write_multiple: true,
    },
  });
  t.match(await client.getInfo(), { flags: 3, numRegions: 9, numIrqs: 5 });

  const bar0 = await client.regionInfo(PciRegion.BAR0);
  t.match(bar0, {
    flags: 15,
    size: BAR0_SIZE,
    offset: 0,
    areas: [{ offset: 0x1000, size: 0x1000 }],
  });
  t.equal(fstatSync(bar0.fd!).ino, fstatSync(device.bar0Fd).ino);
  closeSync(bar0.fd!);
  const config = await client.regionInfo(PciRegion.CONFIG);
  t.same(config, { flags: 3, size: CONFIG_SIZE, offset: 0, areas: [], fd: undefined });
  t.match(await client.regionInfo(PciRegion.BAR1), { flags: 0, size: 0 });
  t.match(await client.irqInfo(PciIrq.MSIX), { count: MSIX_VECTORS });

  await client.regionWrite(PciRegion.BAR0, 8, hex('01020304'));
  t.same(Buffer.from(await client.regionRead(PciRegion.BAR0, 8, 4)), hex('01020304'));
  client.regionWritePosted(PciRegion.BAR0, 9, hex('ff'));
  t.same(Buffer.from(await client.regionRead(PciRegion.BAR0, 8, 4)), hex('01ff0304'));
  const writes = [0, 1, 2].map((i) => ({ region: 0, offset: 0x100 + i, data: hex(`0${i + 1}`) }));
  t.equal(await client.regionWriteMulti(writes), 3);
  t.same(Buffer.from(await client.regionRead(PciRegion.BAR0, 0x100, 4)), hex('01020300'));

  const fds = Array.from({ length: MSIX_VECTORS }, () => eventfd(t));
  device.take();
  await client.connectIrqs(PciIrq.MSIX, 0, fds);
  t.same(
    device.take().map(([, , start, list]) => [start, (list as boolean[]).length]),
    [
      [0, 8],
      [8, 8],
      [16, 4],
    ],
    'no more descriptors at a time than the server takes',
  );
  await client.triggerIrqs(PciIrq.MSIX, 5, 2);
  t.same(fds.map((fd) => native.eventfdRead(fd)).slice(4, 8), [0, 1, 1, 0]);
  await client.setIrqs(PciIrq.MSIX, IrqSetData.BOOL | IrqSetAction.MASK, 0, 2, [], hex('0001'));
  t.same(device.take().at(-1), ['maskIrqs', 2, 0, [false, true], true]);
  await client.disableIrqs(PciIrq.MSIX);
  await client.reset();

  // A second client is served once this one is gone.
  const other = VfioClient.connect(path);
  t.teardown(() => other.close());
  const version = other.version({ minor: 1, capabilities: null });
  client.close();
  t.match(await version, { minor: 1, capabilities: { max_msg_fds: 8 } });
});

t.test('memory', async (t) => {
  const { client, device } = await setUp(t);
  await client.version();
  const memory = new ClientMemory(0x3001, 0x10_0000_0000);
  t.teardown(() => memory.close());
  t.equal(memory.size, 0x4000);
  await client.dmaMap({ iova: memory.iova, size: memory.size, fd: memory.fd });
  const fd = device.fds.get(`dma ${memory.iova}`)!;
  const seen = new Uint8Array(native.mapFile(fd, 0, memory.size, true));
  t.equal(memory.allocate(10, 4), 0);
  const offset = memory.allocate(0x1000);
  t.equal(offset, 0x1000);
  t.equal(memory.allocate(1, 1), 0x2000);
  t.throws(() => memory.allocate(0x2000), RangeError);
  memory.bytes(offset, 4).set([1, 2, 3, 4]);
  t.same([...seen.subarray(0x1000, 0x1004)], [1, 2, 3, 4], 'the same memory');
  native.revoke(seen);
  t.equal(await client.dmaUnmap(memory.iova, memory.size), memory.size);
  t.equal(await client.dmaUnmap(memory.iova, memory.size), 0);
  await client.dmaMap({ iova: 0, size: 0x1000, writable: false });
  t.equal(await client.dmaUnmapAll(), 0x1000);
  t.match(device.take().slice(-2), [
    ['dmaMap', { writable: false }, false],
    ['dmaUnmap', 0, 2 ** 64],
  ]);
});

t.test('a refusal is an error with its errno', async (t) => {
  const { client } = await setUp(t);
  await client.version();
  await t.rejects(client.dmaUnmap(0, 0x800), {
    name: 'VfioUserError',
    code: 'EINVAL',
    command: 3,
  });
  await t.rejects(client.regionInfo(9), { code: 'EINVAL', errno: 22 });
  await t.rejects(client.request(99, hex('')), VfioUserError);
  await client.reset();
});

t.test('requests are pipelined', async (t) => {
  const { client, device } = await setUp(t);
  await client.version();
  device.memory.get(PciRegion.CONFIG)!.forEach((_, i, all) => {
    all[i] = i;
  });
  const offsets = Array.from({ length: 500 }, (_, i) => (i * 7) % 256);
  const reads = await Promise.all(offsets.map((at) => client.regionRead(PciRegion.CONFIG, at, 1)));
  t.same(
    reads.map(([byte]) => byte),
    offsets,
  );
});

t.test('requests end with the connection', async (t) => {
  const { client, device, server } = await setUp(t);
  await client.version();
  let open = () => {};
  device.gate = () =>
    new Promise<void>((resolve) => {
      open = resolve;
    });
  const reset = t.rejects(client.reset(), /peer closed/);
  while (device.gate !== undefined) await new Promise(setImmediate);
  const gone = server.disconnect('for a test');
  await reset;
  t.match(await client.closed, /peer closed/);
  await t.rejects(client.getInfo(), /closed/);
  open();
  await gone;

  const second = VfioClient.connect(server.path);
  const version = t.rejects(second.version(), /this side/);
  second.close();
  await version;
});

t.test('nobody there', async (t) => {
  const { path, stop } = startServer(t);
  await stop();
  t.throws(() => VfioClient.connect(path), { code: 'ENOENT' });
});

/** A client whose server the test plays. */
function playServer(t: Test): { client: VfioClient; server: RawPeer } {
  const [a, b] = native.socketPair();
  const client = new VfioClient(a);
  const server = new RawPeer(b);
  t.teardown(() => {
    client.close();
    server.close();
  });
  return { client, server };
}

t.test('replies from elsewhere', async (t) => {
  const { client, server } = playServer(t);
  const before = await openFds();
  const fd = eventfd(t);

  t.test('a bare version', async (t) => {
    const version = client.version();
    const { header } = await server.next();
    server.send(raw(header.messageId, 1, words([2, 0], [2, 0]), 1));
    t.same(await version, { major: 0, minor: 0, capabilities: {} });
  });

  t.test('out of order, between strays and commands', async (t) => {
    const first = client.getInfo();
    const second = client.reset();
    const info = (await server.next()).header.messageId;
    const reset = (await server.next()).header.messageId;
    const body = words([4, 16], [4, 2], [4, 9], [4, 5]);
    server.send(raw(reset + 100, 13, hex(''), 1), [fd]); // answers nothing
    server.send(raw(info, 13, hex(''), 1), [fd]); // another command's
    server.send(raw(77, 11, words([8, 0], [8, 4])), [fd]); // DMA_READ
    server.send(raw(78, 12, words([8, 0], [8, 0]), 0x10)); // DMA_WRITE, No_reply
    server.send(raw(reset, 13, hex(''), 1), [fd]);
    server.send(raw(info, 4, body, 1));
    await second;
    t.match(await first, { flags: 2, numRegions: 9 });
    t.match(await server.next(), { header: { messageId: 77, flags: 0x21, size: 16 } });
  });

  t.test('an error without errno', async (t) => {
    const reset = client.reset();
    const { header } = await server.next();
    server.send(raw(header.messageId, 13, hex(''), 0x21));
    await t.rejects(reset, { code: 'UNKNOWN', errno: 0 });
  });

  t.test('too short', async (t) => {
    const info = client.getInfo();
    const { header } = await server.next();
    server.send(raw(header.messageId, 4, words([4, 16]), 1));
    await t.rejects(info, /4 bytes/);
  });

  t.test('region infos', async (t) => {
    const ask = async (payload: Uint8Array, fds: number[] = []) => {
      const info = client.regionInfo(0);
      const { header } = await server.next();
      server.send(raw(header.messageId, 5, payload, 1), fds);
      return info;
    };
    const region = (argsz: number, flags: number, capOffset: number) =>
      words([4, argsz], [4, flags], [4, 0], [4, capOffset], [8, 0x1000], [8, 0x5000]);
    const whole = await ask(region(32, 7, 0), [fd, fd]);
    t.match(whole, { flags: 7, offset: 0x5000, areas: [] });
    closeSync(whole.fd!);
    // Capabilities: an unknown one, then areas; a chain that runs in circles; one that points nowhere; one that is cut off.
    const unknown = (next: number) => words([2, 9], [2, 1], [4, next]);
    const areas = words([2, 1], [2, 1], [4, 0], [4, 1], [4, 0], [8, 0x2000], [8, 0x3000]);
    const chain = Buffer.concat([region(32, 15, 32), unknown(40), areas]);
    t.same((await ask(chain)).areas, [{ offset: 0x2000, size: 0x3000 }]);
    t.same((await ask(Buffer.concat([region(32, 15, 32), unknown(32)]))).areas, []);
    t.same((await ask(Buffer.concat([region(32, 15, 0), areas]))).areas, []);
    t.same((await ask(Buffer.concat([region(32, 15, 9999), areas]))).areas, []);
    t.same((await ask(Buffer.concat([region(32, 15, 32), areas.subarray(0, 24)]))).areas, []);
    await t.rejects(ask(region(0xffffffff, 15, 32)), /bytes/, 'more room than there can be');
  });

  t.test('nothing is left', async (t) => {
    t.equal(await openFds(before + 1), before + 1);
    const reset = t.rejects(client.reset(), /size 3/);
    await server.next();
    server.send(words([2, 0], [2, 0], [4, 3], [4, 1], [4, 0]));
    await reset;
  });
});
