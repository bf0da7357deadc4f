/** The controller's registers and its life: enabling, disabling, what cannot be enabled, shutdown. NVMe Base 2.0 §3.1.3, §3.5, §3.6. */
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { AdminOpcode, Cns } from '../../src/spec/admin.ts';
import { CQE_SHIFT, SQE_SHIFT } from '../../src/spec/nvme.ts';
import { Cc, CommandSets, Csts, Register, Shst } from '../../src/spec/registers.ts';
import { PciRegion } from '../../src/spec/vfio-user.ts';
import { onlyOurs, startTarget } from '../helpers/any-target.ts';
import { MIB } from '../helpers/target.ts';

const { offset } = Register;
const ENTRY_SIZES = Cc.encode({ iosqes: SQE_SHIFT, iocqes: CQE_SHIFT });
const PAGE = 4096;

async function start(t: Test, maxQueueDepth = 4096): Promise<NvmeClient> {
  const target = await startTarget(t, { transport: { maxQueueDepth } });
  return target.connect(await target.serve(await target.malloc(MIB)));
}

const read = (client: NvmeClient, at: number, count: number) =>
  client.vfio.regionRead(PciRegion.BAR0, at, count);

const write = (client: NvmeClient, at: number, ...data: number[]) =>
  client.vfio.regionWrite(PciRegion.BAR0, at, Uint8Array.from(data));

const hex = (data: Uint8Array) => Buffer.from(data).toString('hex');

async function works(client: NvmeClient): Promise<boolean> {
  const { vid } = await client.identifyController();
  return vid === 0x4e58;
}

/** CSTS once the controller has dealt with CC.EN: ready, or failed. */
async function enabledOrFailed(client: NvmeClient): Promise<number> {
  for (;;) {
    const csts = await client.readRegister(offset.csts);
    if ((csts & (Csts.mask.rdy | Csts.mask.cfs)) !== 0) {
      return csts;
    }
  }
}

t.test('capabilities and version', async (t) => {
  const client = await start(t);
  // MQES 4095, CQR, TO 30 s, DSTRD 0, NSSRS; CSS NVM and IOCSS, MPSMIN and MPSMAX 0, CRMS.CRWMS.
  t.equal(hex(await read(client, offset.cap, 8)), 'ff0f013c30080008');
  t.equal(await client.readRegister(offset.vs), 0x0002_0000);
  t.equal(await client.readRegister(offset.crto), 60);
  t.equal(await client.readRegister(offset.cmbloc), 0);
  t.equal(await client.readRegister(offset.cmbsz), 0);
  t.equal(client.maxQueueEntries, 4096);
});

t.test('the transport bounds the queues', { skip: onlyOurs }, async (t) => {
  const client = await start(t, 100);
  t.equal(client.maxQueueEntries, 100);
});

t.test('registers are read at any offset and width', async (t) => {
  const client = await start(t);
  t.equal(hex(await read(client, 0, 1)), 'ff');
  t.equal(hex(await read(client, 1, 2)), '0f01');
  t.equal(hex(await read(client, 3, 8)), '3c30080008000002');
  t.equal(hex(await read(client, 0xfc, 8)), '0000000000000000');
  const all = await read(client, 0, PAGE);
  t.equal(hex(all.subarray(0, 8)), 'ff0f013c30080008');
  t.ok(all.subarray(0x100).every((byte) => byte === 0));
  // Doorbells are write only.
  t.ok((await read(client, PAGE, 2 * PAGE)).every((byte) => byte === 0));
});

