/** Reactors: what wakes them, what they count, which file they use, and the loss of their ring. */
import assert from 'node:assert/strict';
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  writeFileSync,
} from 'node:fs';
import t from 'tap';
import type { FileDescriptor } from '../../src/bdev/file.ts';
import { Op } from '../../src/bdev/op.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { MAX_BDEVS, MAX_NAMESPACES } from '../../src/limits.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Status } from '../../src/spec/nvme.ts';
import { Csts, Register } from '../../src/spec/registers.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;

t.test('doorbells that come as messages end the longest sleep', async (t) => {
  // A reactor that is not woken sleeps for longer than this test may take.
  const target = await TestTarget.start(t, {
    maxSleepUs: 60_000_000,
    transport: { disableMappableBar0: true },
  });
  const bdevs = [await target.malloc(MIB), await target.file(target.image(MIB))];
  const client = await target.connect(await target.serve(...bdevs));
  const pairs = [await client.createQueuePair(1, 8), await client.createQueuePair(2, 2)];
  for (let i = 0; i < 40; i++) {
    for (const pair of pairs) {
      for (const nsid of [1, 2]) {
        assert.equal((await pair.execute({ opcode: FLUSH, nsid })).status, 0);
      }
    }
    // Long enough for a reactor to fall asleep.
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await client.deleteQueuePair(1);
  await client.disable();
  t.pass('each command was seen');
});

t.test('what was done is counted, once', async (t) => {
  const target = await TestTarget.start(t, { reactors: 2 });
  const names = [await target.malloc(MIB), await target.file(target.image(MIB))];
  const client = await target.connect(await target.serve(...names));
  const pairs = [await client.createQueuePair(1, 8), await client.createQueuePair(2, 8)];
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  for (const [i, name] of names.entries()) {
    const nsid = i + 1;
    for (let n = 0; n < 30; n++) {
      const pair = pairs[n % 2];
      await pair.execute({ opcode: READ, nsid, prp1, cdw10: n, cdw12: 7 });
      await pair.execute({ opcode: WRITE, nsid, prp1, cdw10: n, cdw12: 0 });
      await pair.execute({ opcode: FLUSH, nsid });
      await pair.execute({ opcode: READ, nsid, prp1, cdw10: 1_000_000 });
    }
    const { index } = target.target.bdevs.get(name);
    const [first, second] = [0, 1].map((reactor) => target.pool.iostat(index, reactor));
    const reads = [first, second].map((tally) => tally.of(Op.READ));
    const writes = [first, second].map((tally) => tally.of(Op.WRITE));
    t.equal(reads[0].ops + reads[1].ops, 30);
    t.equal(reads[0].bytes + reads[1].bytes, 30 * 4096);
    t.equal(writes[0].ops + writes[1].ops, 30);
    t.equal(writes[0].bytes + writes[1].bytes, 30 * 512);
    t.equal(first.flushes + second.flushes, 30);
    const failed = first.backendErrors + second.backendErrors;
    t.equal(failed, 0, 'a command that is refused never reached the disk');
    t.strictSame([...first.errors], [[Status.LBA_OUT_OF_RANGE, 15]], 'but it is counted');
    t.equal(reads[0].ops, 15, 'each reactor its own');
    target.pool.resetIostat(index, 'all');
    t.equal(target.pool.iostat(index, 0).of(Op.READ).ops, 0);
    t.equal(target.pool.bdevTally(index, 0).of(Op.READ).ops, 15);
  }
});

t.test('a descriptor number that is used again', async (t) => {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.malloc(MIB));
  const staying = await target.connect(await target.serve(await target.malloc(MIB)));
  const other = await staying.createQueuePair(1, 8);
  const numbers = new Set<number>();
  for (let round = 0; round < 12; round++) {
    const path = target.image(MIB);
    writeFileSync(path, Buffer.alloc(MIB, round + 1));
    const bdev = await target.file(path, { direct: round % 2 === 1 });
    const backend = target.target.bdevs.get(bdev).backend as FileDescriptor;
    numbers.add(backend.fds[0]);
    const add = () => target.target.addNamespace(served.nqn, bdev, { nsid: 2 });
    const remove = () => target.target.deleteBdev(bdev, 'uring');
    // Before the guest comes or after; gone before the guest or after.
    if (round % 3 !== 0) {
      await add();
    }
    const client = await target.connect(served);
    const pair = await client.createQueuePair(1, 8);
    if (round % 3 === 0) {
      await add();
    }
    const offset = client.memory.allocate(4096);
    const bytes = client.memory.bytes(offset, 4096);
    const command = { nsid: 2, prp1: client.memory.iova + offset, cdw10: 8, cdw12: 7 };
    assert.equal((await pair.execute({ ...command, opcode: READ })).status, 0);
    t.ok(
      bytes.every((byte) => byte === round + 1),
      'the new file is read',
    );
    bytes.fill(0xee);
    assert.equal((await pair.execute({ ...command, opcode: WRITE })).status, 0);
    t.equal(readFileSync(path)[4096], 0xee, 'the new file is written');
    if (round % 2 === 0) {
      await remove();
      client.close();
    } else {
      client.close();
      await remove();
    }
    assert.equal((await other.execute({ opcode: FLUSH, nsid: 1 })).status, 0);
  }
  t.ok(numbers.size < 12, `${numbers.size} numbers for 12 files`);
});

