/** Log pages. NVMe Base 2.0 §5.16. */
import t, { type Test } from 'tap';
import { AdminOpcode, Cns, GetFeatures, GetLogPage, SetFeatures } from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { ErrorLogEntry, Lid, SmartLog } from '../../src/spec/logs.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { StatusField } from '../../src/spec/nvme.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { startTarget } from '../helpers/any-target.ts';
import { MIB } from '../helpers/target.ts';

async function start(t: Test) {
  const target = await startTarget(t);
  const client = await target.connect(await target.serve(await target.malloc(4 * MIB)));
  return { target, client, admin: new AdminCaller(client) };
}

const view = (data: Uint8Array) => new DataView(data.buffer, data.byteOffset, data.length);

t.test('which pages there are', async (t) => {
  const { admin } = await start(t);
  const { code, data } = await admin.log(Lid.SUPPORTED, 1024);
  t.equal(code, '0/00');
  for (let lid = 0; lid < 256; lid++) {
    const supported = (view(data).getUint32(4 * lid, true) & 1) === 1;
    const answer = await admin.log(lid, 512);
    t.equal(answer.code, supported ? '0/00' : '1/09', `LID ${lid}`);
  }
});

t.test('commands and their effects', async (t) => {
  const { client, admin } = await start(t);
  const { data } = await admin.log(Lid.COMMAND_EFFECTS, 4096);
  const effects = (opcode: number, io: boolean) =>
    view(data).getUint32((io ? 1024 : 0) + 4 * opcode, true);
  for (let opcode = 0; opcode < 256; opcode++) {
    if (opcode !== AdminOpcode.ASYNC_EVENT_REQUEST) {
      const { code } = await admin.call({ opcode, cdw10: 0xffff_ffff });
      t.equal(effects(opcode, false) & 1, code === '0/01' ? 0 : 1, `admin opcode ${opcode}`);
    }
  }
  const pair = await client.createQueuePair(1, 16);
  for (let opcode = 0; opcode < 256; opcode++) {
    const { status } = await pair.execute({ opcode, nsid: 1, prp1: admin.buffer });
    t.equal(effects(opcode, true) & 1, (status & 0x7ff) === 0x001 ? 0 : 1, `I/O opcode ${opcode}`);
  }
  t.equal(effects(NvmOpcode.WRITE, true), 3, 'a write changes content');
});

t.test('features and their effects', async (t) => {
  const { admin } = await start(t);
  const { data } = await admin.log(Lid.FEATURE_EFFECTS, 1024);
  for (let fid = 0; fid < 256; fid++) {
    const effects = view(data).getUint32(4 * fid, true);
    const ofNamespaces: number[] = [
      Fid.ERROR_RECOVERY,
      Fid.RESERVATION_NOTIFICATION_MASK,
      Fid.RESERVATION_PERSISTENCE,
      Fid.NAMESPACE_WRITE_PROTECTION,
    ];
    const nsid = ofNamespaces.includes(fid) ? 1 : 0;
    const { code } = await admin.call(GetFeatures.fields({ fid, nsid }));
    t.equal(effects & 1, code === '0/00' ? 1 : 0, `feature ${fid}`);
    t.equal(effects >>> 20 !== 0, (effects & 1) === 1, 'and whose it is');
  }
});

t.test('offsets, lengths and buffers', async (t) => {
  const { admin } = await start(t);
  const whole = (await admin.log(Lid.COMMAND_EFFECTS, 4096)).data;
  for (const [offset, bytes] of [
    [0, 4],
    [4, 4],
    [1024, 16],
    [4092, 4],
    [1000, 3096],
  ]) {
    const { code, data } = await admin.log(Lid.COMMAND_EFFECTS, bytes, { cdw12: offset });
    t.equal(code, '0/00');
    t.same(data, whole.subarray(offset, offset + bytes), `${bytes} bytes from ${offset}`);
  }
  const { code, data } = await admin.log(Lid.SMART, 4096, { cdw12: 256 });
  t.ok(code === '0/00' && data.subarray(256).every((byte) => byte === 0), 'zeros after its end');
  t.equal((await admin.log(Lid.SMART, 4, { cdw12: 512 })).code, '0/00', 'at its end: nothing');
  t.equal((await admin.log(Lid.SMART, 4, { cdw12: 516 })).code, '0/02', 'after its end');
  t.equal((await admin.log(Lid.SMART, 4, { cdw13: 1 })).code, '0/02', 'far after its end');
  for (const cdw12 of [1, 2, 3, 511]) {
    t.equal((await admin.log(Lid.SMART, 4, { cdw12 })).code, '0/02', `offset ${cdw12}`);
  }
  const dwords = (count: number) => ({
    cdw10: (Lid.SMART | (((count - 1) & 0xffff) << 16)) >>> 0,
    cdw11: (count - 1) >>> 16,
  });
  t.equal((await admin.log(Lid.SMART, 4, dwords(2 ** 18 + 1))).code, '0/02', 'more than MDTS');
  t.equal((await admin.log(Lid.SMART, 4, dwords(2 ** 32))).code, '0/02');
  t.equal((await admin.log(Lid.SMART, 512, { prp1: 0 })).code, '0/04');
  t.equal((await admin.log(Lid.SMART, 512, { prp1: admin.buffer + 2 })).code, '0/13');
});

