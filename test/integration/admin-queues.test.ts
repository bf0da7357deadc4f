/** The rules for making and deleting I/O queues. NVMe Base 2.0 §5.4, §5.5, §5.6, §5.7, §5.27.1.5. */
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import type { CommandFields } from '../../src/client/nvme.ts';
import type { Completion } from '../../src/client/queue-pair.ts';
import { AdminOpcode, Cns } from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { Lid } from '../../src/spec/logs.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { onlyOurs, startTarget } from '../helpers/any-target.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { createCq, createSq, deleteCq, deleteSq } from '../helpers/queues.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const PAGE = 4096;

async function start(t: Test, transport = {}) {
  const target = await startTarget(t, { transport });
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const admin = new AdminCaller(client);
  const iova = client.memory.iova + client.memory.allocate(64 * PAGE);
  const cq = async (qid: number, depth = 16, at = iova, vector?: number) =>
    code(await createCq(client, { qid, depth, iova: at, ...(vector !== undefined && { vector }) }));
  const sq = async (qid: number, cqid: number, depth = 16, at = iova + 32 * PAGE) =>
    code(await createSq(client, { qid, depth, iova: at, cqid }));
  const raw = async (fields: CommandFields) => code(await client.admin.execute(fields));
  return { target, client, admin, iova, cq, sq, raw };
}

t.test('identifiers', async (t) => {
  const { client, cq, sq } = await start(t);
  t.equal(await cq(0), '1/01', 'the admin queue is there already');
  t.equal(await cq(65), '1/01');
  t.equal(await cq(0xffff), '1/01');
  t.equal(await cq(64), '0/00');
  t.equal(await cq(64), '1/01', 'in use');
  t.equal(await sq(0, 64), '1/01');
  t.equal(await sq(65, 64), '1/01');
  t.equal(await sq(1, 0), '1/01', 'not the admin completion queue');
  t.equal(await sq(1, 65), '1/01');
  t.equal(await sq(1, 1), '1/00', 'no such completion queue');
  t.equal(await sq(1, 64), '0/00');
  t.equal(await sq(1, 64), '1/01', 'in use');
  t.equal(await sq(2, 64), '0/00');
  t.equal(code(await deleteCq(client, 64)), '1/0c', 'two submission queues need it');
  t.equal(code(await deleteSq(client, 1)), '0/00');
  t.equal(code(await deleteSq(client, 1)), '1/01');
  t.equal(code(await deleteCq(client, 64)), '1/0c', 'one needs it');
  t.equal(code(await deleteSq(client, 2)), '0/00');
  t.equal(code(await deleteCq(client, 64)), '0/00');
  t.equal(code(await deleteCq(client, 64)), '1/01');
  for (const qid of [0, 5, 65, 0xffff]) {
    t.equal(code(await deleteSq(client, qid)), '1/01');
    t.equal(code(await deleteCq(client, qid)), '1/01');
  }
});

t.test('sizes', { skip: onlyOurs }, async (t) => {
  const { client, cq, sq } = await start(t, { maxQueueDepth: 1000 });
  t.equal(await cq(1, 1), '1/02');
  t.equal(await cq(1, 1001), '1/02');
  t.equal(await cq(1, 65536), '1/02');
  t.equal(await cq(1, 1000), '0/00');
  t.equal(await cq(2, 2), '0/00');
  t.equal(await sq(1, 1, 1), '1/02');
  t.equal(await sq(1, 1, 1001), '1/02');
  t.equal(await sq(1, 1, 1000), '0/00');
  t.equal(await sq(2, 1, 2), '0/00');
  t.equal(client.maxQueueEntries, 1000);
});

