/** Shadow doorbells (Doorbell Buffer Config, NVMe Base 2.0 §5.8): a host that rings only when it is asked to, and a reactor that sleeps. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { ClientMemory } from '../../src/client/memory.ts';
import { NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { Oacs } from '../../src/spec/identify.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Status } from '../../src/spec/nvme.ts';
import { createPair } from '../helpers/queues.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const PAGE = 4096;
const TRAPPED = { disableMappableBar0: true, shadowDoorbells: true };
const READ = { opcode: NvmOpcode.READ, nsid: 1, cdw12: 7 };

function configure(client: NvmeClient, prp1: number, prp2: number) {
  return client.admin.execute({ opcode: AdminOpcode.DOORBELL_BUFFER_CONFIG, prp1, prp2 });
}

/** A client with shadow doorbells and one queue pair of `depth` entries, whose doorbell messages are counted. */
async function start(
  t: Test,
  options: { depth?: number; cqDepth?: number; interrupts?: boolean } = {},
) {
  const { depth = 64, cqDepth = depth, interrupts = false } = options;
  const target = await TestTarget.start(t, { transport: TRAPPED });
  const served = await target.serve(await target.malloc(MIB));
  const client = await target.connect(served, { shadowDoorbells: true, interrupts });
  const rung = { count: 0 };
  const post = client.vfio.regionWritePosted.bind(client.vfio);
  client.vfio.regionWritePosted = (index, offset, data) => {
    rung.count += offset >= 0x1008 ? 1 : 0;
    post(index, offset, data);
  };
  const pair = await client.createQueuePair(1, depth, cqDepth);
  const { shadow } = pair.place;
  assert.ok(shadow);
  const prp1 = client.memory.iova + client.memory.allocate(PAGE);
  return { target, served, client, pair, shadow, rung, prp1 };
}

/** Resolves when the reactor asks to be rung for the next command, which it does before it sleeps. */
async function asleep(pair: QueuePair): Promise<void> {
  const { shadow, qid } = pair.place;
  assert.ok(shadow);
  while (shadow.eventIndexes[2 * qid] !== shadow.doorbells[2 * qid]) {
    await sleep(1);
  }
}

t.test('only where the doorbells cannot be mapped, and with pages that are there', async (t) => {
  const mapped = await TestTarget.start(t);
  const plain = await mapped.connect(await mapped.serve(await mapped.malloc(MIB)));
  t.equal((await plain.identifyController()).oacs & Oacs.mask.doorbellBufferConfig, 0);
  const { iova } = plain.memory;
  t.equal((await configure(plain, iova, iova + PAGE)).status, Status.INVALID_OPCODE);

  const target = await TestTarget.start(t, { transport: TRAPPED });
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  t.not((await client.identifyController()).oacs & Oacs.mask.doorbellBufferConfig, 0);
  const pages = client.memory.iova + client.memory.allocate(2 * PAGE);
  for (const [prp1, prp2] of [
    [pages + 4, pages + PAGE],
    [pages, pages + PAGE + 512],
    [pages, pages],
  ]) {
    t.equal((await configure(client, prp1, prp2)).status, Status.INVALID_FIELD);
  }
  for (const [prp1, prp2] of [
    [pages, 0x7000_0000],
    [0x7000_0000, pages],
    [pages, 2 ** 53 + PAGE],
  ]) {
    t.equal((await configure(client, prp1, prp2)).status, Status.DATA_TRANSFER_ERROR);
  }
  t.equal((await configure(client, pages, pages + PAGE)).status, Status.SUCCESS);
});

t.test('the reactor sleeps until it is rung', async (t) => {
  const { target, pair, rung, prp1 } = await start(t);
  for (let i = 0; i < 300; i++) {
    // More than four laps of the queue.
    assert.equal((await pair.execute({ ...READ, prp1, cdw10: i })).status, 0);
  }
  await asleep(pair);
  // What rang before may wake it once more, late if the machine is busy.
  let sleeps = -1;
  for (let i = 0; i < 20 && target.pool.state(0).sleeps !== sleeps; i++) {
    ({ sleeps } = target.pool.state(0));
    await sleep(300);
  }
  t.equal(target.pool.state(0).sleeps, sleeps, 'nothing wakes it');
  rung.count = 0;
  t.equal((await pair.execute({ ...READ, prp1 })).status, 0);
  t.ok(rung.count >= 1, 'the first command rings');
  t.ok(target.pool.state(0).sleeps > sleeps);
});

