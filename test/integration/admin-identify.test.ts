/** Identify, what every admin command has in common, and commands that there are not. NVMe Base 2.0 §5.17. */
import { mkdirSync, rmSync } from 'node:fs';
import t, { type Test } from 'tap';
import { AdminOpcode, Cns, Identify } from '../../src/spec/admin.ts';
import {
  Cmic,
  IdentifyController,
  IdentifyNamespace,
  LbaFormat,
  Lpa,
  Nmic,
  Oncs,
} from '../../src/spec/identify.ts';
import { AdminCaller, doNotRetry } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const NSID_ALL = 0xffff_ffff;
const UUID = '6a1b1d2c-0f0e-4d5c-8b9a-78695a4b3c2d';
const EUI64 = '0123456789abcdef';

/** Namespaces 1 (512-byte blocks), 3 (4096-byte blocks, write protected) of at most 32. */
async function start(t: Test) {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.malloc(MIB));
  const readonly = await target.file(target.image(2 * MIB), { blockSize: 4096, readonly: true });
  await target.target.addNamespace(served.nqn, readonly, { nsid: 3, uuid: UUID, eui64: EUI64 });
  const client = await target.connect(served);
  return { target, served, client, admin: new AdminCaller(client) };
}

const view = (data: Uint8Array) => new DataView(data.buffer, data.byteOffset, data.length);
const text = (data: Uint8Array) => Buffer.from(data).toString('latin1');
const zeros = (data: Uint8Array) => data.every((byte) => byte === 0);
const hex = (data: Uint8Array) => Buffer.from(data).toString('hex');

/** The NSIDs of a namespace list. */
function list(data: Uint8Array): number[] {
  const nsids = Array.from({ length: 1024 }, (_, i) => view(data).getUint32(4 * i, true));
  const end = nsids.indexOf(0);
  return end < 0 ? nsids : nsids.slice(0, end);
}

t.test('controller', async (t) => {
  const { served, admin, target } = await start(t);
  const { code, data } = await admin.identify(Cns.CONTROLLER);
  t.equal(code, '0/00');
  const { sn, mn, fr, subnqn, ieee, psds, ...numbers } = IdentifyController.read(view(data));
  t.match(numbers, {
    vid: 0x4e58,
    ssvid: 0x4e58,
    mdts: 8,
    ver: 0x0002_0000,
    // Namespace Attribute Notices.
    oaes: 1 << 8,
    cntrltype: 1,
    oacs: 4 | 2 | 16,
    acl: 3,
    aerl: 3,
    elpe: 63,
    npss: 0,
    sqes: 0x66,
    cqes: 0x44,
    maxcmd: 4096,
    nn: 32,
    mnan: 32,
    oncs: Oncs.encode({
      compare: true,
      writeUncorrectable: true,
      reservations: true,
      datasetManagement: true,
      writeZeroes: true,
      verify: true,
      copy: true,
      saveSelect: true,
      timestamp: true,
    }),
    lpa: Lpa.encode({
      commandEffects: true,
      extended: true,
      telemetry: true,
      supportedLogs: true,
    }),
    fuses: 0,
    // A volatile write cache, and flush of all namespaces at once.
    vwc: 7,
    // Of any alignment, and bit buckets.
    sgls: 0x10001,
    kas: 100,
  });
  t.ok(numbers.cntlid >= 1);
  t.match(text(sn), /^DB[0-9A-F]{18}$/, 'made from the NQN');
  t.equal(text(mn), 'Doorbell Controller'.padEnd(40));
  t.match(text(fr), /^[\x21-\x7e][\x20-\x7e]{7}$/);
  t.equal(text(subnqn), served.nqn.padEnd(256, '\0'));
  t.notOk(zeros(ieee));
  t.notOk(zeros(psds.subarray(0, 2)), 'power state 0 says what it needs');
  // Another controller of the subsystem is another controller.
  const address = { traddr: target.folder, trsvcid: '', adrfam: '' };
  const socket = await target.target.addListener(served.nqn, address);
  const second = await target.connect({ ...served, socket });
  t.not((await second.identifyController()).cntlid, numbers.cntlid);
});