t.test('registers are written by dword or qword, and only those that can be', async (t) => {
  const client = await start(t);
  await client.disable();
  await write(client, offset.asq, 0, 0x10, 0, 0, 1, 0, 0, 0);
  t.equal(hex(await read(client, offset.asq, 8)), '0010000001000000');
  await write(client, offset.acq, 0xff, 0xff, 0xff, 0xff);
  await write(client, offset.acq + 4, 0xff, 0xff, 0xff, 0xff);
  t.equal(hex(await read(client, offset.acq, 8)), '00f0ffffffffffff', 'page aligned');
  await client.writeRegister(offset.aqa, 0xffff_ffff);
  t.equal(await client.readRegister(offset.aqa), 0x0fff_0fff, 'reserved bits stay 0');
  for (const data of [[0x55], [0x55, 0x55], [0x55, 0x55, 0x55], [1, 2, 3, 4, 5]]) {
    await write(client, offset.aqa, ...data);
    await write(client, offset.aqa + 2, ...data);
  }
  await write(client, offset.aqa + 2, 1, 2, 3, 4);
  t.equal(await client.readRegister(offset.aqa), 0x0fff_0fff, 'other widths have no effect');
  const before = hex(await read(client, 0, offset.intms));
  await write(client, 0, ...new Array(12).fill(0x55));
  await write(client, offset.csts, 0xff, 0xff, 0xff, 0xff);
  await write(client, offset.nssr, ...Buffer.from('NVMe'));
  await write(client, offset.cmbloc, 0xff, 0xff, 0xff, 0xff);
  t.equal(hex(await read(client, 0, offset.intms)), before, 'CAP and VS');
  t.equal(await client.readRegister(offset.csts), 0);
  t.equal(await client.readRegister(offset.cmbloc), 0);
  await client.enable();
  const { asq, aqa } = offset;
  const queues = hex(await read(client, aqa, 20));
  await client.writeRegister(aqa, 0);
  await write(client, asq, ...new Array(16).fill(0));
  t.equal(hex(await read(client, aqa, 20)), queues, 'the admin queue is settled while enabled');
  t.ok(await works(client));
});

t.test('INTMS sets bits of the mask, INTMC clears them, both read it', async (t) => {
  const client = await start(t);
  await client.writeRegister(offset.intms, 0x8000_000f);
  await client.writeRegister(offset.intms, 0x10);
  t.equal(await client.readRegister(offset.intms), 0x8000_001f);
  await client.writeRegister(offset.intmc, 0x8000_0003);
  t.equal(await client.readRegister(offset.intmc), 0x1c);
  t.equal(await client.readRegister(offset.intms), 0x1c);
  await client.disable();
  t.equal(await client.readRegister(offset.intms), 0, 'a controller reset unmasks all');
});

t.test('disable and enable, over and over', async (t) => {
  const client = await start(t);
  for (let i = 0; i < 20; i++) {
    await client.disable();
    t.equal(await client.readRegister(offset.csts), 0);
    t.equal(await client.readRegister(offset.cc), 0);
    await client.enable();
    t.ok(await works(client));
  }
});

t.test('CC.EN toggled without waiting for CSTS.RDY', async (t) => {
  const client = await start(t);
  for (let i = 0; i < 50; i++) {
    const toggles = Array.from(
      { length: 2 + (i % 5) },
      (_, n) => (n % 2) * (Cc.mask.en | ENTRY_SIZES),
    );
    await Promise.all(toggles.map((cc) => client.writeRegister(offset.cc, cc)));
    await client.enable();
    t.ok(await works(client));
  }
});

t.test('all command sets that are supported: NVM', async (t) => {
  const client = await start(t);
  await client.disable();
  client.admin.reset();
  const cc = Cc.encode({ en: true, css: CommandSets.ALL, iosqes: SQE_SHIFT, iocqes: CQE_SHIFT });
  await client.writeRegister(offset.cc, cc);
  t.equal(await enabledOrFailed(client), Csts.mask.rdy);
  t.ok(await works(client));
});

t.test('settings that CAP does not offer are fatal until they are mended', async (t) => {
  const client = await start(t);
  const bad = {
    'MPS 8 KiB': Cc.encode({ mps: 1 }),
    'MPS 128 MiB': Cc.encode({ mps: 15 }),
    'a command set that is not there': Cc.encode({ css: 1 }),
    'the admin command set only': Cc.encode({ css: 7 }),
    'weighted round robin': Cc.encode({ ams: 1 }),
    'a vendor arbitration': Cc.encode({ ams: 7 }),
  };
  for (const [name, bits] of Object.entries(bad)) {
    await client.disable();
    await client.writeRegister(offset.cc, Cc.mask.en | ENTRY_SIZES | bits);
    t.equal(await enabledOrFailed(client), Csts.mask.cfs, name);
  }
  for (const [sqes, cqes] of [
    [5, 4],
    [7, 4],
    [6, 3],
    [6, 5],
    [15, 15],
  ]) {
    await client.disable();
    const sizes = Cc.encode({ iosqes: sqes, iocqes: cqes });
    await client.writeRegister(offset.cc, Cc.mask.en | sizes);
    t.equal(
      await enabledOrFailed(client),
      Csts.mask.cfs,
      `entries of 2^${sqes} and 2^${cqes} bytes`,
    );
  }
  await client.enable();
  t.equal(await client.readRegister(offset.csts), Csts.mask.rdy);
  t.ok(await works(client));
});