t.test('SMART counts what was read and written', async (t) => {
  const { client, admin } = await start(t);
  const pair = await client.createQueuePair(1, 16);
  const smart = async () => SmartLog.read(view((await admin.log(Lid.SMART, 512)).data));
  t.match(await smart(), {
    criticalWarning: 0,
    availableSpare: 100,
    percentageUsed: 0,
    dataUnitsRead: 0,
    dataUnitsWritten: 0,
    hostReads: 0,
    hostWrites: 0,
    mediaErrors: 0,
  });
  const prp1 = admin.buffer;
  const prp2 = prp1 + 4096;
  for (let i = 0; i < 250; i++) {
    const opcode = i < 100 ? NvmOpcode.READ : NvmOpcode.WRITE;
    const { status } = await pair.execute({ opcode, nsid: 1, prp1, prp2, cdw10: i, cdw12: 15 });
    t.equal(status, 0);
  }
  // A data unit is a thousand times 512 bytes, begun ones count.
  t.match(await smart(), {
    hostReads: 100,
    dataUnitsRead: 2,
    hostWrites: 150,
    dataUnitsWritten: 3,
  });
});

t.test('times of SMART do not follow the clock, and an idle controller is not busy', async (t) => {
  const now = Date.now;
  t.teardown(() => {
    Date.now = now;
  });
  const { client, admin } = await start(t);
  const pair = await client.createQueuePair(1, 16);
  t.equal((await pair.execute({ opcode: NvmOpcode.READ, nsid: 1, prp1: admin.buffer })).status, 0);
  for (const hours of [-2, 0, 100]) {
    Date.now = () => now() + hours * 3_600_000;
    const smart = SmartLog.read(view((await admin.log(Lid.SMART, 512)).data));
    t.match(
      smart,
      { powerOnHours: 0, controllerBusyMinutes: 0 },
      `the clock is set ${hours} h off`,
    );
  }
});

t.test('temperature thresholds', async (t) => {
  const { client, admin } = await start(t);
  const warning = async (rae = 1 << 15) => {
    const cdw10 = (Lid.SMART | (127 << 16) | rae) >>> 0;
    return (await admin.log(Lid.SMART, 512, { cdw10 })).data[0];
  };
  const over = (kelvin: number) => admin.setFeature(Fid.TEMPERATURE_THRESHOLD, kelvin);
  const under = (kelvin: number) => admin.setFeature(Fid.TEMPERATURE_THRESHOLD, kelvin | (1 << 20));
  t.equal(await warning(), 0);
  await over(313);
  t.equal(await warning(), 2, 'at the upper threshold');
  await over(314);
  t.equal(await warning(), 0);
  await under(313);
  t.equal(await warning(), 2, 'at the lower threshold');
  await under(0);
  // No event before the host wants one; then one for each time that the temperature gets there.
  const told: number[] = [];
  const listen = async (): Promise<void> => {
    for (;;) {
      told.push((await client.admin.execute({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST })).dw0);
    }
  };
  void listen().catch(() => {});
  const EVENT = 1 | (1 << 8) | (Lid.SMART << 16);
  await over(300);
  await warning(0);
  t.strictSame(told, []);
  await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, 2);
  await warning();
  t.strictSame(told, [EVENT], 'it is there already');
  await over(299);
  await warning(0);
  await warning();
  t.strictSame(told, [EVENT], 'and still is');
  await over(400);
  await under(320);
  await warning(0);
  t.strictSame(told, [EVENT, EVENT], 'once more, by the other threshold');
});

t.test('the error log', async (t) => {
  const { admin } = await start(t);
  const entries = async (count: number) => {
    const { data } = await admin.log(Lid.ERROR, 64 * count);
    return Array.from({ length: count }, (_, i) => ErrorLogEntry.read(view(data), 64 * i));
  };
  t.strictSame(
    (await entries(2)).map(({ errorCount }) => errorCount),
    [0, 0],
  );
  await admin.identify(Cns.NAMESPACE, 77);
  await admin.call({ opcode: 0x7f, nsid: 5 });
  t.match(await entries(3), [
    { errorCount: 2, sqid: 0, status: 0x4001 << 1, parameterLocation: 0xffff, nsid: 5 },
    { errorCount: 1, sqid: 0, status: 0x400b << 1, parameterLocation: 0xffff, nsid: 77 },
    { errorCount: 0, sqid: 0, status: 0, nsid: 0 },
  ]);
  for (let i = 0; i < 100; i++) {
    await admin.call({ opcode: 0x7f, nsid: i });
  }
  const all = await entries(64);
  t.strictSame(
    all.map(({ errorCount }) => errorCount),
    Array.from({ length: 64 }, (_, i) => 102 - i),
    'the newest 64',
  );
  const smart = SmartLog.read(view((await admin.log(Lid.SMART, 512)).data));
  t.equal(smart.errorLogEntries, 102);
});

