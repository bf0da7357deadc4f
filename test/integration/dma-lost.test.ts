/** Guest memory that its owner truncates while it is mapped, and memory behind files that may hold up whoever touches it. */
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import t, { type Test } from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { native } from '../../src/native/index.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Status } from '../../src/spec/nvme.ts';
import { Csts, Register } from '../../src/spec/registers.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { createPair, room, writeDoorbell } from '../helpers/queues.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const PAGE = 4096;
const IOVA = 0x4000_0000;
const LOST = /memory of the VM is lost/;

/** An open file of so many bytes, without a name, in a folder. */
function file(t: Test, folder: string, bytes: number): number {
  const place = mkdtempSync(join(folder, 'doorbell-'));
  t.teardown(() => rmSync(place, { recursive: true }));
  const fd = openSync(join(place, 'memory'), 'w+');
  t.teardown(() => closeSync(fd));
  ftruncateSync(fd, bytes);
  return fd;
}

/** A log that is kept. */
function keptLog() {
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: 'info' }, { write: (line: string) => lines.push(JSON.parse(line)) });
  return { log, lines };
}

async function untilFailed(client: NvmeClient): Promise<void> {
  while (((await client.readRegister(Register.offset.csts)) & Csts.mask.cfs) === 0) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Work on a disk of its own that finds all data right. */
async function works(client: NvmeClient): Promise<void> {
  const pair = await client.createQueuePair(9, 16);
  const offset = client.memory.allocate(2 * PAGE);
  const [from, to] = [offset, offset + PAGE].map((at) => client.memory.bytes(at, PAGE));
  for (let i = 0; i < 64; i++) {
    from.fill(i + 1);
    const io = { nsid: 1, cdw10: 8 * i, cdw12: 7 };
    const write = { ...io, opcode: NvmOpcode.WRITE, prp1: client.memory.iova + offset };
    const read = { ...io, opcode: NvmOpcode.READ, prp1: client.memory.iova + offset + PAGE };
    assert.equal((await pair.execute(write)).status, 0);
    assert.equal((await pair.execute(read)).status, 0);
    assert.deepEqual(to, from);
  }
  await client.deleteQueuePair(9);
}

for (const kind of ['a copy', 'the kernel', 'a queue', 'a queue over several regions'] as const) {
  t.test(`truncated memory, touched by ${kind}: that controller fails`, async (t) => {
    const { log, lines } = keptLog();
    const target = await TestTarget.start(t, { log });
    const disk = await target.malloc(MIB);
    const served = await target.serve(disk, await target.file(target.image(MIB)));
    const client = await target.connect(served);
    const neighbour = await target.connect(await target.serve(await target.malloc(MIB)));
    const fd = file(t, '/dev/shm', 64 * PAGE);
    for (let i = 0; i < 64; i++) {
      await client.vfio.dmaMap({ iova: IOVA + i * PAGE, size: PAGE, fd, offset: i * PAGE });
    }
    const pair = await client.createQueuePair(1, 64);
    const memory = { iova: IOVA, words: new Int32Array(native.mapFile(fd, 0, 64 * PAGE, true)) };
    const spare = await createPair(client, {
      qid: 2,
      depth: 16,
      sq: { iova: IOVA + 2 * PAGE, words: memory.words.subarray((2 * PAGE) / 4) },
      cq: room(client.memory, 4096),
    });
    const wide = await createPair(client, {
      qid: 3,
      depth: 128,
      sq: { iova: IOVA + 4 * PAGE, words: memory.words.subarray((4 * PAGE) / 4) },
      cq: room(client.memory, 4096),
    });
    const read = (nsid: number) =>
      pair.execute({ opcode: NvmOpcode.READ, nsid, prp1: IOVA + 60 * PAGE, cdw12: 7 });
    t.equal((await read(1)).status, 0);
    t.equal((await read(2)).status, 0);
    t.equal((await spare.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 })).status, 0);
    t.equal((await wide.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 })).status, 0);
    ftruncateSync(fd, 0);
    const written = client.memory.iova + client.memory.allocate(PAGE);
    if (kind === 'the kernel') {
      // It says so, and no thread of ours has touched anything.
      t.equal((await read(2)).status, Status.DATA_TRANSFER_ERROR);
      t.equal((await client.readRegister(Register.offset.csts)) & Csts.mask.cfs, 0);
      void read(1).catch(() => {});
    } else if (kind === 'a copy') {
      void read(1).catch(() => {});
    } else {
      // The client's own view of the queue is gone as well, but its doorbell is not.
      const { qid } = (kind === 'a queue' ? spare : wide).place;
      writeDoorbell(client, 2 * qid, 2);
    }
    await untilFailed(client);
    t.match(lines.find(({ reason }) => LOST.test(String(reason)))?.msg, /CSTS.CFS/, 'logged');
    const { events } = target.target;
    t.ok(
      events.since(0).some((event) => LOST.test(String('message' in event && event.message))),
      'and told',
    );
    // Nothing of that memory gets to a disk any more.
    void pair
      .execute({ opcode: NvmOpcode.WRITE, nsid: 1, prp1: written, cdw12: 7 })
      .catch(() => {});
    await works(neighbour);
    await client.vfio.dmaUnmap(IOVA, 64 * PAGE);
    await client.vfio.dmaUnmapAll();
    client.close();
    const next = await target.connect(served);
    await works(next);
    t.pass('the neighbour and the next client work');
  });
}

