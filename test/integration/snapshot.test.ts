/** Events and snapshots of a real target with real clients: each change is told once, and the numbers are what the client did. */
import t from 'tap';
import { succeeded } from '../../src/client/nvme.ts';
import type { PlaneMessage } from '../../src/reactor/control.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Cc, Csts, Register } from '../../src/spec/registers.ts';
import type { TargetEvent } from '../../src/target/events.ts';
import { type ControllerSnapshot, type Snapshot, snapshot } from '../../src/target/snapshot.ts';
import { FuseDisk, noFuse } from '../helpers/fuse.ts';
import { MIB, type Served, TestTarget } from '../helpers/target.ts';

/** What an event is about, in short. */
function brief(event: TargetEvent): string {
  const { type } = event;
  const about = 'bdev' in event ? event.bdev : '';
  const nsid = 'nsid' in event ? ` ${event.nsid}` : '';
  return `${type}${nsid} ${about ?? ''}`.trim();
}

/** Resolves with the events so far once one of a type is there. */
async function untilEvent(target: TestTarget, type: string): Promise<readonly TargetEvent[]> {
  const { events } = target.target;
  while (!events.since().some((event) => event.type === type)) {
    await new Promise<void>((resolve) => {
      const stop = events.subscribe(() => {
        stop();
        resolve();
      });
    });
  }
  return events.since();
}

function controllerOf(state: Snapshot, { socket }: Served): ControllerSnapshot | undefined {
  return state.subsystems
    .flatMap(({ listeners }) => listeners)
    .find((listener) => listener.socket === socket)?.controller;
}

t.test('every change of the target is told', async (t) => {
  const target = await TestTarget.start(t);
  const { events } = target.target;
  const bdev = await target.null(MIB);
  const served = await target.serve(bdev);
  await target.target.resizeNull(bdev, 2);
  await target.target.removeNamespace(served.nqn, 1);
  await target.target.addNamespace(served.nqn, bdev, { nsid: 5 });
  await target.target.deleteBdev(bdev, 'null');
  await target.target.deleteSubsystem(served.nqn);
  t.strictSame(events.since().map(brief), [
    'bdev-created null1',
    'subsystem-created',
    'namespace-added 1 null1',
    'listener-added',
    'namespace-resized 1 null1',
    'namespace-removed 1 null1',
    'namespace-added 5 null1',
    'namespace-removed 5 null1',
    'bdev-deleted null1',
    'listener-removed',
    'subsystem-deleted',
  ]);
  t.match(events.since(3)[0], { type: 'listener-added', nqn: served.nqn, socket: served.socket });
  t.strictSame(
    events.since().map(({ seq }) => seq),
    events.since().map((_, i) => i + 1),
  );
  const refused = target.target.deleteBdev('none', 'null');
  await t.rejects(refused, { code: 'ENODEV' });
  t.equal(events.last, 11, 'what is refused has not happened');
});

t.test('the life of a guest is told', async (t) => {
  const target = await TestTarget.start(t);
  const { events } = target.target;
  const served = await target.serve(await target.null(MIB));
  const start = events.last;
  const client = await target.connect(served);
  await client.writeRegister(
    Register.offset.cc,
    (await client.readRegister(Register.offset.cc)) | Cc.encode({ shn: 1 }),
  );
  await client.disable();
  await client.enable();
  await client.vfio.reset();
  await t.rejects(client.vfio.dmaUnmap(0x7000, 0x800), 'refused');
  await client.writeRegister(Register.offset.aqa, 0);
  await client.writeRegister(Register.offset.cc, Cc.mask.en);
  t.not((await client.readRegister(Register.offset.csts)) & Csts.mask.cfs, 0, 'failed');
  client.close();
  const told = (await untilEvent(target, 'client-gone')).filter(({ seq }) => seq > start);
  t.strictSame(
    told.map(({ type }) => type),
    [
      'client-connected',
      'controller-enabled',
      'guest-shutdown',
      'controller-disabled',
      'controller-enabled',
      'guest-reset',
      'controller-disabled',
      'error',
      'error',
      'controller-disabled',
      'client-gone',
    ],
  );
  for (const event of told) {
    t.match(event, { nqn: served.nqn, socket: served.socket });
  }
  t.match(told[7], { message: /^DMA_UNMAP was refused: .*not whole pages/ });
  t.match(told[8], { message: /^the controller failed: AQA gives an admin queue a single entry$/ });
});

