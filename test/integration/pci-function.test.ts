/** Devices of other programs, through `doorbell-nvme/vfio-user`: what a client sees of them, and what they see of it. */
import { closeSync } from 'node:fs';
import t, { type Test } from 'tap';
import { VfioClient } from '../../src/client/vfio.ts';
import {
  type Client,
  type PciDefinition,
  PciFunction,
  RegionMemory,
  serve,
} from '../../src/library/vfio-user.ts';
import { native } from '../../src/native/index.ts';
import { IrqSetAction, IrqSetData, PciIrq, PciRegion } from '../../src/spec/vfio-user.ts';
import { Caller, eventfd, memfd, socketPath, words } from '../helpers/vfio.ts';

const IDENTITY = { vendorId: 0x1234, deviceId: 0x5678, classCode: 0xff };
type Word = readonly [1 | 2 | 4 | 8, number | bigint];
const UNMASK = IrqSetData.NONE | IrqSetAction.UNMASK;
const MASK = IrqSetData.NONE | IrqSetAction.MASK;

/** A device on a socket; `pci` is that of the last client. */
function start(
  t: Test,
  definition: Omit<PciDefinition, 'identity' | 'bars'> & { bars?: PciDefinition['bars'] },
) {
  const made: { pci?: PciFunction; client?: Client } = {};
  const server = serve({
    path: socketPath(t),
    accept: (client) => {
      made.client = client;
      made.pci = new PciFunction(client, { identity: IDENTITY, bars: [], ...definition });
      return made.pci;
    },
  });
  t.teardown(() => server.close());
  const join = async () => {
    const client = VfioClient.connect(server.path);
    t.teardown(() => client.close());
    await client.version();
    return client;
  };
  return { server, made, join, pci: () => made.pci! };
}

t.test('the pin: its level, and who masks it', async (t) => {
  const { join, pci } = start(t, { interrupts: { intx: true }, conventional: true });
  const client = await join();
  const fd = eventfd(t);
  const heard = () => native.eventfdRead(fd);
  pci().irq.assert();
  await client.connectIrqs(PciIrq.INTX, 0, [fd]);
  t.equal(heard(), 1, 'asserted before it was connected');
  pci().irq.assert();
  t.equal(heard(), 0, 'it did not rise');
  await client.setIrqs(PciIrq.INTX, UNMASK, 0, 1);
  t.equal(heard(), 1, 'unmasked, and still asserted');
  pci().irq.deassert();
  await client.setIrqs(PciIrq.INTX, UNMASK, 0, 1);
  t.equal(heard(), 0);
  await client.setIrqs(PciIrq.INTX, MASK, 0, 1);
  pci().irq.assert();
  t.equal(heard(), 0, 'masked');
  await client.setIrqs(PciIrq.INTX, UNMASK, 0, 1);
  t.equal(heard(), 1);
  const command = (bits: number) => client.regionWrite(PciRegion.CONFIG, 4, words([2, bits]));
  await command(0x400);
  pci().irq.deassert();
  pci().irq.assert();
  t.equal(heard(), 0, 'disabled by the command register');
  const status = async () => (await client.regionRead(PciRegion.CONFIG, 6, 1))[0];
  t.equal((await status()) & 8, 8, 'which status tells all the same');
  await command(0);
  t.equal(heard(), 1);
  await client.reset();
  t.notOk(pci().irq.asserted);
  t.equal((await status()) & 8, 0);
  t.notOk(pci().irq.signal(0), 'no MSI');
  t.equal(heard(), 0);

  const resample = eventfd(t);
  await client.setIrqs(PciIrq.INTX, IrqSetData.EVENTFD | IrqSetAction.UNMASK, 0, 1, [resample]);
  pci().irq.assert();
  t.equal(heard(), 1);
  native.eventfdSignal(resample);
  while (heard() === 0) await new Promise((resolve) => setImmediate(resolve));
  t.pass('raised again when the client says that it was handled');
});