t.test('a sleeping reactor lets go of the socket', async (t) => {
  const { target, served, client, pair, prp1 } = await start(t);
  const fds = () => readdirSync('/proc/self/fd').length;
  const before = fds();
  assert.equal((await pair.execute({ ...READ, prp1 })).status, 0);
  await asleep(pair);
  await target.target.removeListener(served.nqn, dirname(served.socket));
  // Hangs if a poll still held the socket.
  await client.vfio.closed;
  t.ok(fds() < before, `${fds()} descriptors of ${before}`);
});

t.test('a busy reactor is not rung', async (t) => {
  const { pair, rung, prp1 } = await start(t, { depth: 32 });
  for (let cid = 0; cid < 32; cid++) {
    pair.setBuffer(cid, prp1, 0);
  }
  // Sent by hand without a turn of the event loop: a message cannot even leave.
  const commands = 20_000;
  let rings = 0;
  // What rang before may have woken it once more.
  for (let tries = 0; tries < 20 && rings === 0; tries++) {
    await asleep(pair);
    rung.count = 0;
    pair.push(0, NvmOpcode.READ, 1, 0, 7);
    pair.ring();
    rings = rung.count;
    while (pair.poll() === 0) {
      await new Promise(setImmediate);
    }
  }
  t.equal(rings, 1, 'one that sleeps is');
  rung.count = 0;
  let done = 0;
  let pushed = 0;
  while (done < commands) {
    while (pair.inflight < 16 && pushed < commands) {
      pair.push(pushed % 16, NvmOpcode.READ, 1, 0, 7);
      pushed += 1;
    }
    pair.ring();
    const from = done;
    while (done === from) {
      done += pair.poll();
      if (done === from) {
        // Should the reactor have gone to sleep meanwhile, the message has to leave.
        await new Promise(setImmediate);
      }
    }
  }
  t.equal(done, commands);
  t.ok(rung.count < commands / 4, `${rung.count} messages for ${commands} commands`);
});

t.test('commands that wait for room in the completion queue', async (t) => {
  const { pair, rung, prp1 } = await start(t, { depth: 32, cqDepth: 4 });
  for (let cid = 0; cid < 32; cid++) {
    pair.setBuffer(cid, prp1, 0);
  }
  let rings = 0;
  for (let lap = 0; lap < 20; lap++) {
    await asleep(pair);
    for (let cid = 0; cid < 20; cid++) {
      pair.push(cid, NvmOpcode.READ, 1, 0, 7);
    }
    pair.ring();
    await asleep(pair);
    rung.count = 0;
    let done = 0;
    while (done < 20) {
      done += pair.poll();
      await sleep(1);
    }
    rings += rung.count > 0 ? 1 : 0;
  }
  // Not if what rang before has just woken it once more.
  t.ok(rings > 0, 'to consume a completion rings, too');
});

t.test('interrupts and shadow doorbells', async (t) => {
  const { pair, prp1 } = await start(t, { interrupts: true, depth: 16 });
  for (let round = 0; round < 50; round++) {
    const reads = Array.from({ length: 40 }, (_, i) => pair.execute({ ...READ, prp1, cdw10: i }));
    t.ok((await Promise.all(reads)).every(({ status }) => status === 0));
    if (round % 10 === 0) {
      await asleep(pair);
    }
  }
});