t.test('namespaces', async (t) => {
  const { admin } = await start(t);
  const first = await admin.identify(Cns.NAMESPACE, 1);
  t.equal(first.code, '0/00');
  const { lbafs, ...fields } = IdentifyNamespace.read(view(first.data));
  t.strictSame(LbaFormat.read(view(lbafs)), { ms: 0, ds: 9, rp: 0 });
  t.match(fields, {
    nsze: 2048,
    ncap: 2048,
    nuse: 2048,
    nsfeat: 0x10,
    nlbaf: 0,
    flbas: 0,
    nsattr: 0,
  });
  const third = await admin.identify(Cns.NAMESPACE, 3);
  const { nguid, eui64, ...numbers } = IdentifyNamespace.read(view(third.data));
  t.match(numbers, { nsze: 512, ncap: 512, nuse: 512, nsattr: 1 });
  t.equal(LbaFormat.read(view(numbers.lbafs)).ds, 12);
  t.equal(hex(nguid), UUID.replaceAll('-', ''));
  t.equal(hex(eui64), EUI64);
  for (const cns of [Cns.NAMESPACE, Cns.CSI_NAMESPACE, Cns.INDEPENDENT_NAMESPACE]) {
    for (const inactive of [2, 4, 32]) {
      const { code, data } = await admin.identify(cns, inactive);
      t.ok(code === '0/00' && zeros(data), `CNS ${cns}: inactive NSID ${inactive}`);
    }
    for (const invalid of [0, 33, 1000, NSID_ALL - 1, NSID_ALL]) {
      t.equal((await admin.identify(cns, invalid)).code, '0/0b', `CNS ${cns}: NSID ${invalid}`);
    }
  }
  const independent = async (nsid: number) => {
    const { data } = await admin.identify(Cns.INDEPENDENT_NAMESPACE, nsid);
    return { nsattr: data[8], nstat: data[14] };
  };
  t.strictSame(await independent(1), { nsattr: 0, nstat: 1 });
  t.strictSame(await independent(3), { nsattr: 1, nstat: 1 }, 'write protected, and ready');
});

t.test('lists of active namespaces', async (t) => {
  const { admin } = await start(t);
  for (const cns of [Cns.ACTIVE_NAMESPACES, Cns.CSI_ACTIVE_NAMESPACES]) {
    const after = async (nsid: number) => list((await admin.identify(cns, nsid)).data);
    t.strictSame(await after(0), [1, 3]);
    t.strictSame(await after(1), [3]);
    t.strictSame(await after(2), [3]);
    t.strictSame(await after(3), []);
    t.strictSame(await after(NSID_ALL - 2), []);
    t.equal((await admin.identify(cns, NSID_ALL - 1)).code, '0/0b');
    t.equal((await admin.identify(cns, NSID_ALL)).code, '0/0b');
  }
});

t.test('lists of what is allocated, and of controllers', async (t) => {
  const { target, served, admin, client } = await start(t);
  const { cntlid } = await client.identifyController();
  const traddr = target.image(0);
  rmSync(traddr);
  mkdirSync(traddr);
  const address = { traddr, trsvcid: '', adrfam: 'unknown' };
  const socket = await target.target.addListener(served.nqn, address);
  const other = await target.connect({ nqn: served.nqn, socket });
  const both = [cntlid, (await other.identifyController()).cntlid].sort((a, b) => a - b);
  t.strictSame(list((await admin.identify(Cns.ALLOCATED_NAMESPACES, 1)).data), [3]);
  t.equal((await admin.identify(Cns.ALLOCATED_NAMESPACES, NSID_ALL)).code, '0/0b');
  const allocated = await admin.identify(Cns.ALLOCATED_NAMESPACE, 3);
  t.same(allocated.data, (await admin.identify(Cns.NAMESPACE, 3)).data);
  t.ok(zeros((await admin.identify(Cns.ALLOCATED_NAMESPACE, 2)).data));
  t.equal((await admin.identify(Cns.ALLOCATED_NAMESPACE, 33)).code, '0/0b');
  const controllers = async (cns: number, nsid: number, cntid: number) => {
    const { code, data } = await admin.call(Identify.fields({ cns, nsid, cntid }));
    const count = code === '0/00' ? view(data).getUint16(0, true) : 0;
    const ids = Array.from({ length: count }, (_, i) => view(data).getUint16(2 + 2 * i, true));
    return code === '0/00' ? ids : code;
  };
  t.strictSame(await controllers(Cns.CONTROLLERS, 0, 0), both);
  t.strictSame(await controllers(Cns.CONTROLLERS, 0, both[1]), [both[1]]);
  t.strictSame(await controllers(Cns.CONTROLLERS, 0, 0xffff), []);
  t.strictSame(await controllers(Cns.NAMESPACE_CONTROLLERS, 1, 0), both);
  t.strictSame(await controllers(Cns.NAMESPACE_CONTROLLERS, 2, 0), [], 'attached to none');
  t.equal(await controllers(Cns.NAMESPACE_CONTROLLERS, 33, 0), '0/0b');
  const sets = await admin.call(Identify.fields({ cns: Cns.IO_COMMAND_SETS, cntid: 0xffff }));
  t.strictSame([...sets.data.subarray(0, 16)], [1, ...new Array(15).fill(0)], 'NVM alone');
  t.equal(
    (await admin.call(Identify.fields({ cns: Cns.IO_COMMAND_SETS, cntid: 0x7fff }))).code,
    '0/02',
  );
});

