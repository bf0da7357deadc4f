/** A disk that fails, falls short or takes its time: what the guest is told, and that the rest goes on. */
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { Cns } from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { Lid, SmartLog } from '../../src/spec/logs.ts';
import { NvmOpcode, RangeDword12 } from '../../src/spec/nvm.ts';
import { createLogger } from '../../src/util/log.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;
const Errno = {
  EPERM: 1,
  EINTR: 4,
  EIO: 5,
  EAGAIN: 11,
  ENOMEM: 12,
  EFAULT: 14,
  ENODEV: 19,
  EINVAL: 22,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  ENODATA: 61,
  EREMOTEIO: 121,
  EDQUOT: 122,
} as const;

async function start(t: Test) {
  const disk = await FuseDisk.mount(t, 4 * MIB);
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.file(disk.path), await target.malloc(MIB));
  const client = await target.connect(served);
  const pair = await client.createQueuePair(1, 64);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  const command = (opcode: number, cdw12 = 7, nsid = 1) =>
    pair.execute({ opcode, nsid, prp1, cdw10: 16, cdw12 });
  const outcome = async (opcode: number, cdw12?: number) => code(await command(opcode, cdw12));
  return { disk, target, client, pair, command, outcome };
}

const RETRY_ALLOWED = 0;
const retry = ({ status }: { status: number }) => status & 0x4000;

t.test('errors of reads, writes and syncs', { skip: noFuse }, async (t) => {
  const { disk, command, outcome } = await start(t);
  const { EIO, ENODEV, EINVAL, ENODATA, EREMOTEIO } = Errno;
  for (const errno of [EIO, ENODEV, EINVAL, ENODATA, EREMOTEIO]) {
    await disk.behave({ read: errno, write: errno });
    t.equal(await outcome(READ), '2/81', `errno ${errno}: unrecovered read error`);
    t.equal(await outcome(WRITE), '2/80', `errno ${errno}: write fault`);
    t.equal(retry(await command(READ)), RETRY_ALLOWED, 'a medium may recover');
  }
  for (const errno of [Errno.ENOSPC, Errno.EDQUOT, Errno.EFBIG]) {
    await disk.behave({ write: errno });
    t.equal(await outcome(WRITE), '0/81', `errno ${errno}: capacity exceeded`);
    t.equal(await outcome(READ), '0/00');
  }
  for (const errno of [Errno.EROFS, Errno.EPERM]) {
    await disk.behave({ write: errno });
    t.equal(await outcome(WRITE), '0/20', `errno ${errno}: write protected`);
  }
  await disk.behave({ read: Errno.ENOMEM, write: Errno.ENOMEM });
  t.equal(await outcome(READ), '0/06', 'an internal error');
  t.equal(await outcome(WRITE), '0/06');
  t.equal(retry(await command(READ)), RETRY_ALLOWED);
  await disk.behave({ read: Errno.EFAULT });
  t.equal(await outcome(READ), '0/04');
  await disk.behave({});
  for (const opcode of [READ, WRITE, FLUSH]) {
    t.equal(await outcome(opcode), '0/00', 'and all is well again');
  }
});

t.test('errors that another try may mend are tried again', { skip: noFuse }, async (t) => {
  const { disk, outcome } = await start(t);
  for (const errno of [Errno.EAGAIN, Errno.EINTR]) {
    await disk.behave({ read: errno, write: errno, fsync: errno });
    const outcomes = [outcome(READ), outcome(WRITE), outcome(FLUSH)];
    await new Promise((resolve) => setImmediate(resolve));
    await disk.behave({});
    t.strictSame(await Promise.all(outcomes), ['0/00', '0/00', '0/00'], `errno ${errno}`);
  }
});

t.test('an error of a disk is told', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, 4 * MIB);
  const lines: Record<string, unknown>[] = [];
  const sink = (line: string): boolean => lines.push(JSON.parse(line)) > 0;
  const { log } = createLogger({ level: 'error', format: 'json', sink });
  const target = await TestTarget.start(t, { log });
  const bdev = await target.file(disk.path);
  const served = await target.serve(bdev);
  const client = await target.connect(served);
  const pair = await client.createQueuePair(1, 64);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  const { events } = target.target;
  const before = events.last;
  const told = () => events.since(before).filter(({ type }) => type === 'error');
  const command = (opcode: number) => pair.execute({ opcode, nsid: 1, prp1, cdw10: 16, cdw12: 7 });
  await disk.behave({ write: Errno.ENOSPC, read: Errno.EIO, fsync: Errno.EIO });
  await Promise.all(Array.from({ length: 40 }, () => command(WRITE)));
  const where = { nqn: served.nqn, socket: served.socket, nsid: 1, bdev };
  while (told().length === 0) {
    await client.identifyController();
  }
  t.match(told()[0], {
    ...where,
    message: 'write at LBA 16 failed: ENOSPC (No space left on device)',
  });
  t.match(lines, [
    {
      level: 50,
      component: 'nvme',
      nqn: served.nqn,
      nsid: 1,
      bdev,
      operation: 'write',
      lba: 16,
      reason: 'ENOSPC',
      msg: 'a disk reports an error',
    },
  ]);
  // What was left out is counted by the next that is told of. The first sync is the last that is tried.
  await sleep(1100);
  await command(FLUSH);
  while (told().length === 1) {
    await client.identifyController();
  }
  t.match(told()[1], {
    ...where,
    message: /^flush failed: EIO \(Input\/output error\), the last of \d+ failures$/,
  });
  while (told().length === 2) {
    await command(READ);
  }
  t.match(told()[2], { message: /^read at LBA 16 failed: EIO / });
  t.equal(told().length, lines.filter(({ component }) => component === 'nvme').length);
});