t.test('the error log says which parameter is wrong', async (t) => {
  const { client, admin } = await start(t);
  for (const [name, fields, byte, bit] of [
    ['CNS', { opcode: AdminOpcode.IDENTIFY, cdw10: 0xff }, 40, 0],
    ['FID', { opcode: AdminOpcode.GET_FEATURES, cdw10: 0xff }, 40, 0],
    ['SEL', GetFeatures.fields({ fid: Fid.ARBITRATION, sel: 4 }), 41, 0],
    ['SV', SetFeatures.fields({ fid: Fid.ARBITRATION, sv: true }), 43, 7],
    ['LID', GetLogPage.fields({ lid: 0xff }), 40, 0],
    ['LPO', GetLogPage.fields({ lid: Lid.SMART, lpo: 2 }), 48, 0],
    ['OT', GetLogPage.fields({ lid: Lid.SMART, ot: true }), 58, 7],
    ['UUID', GetLogPage.fields({ lid: Lid.SMART, uuid: 1 }), 56, 0],
  ] as const) {
    const { status } = await client.admin.execute({ ...fields, prp1: admin.buffer });
    t.ok(StatusField.decode(status).more && StatusField.decode(status).dnr, `${name}: More, DNR`);
    const { data } = await admin.log(Lid.ERROR, 64);
    const entry = ErrorLogEntry.read(view(data));
    t.strictSame(entry.parameterLocation, byte | (bit << 8), `${name}: where it is`);
    t.equal(entry.status >> 1, status);
  }
  const { status } = await client.admin.execute({ opcode: 0x7f });
  t.notOk(StatusField.decode(status).more, 'an opcode is no parameter: there is no more to tell');
});

t.test('features with data, through the buffer', async (t) => {
  const { client, admin } = await start(t);
  const { memory } = client;
  const data = memory.bytes(admin.buffer - memory.iova, 4096);
  const set = async (fid: number, bytes: Uint8Array) => {
    data.fill(0).set(bytes);
    const fields = SetFeatures.fields({ fid, prp1: admin.buffer });
    return code(await client.admin.execute(fields));
  };
  const stamp = Buffer.alloc(8);
  stamp.writeUIntLE(0x0123_4567_89ab, 0, 6);
  t.equal(await set(Fid.TIMESTAMP, stamp), '0/00');
  const read = Buffer.from((await admin.getFeature(Fid.TIMESTAMP)).data);
  const ms = read.readUIntLE(0, 6);
  t.ok(ms >= 0x0123_4567_89ab && ms < 0x0123_4567_89ab + 60_000);
  t.equal(read[6], 2, 'set by the host');
  t.equal(read[8], 0xa5, 'eight bytes');
  const behavior = async () => [...(await admin.getFeature(Fid.HOST_BEHAVIOR_SUPPORT)).data];
  t.equal(await set(Fid.HOST_BEHAVIOR_SUPPORT, Uint8Array.of(1)), '0/00');
  t.strictSame((await behavior()).slice(0, 512), [1, ...new Array(511).fill(0)]);
  for (const bad of [
    Uint8Array.of(2),
    Uint8Array.of(0, 1),
    Buffer.concat([Buffer.alloc(511), Uint8Array.of(1)]),
  ]) {
    t.equal(await set(Fid.HOST_BEHAVIOR_SUPPORT, bad), '0/02');
  }
  t.equal((await behavior())[0], 1);
  const nowhere = SetFeatures.fields({ fid: Fid.TIMESTAMP, prp1: 0 });
  t.equal(code(await client.admin.execute(nowhere)), '0/04');
  await client.disable();
  await client.enable();
  t.equal((await behavior())[0], 0, 'until the next reset');
  t.equal((await admin.getFeature(Fid.TIMESTAMP)).data[6], 0);
});

t.test('firmware slots', async (t) => {
  const { client, admin } = await start(t);
  const { data } = await admin.log(Lid.FIRMWARE_SLOT, 512);
  const { fr } = await client.identifyController();
  t.equal(data[0], 1, 'slot 1 is active');
  t.same(data.subarray(8, 16), fr);
});