t.test('a snapshot says what was done', async (t) => {
  const target = await TestTarget.start(t, { reactors: 2 });
  const bdevs = [await target.malloc(MIB), await target.malloc(MIB, 4096)];
  const served = await target.serve(...bdevs);
  const empty = await snapshot(target.target);
  t.match(empty, {
    version: /^\d+\.\d+\.\d+/,
    pid: process.pid,
    memory: { guestBytes: 0 },
    reactors: [
      { index: 0, alive: true, controllers: 0, queuePairs: 0 },
      { index: 1, alive: true, controllers: 0, queuePairs: 0 },
    ],
    bdevs: [
      { name: bdevs[0], module: 'malloc', blockSize: 512, numBlocks: 2048, claimedBy: served.nqn },
      { name: bdevs[1], module: 'malloc', blockSize: 4096, numBlocks: 256 },
    ],
  });
  t.equal(controllerOf(empty, served), undefined);
  t.strictSame(JSON.parse(JSON.stringify(empty)), empty, 'plain JSON');

  const client = await target.connect(served);
  const pair = await client.createQueuePair(3, 16, 8);
  const offset = client.memory.allocate(4096);
  const prp1 = client.memory.iova + offset;
  // More than once around both queues.
  for (let i = 0; i < 40; i++) {
    const opcode = i % 4 === 0 ? NvmOpcode.WRITE : NvmOpcode.READ;
    succeeded(await pair.execute({ opcode, nsid: 2, prp1, cdw10: i }));
  }
  const state = await snapshot(target.target);
  const controller = controllerOf(state, served);
  t.match(controller, {
    cntlid: 1,
    enabled: true,
    connectedAt: /^\d{4}-.*Z$/,
    queues: [
      {
        qid: 3,
        cqid: 3,
        size: 16,
        head: 40 % 16,
        tail: 40 % 16,
        outstanding: 0,
        cqSize: 8,
        cqHead: 40 % 8,
        cqTail: 40 % 8,
        interrupts: false,
        vector: 0,
      },
    ],
  });
  t.strictSame(Object.keys(controller?.queues[0] ?? {}).sort(), [
    'cqHead',
    'cqSize',
    'cqTail',
    'cqid',
    'head',
    'interrupts',
    'outstanding',
    'qid',
    'reactor',
    'size',
    'tail',
    'vector',
  ]);
  const home = controller?.queues[0].reactor ?? -1;
  t.match(state.reactors[home], { controllers: 1, queuePairs: 1 });
  t.match(state.reactors[1 - home], { controllers: 0, queuePairs: 0 });
  t.equal(state.memory.guestBytes, client.memory.size);
  t.match(state.bdevs[0].io, { readOps: 0, writeOps: 0, readBytes: 0, writeBytes: 0 });
  t.match(state.bdevs[1].io, {
    readOps: 30,
    writeOps: 10,
    readBytes: 30 * 4096,
    writeBytes: 10 * 4096,
  });
  t.ok(state.ticks > empty.ticks && state.reactors[home].sleeps > 0);

  client.close();
  await untilEvent(target, 'client-gone');
  const after = await snapshot(target.target);
  t.equal(controllerOf(after, served), undefined);
  t.equal(after.memory.guestBytes, 0);
});

t.test('a reactor that dies is told, and so is its successor', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.null(MIB)));
  await client.createQueuePair(1, 16);
  // One that dies in its first second is taken for one that cannot live.
  await new Promise((resolve) => setTimeout(resolve, 1100));
  // A message that is none.
  const asked = target.pool.request(0, undefined as unknown as PlaneMessage);
  await t.rejects(asked, { name: 'ReactorLostError' });
  const told = await untilEvent(target, 'reactor-lost');
  t.match(
    told.find(({ type }) => type === 'reactor-lost'),
    { reactor: 0, message: /./ },
  );
  t.match(
    told.find(({ type }) => type === 'error'),
    { message: /the controller failed: reactor 0 died/ },
  );
  await client.enable();
  await client.createQueuePair(1, 16);
  t.match(await snapshot(target.target), { reactors: [{ alive: true, queuePairs: 1 }] });
});

t.test('a host that writes nonsense into doorbells', async (t) => {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.null(MIB));
  const client = await target.connect(served, { mapDoorbells: false });
  const pair = await client.createQueuePair(1, 16);
  for (const value of [16, 0xffff, 0xffff_ffff, 0x8000_0000]) {
    pair.place.writeDoorbell(2, value);
    pair.place.writeDoorbell(3, value);
    // A message that is answered after them.
    await client.readRegister(Register.offset.csts);
    const [queue] = controllerOf(await snapshot(target.target), served)?.queues ?? [];
    t.match(queue, { head: 0, tail: 0, outstanding: 0, cqTail: 0 });
    t.ok(queue.cqHead < 16, `head ${queue.cqHead}`);
  }
});

t.test('commands that a disk does not answer are outstanding', { skip: noFuse }, async (t) => {
  const disk = await FuseDisk.mount(t, MIB);
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.file(disk.path));
  const client = await target.connect(served);
  const pairs = [await client.createQueuePair(1, 8), await client.createQueuePair(2, 8)];
  const offset = client.memory.allocate(4096);
  const fields = { opcode: NvmOpcode.READ, nsid: 1, prp1: client.memory.iova + offset };
  await disk.behave({ hold: true });
  const waiting = [0, 1, 2].map((i) => pairs[0].execute({ ...fields, cdw10: 64 * i }));
  await disk.held(1);
  for (;;) {
    const [first, second] = controllerOf(await snapshot(target.target), served)?.queues ?? [];
    if (first.head === 3) {
      t.match(first, { outstanding: 3, tail: 3, cqTail: 0 });
      t.match(second, { outstanding: 0, tail: 0 });
      break;
    }
  }
  await disk.behave({});
  for (const completion of await Promise.all(waiting)) {
    succeeded(completion);
  }
  const [first] = controllerOf(await snapshot(target.target), served)?.queues ?? [];
  t.match(first, { outstanding: 0, head: 3, cqTail: 3 });
});
