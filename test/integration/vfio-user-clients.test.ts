/** What QEMU 10.1+, SPDK's host library and Cloud Hypervisor send, byte by byte, and what they need to read. */
import assert from 'node:assert/strict';
import { fstatSync } from 'node:fs';
import t from 'tap';
import { native } from '../../src/native/index.ts';
import {
  BAR0_SIZE,
  CONFIG_SIZE,
  eventfd,
  hex,
  memfd,
  RawPeer,
  startServer,
  words,
} from '../helpers/vfio.ts';
import { BlockingSocket } from '../helpers/vfio-blocking.ts';

t.test('QEMU', async (t) => {
  const { path, device, gone } = startServer(t);
  const peer = RawPeer.connect(path);
  t.teardown(() => peer.close());
  let id = 0;
  const header = (command: number, size: number, flags = 0) =>
    words([2, id++], [2, command], [4, size], [4, flags], [4, 0]);
  const message = (command: number, body: Buffer, flags = 0) =>
    Buffer.concat([header(command, 16 + body.length, flags), body]);
  /** QEMU's buffer for a reply is as large as its request, unless it says otherwise. */
  const ask = async (command: number, body: Buffer, fds: number[] = [], room = body.length) => {
    const expected = id;
    peer.send(message(command, body), fds);
    const reply = await peer.next();
    assert.equal(reply.header.messageId, expected);
    assert.equal(reply.header.command, command);
    assert.equal(reply.header.flags, 1, 'no error');
    assert.ok(reply.payload.length <= room, 'reply larger than recv buffer');
    return { body: Buffer.from(reply.payload), fds: reply.fds };
  };

  // VERSION: one space after each colon and comma, and the NUL.
  const caps =
    '{"capabilities": {"migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "max_msg_fds": 16, ' +
    '"max_data_xfer_size": 1048576, "pgsizes": 4096, "max_dma_maps": 65535, "write_multiple": true}}\0';
  const version = await ask(1, Buffer.concat([hex('0000 0000'), Buffer.from(caps)]));
  t.same(version.body.subarray(0, 4), hex('0000 0000'), '0.0');
  t.equal(version.body.at(-1), 0);
  t.same(JSON.parse(version.body.subarray(4, -1).toString()), {
    capabilities: {
      max_msg_fds: 8,
      max_dma_maps: 8192,
      write_multiple: true,
      max_data_xfer_size: 1048576,
    },
  });

  // DMA_MAP of guest RAM, sent without waiting; low memory, a ROM without descriptor, high memory at an offset.
  const ram = memfd(t, 0x20000);
  const maps: [string, number[]][] = [
    ['20000000 03000000 0000000000000000 0000000000000000 00000a0000000000', []],
    ['20000000 01000000 0000000000000000 00000c0000000000 0000020000000000', []],
    ['20000000 03000000 0000010000000000 0000000001000000 0000010000000000', [ram]],
  ];
  for (const [body, fds] of maps) peer.send(message(2, hex(body)), fds);
  for (let i = 0; i < maps.length; i++) {
    const { header: reply } = await peer.next();
    t.same({ ...reply }, { messageId: i + 1, command: 2, size: 16, flags: 1, error: 0 });
  }
  t.match(device.take(), [
    ['accept'],
    ['dmaMap', { iova: 0, size: 0xa0000, writable: true }, false],
    ['dmaMap', { iova: 0xc0000, size: 0x20000, writable: false }, false],
    ['dmaMap', { iova: 0x100000000, size: 0x10000, offset: 0x10000 }, true],
  ]);

  const info = await ask(4, hex('10000000 00000000 00000000 00000000'));
  t.same(info.body, hex('10000000 03000000 09000000 05000000'));

  // Regions: with an argsz of 32, then with what the reply asks for.
  for (const index of [0, 1, 2, 3, 4, 5, 7]) {
    const region = (argsz: number) => words([4, argsz], [4, 0], [4, index], [4, 0], [8, 0], [8, 0]);
    const first = await ask(5, region(32));
    const argsz = first.body.readUInt32LE(0);
    t.equal(argsz, index === 0 ? 64 : 32);
    t.same(first.fds, []);
    if (argsz === 32) continue;
    const second = await ask(5, region(argsz), [], argsz);
    t.equal(second.body.length, argsz);
    t.equal(second.fds.length, 1, 'QEMU takes one descriptor');
    const mapped = native.mapFile(second.fds[0], 0x1000, 0x1000, true);
    native.revoke(new Uint8Array(mapped));
    device.fds.set('given', second.fds[0]);
  }
  t.same(
    (await ask(7, hex('10000000 00000000 03000000 00000000'))).body,
    hex('10000000 01000000 03000000 01000000'),
  );

  // Configuration space, and the probe of the ROM.
  device.memory.get(7)!.set(hex('5e4e0100'));
  const read = async (offset: number, count: number) =>
    (await ask(9, words([8, offset], [4, 7], [4, count]), [], 16 + count)).body.subarray(16);
  const write = (offset: number, data: string) =>
    ask(10, Buffer.concat([words([8, offset], [4, 7], [4, hex(data).length]), hex(data)]));
  t.equal((await read(0, CONFIG_SIZE)).length, CONFIG_SIZE);
  t.same(await read(0, 4), hex('5e4e0100'));
  await read(0x30, 4);
  t.same((await write(0x30, '00f8ffff')).body, hex('3000000000000000 07000000 04000000'));
  await read(0x30, 4);
  await write(0x30, '00000000');
  device.take();

  // INTx with KVM's irqfd: mask, trigger, unmask by eventfd, unmask. Then the error interrupt.
  const irq = (flags: number, index: number, start: number, count: number) =>
    words([4, 20], [4, flags], [4, index], [4, start], [4, count]);
  const fds = Array.from({ length: 9 }, () => eventfd(t));
  await ask(8, irq(0x24, 0, 0, 1), [fds[0]]);
  await ask(8, irq(0x09, 0, 0, 1));
  await ask(8, irq(0x14, 0, 0, 1), [fds[1]]);
  await ask(8, irq(0x11, 0, 0, 1));
  await ask(8, irq(0x24, 3, 0, 1), [fds[2]]);
  // A reset of the machine.
  await ask(8, irq(0x21, 0, 0, 0));
  await write(4, '0000');
  await ask(13, hex(''));
  for (let bar = 0x10; bar < 0x28; bar += 4) await write(bar, '00000000');
  await ask(8, irq(0x24, 0, 0, 1), [fds[0]]);
  t.same(
    device.take().map(([name]) => name),
    [
      'setIrqEventfds',
      'maskIrqs',
      'setIrqUnmaskEventfd',
      'maskIrqs',
      'setIrqEventfds',
      'disableIrqs',
      'regionWrite',
      'reset',
      ...Array(6).fill('regionWrite'),
      'setIrqEventfds',
    ],
  );

  // MSI-X: on with no vector in use, then in pieces that have all descriptors or none.
  await ask(8, irq(0x21, 0, 0, 0));
  await ask(8, irq(0x24, 2, 0, 1));
  await ask(8, irq(0x24, 2, 0, 8), fds.slice(0, 8));
  await ask(8, irq(0x24, 2, 8, 1));
  await ask(8, irq(0x24, 2, 9, 1), [fds[8]]);
  t.match(device.take(), [
    ['disableIrqs', 0],
    ['setIrqEventfds', 2, 0, [false]],
    ['setIrqEventfds', 2, 0, Array(8).fill(true)],
    ['setIrqEventfds', 2, 8, [false]],
    ['setIrqEventfds', 2, 9, [true]],
  ]);
  await ask(8, irq(0x21, 2, 0, 0));

  // Posted writes, one and several; a read finds them done.
  const one = Buffer.concat([words([8, 0x14], [4, 0], [4, 4]), hex('01006000')]);
  peer.send(message(10, one, 0x10));
  const entry = (offset: number, data: string) =>
    Buffer.concat([words([8, offset], [4, 0], [4, 4]), hex(data), Buffer.alloc(4)]);
  const several = Buffer.concat([
    words([8, 2]),
    entry(0x1000, '05000000'),
    entry(0x1004, '06000000'),
  ]);
  peer.send(message(15, several, 0x10));
  const bar = await ask(9, words([8, 0x1000], [4, 0], [4, 8]), [], 24);
  t.same(bar.body.subarray(16), hex('0500000006000000'));

  // The firmware makes a ROM writable: one range is replaced by another.
  const rom = hex('18000000 00000000 00000c0000000000 0000020000000000');
  t.same((await ask(3, rom)).body, rom);
  await ask(2, hex('20000000 03000000 0000000000000000 00000c0000000000 0000020000000000'));
  const everything = hex('18000000 02000000 0000000000000000 0000000000000000');
  const unmapped = hex('18000000 02000000 0000000000000000 00000d0000000000');
  t.same((await ask(3, everything)).body, unmapped, 'with the bytes that went');
  t.match(device.take().slice(-1), [['dmaUnmap', 0, 2 ** 64]]);
  peer.close();
  await gone(1);
  t.same(device.fds.size, 0);
});

