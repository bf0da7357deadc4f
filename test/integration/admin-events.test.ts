/** Asynchronous events, Abort, Keep Alive. NVMe Base 2.0 §5.1, §5.2, §3.9. */
import assert from 'node:assert/strict';
import t, { type Test } from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { type Completion, QueuePair } from '../../src/client/queue-pair.ts';
import { AdminOpcode, Cns } from '../../src/spec/admin.ts';
import { Fid } from '../../src/spec/features.ts';
import { Lid } from '../../src/spec/logs.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { CQE_SIZE } from '../../src/spec/nvme.ts';
import { Cc, Csts, Register } from '../../src/spec/registers.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { room } from '../helpers/queues.ts';
import { Random } from '../helpers/random.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const NAMESPACE_NOTICES = 1 << 8;
/** Dword 0 of the events: type, information, log page. */
const NAMESPACE_CHANGED = 2 | (0 << 8) | (Lid.CHANGED_NAMESPACES << 16);
const BAD_DOORBELL = 0 | (1 << 8) | (Lid.ERROR << 16);
const RETAIN = 1 << 15;

async function start(t: Test) {
  const target = await TestTarget.start(t);
  const served = await target.serve(await target.malloc(MIB));
  const client = await target.connect(served);
  return { target, served, client, admin: new AdminCaller(client) };
}

/** Parks an event request. It may be left waiting: what it ends with at the end of the test is nobody's business. */
function request(client: NvmeClient): Promise<Completion> {
  const parked = client.admin.execute({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST });
  parked.catch(() => {});
  return parked;
}

const abort = (client: NvmeClient, cid: number, sqid = 0) =>
  client.admin.execute({ opcode: AdminOpcode.ABORT, cdw10: (sqid | (cid << 16)) >>> 0 });

/** The NSIDs of the changed namespace list. */
async function changed(admin: AdminCaller, flags = 0): Promise<number[]> {
  const { data } = await admin.log(Lid.CHANGED_NAMESPACES, 4096, {
    cdw10: (Lid.CHANGED_NAMESPACES | (1023 << 16) | flags) >>> 0,
  });
  const nsids = [...new Uint32Array(data.buffer)];
  return nsids.slice(0, nsids.indexOf(0));
}

async function active(admin: AdminCaller): Promise<number[]> {
  const { data } = await admin.identify(Cns.ACTIVE_NAMESPACES);
  const nsids = [...new Uint32Array(data.buffer)];
  return nsids.slice(0, nsids.indexOf(0));
}

function outcome(promise: Promise<Completion>) {
  const state: { completion?: Completion } = {};
  promise.then(
    (completion) => {
      state.completion = completion;
    },
    () => {},
  );
  return state;
}

t.test('as many requests as the controller takes', async (t) => {
  const { client } = await start(t);
  const parked = Array.from({ length: 4 }, () => outcome(request(client)));
  t.equal(code(await request(client)), '1/05');
  t.equal(code(await request(client)), '1/05');
  t.ok(parked.every(({ completion }) => completion === undefined));
});

t.test('a namespace comes and goes', async (t) => {
  const { target, served, client, admin } = await start(t);
  t.equal((await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, NAMESPACE_NOTICES)).code, '0/00');
  const event = request(client);
  const name = await target.malloc(2 * MIB);
  await target.target.addNamespace(served.nqn, name, { nsid: 7 });
  t.strictSame(await event, { status: 0, dw0: NAMESPACE_CHANGED });
  t.strictSame(await active(admin), [1, 7]);
  // Silent until the page was read; and then one event for all that came since.
  const next = request(client);
  const state = outcome(next);
  await target.target.removeNamespace(served.nqn, 7);
  await target.target.addNamespace(served.nqn, name, { nsid: 9 });
  t.strictSame(await changed(admin, RETAIN), [7, 9]);
  t.equal(state.completion, undefined, 'retained');
  t.strictSame(await changed(admin), [7, 9]);
  t.strictSame(await next, { status: 0, dw0: NAMESPACE_CHANGED });
  t.strictSame(await changed(admin), [], 'reading clears the page');
  t.strictSame(await active(admin), [1, 9]);
  // An event that finds no request waits for one.
  await target.target.removeNamespace(served.nqn, 9);
  t.strictSame(await request(client), { status: 0, dw0: NAMESPACE_CHANGED });
  t.strictSame(await changed(admin), [9]);
});