t.test('memory', async (t) => {
  const { client, iova, cq, sq, raw } = await start(t);
  const rom = new ClientMemory(4 * PAGE, 0x10_0000);
  t.teardown(() => rom.close());
  await client.vfio.dmaMap({ iova: rom.iova, size: rom.size, fd: rom.fd, writable: false });
  for (const offset of [1, 4, 16, 64, 2048]) {
    t.equal(await cq(1, 16, iova + offset), '0/13', `at byte ${offset} of a page`);
  }
  t.equal(await cq(1, 16, 0), '0/04', 'not mapped');
  t.equal(await cq(1, 16, 2 ** 60), '0/04', 'far away');
  t.equal(await cq(1, 16, rom.iova), '0/04', 'read only');
  const end = client.memory.iova + client.memory.size;
  t.equal(await cq(1, 257, end - PAGE), '0/04', 'ends outside');
  t.equal(await cq(1, 256, end - PAGE), '0/00', 'up to the end');
  t.equal(await sq(1, 1, 16, iova + 64), '0/13');
  t.equal(await sq(1, 1, 16, 0), '0/04');
  t.equal(await sq(1, 1, 65, end - PAGE), '0/04', 'ends outside');
  t.equal(await sq(1, 1, 64, rom.iova), '0/00', 'a submission queue is only read');
  // Not physically contiguous, which CAP.CQR rules out.
  const scattered = { prp1: iova, cdw10: 2 | (15 << 16) };
  t.equal(await raw({ ...scattered, opcode: AdminOpcode.CREATE_IO_CQ, cdw11: 0 }), '0/02');
  t.equal(await raw({ ...scattered, opcode: AdminOpcode.CREATE_IO_SQ, cdw11: 1 << 16 }), '0/02');
});

t.test('interrupt vectors', { skip: onlyOurs }, async (t) => {
  const { cq } = await start(t, { maxIoQpairsPerCtrlr: 4 });
  t.equal(await cq(1, 16, undefined, 5), '1/08');
  t.equal(await cq(1, 16, undefined, 0xffff), '1/08');
  t.equal(await cq(1, 16, undefined, 4), '0/00');
  t.equal(await cq(2, 16, undefined, 4), '0/00', 'vectors may be shared');
  t.equal(await cq(3, 16, undefined, 0), '0/00', 'with the admin queue, too');
});

t.test('the number of queues', { skip: onlyOurs }, async (t) => {
  const { client, admin, cq } = await start(t, { maxIoQpairsPerCtrlr: 10 });
  const fid = Fid.NUMBER_OF_QUEUES;
  const both = (sqs: number, cqs: number) => ((sqs - 1) | ((cqs - 1) << 16)) >>> 0;
  t.equal((await admin.getFeature(fid)).dw0, both(10, 10));
  t.match(await admin.setFeature(fid, both(64, 64)), { code: '0/00', dw0: both(10, 10) });
  t.match(await admin.setFeature(fid, both(3, 3)), { code: '0/00', dw0: both(3, 3) });
  t.equal((await admin.getFeature(fid)).dw0, both(3, 3));
  t.match(await admin.setFeature(fid, both(2, 5)), { code: '0/00', dw0: both(5, 5) });
  t.equal((await admin.setFeature(fid, both(65536, 1))).code, '0/02');
  t.equal((await admin.setFeature(fid, both(1, 65536))).code, '0/02');
  t.equal(await cq(6), '1/01', 'more than were granted');
  t.equal(await cq(5), '0/00');
  t.equal((await admin.setFeature(fid, both(10, 10))).code, '0/0c', 'queues are there already');
  t.equal((await admin.getFeature(fid)).dw0, both(5, 5));
  await client.disable();
  await client.enable();
  t.equal((await admin.getFeature(fid)).dw0, both(10, 10), 'a reset gives all of them back');
  t.equal(await cq(10), '0/00');
});

t.test('as many as there can be, and all over again', async (t) => {
  const { client, cq, sq } = await start(t);
  for (let round = 0; round < 3; round++) {
    for (let qid = 64; qid >= 1; qid--) {
      t.equal(await cq(qid, 4096), '0/00');
      t.equal(await sq(qid, 64, 16), '0/00', 'on the first completion queue');
    }
    for (let qid = 1; qid <= 64; qid++) {
      t.equal(code(await deleteSq(client, qid)), '0/00');
    }
    for (let qid = 1; qid <= 64; qid++) {
      t.equal(code(await deleteCq(client, qid)), '0/00');
    }
  }
});

