/** Sanitize: what it does, its log and event, and what is refused meanwhile. NVMe Base 2.0 §5.24, §5.16.1.25, §8.21. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import {
  AsyncEventRequest,
  DeviceSelfTest,
  FormatNvm,
  Sanitize,
  SanitizeAction,
  SetFeatures,
} from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { Sanicap } from '../../src/spec/identify.ts';
import { Lid, SanitizeLog, SanitizeStateCode, SanitizeStatus } from '../../src/spec/logs.ts';
import { Flush, Read, Write } from '../../src/spec/nvm.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';
import { TargetProcess } from '../helpers/target-process.ts';

const { EXIT_FAILURE, BLOCK_ERASE, OVERWRITE, CRYPTO_ERASE } = SanitizeAction;
const { NEVER, COMPLETED, COMPLETED_NO_DEALLOCATE, IN_PROGRESS } = SanitizeStateCode;
const COMPLETED_EVENT = 6 | (1 << 8) | (Lid.SANITIZE << 16);

async function start(t: Test, bytes = 2 * MIB) {
  const target = await TestTarget.start(t, { reactors: 2 });
  const served = await target.serve(
    await target.malloc(bytes),
    await target.file(target.image(bytes)),
  );
  const client = await target.connect(served);
  const admin = new AdminCaller(client);
  const pair = await client.createQueuePair(1, 64);
  const offset = client.memory.allocate(4096);
  const prp1 = client.memory.iova + offset;
  const buffer = client.memory.bytes(offset, 4096);
  const fill = async (byte: number) => {
    for (const nsid of [1, 2]) {
      for (const slba of [0, bytes / 512 - 8]) {
        buffer.fill(byte);
        const write = Write.fields({ nsid, slba, nlbZ: 7, prp1 });
        t.equal(code(await pair.execute(write)), '0/00');
      }
    }
  };
  const read = async (nsid: number, slba: number) => {
    buffer.fill(0xee);
    const status = code(await pair.execute(Read.fields({ nsid, slba, nlbZ: 7, prp1 })));
    return status === '0/00' ? Buffer.from(buffer.slice(0, 4)).toString('hex') : status;
  };
  const sanitize = async (fields: Parameters<typeof Sanitize.fields>[0]) =>
    (await admin.call(Sanitize.fields(fields))).code;
  const log = async (caller = admin) => {
    const { data } = await caller.log(Lid.SANITIZE, SanitizeLog.size);
    const page = SanitizeLog.read(new DataView(data.buffer));
    return { ...page, ...SanitizeStatus.decode(page.sstat) };
  };
  const over = async () => {
    for (;;) {
      const page = await log();
      if (page.state !== IN_PROGRESS) {
        return page;
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  return { target, served, client, admin, pair, fill, read, sanitize, log, over, bytes };
}

t.test('block erase and overwrite', async (t) => {
  const { client, fill, read, sanitize, log, over, bytes } = await start(t);
  t.match(Sanicap.decode((await client.identifyController()).sanicap), {
    ...{ blockErase: true, overwrite: true, cryptoErase: false, ndi: false },
  });
  t.match(await log(), { state: NEVER, sprog: 0xffff, etBlockErase: 0xffff_ffff });
  const last = bytes / 512 - 8;
  for (const [fields, expected, state, passes] of [
    [{ sanact: BLOCK_ERASE }, '00000000', COMPLETED, 0],
    [{ sanact: BLOCK_ERASE, ndas: true }, '00000000', COMPLETED_NO_DEALLOCATE, 0],
    [{ sanact: OVERWRITE, owpass: 1, ovrpat: 0x1234_5678 }, '78563412', COMPLETED, 1],
    [{ sanact: OVERWRITE, owpass: 2, oipbp: true, ovrpat: 0x00ff_0001 }, '0100ff00', COMPLETED, 2],
    [{ sanact: OVERWRITE, owpass: 3, ndas: true }, '00000000', COMPLETED_NO_DEALLOCATE, 3],
  ] as const) {
    await fill(0x77);
    t.equal(await sanitize(fields), '0/00');
    const page = await over();
    t.match(page, { state, passes, sprog: 0xffff });
    t.equal(page.scdw10, Sanitize.fields(fields).cdw10);
    for (const nsid of [1, 2]) {
      t.equal(await read(nsid, 0), expected, JSON.stringify(fields));
      t.equal(await read(nsid, last), expected);
    }
  }
});

t.test('what is asked for wrongly', async (t) => {
  const { admin, sanitize, log } = await start(t);
  for (const sanact of [0, CRYPTO_ERASE, 5, 7]) {
    t.equal(await sanitize({ sanact }), '0/02');
  }
  t.equal(await sanitize({ sanact: EXIT_FAILURE }), '0/00', 'nothing has failed');
  const fid = Fid.NAMESPACE_WRITE_PROTECTION;
  await admin.call(SetFeatures.fields({ fid, nsid: 2, value: 1 }));
  t.equal(await sanitize({ sanact: BLOCK_ERASE }), '0/20');
  t.equal((await log()).state, NEVER);
});

t.test('restrictions, progress and events, for all controllers, and over resets', async (t) => {
  const { target, served, client, admin, pair, sanitize, log, over } = await start(t, 16 * MIB);
  const other = await target.connect(await target.listen(served.nqn));
  const otherAdmin = new AdminCaller(other);
  const otherPair = await other.createQueuePair(1, 16);
  const event = other.admin.execute(AsyncEventRequest.fields());
  const own = client.admin.execute(AsyncEventRequest.fields());
  for (const { bdev } of target.target.subsystem(served.nqn).namespaces.values()) {
    await target.target.limit(bdev.name, { rwBytes: 30 * MIB });
  }
  t.equal(await sanitize({ sanact: OVERWRITE, owpass: 1 }), '0/00');
  t.equal(await sanitize({ sanact: OVERWRITE, owpass: 1 }), '0/1d');
  let page = await log(otherAdmin);
  t.equal(page.state, IN_PROGRESS);
  for (const each of [pair, otherPair]) {
    t.equal(code(await each.execute(Flush.fields({ nsid: 1 }))), '0/1d');
    const prp1 = admin.buffer;
    t.equal(code(await each.execute(Read.fields({ nsid: 2, slba: 0, nlbZ: 0, prp1 }))), '0/1d');
  }
  t.equal((await otherAdmin.call(FormatNvm.fields({ nsid: 1 }))).code, '0/1d');
  t.equal((await admin.call(DeviceSelfTest.fields({ stc: 1, nsid: 0 }))).code, '0/1d');
  t.equal((await otherAdmin.call(Sanitize.fields({ sanact: EXIT_FAILURE }))).code, '0/1d');
  t.equal((await admin.getFeature(Fid.ARBITRATION)).code, '0/00');
  t.equal((await admin.identify(1)).code, '0/00');
  while (page.sprog < 0x4000) {
    const { sprog, state } = await log(otherAdmin);
    t.equal(state, IN_PROGRESS);
    t.ok(sprog >= page.sprog);
    page = { ...page, sprog };
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  t.match(await over(), { state: COMPLETED });
  for (const told of [own, event]) {
    t.equal((await told).dw0, COMPLETED_EVENT);
  }
  for (const each of [pair, otherPair]) {
    t.equal(code(await each.execute(Flush.fields({ nsid: 1 }))), '0/00');
  }
});

t.test('it goes on when the controller that it was asked of is gone', async (t) => {
  const { target, served, client, sanitize } = await start(t, 8 * MIB);
  const other = await target.connect(await target.listen(served.nqn));
  const admin = new AdminCaller(other);
  const event = other.admin.execute(AsyncEventRequest.fields());
  const { bdev } = target.target.subsystem(served.nqn).namespaces.get(1)!;
  await target.target.limit(bdev.name, { rwBytes: 30 * MIB });
  await sanitize({ sanact: OVERWRITE, owpass: 1, ovrpat: 5 });
  client.close();
  t.equal((await event).dw0, COMPLETED_EVENT);
  const { data } = await admin.log(Lid.SANITIZE, SanitizeLog.size);
  const { sstat } = SanitizeLog.read(new DataView(data.buffer));
  t.equal(SanitizeStatus.decode(sstat).state, COMPLETED);
  const pair = await other.createQueuePair(1, 16);
  t.equal(code(await pair.execute(Flush.fields({ nsid: 1 }))), '0/00');
});

t.test('it goes on after kill -9', async (t) => {
  const bytes = 8 * MIB;
  const target = new TargetProcess(t);
  const state = join(target.folder, 'state');
  const image = join(target.folder, 'disk.img');
  writeFileSync(image, Buffer.alloc(bytes, 0x77));
  const traddr = join(target.folder, 'vm');
  mkdirSync(traddr);
  const nqn = 'nqn.2026-11.io.doorbell:sanitized';
  await target.start('--state-dir', state);
  await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await target.call('bdev_aio_create', { name: 'disk', filename: image, block_size: 512 });
  await target.call('bdev_set_qos_limit', { name: 'disk', rw_mbytes_per_sec: 4 });
  await target.call('nvmf_create_subsystem', { nqn, allow_any_host: true });
  await target.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'disk' } });
  const listen_address = { trtype: 'VFIOUSER', traddr };
  await target.call('nvmf_subsystem_add_listener', { nqn, listen_address });
  let client = await NvmeClient.connect(join(traddr, 'cntrl'));
  const fields = Sanitize.fields({ sanact: OVERWRITE, owpass: 1, ovrpat: 0x1111_1111 });
  t.equal(code(await client.admin.execute(fields)), '0/00');
  await target.kill();
  client.close();
  t.ok(readFileSync(image).includes(0x77), 'it was not over');
  await target.start('--state-dir', state);
  client = await NvmeClient.connect(join(traddr, 'cntrl'));
  const pair = await client.createQueuePair(1, 16);
  t.equal(code(await pair.execute(Flush.fields({ nsid: 1 }))), '0/1d');
  await client.admin.execute(AsyncEventRequest.fields());
  const { data } = await new AdminCaller(client).log(Lid.SANITIZE, SanitizeLog.size);
  const page = SanitizeLog.read(new DataView(data.buffer));
  t.equal(SanitizeStatus.decode(page.sstat).state, COMPLETED);
  t.equal(page.scdw10, fields.cdw10);
  t.equal(code(await pair.execute(Flush.fields({ nsid: 1 }))), '0/00');
  t.ok(readFileSync(image).every((byte) => byte === 0x11));
  client.close();
  await target.stop();
});