t.test('a queue made before keeps its place, one made after begins anew', async (t) => {
  const target = await TestTarget.start(t, { transport: TRAPPED });
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const prp1 = client.memory.iova + client.memory.allocate(PAGE);
  const first = await createPair(client, { qid: 1, depth: 8 });
  for (let i = 0; i < 5; i++) {
    assert.equal((await first.execute({ ...READ, prp1 })).status, 0);
  }
  const offset = client.memory.allocate(2 * PAGE);
  const words = new Int32Array(client.memory.buffer, offset, 2048).fill(-1);
  const pages = client.memory.iova + offset;
  assert.equal((await configure(client, pages, pages + PAGE)).status, 0);
  t.equal(words[2], 5, 'the tail that was rung');
  t.equal(words[3], 5);
  t.equal((await createPair(client, { qid: 2, depth: 8 })).inflight, 0);
  t.equal(words[4], 0);
  t.equal(words[5], 0);
});

t.test('the pages go and come back', async (t) => {
  const target = await TestTarget.start(t, { transport: TRAPPED });
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const pages = new ClientMemory(2 * PAGE, 0x4000_0000);
  t.teardown(() => pages.close());
  const map = () => client.vfio.dmaMap({ iova: pages.iova, size: pages.size, fd: pages.fd });
  await map();
  const prp1 = client.memory.iova + client.memory.allocate(PAGE);
  const pair = await createPair(client, { qid: 1, depth: 8 });
  assert.equal((await configure(client, pages.iova, pages.iova + PAGE)).status, 0);
  const shadow = new Int32Array(pages.buffer, 0, PAGE / 4);
  const ring = pair.place.writeDoorbell;
  // As a host that rings every time.
  Object.assign(pair.place, {
    writeDoorbell: (index: number, value: number) => {
      Atomics.store(shadow, index, value);
      ring(index, value);
    },
  });
  assert.equal((await pair.execute({ ...READ, prp1 })).status, 0);
  await client.vfio.dmaUnmap(pages.iova, pages.size);
  let done = false;
  const read = pair.execute({ ...READ, prp1 }).then((completion) => {
    done = true;
    return completion;
  });
  await sleep(30);
  t.notOk(done, 'the queue rests');
  await map();
  // The admin queue works again, and main tells the reactor of the memory.
  t.equal((await read).status, 0);
  t.equal((await client.identifyController()).cntlid > 0, true);
});

t.test('a reset forgets them', async (t) => {
  const { client, prp1 } = await start(t);
  await client.enable();
  const pair = await createPair(client, { qid: 1, depth: 8 });
  for (let i = 0; i < 20; i++) {
    assert.equal((await pair.execute({ ...READ, prp1 })).status, 0);
  }
  t.pass('doorbells that come as messages count again');
});

t.test('an admin queue with shadow doorbells, as the specification has it', async (t) => {
  const { client, shadow } = await start(t);
  Object.assign(client.admin.place, { shadow });
  for (let i = 0; i < 100; i++) {
    assert.equal((await client.identifyController()).nn > 0, true);
  }
  t.pass('every command was heard');
});

t.test('nonsense in the pages', async (t) => {
  const { target, client, pair, shadow, prp1 } = await start(t, { depth: 16 });
  const event = client.admin.execute({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST });
  assert.equal((await pair.execute({ ...READ, prp1 })).status, 0);
  Atomics.store(shadow.doorbells, 2, 1000);
  pair.place.writeDoorbell(2, 1000);
  const { status, dw0 } = await event;
  t.equal(status, 0);
  t.equal(dw0 & 0xff07, 0x100, 'an error event: invalid doorbell write value');
  Atomics.store(shadow.doorbells, 2, 1);
  for (let i = 0; i < 1024; i++) {
    shadow.doorbells[i] = 0x5555_5555;
    shadow.eventIndexes[i] = -1;
  }
  await client.vfio.regionWrite(0, 0x1008, new Uint8Array(4));
  client.close();
  const again = await NvmeClient.connect((await target.serve(await target.null(MIB))).socket, {
    shadowDoorbells: true,
  });
  t.teardown(() => again.close());
  const other = await again.createQueuePair(1, 16);
  t.equal((await other.execute({ ...READ, prp1: again.memory.iova })).status, 0);
});
