/** What a controller tells of its health: errors of disks, critical warnings, telemetry, firmware. NVMe Base 2.0 §5.16.1, §5.12, §5.13. */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import type { FileDescriptor } from '../../src/bdev/file.ts';
import { Op } from '../../src/bdev/op.ts';
import { ErrorBdev } from '../../src/bdev/wrapper.ts';
import { WriteBack } from '../../src/bdev/write-back.ts';
import {
  AdminOpcode,
  CommitAction,
  FirmwareCommit,
  FirmwareImageDownload,
  GetLogPage,
} from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { Oacs } from '../../src/spec/identify.ts';
import {
  CriticalWarning,
  ErrorLogEntry,
  Lid,
  SmartLog,
  TELEMETRY_CREATE,
  TelemetryLog,
} from '../../src/spec/logs.ts';
import { Flush, Read, Write } from '../../src/spec/nvm.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const EIO = 5;
const view = (data: Uint8Array) => new DataView(data.buffer, data.byteOffset, data.length);

async function serve(t: Test, make: (target: TestTarget) => Promise<string>) {
  const target = await TestTarget.start(t);
  const bdev = await make(target);
  const client = await target.connect(await target.serve(bdev));
  return { target, bdev, client, admin: new AdminCaller(client) };
}

const smart = async (admin: AdminCaller, rest = {}) =>
  SmartLog.read(view((await admin.log(Lid.SMART, SmartLog.size, rest)).data));

t.test('errors of a disk are in the error log, with the block, and in SMART', async (t) => {
  const { target, client, admin } = await serve(t, async (target) => {
    const base = await target.malloc(4 * MIB);
    return (await target.target.createError(base)).name;
  });
  const bdev = target.target.bdevs.list().find((each) => each instanceof ErrorBdev);
  assert.ok(bdev);
  const pair = await client.createQueuePair(1, 16);
  const range = { nsid: 1, prp1: admin.buffer, slba: 808, nlbZ: 7 };
  t.equal((await pair.execute(Read.fields(range))).status, 0);
  bdev.inject(Op.READ, {
    error: 'failure',
    count: 1,
    status: 0,
    queueDepth: 0,
    corruptOffset: 0,
    corruptValue: 0,
  });
  const failed = await pair.execute(Read.fields(range));
  t.not(failed.status, 0);
  let entry = ErrorLogEntry.read(view((await admin.log(Lid.ERROR, 64)).data));
  while (entry.errorCount === 0) {
    entry = ErrorLogEntry.read(view((await admin.log(Lid.ERROR, 64)).data));
  }
  t.match(entry, {
    errorCount: 1,
    // Of no particular command: the reactor tells of the disk's error once a second.
    sqid: 0xffff,
    cid: 0xffff,
    status: 2 * failed.status,
    parameterLocation: 0xffff,
    lba: 808,
    nsid: 1,
  });
  t.match(await smart(admin), { mediaErrors: 1, errorLogEntries: 1, criticalWarning: 0 });
});

t.test('a disk that has lost data is a critical warning, and an event', async (t) => {
  const { target, bdev, client, admin } = await serve(t, (target) =>
    target.file(target.image(MIB)),
  );
  const backend = target.target.bdevs.get(bdev).backend as FileDescriptor;
  t.equal((await smart(admin)).criticalWarning, 0);
  new WriteBack(backend.writeBack).fail(EIO);
  const reliability = CriticalWarning.encode({ reliability: true });
  t.equal((await smart(admin)).criticalWarning, reliability);
  const event = client.admin.execute({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST });
  t.equal((await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, reliability)).code, '0/00');
  // SMART; NVM subsystem reliability; the log page.
  t.strictSame(await event, { status: 0, dw0: 1 | (0 << 8) | (Lid.SMART << 16) });
  // Once, until it comes up anew.
  const next = client.admin.execute({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST });
  let told = false;
  next.then(
    () => {
      told = true;
    },
    () => {},
  );
  await smart(admin);
  await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, reliability);
  await smart(admin);
  t.notOk(told);
});

t.test('a sync that fails is told when it happens', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, 4 * MIB);
  const { client, admin } = await serve(t, (target) => target.file(disk.path));
  const pair = await client.createQueuePair(1, 16);
  const reliability = CriticalWarning.encode({ reliability: true });
  await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, reliability);
  const event = client.admin.execute({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST });
  const range = { nsid: 1, prp1: admin.buffer, slba: 0, nlbZ: 7 };
  t.equal((await pair.execute(Write.fields(range))).status, 0);
  await disk.behave({ fsync: EIO });
  t.not((await pair.execute(Flush.fields({ nsid: 1 }))).status, 0);
  t.strictSame(await event, { status: 0, dw0: 1 | (0 << 8) | (Lid.SMART << 16) });
  t.equal((await smart(admin)).criticalWarning, reliability);
});