t.test('commands about one queue keep their order, sent all at once', async (t) => {
  const { cq, sq, client } = await start(t);
  for (let round = 0; round < 20; round++) {
    const answers = await Promise.all([
      cq(7),
      sq(3, 7),
      sq(3, 7),
      cq(7),
      deleteSq(client, 3).then(code),
      sq(3, 7),
      deleteSq(client, 3).then(code),
      deleteCq(client, 7).then(code),
      deleteCq(client, 7).then(code),
      sq(3, 7),
    ]);
    t.strictSame(answers, [
      '0/00',
      '0/00',
      '1/01',
      '1/01',
      '0/00',
      '0/00',
      '0/00',
      '0/00',
      '1/01',
      '1/00',
    ]);
  }
});

t.test(
  'a submission queue whose commands hang holds up its own commands only',
  {
    skip: onlyOurs || noFuse,
  },
  async (t) => {
    const disk = await FuseDisk.mount(t, MIB);
    const target = await TestTarget.start(t);
    const client = await target.connect(await target.serve(await target.pinning(disk.path)));
    const admin = new AdminCaller(client);
    const pair = await client.createQueuePair(1, 16);
    await disk.behave({ hold: true });
    pair.setBuffer(0, client.memory.iova + client.memory.allocate(PAGE), 0);
    pair.push(0, NvmOpcode.READ, 1, 0, 7);
    pair.ring();
    await disk.held(1);
    const ended: string[] = [];
    const waiting = [
      ['delete sq', deleteSq(client, 1)],
      ['delete sq again', deleteSq(client, 1)],
      ['delete cq', deleteCq(client, 1)],
    ].map(async ([name, promise]) => {
      const answer = code(await (promise as Promise<Completion>));
      ended.push(`${name}: ${answer}`);
    });
    t.equal((await admin.identify(Cns.CONTROLLER)).code, '0/00');
    t.equal((await admin.log(Lid.SMART, 512)).code, '0/00');
    t.equal((await admin.getFeature(Fid.NUMBER_OF_QUEUES)).code, '0/00');
    t.equal((await admin.setFeature(Fid.NUMBER_OF_QUEUES, 0)).code, '0/0c', 'queues are there');
    const abort = await admin.call({ opcode: AdminOpcode.ABORT, cdw10: 0 });
    t.match(abort, { code: '0/00', dw0: 1 }, 'not aborted');
    const event = client.admin.execute({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST });
    event.catch(() => {});
    t.equal(code(await deleteSq(client, 2)), '1/01');
    t.strictSame(ended, []);
    await disk.behave({});
    await Promise.all(waiting);
    t.strictSame(ended, ['delete sq: 0/00', 'delete sq again: 1/01', 'delete cq: 0/00']);
  },
);

t.test(
  'more commands than can wait are taken when others are done',
  { skip: onlyOurs || noFuse },
  async (t) => {
    const disk = await FuseDisk.mount(t, MIB);
    const target = await TestTarget.start(t);
    const served = await target.serve(await target.pinning(disk.path));
    const client = await target.connect(served, { adminDepth: 1024 });
    const pair = await client.createQueuePair(1, 16);
    await disk.behave({ hold: true });
    pair.setBuffer(0, client.memory.iova + client.memory.allocate(PAGE), 0);
    pair.push(0, NvmOpcode.READ, 1, 0, 7);
    pair.ring();
    await disk.held(1);
    const waiting = Array.from({ length: 600 }, () => deleteSq(client, 1).then(code));
    const behind = client.admin.execute({ opcode: AdminOpcode.KEEP_ALIVE });
    await disk.behave({});
    t.strictSame(await Promise.all(waiting), ['0/00', ...Array(599).fill('1/01')]);
    t.equal(code(await behind), '0/00');
  },
);
