/** Guests and targets that die in the middle of their work: what was completed is there, and the next one starts anew. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { VfioClient } from '../../src/client/vfio.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Register } from '../../src/spec/registers.ts';
import { PciRegion } from '../../src/spec/vfio-user.ts';
import { bareEnvironment } from '../helpers/bare-environment.ts';
import { BLOCKS, type Progress } from '../helpers/death-client.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { Random } from '../helpers/random.ts';
import { MIB, TestTarget } from '../helpers/target.ts';
import { TargetProcess } from '../helpers/target-process.ts';

const GUEST = fileURLToPath(new URL('../helpers/death-client.js', import.meta.url));
const { READ, WRITE, FLUSH } = NvmOpcode;

/** A guest in a process of its own, and what it said of its progress. */
class Guest {
  readonly child: ReturnType<typeof fork>;
  readonly over: Promise<unknown>;
  progress: Progress = new Array(BLOCKS).fill(0);
  reports = 0;
  #wake = () => {};

  constructor(socket: string, firstNumber: number) {
    this.child = fork(GUEST, [socket, String(firstNumber)], {
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      execArgv: [],
      env: bareEnvironment(),
    });
    this.over = new Promise((resolve) => this.child.once('close', resolve));
    this.child.on('message', (progress: Progress) => {
      this.progress = progress;
      this.reports += 1;
      this.#wake();
    });
  }

  async reported(count: number): Promise<void> {
    while (this.reports < count) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.over;
  }
}

/** Reads a guest's blocks: each is of one piece, and not older than what was completed. */
async function check(t: Test, client: NvmeClient, progress: Progress): Promise<void> {
  const pair = await client.createQueuePair(1, 16);
  const offset = client.memory.allocate(4096);
  const words = new Int32Array(client.memory.buffer, offset, 1024);
  for (const [block, completed] of progress.entries()) {
    const prp1 = client.memory.iova + offset;
    const read = { opcode: READ, nsid: 1, prp1, cdw10: 8 * block, cdw12: 7 };
    assert.equal((await pair.execute(read)).status, 0);
    const value = words[0];
    assert.ok(words.every((word) => word === value));
    assert.ok(value >= completed, `block ${block}: ${value}, where ${completed} was completed`);
  }
  t.ok(Math.max(...progress) > 0, 'what was completed is there');
}

async function startProcess(t: Test): Promise<{ target: TargetProcess; socket: string }> {
  const target = new TargetProcess(t);
  const filename = join(target.folder, 'disk.img');
  writeFileSync(filename, '');
  truncateSync(filename, MIB);
  return { target, socket: await serveFile(target, filename) };
}

async function serveFile(target: TargetProcess, filename: string): Promise<string> {
  await target.start();
  await target.call('bdev_uring_create', { name: 'F', filename });
  return target.serve('F');
}

t.test('guests are killed at random moments', async (t) => {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const { target, socket } = await startProcess(t);
  for (let round = 0; round < 8; round++) {
    const guest = new Guest(socket, 1_000_000 * round);
    await guest.reported(random.below(200));
    await guest.kill();
    const next = await NvmeClient.connect(socket, { memoryBytes: MIB });
    if (guest.reports > 0) {
      await check(t, next, guest.progress);
    }
    next.close();
  }
  t.ok(target.usage().fds > 0, 'the target lives');
});

t.test('the target is killed, and started again', async (t) => {
  const { target, socket } = await startProcess(t);
  for (let round = 0; round < 3; round++) {
    const guest = new Guest(socket, 1_000_000 * round);
    await guest.reported(50);
    await target.kill();
    const { progress } = guest;
    await guest.kill();
    t.equal(await serveFile(target, join(target.folder, 'disk.img')), socket);
    const next = await NvmeClient.connect(socket, { memoryBytes: MIB });
    await check(t, next, progress);
    next.close();
  }
});

t.test('the next guest finds a device that nobody used', async (t) => {
  const target = await TestTarget.start(t, { reactors: 2 });
  const { socket } = await target.serve(await target.malloc(MIB));
  const { BAR0, BAR4, CONFIG } = PciRegion;
  const look = async (): Promise<string[]> => {
    const vfio = VfioClient.connect(socket);
    await vfio.version();
    const regions = [
      await vfio.regionRead(BAR0, 0, 0x4000),
      await vfio.regionRead(BAR4, 0, 0x2000),
      await vfio.regionRead(CONFIG, 0, 0x1000),
    ];
    vfio.close();
    return regions.map((bytes) => Buffer.from(bytes).toString('base64'));
  };
  const untouched = await look();
  const first = await NvmeClient.connect(socket, { interrupts: true });
  t.teardown(() => first.close());
  await first.createQueuePair(1, 16);
  await first.writeRegister(Register.offset.intms, 0xff);
  await first.vfio.regionWrite(CONFIG, 4, Uint8Array.of(6, 4));
  await first.vfio.regionWrite(BAR4, 0, new Uint8Array(64).fill(0xff));
  first.vfio.close();
  t.strictSame(await look(), untouched);
  // The doorbells that the first one still has lead nowhere.
  const second = await NvmeClient.connect(socket);
  t.teardown(() => second.close());
  const pair = await second.createQueuePair(1, 16);
  const doorbells = first.admin.place.doorbells!;
  for (let i = 0; i < 50; i++) {
    for (let index = 0; index < 6; index++) {
      Atomics.store(doorbells, index, 15 - i);
    }
    assert.equal((await pair.execute({ opcode: FLUSH, nsid: 1 })).status, 0);
    assert.equal((await second.identifyController()).vid, 0x4e58);
  }
});