t.test('MSI, MSI-X', async (t) => {
  const { join, pci } = start(t, {
    interrupts: {
      intx: true,
      msi: 4,
      msix: { vectors: 3, bar: 4, tableOffset: 0, pbaOffset: 0x800 },
    },
    bars: [
      {
        index: 4,
        size: 0x1000,
        read: (_offset, into) => {
          into.fill(0x5a);
        },
      },
    ],
  });
  const client = await join();
  t.equal((await client.irqInfo(PciIrq.MSI)).count, 4);
  t.equal((await client.irqInfo(PciIrq.MSIX)).count, 3);
  const [pin, a, b] = [eventfd(t), eventfd(t), eventfd(t)];
  await client.connectIrqs(PciIrq.INTX, 0, [pin]);
  t.notOk(pci().irq.usesMessages);
  await client.connectIrqs(PciIrq.MSI, 0, [a, b]);
  t.ok(pci().irq.usesMessages);
  pci().irq.assert();
  t.equal(native.eventfdRead(pin), 0, 'not while messages are used');
  t.ok(pci().irq.signal(1));
  t.ok(pci().irq.signal(3));
  t.strictSame(
    [a, b].map((fd) => native.eventfdRead(fd)),
    [0, 2],
  );
  await client.disableIrqs(PciIrq.MSI);
  t.equal(native.eventfdRead(pin), 1, 'the pin is still asserted, and heard now');
  await client.connectIrqs(PciIrq.MSIX, 2, [a]);
  t.notOk(pci().irq.signal(0), 'not connected');
  t.ok(pci().irq.signal(2));
  t.equal(native.eventfdRead(a), 1);
  t.notOk(pci().irq.signal(3), 'there is none');
  const entry = words([4, 0xfee0_0000], [4, 0], [4, 0x41], [4, 0]);
  await client.regionWrite(4, 0x10, entry);
  t.strictSame(Buffer.from(await client.regionRead(4, 0x10, 16)), entry, 'the table is memory');
  await client.regionWrite(4, 0x800, words([8, 1]));
  t.strictSame(Buffer.from(await client.regionRead(4, 0x800, 8)), words([8, 0]), 'pending bits');
  t.equal((await client.regionRead(4, 0x100, 1))[0], 0x5a, 'the rest of the BAR is the device’s');
});

t.test('regions: trapped, by promise, mapped in part', async (t) => {
  const memory = new RegionMemory(0x4000);
  t.teardown(() => memory.close());
  const written: [number, string][] = [];
  const later = () => new Promise<void>((resolve) => setTimeout(resolve, 5));
  const { join } = start(t, {
    bars: [
      {
        index: 0,
        size: 256,
        kind: 'io',
        read: async (offset, into) => {
          await later();
          into.fill(offset);
        },
        write: async (offset, data) => {
          await later();
          written.push([offset, Buffer.from(data).toString('hex')]);
        },
      },
      {
        index: 2,
        size: 0x4000,
        kind: 'memory64',
        mmap: memory.map([{ offset: 0x1000, size: 0x2000 }]),
      },
      { index: 4, size: 0x4000, mmap: memory.map() },
    ],
  });
  const client = await join();
  const [read] = await Promise.all([
    client.regionRead(0, 7, 2),
    client.regionWrite(0, 1, Uint8Array.of(0xab)),
    client.regionWrite(0, 2, Uint8Array.of(0xcd, 0xef)),
  ]);
  t.strictSame([...read], [7, 7]);
  t.strictSame(
    written,
    [
      [1, 'ab'],
      [2, 'cdef'],
    ],
    'in order',
  );
  const sparse = await client.regionInfo(2);
  t.strictSame(sparse.areas, [{ offset: 0x1000, size: 0x2000 }]);
  const whole = await client.regionInfo(4);
  t.strictSame(whole.areas, []);
  const view = new Uint8Array(native.mapFile(whole.fd!, 0, 0x4000, true));
  view[5] = 42;
  t.equal(memory.bytes[5], 42, 'the client writes, the device sees it');
  closeSync(sparse.fd!);
  closeSync(whole.fd!);
  const bar = new DataView((await client.regionRead(PciRegion.CONFIG, 0x10, 24)).slice().buffer);
  t.equal(bar.getUint32(0, true), 1, 'ports');
  t.equal(bar.getUint32(8, true), 4, '64 bits');
});