t.test('identification descriptors', async (t) => {
  const { admin } = await start(t);
  const descriptors = async (nsid: number) => {
    const { data } = await admin.identify(Cns.NAMESPACE_DESCRIPTORS, nsid);
    const found: [number, string][] = [];
    for (let at = 0; data[at + 1] > 0; at += 4 + data[at + 1]) {
      found.push([data[at], hex(data.subarray(at + 4, at + 4 + data[at + 1]))]);
    }
    return found;
  };
  const third = UUID.replaceAll('-', '');
  t.strictSame(await descriptors(3), [
    [1, EUI64],
    [2, third],
    [3, third],
    [4, '00'],
  ]);
  const first = await descriptors(1);
  t.strictSame(
    first.map(([type]) => type),
    [2, 3, 4],
  );
  for (const nsid of [0, 2, 33, NSID_ALL]) {
    t.equal((await admin.identify(Cns.NAMESPACE_DESCRIPTORS, nsid)).code, '0/0b', `NSID ${nsid}`);
  }
});

t.test('command set specific structures, and those that there are not', async (t) => {
  const { admin } = await start(t);
  const { code, data } = await admin.identify(Cns.CSI_CONTROLLER);
  t.ok(code === '0/00' && zeros(data), 'no limits beside MDTS');
  const zoned = { cdw11: (2 << 24) >>> 0 };
  for (const cns of [Cns.CSI_NAMESPACE, Cns.CSI_CONTROLLER, Cns.CSI_ACTIVE_NAMESPACES]) {
    t.equal((await admin.identify(cns, 1, zoned)).code, '0/02', `CNS ${cns}: zoned namespaces`);
  }
  const known: number[] = Object.values(Cns);
  for (let cns = 0; cns < 256; cns++) {
    if (!known.includes(cns)) {
      t.equal((await admin.identify(cns, 1)).code, '0/02', `CNS ${cns}`);
    }
  }
});

t.test('buffers of admin commands', async (t) => {
  const { client, admin } = await start(t);
  const { buffer } = admin;
  const good = await admin.identify(Cns.CONTROLLER);
  const { memory } = client;
  const bytes = memory.bytes(buffer - memory.iova, 3 * 4096);
  for (const offset of [4, 512, 2048, 4092]) {
    bytes.fill(0xa5);
    const prp1 = buffer + offset;
    const { code } = await admin.identify(Cns.CONTROLLER, 0, { prp1, prp2: buffer + 8192 });
    t.equal(code, '0/00');
    const first = bytes.subarray(offset, 4096);
    const second = bytes.subarray(8192, 8192 + offset);
    t.ok(Buffer.concat([first, second]).equals(good.data), `at offset ${offset}, in two pages`);
    t.ok(bytes.subarray(4096, 8192).every((byte) => byte === 0xa5));
  }
  const status = async (prp1: number, prp2 = 0) =>
    (await admin.identify(Cns.CONTROLLER, 0, { prp1, prp2 })).code;
  t.equal(await status(buffer + 1), '0/13');
  t.equal(await status(buffer + 2), '0/13');
  t.equal(await status(buffer + 4, buffer + 4100), '0/13', 'PRP2 is a page');
  t.equal(await status(0), '0/04');
  t.equal(await status(buffer + 4, 0), '0/04');
  t.equal(await status(memory.iova + memory.size), '0/04');
  t.equal(await status(2 ** 53), '0/04');
  t.equal(await status(2 ** 64 - 4096), '0/04');
});

t.test('flags, opcodes and namespaces that make no sense', async (t) => {
  const { client, admin } = await start(t);
  // Fused commands; SGLs.
  for (const flags of [0x01, 0x02, 0x03, 0x40, 0x80, 0xc0]) {
    const { code } = await admin.identify(Cns.CONTROLLER, 0, { flags });
    t.equal(code, '0/02', `flags ${flags.toString(16)}`);
  }
  const known: number[] = Object.values(AdminOpcode);
  for (let opcode = 0; opcode < 256; opcode++) {
    if (!known.includes(opcode)) {
      const completion = await client.admin.execute({ opcode, prp1: admin.buffer, cdw10: 1 });
      t.ok(doNotRetry(completion));
      t.equal((await admin.call({ opcode })).code, '0/01', `opcode ${opcode.toString(16)}`);
    }
  }
  t.equal((await admin.identify(Cns.CONTROLLER)).code, '0/00', 'and the controller goes on');
});

t.test('a subsystem with several listeners says so', async (t) => {
  const { target, served, client } = await start(t);
  t.equal((await client.identifyController()).cmic, 0);
  t.equal((await client.identifyNamespace(1)).nmic, 0);
  const traddr = target.image(0);
  rmSync(traddr);
  mkdirSync(traddr);
  const address = { traddr, trsvcid: '', adrfam: 'unknown' };
  const socket = await target.target.addListener(served.nqn, address);
  const other = await target.connect({ nqn: served.nqn, socket });
  const [one, two] = [await client.identifyController(), await other.identifyController()];
  t.equal(one.cmic, Cmic.mask.multiController);
  t.equal(two.cmic, Cmic.mask.multiController);
  t.not(one.cntlid, two.cntlid);
  t.strictSame(two.subnqn, one.subnqn);
  t.equal((await other.identifyNamespace(1)).nmic, Nmic.mask.shared);
});