t.test('no events that were not asked for, and none after a reset', async (t) => {
  const { target, served, client, admin } = await start(t);
  const name = await target.malloc(MIB);
  await target.target.addNamespace(served.nqn, name, { nsid: 7 });
  t.strictSame(await changed(admin), []);
  const state = outcome(request(client));
  await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, NAMESPACE_NOTICES);
  await active(admin);
  t.equal(state.completion, undefined, 'what was before is not told');
  t.equal((await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, 1 << 9)).code, '0/02', 'not offered');
  await client.disable();
  await client.enable();
  t.equal((await admin.getFeature(Fid.ASYNC_EVENT_CONFIG)).dw0, 0);
  const after = outcome(request(client));
  await target.target.removeNamespace(served.nqn, 7);
  await active(admin);
  t.equal(after.completion, undefined);
});

t.test('each change is told, whenever it comes', async (t) => {
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const { target, served, client, admin } = await start(t);
  await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, NAMESPACE_NOTICES);
  const told = new Map<number, number>();
  let view: number[] = [];
  let over = false;
  const listen = async (): Promise<void> => {
    while (!over) {
      await request(client);
      for (const nsid of await changed(admin)) {
        told.set(nsid, (told.get(nsid) ?? 0) + 1);
      }
      view = await active(admin);
    }
  };
  const listening = listen();
  const names: string[] = [];
  for (let i = 0; i < 6; i++) {
    names.push(await target.malloc(MIB));
  }
  const changes = new Map<number, number>();
  const present = new Set<number>();
  for (let i = 0; i < 150; i++) {
    const nsid = 2 + random.below(6);
    if (present.delete(nsid)) {
      await target.target.removeNamespace(served.nqn, nsid);
    } else {
      present.add(nsid);
      await target.target.addNamespace(served.nqn, names[nsid - 2], { nsid });
    }
    changes.set(nsid, (changes.get(nsid) ?? 0) + 1);
    for (let turns = random.below(8); turns > 0; turns--) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
  // The last change of all is told like any other: the host's view becomes what is.
  const final = [1, ...present].sort((a, b) => a - b).join();
  while (view.join() !== final) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  over = true;
  await target.target.removeNamespace(served.nqn, 1);
  await listening;
  for (const [nsid, count] of changes) {
    const times = told.get(nsid) ?? 0;
    t.ok(times > 0 && times <= count, `NSID ${nsid}: ${count} changes, told ${times} times`);
  }
});

t.test('a doorbell value outside the queue', async (t) => {
  const { client, admin } = await start(t);
  const pair = await client.createQueuePair(1, 16);
  const doorbells = client.admin.place.doorbells!;
  const event = request(client);
  Atomics.store(doorbells, 2, 16);
  t.strictSame(await event, { status: 0, dw0: BAD_DOORBELL });
  // Silent until the error log was read.
  const next = outcome(request(client));
  Atomics.store(doorbells, 2, 0x1234_5678);
  await admin.log(Lid.ERROR, 64, { cdw10: Lid.ERROR | RETAIN | (15 << 16) });
  t.equal(next.completion, undefined);
  Atomics.store(doorbells, 2, 0);
  t.equal((await pair.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 })).status, 0, 'it goes on');
  t.equal((await admin.log(Lid.ERROR, 64)).code, '0/00');
});

t.test('a completion queue head outside the queue', async (t) => {
  const { client } = await start(t);
  const pair = await client.createQueuePair(1, 16);
  const doorbells = client.admin.place.doorbells!;
  const event = request(client);
  Atomics.store(doorbells, 3, 16);
  const flush = pair.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 });
  t.strictSame(await event, { status: 0, dw0: BAD_DOORBELL });
  Atomics.store(doorbells, 3, 0);
  t.equal((await flush).status, 0, 'it goes on');
});