t.test('a callback that throws is the client’s error, and nobody else’s', async (t) => {
  const { join } = start(t, {
    bars: [
      {
        index: 0,
        size: 16,
        read: () => {
          throw new Error('broken');
        },
        write: async () => {
          throw Object.assign(new Error('no'), { errno: 22 });
        },
      },
    ],
  });
  const client = await join();
  await t.rejects(client.regionRead(0, 0, 4), { code: 'EIO' });
  await t.rejects(client.regionWrite(0, 0, Uint8Array.of(1)), { code: 'EINVAL' });
  t.equal((await client.regionRead(PciRegion.CONFIG, 0, 2))[0], 0x34, 'and it goes on');
});

t.test('DMA into memory that is shared', async (t) => {
  const { join, pci } = start(t, {});
  const client = await join();
  const fd = memfd(t, 0x3000);
  const memory = new Uint8Array(native.mapFile(fd, 0, 0x3000, true));
  await client.dmaMap({ iova: 0x10000, size: 0x1000, fd });
  await client.dmaMap({ iova: 0x11000, size: 0x1000, fd, offset: 0x1000 });
  await client.dmaMap({ iova: 0x12000, size: 0x1000, fd, offset: 0x2000, writable: false });
  const { dma } = pci();
  await dma.write(0x10ffe, Uint8Array.of(1, 2, 3, 4));
  t.strictSame([...memory.subarray(0xffe, 0x1002)], [1, 2, 3, 4], 'across regions');
  const into = new Uint8Array(4);
  await dma.read(0x10ffe, into);
  t.strictSame([...into], [1, 2, 3, 4]);
  await t.rejects(dma.write(0x11ffe, new Uint8Array(4).fill(7)), { code: 'EPERM' });
  t.equal(memory[0x1ffe], 0, 'not even the part that may be written');
  await t.rejects(dma.read(0x12ffe, into), { code: 'EFAULT' });
  await t.rejects(dma.read(0xffff, into), { code: 'EFAULT' });
  t.throws(() => dma.map(0x12000, 16), { code: 'EPERM' });
  t.throws(() => dma.map(0x10ff8, 16), { code: 'EFAULT' }, 'in one region');

  const view = dma.map(0x11010, 16);
  view.bytes[0] = 99;
  t.equal(memory[0x1010], 99);
  const old = view.bytes;
  await client.dmaUnmap(0x11000, 0x1000);
  t.notOk(view.valid);
  t.throws(() => view.bytes, { code: 'EFAULT' });
  old[0] = 1;
  t.equal(memory[0x1010], 99, 'what outlives the mapping reaches nothing');
  await client.dmaMap({ iova: 0x11000, size: 0x1000, fd, offset: 0x1000 });
  t.notOk(view.valid, 'nor does another mapping bring it back');
});