t.test('one failure is one failure', { skip: noFuse }, async (t) => {
  const { disk, client, command } = await start(t);
  await disk.behave({ read: Errno.EIO });
  const reads = Array.from({ length: 40 }, () => command(READ));
  const writes = Array.from({ length: 40 }, () => command(WRITE));
  const others = Array.from({ length: 40 }, () => command(READ, 7, 2));
  t.ok((await Promise.all(reads)).every((done) => code(done) === '2/81'));
  t.ok((await Promise.all(writes)).every((done) => code(done) === '0/00'));
  t.ok((await Promise.all(others)).every((done) => code(done) === '0/00'));
  const { data } = await new AdminCaller(client).log(Lid.SMART, 512);
  const smart = SmartLog.read(new DataView(data.buffer));
  t.match(smart, { mediaErrors: 40, hostReads: 40, hostWrites: 40 }, 'and so it is counted');
});

t.test('FUA and a write cache that is off: written means durable', { skip: noFuse }, async (t) => {
  const { disk, client, outcome } = await start(t);
  const admin = new AdminCaller(client);
  const fua = (7 | RangeDword12.mask.fua) >>> 0;
  t.equal(await outcome(WRITE, fua), '0/00');
  await disk.behave({ fsync: Errno.EIO });
  t.equal(await outcome(WRITE), '0/00', 'into the cache');
  t.equal(await outcome(WRITE, fua), '2/80', 'FUA goes past it');
  t.equal(await outcome(READ, fua), '0/00');
  await admin.setFeature(Fid.VOLATILE_WRITE_CACHE, 0);
  t.equal(await outcome(WRITE), '2/80', 'no cache');
  await admin.setFeature(Fid.VOLATILE_WRITE_CACHE, 1);
  t.equal(await outcome(WRITE), '0/00');
  await admin.setFeature(Fid.VOLATILE_WRITE_CACHE, 0);
  await client.disable();
  await client.enable();
  t.equal((await admin.getFeature(Fid.VOLATILE_WRITE_CACHE)).dw0, 1, 'a reset turns it on');
  const pair = await client.createQueuePair(1, 16);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  const write = { opcode: WRITE, nsid: 1, prp1, cdw12: 7 };
  t.equal(code(await pair.execute(write)), '0/00', 'in truth, too');
});

for (const most of [512, 4096, 10_000, 65_536]) {
  t.test(`reads of no more than ${most} bytes at a time`, { skip: noFuse }, async (t) => {
    const { disk, client, pair } = await start(t);
    const random = new Random();
    t.comment(`SEED=${random.seed}`);
    await disk.behave({ most });
    const pool = new PagePool(random).add(client.memory);
    const copy = new Uint8Array(4 * MIB);
    const pairs = [pair];
    const load = { pairs, nsid: 1, blockSize: 512, copy, pool, random, keepsDiscarded: true };
    await runWorkload({ ...load, workers: 4, commands: 12, maxBytes: 200 * most });
    t.pass('every byte was as it should be');
  });
}

t.test('a disk that gives nothing', { skip: noFuse }, async (t) => {
  const { disk, outcome } = await start(t);
  await disk.behave({ most: 0 });
  t.equal(await outcome(READ), '2/81');
});

t.test('a disk that hangs stops nobody else', { skip: noFuse }, async (t) => {
  const { disk, client, target, pair, command } = await start(t);
  await disk.behave({ hold: true });
  const hanging = Array.from({ length: 30 }, (_, i) => command(i % 2 === 0 ? READ : WRITE));
  await disk.held(1);
  const neighbour = await target.connect(await target.serve(await target.malloc(MIB)));
  const other = await neighbour.createQueuePair(1, 16);
  for (let i = 0; i < 100; i++) {
    t.equal(code(await other.execute({ opcode: FLUSH, nsid: 1 })), '0/00', 'another controller');
    t.equal(code(await pair.execute({ opcode: FLUSH, nsid: 2 })), '0/00', 'the same queue');
  }
  t.equal((await new AdminCaller(client).identify(Cns.CONTROLLER)).code, '0/00');
  await disk.behave({});
  t.ok((await Promise.all(hanging)).every((done) => code(done) === '0/00'));
});

t.test('more commands than a reactor can have in flight', { skip: noFuse }, async (t) => {
  const { disk, client } = await start(t);
  await disk.behave({ hold: true });
  const pairs: QueuePair[] = [];
  const counts = new Int32Array(1000);
  for (const qid of [2, 3, 4]) {
    const pair = await client.createQueuePair(qid, 1001);
    pairs.push(pair);
    for (let cid = 0; cid < 1000; cid++) {
      pair.push(cid, FLUSH, 1, 0, 0);
    }
    pair.ring();
  }
  await disk.held(1);
  await disk.behave({});
  while (pairs.some(({ inflight }) => inflight > 0)) {
    for (const pair of pairs) {
      const count = pair.poll();
      for (let i = 0; i < count; i++) {
        counts[pair.doneIds[i]] += 1;
        t.equal(pair.doneStatus[i], 0);
      }
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.ok(
    counts.every((count) => count === 3),
    'one completion a command',
  );
});