t.test('telemetry: what the host gathers is there until it gathers anew', async (t) => {
  const { client, admin } = await serve(t, (target) => target.malloc(MIB));
  await client.createQueuePair(3, 16);
  const log = async (bytes: number, rest: { lsp?: number; lpo?: number } = {}) =>
    admin.call(
      GetLogPage.fields({ lid: Lid.TELEMETRY_HOST, numdLZ: bytes / 4 - 1, ...rest }),
      bytes,
    );
  const head = async (lsp = 0) => TelemetryLog.read(view((await log(512, { lsp })).data));
  t.match(await head(), { lid: Lid.TELEMETRY_HOST, last1: 0, hostGeneration: 0 });
  const first = await head(TELEMETRY_CREATE);
  t.ok(first.last1 > 0 && first.last1 === first.last3, `${first.last1} blocks`);
  t.match(first, { hostGeneration: 1, controllerAvailable: 0 });
  const document = async (blocks: number) => {
    let text = '';
    for (let i = 1; i <= blocks; i++) {
      text += Buffer.from((await log(512, { lpo: 512 * i })).data).toString('utf8');
    }
    return JSON.parse(text.replace(/\0+$/, ''));
  };
  const gathered = await document(first.last1);
  t.match(gathered, { nvme: { registers: { csts: { ready: true } } }, queues: [{ qid: 3 }] });
  await client.deleteQueuePair(3);
  t.strictSame(await document(first.last1), gathered, 'as it was gathered');
  const second = await head(TELEMETRY_CREATE);
  t.equal(second.hostGeneration, 2);
  t.strictSame((await document(second.last1)).queues, []);
  const controller = await admin.call(
    GetLogPage.fields({ lid: Lid.TELEMETRY_CONTROLLER, numdLZ: 127 }),
  );
  t.match(TelemetryLog.read(view(controller.data)), { lid: 8, last1: 0, controllerAvailable: 0 });
});

t.test(
  'telemetry asked for a hundred times is gathered a few times, and a reset ends it',
  async (t) => {
    const { client, admin } = await serve(t, (target) => target.malloc(MIB));
    const fields = GetLogPage.fields({
      lid: Lid.TELEMETRY_HOST,
      lsp: TELEMETRY_CREATE,
      numdLZ: 127,
      prp1: admin.buffer,
    });
    const all = await Promise.all(Array.from({ length: 100 }, () => client.admin.execute(fields)));
    t.ok(all.every(({ status }) => status === 0));
    const { data } = await admin.call(GetLogPage.fields({ lid: Lid.TELEMETRY_HOST, numdLZ: 127 }));
    const { hostGeneration } = TelemetryLog.read(view(data));
    t.ok(hostGeneration >= 1 && hostGeneration < 20, `${hostGeneration} times`);
    const late = client.admin.execute(fields).catch(() => 'lost');
    await client.disable();
    const { memory } = client;
    const bytes = memory.bytes(admin.buffer - memory.iova, 512).fill(0xa5);
    client.admin.reset();
    t.equal(await late, 'lost');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    t.ok(
      bytes.every((byte) => byte === 0xa5),
      'nothing is written to memory after the reset',
    );
    await client.enable();
    t.equal(
      (await admin.call(GetLogPage.fields({ lid: Lid.TELEMETRY_HOST, numdLZ: 127 }))).code,
      '0/00',
    );
  },
);

t.test('firmware: one slot, which cannot be written', async (t) => {
  const { client, admin } = await serve(t, (target) => target.malloc(MIB));
  const { oacs, frmw } = await client.identifyController();
  t.ok(Oacs.decode(oacs).firmware);
  t.equal(frmw, 0x03, 'slot 1 is read only');
  const call = async (fields: Parameters<typeof admin.call>[0]) => (await admin.call(fields)).code;
  t.equal(await call(FirmwareImageDownload.fields({ numdZ: 1023, ofst: 0 })), '0/00');
  t.equal(await call(FirmwareImageDownload.fields({ numdZ: 2 ** 18 })), '0/02', 'more than MDTS');
  t.equal(await call(FirmwareImageDownload.fields({ numdZ: 0xffff_ffff })), '0/02');
  t.equal(await call({ ...FirmwareImageDownload.fields({ numdZ: 15 }), prp1: 0 }), '0/04');
  const commit = (ca: number, fs: number) => call(FirmwareCommit.fields({ ca, fs }));
  t.equal(await commit(CommitAction.REPLACE, 1), '1/06', 'the slot is read only');
  t.equal(await commit(CommitAction.REPLACE_AND_ACTIVATE, 2), '1/06');
  t.equal(await commit(CommitAction.REPLACE, 0), '1/07', 'no image of ours');
  t.equal(await commit(CommitAction.ACTIVATE, 1), '0/00', 'it is active');
  t.equal(await commit(CommitAction.ACTIVATE_NOW, 1), '0/00');
  t.equal(await commit(CommitAction.ACTIVATE, 2), '1/06', 'there is no slot 2');
  t.equal(await commit(6, 1), '0/02', 'no boot partitions');
  t.equal((await admin.log(Lid.FIRMWARE_SLOT, 512)).data[0], 1);
  t.equal(code(await client.admin.execute({ opcode: 0x81 })), '0/01', 'no Security Send');
});