t.test('DMA by messages, where memory came without a descriptor', async (t) => {
  const { server, pci } = start(t, {});
  const caller = await Caller.join(t, server.path);
  const map = words([4, 32], [4, 3], [8, 0], [8, 0x8000], [8, 0x2000]);
  await caller.call(2, map);
  const into = new Uint8Array(4);
  const read = pci().dma.read(0x8ffe, into);
  const { header, payload } = await caller.peer.next();
  t.equal(header.command, 11);
  t.strictSame(Buffer.from(payload), words([8, 0x8ffe], [8, 4]));
  const aborted = t.rejects(read, { code: 'ECANCELED' }, 'a reset gives it up');
  await caller.call(13, new Uint8Array(0));
  await aborted;
  const again = pci().dma.read(0x8ffe, into);
  const second = await caller.peer.next();
  t.not(second.header.messageId, header.messageId, 'the old id may still be answered');
  const reply = (to: number, byte: number) => {
    const body = Buffer.concat([words([8, 0x8ffe], [8, 4]), Buffer.alloc(4, byte)]);
    const head = words([2, to], [2, 11], [4, 16 + body.length], [4, 1], [4, 0]);
    caller.peer.send(Buffer.concat([head, body]));
  };
  reply(header.messageId, 0xee);
  reply(second.header.messageId, 0x11);
  await again;
  t.strictSame([...into], [0x11, 0x11, 0x11, 0x11]);
  const lost = pci().dma.read(0x8000, into);
  const taken = t.rejects(lost, { code: 'ECANCELED' }, 'an unmap waits for no message');
  await caller.peer.next();
  await caller.call(3, words([4, 24], [4, 0], [8, 0x8000], [8, 0x2000]));
  await taken;
  await t.rejects(pci().dma.read(0x8000, into), { code: 'EFAULT' });
});

t.test('files of newer clients: may be mapped, or only be read and written', async (t) => {
  const { join, pci } = start(t, {});
  const client = await join();
  const fd = memfd(t, 0x2000);
  const map = (iova: number, flags: number) =>
    client.request(2, words([4, 32], [4, flags], [8, 0], [8, iova], [8, 0x1000]), [fd]);
  await map(0x1000, 0xf);
  await map(0x4000, 0xb);
  t.ok(pci().dma.map(0x1000, 16).valid);
  t.throws(() => pci().dma.map(0x4000, 16), { code: 'EFAULT' });
  t.equal(pci().memory.unsharedBytes, 0x1000);
});

t.test('which pages were written', async (t) => {
  const { join, pci } = start(t, {});
  const client = await join();
  const fd = memfd(t, 0x10000);
  await client.dmaMap({ iova: 0x100000, size: 0x10000, fd });
  const [START, STOP, REPORT] = [0x20006, 0x20007, 0x10008];
  const feature = async (flags: number, ...rest: Word[]) => {
    const body = words(...rest);
    const { payload } = await client.request(16, Buffer.concat([words([4, 64], [4, flags]), body]));
    return payload;
  };
  const report = async () => {
    const payload = await feature(REPORT, [8, 0x100000], [8, 0x10000], [8, 4096]);
    t.equal(payload.length, 40);
    return Buffer.from(payload).readUInt16LE(32);
  };
  const control = [
    [8, 4096],
    [4, 0],
    [4, 0],
  ] as const;
  await pci().dma.write(0x100000, Uint8Array.of(1));
  t.equal(await report(), 0, 'nothing is logged yet');
  await feature(0x60006, ...control);
  await feature(START, ...control);
  t.equal(await report(), 0);
  await pci().dma.write(0x101fff, Uint8Array.of(1, 2));
  await pci().dma.read(0x105000, new Uint8Array(5));
  t.equal(await report(), 0b110);
  t.equal(await report(), 0, 'told once');
  const view = pci().dma.map(0x108000, 0x2000);
  t.equal(await report(), 0x300, 'what is in view may be written');
  t.equal(await report(), 0x300, 'at any time');
  t.ok(view.valid);
  await feature(STOP);
  t.equal(await report(), 0);
  const refused = async (code: string, flags: number, ...rest: Word[]) =>
    t.rejects(feature(flags, ...rest), { code }, flags.toString(16));
  await refused('EINVAL', START, [8, 8192], [8, 0]);
  await refused('EINVAL', START);
  await refused('EINVAL', 0x10006, ...control);
  await refused('EINVAL', 0x00006, ...control);
  await refused('EINVAL', REPORT, [8, 0x100001], [8, 4096], [8, 4096]);
  await refused('EINVAL', REPORT, [8, 0], [8, 0], [8, 4096]);
  await refused('EINVAL', REPORT, [8, 0], [8, 2 ** 40], [8, 4096]);
  await refused('EINVAL', REPORT, [8, 0], [8, 2n ** 63n], [8, 4096]);
  await refused('ENOTSUP', 0x20002, [4, 2], [4, 0]);
});