t.test('many truncated regions cost no more mappings than they were', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const neighbour = await target.connect(await target.serve(await target.malloc(MIB)));
  const [regions, pages] = [700, 16];
  const fd = file(t, '/dev/shm', regions * pages * PAGE);
  const size = pages * PAGE;
  for (let i = 0; i < regions; i++) {
    await client.vfio.dmaMap({ iova: IOVA + i * size, size, fd, offset: i * size });
  }
  const pair = await client.createQueuePair(1, 256);
  const before = native.faultCount();
  ftruncateSync(fd, 0);
  for (let i = 0; i < regions; i++) {
    void pair
      .execute({ opcode: NvmOpcode.READ, nsid: 1, prp1: IOVA + i * size, cdw12: 0 })
      .catch(() => {});
  }
  await untilFailed(client);
  await works(neighbour);
  const faults = native.faultCount() - before;
  t.ok(faults > 0 && faults <= regions, `${faults} faults in ${regions} regions`);
});

t.test('memory behind another kind of file is not mapped, unless that is asked for', async (t) => {
  for (const mapFileMemory of [false, true]) {
    const { log, lines } = keptLog();
    const target = await TestTarget.start(t, { log, transport: { mapFileMemory } });
    const client = await target.connect(await target.serve(await target.malloc(MIB)));
    const pair = await client.createQueuePair(1, 16);
    const read = async (prp1: number) =>
      (await pair.execute({ opcode: NvmOpcode.READ, nsid: 1, prp1, cdw12: 7 })).status;
    const disk = file(t, tmpdir(), 4 * PAGE);
    const zero = openSync('/dev/zero', 'r+');
    t.teardown(() => closeSync(zero));
    const memory = file(t, '/dev/shm', 4 * PAGE);
    const files = [disk, zero, memory].filter((fd) => fd !== disk || !native.isMemoryFile(disk));
    for (const [i, fd] of files.entries()) {
      await client.vfio.dmaMap({ iova: IOVA + i * 16 * PAGE, size: 4 * PAGE, fd });
      const mapped = mapFileMemory || fd === memory;
      const expected = mapped ? 0 : Status.DATA_TRANSFER_ERROR;
      t.equal(await read(IOVA + i * 16 * PAGE), expected);
      await t.rejects(
        client.vfio.dmaMap({ iova: IOVA + i * 16 * PAGE, size: PAGE, fd }),
        { code: 'EEXIST' },
        'it is remembered either way',
      );
    }
    const told = lines.filter(({ msg }) => /--map-file-memory/.test(String(msg)));
    t.equal(told.length, mapFileMemory ? 0 : 1, 'one line names the option');
    t.equal(await client.vfio.dmaUnmap(IOVA, MIB), files.length * 4 * PAGE);
  }
});

t.test('a file whose server does not answer holds nobody up', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const neighbour = await target.connect(await target.serve(await target.malloc(MIB)));
  const fd = openSync(disk.path, 'r+');
  t.teardown(() => closeSync(fd));
  await disk.behave({ hold: true });
  await client.vfio.dmaMap({ iova: IOVA, size: 4 * PAGE, fd });
  const pair = await client.createQueuePair(1, 16);
  const read = { opcode: NvmOpcode.READ, nsid: 1, prp1: IOVA, cdw12: 7 };
  t.equal((await pair.execute(read)).status, Status.DATA_TRANSFER_ERROR);
  await works(neighbour);
  await disk.behave({});
});