t.test("SPDK's host library", async (t) => {
  const { path, device } = startServer(t);
  const socket = new BlockingSocket(t, path);
  /** A header, then one read for the rest: it has to be there, since the library does not loop. */
  const call = async (request: Buffer, fds: number[] = []) => {
    socket.send(request, fds);
    const header = await socket.receive(16);
    assert.equal(header.length, 16);
    assert.equal(header.readUInt32LE(8), 1, 'a reply without error');
    assert.equal(header.readUInt16LE(2), request.readUInt16LE(2));
    const received = socket.fds;
    socket.fds = [];
    const size = header.readUInt32LE(4) - 16;
    assert.ok(size <= 4096, 'its buffer has 4096 bytes');
    const body = size === 0 ? hex('') : socket.receiveNow(size);
    assert.equal(body.length, size, 'one read gives the whole body');
    return { body, fds: received };
  };

  // VERSION 0.1 without JSON; the message id is always 0.
  const version = await call(hex('0000 0100 14000000 00000000 00000000 0000 0100'));
  t.same(version.body.subarray(0, 4), hex('0000 0100'));
  t.match(JSON.parse(version.body.subarray(4, -1).toString()), {
    capabilities: { max_msg_fds: 8 },
  });

  const info = await call(
    hex('0000 0400 20000000 00000000 00000000 10000000 00000000 00000000 00000000'),
  );
  t.same(info.body, hex('10000000 03000000 09000000 05000000'));

  // All regions, with 4064 bytes out, of which the first three words count.
  for (let index = 0; index < 9; index++) {
    const body = Buffer.alloc(4064);
    body.writeUInt32LE(4064, 0);
    body.writeUInt32LE(index, 8);
    const reply = await call(Buffer.concat([hex('0000 0500 f00f0000 00000000 00000000'), body]));
    if (index !== 0) {
      t.equal(reply.body.length, 32);
      t.same(reply.fds, []);
      continue;
    }
    t.same(
      reply.body,
      Buffer.concat([
        words([4, 64], [4, 15], [4, 0], [4, 32], [8, BAR0_SIZE], [8, 0]),
        words([2, 1], [2, 1], [4, 0], [4, 1], [4, 0], [8, 0x1000], [8, 0x1000]),
      ]),
    );
    t.equal(reply.fds.length, 1, 'a descriptor for the one area');
    t.equal(fstatSync(reply.fds[0]).ino, fstatSync(device.bar0Fd).ino);
    device.fds.set('given', reply.fds[0]);
  }

  // Memory under its own virtual address; unmapping sends the descriptor once more.
  const memory = memfd(t, 0x200000);
  const mapped = hex('20000000 03000000 0000000000000000 0000200000200000 0000200000000000');
  t.equal(
    (await call(Buffer.concat([hex('0000 0200 30000000 00000000 00000000'), mapped]), [memory]))
      .body.length,
    0,
  );
  t.match(device.take().slice(-1), [['dmaMap', { iova: 0x200000200000, size: 0x200000 }, true]]);

  // Configuration: CMD |= 0x404. Registers of 4 and 8 bytes.
  const command = await call(
    hex('0000 0900 20000000 00000000 00000000 0400000000000000 07000000 02000000'),
  );
  t.same(command.body, hex('0400000000000000 07000000 02000000 0000'));
  const written = await call(
    hex('0000 0a00 22000000 00000000 00000000 0400000000000000 07000000 02000000 0404'),
  );
  t.same(written.body, hex('0400000000000000 07000000 02000000'));
  const cap = await call(
    hex('0000 0900 20000000 00000000 00000000 0000000000000000 00000000 08000000'),
  );
  t.equal(cap.body.length, 24);

  const unmapped = hex('18000000 00000000 0000200000200000 0000200000000000');
  const gone = await call(Buffer.concat([hex('0000 0300 28000000 00000000 00000000'), unmapped]), [
    memory,
  ]);
  t.same(gone.body, unmapped);
  t.match(device.take().slice(-1), [['dmaUnmap', 0x200000200000, 0x200000]]);
});