t.test('a client that answers no message holds up nobody else', async (t) => {
  const silent = start(t, {});
  const other = start(t, {});
  const caller = await Caller.join(t, silent.server.path);
  await caller.call(2, words([4, 32], [4, 3], [8, 0], [8, 0], [8, 0x100_0000]));
  const lost = Array.from({ length: 600 }, () =>
    silent
      .pci()
      .dma.read(0, new Uint8Array(2 ** 18))
      .catch((error) => error.code),
  );
  const client = await other.join();
  const fd = memfd(t, 0x1000);
  await client.dmaMap({ iova: 0, size: 0x1000, fd });
  const into = new Uint8Array(16);
  await other.pci().dma.read(0, into);
  t.equal((await client.regionRead(PciRegion.CONFIG, 0, 2))[0], 0x34);
  caller.peer.close();
  const codes = new Set(await Promise.all(lost));
  t.strictSame(codes, new Set(['ECANCELED', 'ENOBUFS']), 'its end gives up what it left');
});

t.test('function level reset, and the end of a client', async (t) => {
  const events: string[] = [];
  const { join, pci, made } = start(t, {
    bars: [{ index: 0, size: 16 }],
    capabilities: [{ bytes: Uint8Array.of(9, 0, 4, 0), writable: Uint8Array.of(0, 0, 0, 0xff) }],
    on: {
      reset: () => {
        events.push('reset');
      },
      configWritten: (offset, data) => {
        events.push(`config ${offset}+${data.length}`);
      },
      gone: () => {
        events.push('gone');
      },
    },
  });
  const client = await join();
  const own = 0xbc;
  await client.regionWrite(PciRegion.CONFIG, own + 3, Uint8Array.of(0x77));
  t.equal((await client.regionRead(PciRegion.CONFIG, own + 3, 1))[0], 0x77);
  await client.regionWrite(PciRegion.CONFIG, 4, words([2, 6]));
  t.ok(pci().isBusMaster);
  await client.regionWrite(PciRegion.CONFIG, 0x88, words([2, 0x8000]));
  t.notOk(pci().isBusMaster);
  t.strictSame(events.splice(0), [`config ${own + 3}+1`, 'config 4+2', 'reset']);
  const first = made.pci;
  client.close();
  const next = await join();
  t.equal((await next.regionRead(PciRegion.CONFIG, 0, 2))[0], 0x34);
  t.strictSame(events, ['gone']);
  t.not(made.pci, first, 'each client has a function of its own');
});

t.test('several devices in one process, and sockets passed to it', async (t) => {
  const [ours, theirs] = native.socketPair();
  let exhausted = false;
  const server = serve({
    fd: ours,
    accept: (client) =>
      new PciFunction(client, { identity: { vendorId: 1, deviceId: 2 }, bars: [] }),
    onExhausted: () => {
      exhausted = true;
    },
  });
  t.teardown(() => server.close());
  const other = start(t, {});
  const a = new VfioClient(theirs);
  const [b] = await Promise.all([other.join(), a.version()]);
  t.strictSame([...(await a.regionRead(PciRegion.CONFIG, 0, 4))], [1, 0, 2, 0]);
  t.strictSame([...(await b.regionRead(PciRegion.CONFIG, 0, 2))], [0x34, 0x12]);
  a.close();
  while (!exhausted) await new Promise((resolve) => setTimeout(resolve, 1));
  t.equal((await b.regionRead(PciRegion.CONFIG, 0, 1)).length, 1, 'the other is still there');
  t.throws(
    () =>
      serve({
        accept: () => {
          throw new Error('never');
        },
      }),
    TypeError,
  );
});