t.test('a second guest waits for the first to go', async (t) => {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.malloc(MIB));
  const first = await target.connect(served);
  const pair = await first.createQueuePair(1, 16);
  let connected = false;
  const waiting = NvmeClient.connect(served.socket).then((second) => {
    connected = true;
    return second;
  });
  for (let i = 0; i < 50; i++) {
    assert.equal((await pair.execute({ opcode: FLUSH, nsid: 1 })).status, 0);
    await first.identifyController();
  }
  t.notOk(connected);
  first.close();
  const second = await waiting;
  t.teardown(() => second.close());
  t.equal((await second.identifyController()).vid, 0x4e58);
});

t.test('a guest hangs up while its disk does not answer', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.file(disk.path));
  for (let round = 0; round < 3; round++) {
    const first = await NvmeClient.connect(served.socket);
    const pair = await first.createQueuePair(1, 16);
    const offset = first.memory.allocate(4096);
    const bytes = first.memory.bytes(offset, 4096);
    pair.setBuffer(0, first.memory.iova + offset, 0);
    bytes.fill(0x11);
    await disk.behave({ hold: true });
    pair.push(0, WRITE, 1, 0, 7);
    pair.push(0, READ, 1, 8, 7);
    pair.ring();
    await disk.held(2);
    first.vfio.close();
    const second = await NvmeClient.connect(served.socket);
    t.equal((await second.identifyController()).vid, 0x4e58, 'the next one is served');
    const next = await second.createQueuePair(1, 16);
    const page = second.memory.allocate(4096);
    second.memory.bytes(page, 4096).fill(0x22);
    const prp1 = second.memory.iova + page;
    const over = next.execute({ opcode: WRITE, nsid: 1, prp1, cdw10: 0, cdw12: 7 });
    await second.identifyController();
    bytes.fill(0x77);
    await disk.behave({});
    t.equal((await over).status, 0);
    second.memory.bytes(page, 4096).fill(0);
    t.equal((await next.execute({ opcode: READ, nsid: 1, prp1, cdw10: 0, cdw12: 7 })).status, 0);
    t.ok(
      second.memory.bytes(page, 4096).every((byte) => byte === 0x22),
      'the old write does not land on the new one',
    );
    t.equal(pair.poll(), 0, 'the first one gets no completions');
    t.ok(
      bytes.every((byte) => byte === 0x77),
      'nor is its memory touched',
    );
    first.close();
    second.close();
  }
});

t.test('a disk holds on to the memory of a guest that has gone', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.pinning(disk.path));
  const first = await NvmeClient.connect(served.socket);
  const pair = await first.createQueuePair(1, 16);
  const offset = first.memory.allocate(4096);
  first.memory.bytes(offset, 4096).fill(0x11);
  pair.setBuffer(0, first.memory.iova + offset, 0);
  await disk.behave({ hold: true });
  pair.push(0, WRITE, 1, 0, 7);
  pair.ring();
  await disk.held(1);
  first.vfio.close();
  const second = await NvmeClient.connect(served.socket);
  t.equal((await second.identifyController()).vid, 0x4e58, 'the next one is served');
  const next = await second.createQueuePair(1, 16);
  const page = second.memory.allocate(4096);
  const bytes = second.memory.bytes(page, 4096);
  bytes.fill(0x22);
  const prp1 = second.memory.iova + page;
  const over = next.execute({ opcode: WRITE, nsid: 1, prp1, cdw10: 0, cdw12: 7 });
  await second.identifyController();
  await disk.behave({});
  t.equal((await over).status, 0);
  bytes.fill(0);
  t.equal((await next.execute({ opcode: READ, nsid: 1, prp1, cdw10: 0, cdw12: 7 })).status, 0);
  t.ok(
    bytes.every((byte) => byte === 0x22),
    'the old write does not land on the new one',
  );
  first.close();
  second.close();
});

t.test('guests hang up at random moments', async (t) => {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const target = await TestTarget.start(t, { reactors: 2 });
  const bdevs = [await target.file(target.image(MIB)), await target.malloc(MIB)];
  const { socket } = await target.serve(...bdevs);
  for (let round = 0; round < 60; round++) {
    const client = await NvmeClient.connect(socket, { memoryBytes: MIB });
    const pairs = [await client.createQueuePair(1, 32), await client.createQueuePair(2, 32)];
    const prp1 = client.memory.iova + client.memory.allocate(4096);
    for (const pair of pairs) {
      pair.setBuffer(0, prp1, 0);
      for (let i = 0; i < 31; i++) {
        pair.push(0, random.pick([READ, WRITE, FLUSH]), 1 + random.below(2), 8 * i, 7);
      }
      pair.ring();
    }
    const last = random.pick([
      () => client.vfio.reset(),
      () => client.deleteQueuePair(1),
      () => client.vfio.dmaUnmapAll(),
      () => client.disable(),
      () => client.createQueuePair(3, 16),
      () => client.identifyController(),
    ])();
    last.catch(() => {});
    for (let turns = random.below(10); turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    client.close();
  }
  const after = await NvmeClient.connect(socket);
  t.equal((await after.identifyController()).vid, 0x4e58);
  after.close();
});