t.test('an admin queue that cannot be used is fatal until it is mended', async (t) => {
  const client = await start(t);
  const { memory } = client;
  const rom = new ClientMemory(4 * PAGE, 0x10_0000);
  t.teardown(() => rom.close());
  await client.vfio.dmaMap({ iova: rom.iova, size: rom.size, fd: rom.fd, writable: false });
  const sq = memory.iova + memory.allocate(16 * PAGE);
  const end = memory.iova + memory.size - PAGE;
  const attempt = async (aqa: number, asq: number, acq: number): Promise<number> => {
    await client.disable();
    await client.writeRegister(offset.aqa, aqa);
    for (const [at, address] of [
      [offset.asq, asq],
      [offset.acq, acq],
    ]) {
      await client.writeRegister(at, address % 2 ** 32);
      await client.writeRegister(at + 4, Math.floor(address / 2 ** 32));
    }
    await client.writeRegister(offset.cc, Cc.mask.en | ENTRY_SIZES);
    return enabledOrFailed(client);
  };
  const aqa = 31 | (31 << 16);
  t.equal(await attempt(31, sq, sq + PAGE), Csts.mask.cfs, 'a completion queue of one entry');
  t.equal(await attempt(31 << 16, sq, sq + PAGE), Csts.mask.cfs, 'a submission queue of one entry');
  t.equal(await attempt(aqa, 0x4000_0000, sq), Csts.mask.cfs, 'ASQ not mapped');
  t.equal(await attempt(aqa, sq, 0x4000_0000), Csts.mask.cfs, 'ACQ not mapped');
  t.equal(await attempt(aqa, 2 ** 63, sq), Csts.mask.cfs, 'ASQ beyond all memory');
  t.equal(
    await attempt(aqa, sq, 2 ** 64 - 2 ** 12),
    Csts.mask.cfs,
    'ACQ at the end of all addresses',
  );
  t.equal(await attempt(127 | (31 << 16), end, sq), Csts.mask.cfs, 'ASQ ends outside');
  t.equal(await attempt(31 | (511 << 16), sq, end), Csts.mask.cfs, 'ACQ ends outside');
  t.equal(await attempt(aqa, sq, rom.iova), Csts.mask.cfs, 'ACQ in memory that is read only');
  t.equal(await attempt(aqa, rom.iova, sq), Csts.mask.rdy, 'ASQ in memory that is read only');
  t.equal(await attempt(63 | (255 << 16), end, sq), Csts.mask.rdy, 'ASQ up to the very end');
  await client.enable();
  t.ok(await works(client));
});

t.test('the sizes of I/O entries may be left for later', async (t) => {
  const client = await start(t);
  await client.disable();
  client.admin.reset();
  await client.writeRegister(offset.cc, Cc.mask.en);
  t.equal(await enabledOrFailed(client), Csts.mask.rdy);
  t.ok(await works(client));
});

for (const [name, shn] of [
  ['normal', 1],
  ['abrupt', 2],
] as const) {
  t.test(`${name} shutdown`, async (t) => {
    const client = await start(t);
    const cc = await client.readRegister(offset.cc);
    await client.writeRegister(offset.cc, cc | Cc.encode({ shn: shn }));
    for (;;) {
      const csts = await client.readRegister(offset.csts);
      if ((csts & Csts.mask.shst) === Csts.encode({ shst: Shst.COMPLETE })) {
        break;
      }
      t.equal(csts & Csts.mask.shst, Csts.encode({ shst: Shst.OCCURRING }));
    }
    await client.disable();
    t.equal(await client.readRegister(offset.csts), 0);
    await client.enable();
    t.ok(await works(client));
  });
}

t.test('a disabled controller processes nothing', async (t) => {
  const client = await start(t);
  await client.disable();
  const { sq, cq, doorbells } = client.admin.place;
  sq.fill(0, 0, 16);
  sq[0] = AdminOpcode.IDENTIFY;
  sq[10] = Cns.CONTROLLER;
  cq.fill(-1);
  Atomics.store(doorbells!, 0, 1);
  // As a message too, which the controller has dealt with when it is answered.
  await write(client, 0x1000, 1, 0, 0, 0);
  await client.readRegister(offset.csts);
  t.ok(cq.every((word) => word === -1));
  await client.enable();
  t.ok(await works(client));
});