t.test('an event request is aborted', async (t) => {
  const { client, admin } = await start(t);
  // Command ids are given from the top: 30, 29, …
  const first = request(client);
  const second = outcome(request(client));
  t.strictSame(await abort(client, 30), { status: 0, dw0: 0 });
  t.equal(code(await first), '0/07');
  t.strictSame(await abort(client, 30), { status: 0, dw0: 1 }, 'nothing is left to abort');
  t.strictSame(await abort(client, 29, 1), { status: 0, dw0: 1 }, 'not in that queue');
  t.strictSame(await abort(client, 1234), { status: 0, dw0: 1 });
  await admin.identify(Cns.CONTROLLER);
  t.equal(second.completion, undefined);
  t.strictSame(await abort(client, 29), { status: 0, dw0: 0 });
  await admin.identify(Cns.CONTROLLER);
  t.equal(second.completion && code(second.completion), '0/07');
});

/** Enables the controller with `cqDepth` admin completions; the queue is polled by hand. */
async function enableWith(client: NvmeClient, cqDepth: number): Promise<QueuePair> {
  const { offset } = Register;
  await client.disable();
  const cq = room(client.memory, cqDepth * CQE_SIZE);
  const place = { ...client.admin.place, cqDepth, cqIova: cq.iova, cq: cq.words };
  const admin = new QueuePair({ ...place, interrupts: true });
  await client.writeRegister(offset.aqa, (place.depth - 1) | ((cqDepth - 1) << 16));
  await client.writeRegister(offset.asq, place.sqIova % 2 ** 32);
  await client.writeRegister(offset.asq + 4, Math.floor(place.sqIova / 2 ** 32));
  await client.writeRegister(offset.acq, cq.iova % 2 ** 32);
  await client.writeRegister(offset.acq + 4, Math.floor(cq.iova / 2 ** 32));
  await client.writeRegister(offset.cc, Cc.mask.en);
  while ((await client.readRegister(offset.csts)) !== Csts.mask.rdy) {}
  return admin;
}

t.test('an abort with room for one completion at a time', async (t) => {
  const { client } = await start(t);
  const admin = await enableWith(client, 2);
  const parked: Promise<Completion>[] = [];
  for (let i = 0; i < 4; i++) {
    parked.push(admin.execute({ opcode: AdminOpcode.ASYNC_EVENT_REQUEST }));
  }
  const aborts = [30, 29, 28, 27].map((cid) =>
    admin.execute({ opcode: AdminOpcode.ABORT, cdw10: (cid << 16) >>> 0 }),
  );
  let completions = 0;
  while (completions < 8) {
    const count = admin.poll();
    assert.ok(count <= 1, 'more completions than the queue holds');
    completions += count;
    // The reactor tells main of the doorbell; a message goes the same way.
    await client.readRegister(Register.offset.csts);
  }
  t.strictSame(await Promise.all(aborts), new Array(4).fill({ status: 0, dw0: 0 }));
  t.strictSame((await Promise.all(parked)).map(code), new Array(4).fill('0/07'));
  t.equal(admin.poll(), 0);
});

t.test('Keep Alive', async (t) => {
  const { client, admin } = await start(t);
  t.equal((await admin.getFeature(Fid.KEEP_ALIVE_TIMER)).dw0, 0, 'off unless it is set');
  t.equal((await admin.call({ opcode: AdminOpcode.KEEP_ALIVE })).code, '0/00');
  t.equal((await admin.setFeature(Fid.KEEP_ALIVE_TIMER, 120_000)).code, '0/00');
  t.equal((await admin.getFeature(Fid.KEEP_ALIVE_TIMER)).dw0, 120_000);
  // More than a timer of the event loop can be set to, which would end at once.
  for (const ms of [2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1]) {
    t.equal((await admin.setFeature(Fid.KEEP_ALIVE_TIMER, ms)).code, '0/1a', `${ms} ms`);
  }
  t.equal((await admin.getFeature(Fid.KEEP_ALIVE_TIMER)).dw0, 120_000);
  t.equal((await admin.setFeature(Fid.KEEP_ALIVE_TIMER, 2_147_480_000)).code, '0/00');
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.equal(await client.readRegister(Register.offset.csts), Csts.mask.rdy);
});