t.test('a reactor has room for every file that there can be', { timeout: 600_000 }, async (t) => {
  const target = await TestTarget.start(t);
  const path = target.image(4096);
  for (let left = MAX_BDEVS; left > 0; ) {
    const count = Math.min(left, MAX_NAMESPACES);
    const bdevs: string[] = [];
    for (let i = 0; i < count; i++) {
      bdevs.push(await target.file(path));
    }
    const client = await target.connect(await target.serve(...bdevs), { memoryBytes: MIB });
    const pair = await client.createQueuePair(1, 8);
    for (const nsid of [1, count]) {
      assert.equal((await pair.execute({ opcode: FLUSH, nsid })).status, 0);
    }
    left -= count;
  }
  await t.rejects(target.file(path), { code: 'ENOSPC' });
});

/** The descriptors of rings as large as a reactor's; Node's own are smaller. */
function reactorRings(): number[] {
  return readdirSync('/proc/self/fd')
    .map(Number)
    .filter((fd) => {
      try {
        const link = readlinkSync(`/proc/self/fd/${fd}`);
        const mask = /^SqMask:\s*0x(\w+)/m.exec(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
        return link.includes('io_uring') && parseInt(mask?.[1] ?? '0', 16) >= 1023;
      } catch {
        return false;
      }
    });
}

/** Puts a file in the place of a ring: the kernel refuses what the reactor asks of it from now on. */
function breakRing(ring: number): void {
  closeSync(ring);
  const spare: number[] = [];
  for (let fd = openSync('/dev/null', 'r'); fd !== ring; fd = openSync('/dev/null', 'r')) {
    spare.push(fd);
  }
  spare.forEach((fd) => {
    closeSync(fd);
  });
}

async function failed(client: NvmeClient): Promise<void> {
  while (((await client.readRegister(Register.offset.csts)) & Csts.mask.cfs) === 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

t.test('the kernel refuses a ring under load', { timeout: 600_000 }, async (t) => {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const target = await TestTarget.start(t, { reactors: 2 });
  const path = target.image(4 * MIB);
  const bdev = await target.file(path);
  const client = await target.connect(await target.serve(bdev), { memoryBytes: 64 * MIB });
  const pool = new PagePool(random).add(client.memory, 8192);
  for (let round = 0; round < 3; round++) {
    // A reactor that dies in its first second is taken for one that cannot live.
    await new Promise((resolve) => setTimeout(resolve, 1100));
    while (reactorRings().length < 2) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await client.enable();
    const pairs = [await client.createQueuePair(1, 16), await client.createQueuePair(2, 16)];
    const copy = new Uint8Array(readFileSync(path));
    const load = { pairs, nsid: 1, blockSize: 512, copy, pool, random, maxBytes: 65536 };
    await runWorkload({ ...load, workers: 4, commands: 20 });
    t.ok(readFileSync(path).equals(copy), 'what was completed is there');
    const endless = runWorkload({ ...load, workers: 4, commands: 1_000_000 });
    const ended = t.rejects(endless, /gone/);
    breakRing(reactorRings()[round % 2]);
    await failed(client);
    await client.disable();
    for (const pair of pairs) {
      pair.abandon();
    }
    await ended;
  }
  await client.enable();
  const pairs = [await client.createQueuePair(1, 16), await client.createQueuePair(2, 16)];
  const copy = new Uint8Array(readFileSync(path));
  const load = { pairs, nsid: 1, blockSize: 512, copy, pool, random, maxBytes: 65536 };
  await runWorkload({ ...load, workers: 4, commands: 20 });
  t.equal(reactorRings().length, 2, 'two reactors poll');
});

t.test('blocks of a write that a refused ring has left are free', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.file(disk.path)));
  const pair = await client.createQueuePair(1, 8);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  const write = { opcode: WRITE, nsid: 1, prp1 };
  await disk.behave({ hold: true });
  const hanging = t.rejects(pair.execute(write), /gone/);
  await disk.held(1);
  // A reactor that dies in its first second is taken for one that cannot live.
  await new Promise((resolve) => setTimeout(resolve, 1100));
  const [ring] = reactorRings();
  breakRing(ring);
  // Whatever makes the reactor use its ring.
  pair.execute({ opcode: FLUSH, nsid: 1 }).catch(() => {});
  await failed(client);
  await disk.behave({});
  await client.disable();
  pair.abandon();
  await hanging;
  await client.enable();
  const again = await client.createQueuePair(1, 8);
  t.equal((await again.execute(write)).status, 0);
  t.equal((await again.execute({ opcode: FLUSH, nsid: 1 })).status, 0);
});

t.test('main goes on while a disk hangs', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.file(disk.path));
  const client = await target.connect(served);
  const pair = await client.createQueuePair(1, 8);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  await disk.behave({ hold: true });
  const read = pair.execute({ opcode: READ, nsid: 1, prp1 });
  await disk.held(1);
  // Other subsystems are made, served and removed meanwhile.
  for (let i = 0; i < 5; i++) {
    const bdev = await target.malloc(MIB);
    const { nqn, socket } = await target.serve(bdev);
    const guest = await target.connect({ nqn, socket });
    const queue = await guest.createQueuePair(1, 8);
    t.equal((await queue.execute({ opcode: FLUSH, nsid: 1 })).status, 0);
    guest.close();
    await target.target.deleteSubsystem(nqn);
    await target.target.deleteBdev(bdev, 'malloc');
  }
  await disk.behave({});
  t.equal((await read).status, 0);
});