t.test('Cloud Hypervisor', async (t) => {
  const { path, device } = startServer(t);
  const socket = new BlockingSocket(t, path);
  let id = 0;
  /** It reads the structure it expects, whatever the reply's flags say: a bare error header would leave it waiting. */
  const call = async (command: number, body: Buffer, expects: number, fds: number[] = []) => {
    const header = words([2, id++], [2, command], [4, 16 + body.length], [4, 0], [4, 0]);
    socket.send(Buffer.concat([header, body]), fds);
    const reply = await socket.readExact(16 + expects);
    assert.equal(reply.readUInt32LE(8), 1, 'no error');
    return { size: reply.readUInt32LE(4), body: reply.subarray(16) };
  };

  const caps =
    '{"capabilities":{"max_msg_fds":1,"max_data_xfer_size":1048576,"migration":{"pgsize":4096}}}\0';
  const version = await call(1, Buffer.concat([hex('0000 0100'), Buffer.from(caps)]), 4);
  t.same(version.body, hex('0000 0100'));
  const json = await socket.readExact(version.size - 20);
  t.equal(json.at(-1), 0);
  t.type(JSON.parse(json.subarray(0, -1).toString()).capabilities, 'object');

  // argsz counts the header too.
  const info = await call(4, hex('20000000 00000000 00000000 00000000'), 16);
  t.same(info.body, hex('10000000 03000000 09000000 05000000'));

  for (let index = 0; index < 9; index++) {
    const ask = (argsz: number) => words([4, argsz], [4, 0], [4, index], [4, 0], [8, 0], [8, 0]);
    const first = await call(5, ask(32), 32);
    const argsz = first.body.readUInt32LE(0);
    if (argsz === 32) {
      t.equal(first.size, 48);
      continue;
    }
    t.equal(index, 0);
    id -= 1; // the second request has the first one's id
    const second = await call(5, ask(argsz), 32);
    t.equal(socket.fds.length, 1, 'with the first bytes');
    t.equal(second.body.readUInt32LE(0) - 32, second.size - 48, 'capabilities fill the message');
    const capability = await socket.readExact(second.size - 48);
    t.equal(second.body.readUInt32LE(12), 32, 'they start behind the structure');
    t.same(capability, words([2, 1], [2, 1], [4, 0], [4, 1], [4, 0], [8, 0x1000], [8, 0x1000]));
  }

  // Walks the capabilities, one, two, four bytes at a time, and reads a BAR that does not exist.
  for (const [region, offset, count] of [
    [7, 0x34, 1],
    [7, 0x06, 2],
    [7, 0, 4],
    [2, 0, 4],
  ]) {
    const read = await call(9, words([8, offset], [4, region], [4, count]), 16 + count);
    t.equal(read.size, 32 + count);
  }
  for (const index of [1, 2, 0]) {
    const irqs = await call(7, words([4, 16], [4, 0], [4, index], [4, 0]), 16);
    t.equal(irqs.body.readUInt32LE(12), [1, 0, 20][index]);
  }

  const ram = memfd(t, 0x10000);
  await call(2, hex('20000000 03000000 0000000000000000 0000000000000000 0000010000000000'), 0, [
    ram,
  ]);
  for (const offset of [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30]) {
    await call(10, Buffer.concat([words([8, offset], [4, 7], [4, 4]), hex('ffffffff')]), 16);
  }
  device.take();

  // 16 descriptors in one message, in spite of what it was told; the second batch has the rest.
  const fds = Array.from({ length: 20 }, () => eventfd(t));
  const irq = (flags: number, index: number, start: number, count: number) =>
    words([4, 20], [4, flags], [4, index], [4, start], [4, count]);
  await call(8, irq(0x24, 2, 0, 16), 0, fds.slice(0, 16));
  await call(8, irq(0x24, 2, 16, 4), 0, fds.slice(16));
  await call(8, irq(0x11, 0, 0, 1), 0);
  await call(8, irq(0x21, 2, 0, 0), 0);
  t.match(device.take(), [
    ['setIrqEventfds', 2, 0, Array(16).fill(true)],
    ['setIrqEventfds', 2, 16, Array(4).fill(true)],
    ['maskIrqs', 0, 0, [true], false],
    ['disableIrqs', 2],
  ]);

  await call(13, hex(''), 0);
  const unmap = hex('18000000 00000000 0000000000000000 0000010000000000');
  t.same((await call(3, unmap, 24)).body, unmap);
  t.same(device.take(), [['reset'], ['dmaUnmap', 0, 0x10000]]);
});
