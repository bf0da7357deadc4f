/** Reservations: every type against every kind of host, preemption, notices, what persists. NVMe Base 2.0 §8.19, §7.2 to §7.5. */
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { NvmeClient } from '../../src/client/nvme.ts';
import { FormatNvm, GetFeatures, SetFeatures } from '../../src/spec/admin.ts';
import { Fid, ReservationMask } from '../../src/spec/features.ts';
import { Oncs } from '../../src/spec/identify.ts';
import {
  AcquireAction,
  ChangePtpl,
  RegisterAction,
  ReleaseAction,
  Rescap,
  ReservationNotice,
  ReservationReport,
  ReservationType,
} from '../../src/spec/reservations.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { ReservingHost } from '../helpers/reservations.ts';
import { MIB, TestTarget } from '../helpers/target.ts';
import { TargetProcess } from '../helpers/target-process.ts';

const { REGISTER, UNREGISTER, REPLACE } = RegisterAction;
const { ACQUIRE, PREEMPT, PREEMPT_AND_ABORT } = AcquireAction;
const { RELEASE, CLEAR } = ReleaseAction;
const TYPES = Object.values(ReservationType).filter((type) => type !== 0);
const [OK, CONFLICT, INVALID] = ['0/00', '0/83', '0/02'];
const { REGISTRATION_PREEMPTED, RESERVATION_RELEASED, RESERVATION_PREEMPTED } = ReservationNotice;

/** Hosts with the identifiers 1, 2, …, each with a controller; their keys are 11, 12, … */
async function start(t: Test, count: number, disk?: (target: TestTarget) => Promise<string>) {
  const target = await TestTarget.start(t, { reactors: 2 });
  const bdev = await (disk?.(target) ?? target.malloc(MIB));
  const served = await target.serve(bdev);
  const hosts: ReservingHost[] = [];
  for (let i = 0; i < count; i++) {
    const socket = i === 0 ? served : await target.listen(served.nqn);
    hosts.push(await ReservingHost.of(await target.connect(socket), i + 1));
  }
  return { target, served, hosts };
}

t.test('what each type lets the holder, registrants and others do', async (t) => {
  const { hosts } = await start(t, 3);
  const [holder, registrant, other] = hosts;
  t.equal(await holder.register(REGISTER, 0, 11), OK);
  t.equal(await registrant.register(REGISTER, 0, 12), OK);
  const free = { reads: OK, writes: OK };
  for (const type of TYPES) {
    t.equal(await holder.acquire(ACQUIRE, type, 11), OK);
    const reads = type % 2 === 1 ? OK : CONFLICT;
    t.strictSame(await holder.access(), free, `type ${type}: the holder`);
    const shared = type > ReservationType.EXCLUSIVE_ACCESS;
    const of = shared ? free : { reads, writes: CONFLICT };
    t.strictSame(await registrant.access(), of, `type ${type}: a registrant`);
    t.strictSame(await other.access(), { reads, writes: CONFLICT }, `type ${type}: others`);
    const admin = new AdminCaller(other.client);
    t.equal((await admin.call(FormatNvm.fields({ nsid: 1 }))).code, CONFLICT);
    t.equal(await holder.release(RELEASE, type, 11), OK);
    t.strictSame(await other.access(), free, 'released');
  }
});

t.test('what is offered, and what is asked for wrongly', async (t) => {
  const { hosts } = await start(t, 2);
  const [one, two] = hosts;
  const { oncs } = await one.client.identifyController();
  t.equal(Oncs.decode(oncs).reservations, true);
  const { rescap } = await one.client.identifyNamespace(1);
  t.strictSame(Rescap.decode(rescap), {
    ...{ ptpl: false, iekey13: true, writeExclusive: true, exclusiveAccess: true },
    ...{ writeExclusiveRegistrants: true, exclusiveAccessRegistrants: true },
    ...{ writeExclusiveAll: true, exclusiveAccessAll: true },
  });
  t.equal(await one.register(3, 0, 11), INVALID);
  t.equal(await one.register(REGISTER, 0, 11, { cptpl: 1 }), INVALID);
  t.equal(await one.register(REGISTER, 0, 11, { cptpl: ChangePtpl.PERSIST }), INVALID);
  t.equal(await one.register(REGISTER, 0, 11, {}, 2), '0/0b', 'no namespace there');
  t.equal(await one.register(REGISTER, 0, 11, { prp1: 1 }), '0/13');
  t.equal(await one.register(UNREGISTER, 11, 0), CONFLICT, 'not registered');
  t.equal(await one.acquire(ACQUIRE, 1, 11), CONFLICT);
  t.equal(await one.release(RELEASE, 1, 11), CONFLICT);
  t.equal((await one.report()).gen, 0, 'nothing was changed');
  t.equal(await one.register(REGISTER, 0, 11), OK);
  t.equal(await one.register(REGISTER, 0, 11), OK, 'the same key again');
  t.equal(await one.register(REGISTER, 0, 99), CONFLICT, 'another key');
  t.equal(await one.register(REPLACE, 99, 13), CONFLICT);
  t.equal(await one.register(REPLACE, 99, 13, { iekey: true }), OK);
  t.equal(await one.register(REPLACE, 13, 11), OK);
  for (const type of [0, 7, 255]) {
    t.equal(await one.acquire(ACQUIRE, type, 11), INVALID, `type ${type}`);
  }
  t.equal(await one.acquire(3, 1, 11), INVALID);
  t.equal(await one.acquire(ACQUIRE, 1, 11, 0, { iekey: true }), INVALID);
  t.equal(await one.acquire(ACQUIRE, 1, 99), CONFLICT, 'not the key');
  t.equal(await one.acquire(ACQUIRE, 1, 11), OK);
  t.equal(await one.acquire(ACQUIRE, 1, 11), OK, 'once more');
  t.equal(await one.acquire(ACQUIRE, 2, 11), CONFLICT, 'as another type');
  t.equal(await two.register(REGISTER, 0, 12), OK);
  t.equal(await two.acquire(ACQUIRE, 1, 12), CONFLICT);
  t.equal(await two.release(RELEASE, 1, 12), OK, 'not its own: no effect');
  t.equal(await one.release(RELEASE, 2, 11), INVALID, 'of another type');
  t.equal(await one.release(2, 1, 11), INVALID);
  t.equal(await one.release(RELEASE, 1, 11, { iekey: true }), INVALID);
  const { status, rtype, registrants } = await one.report();
  t.equal(status, OK);
  t.equal(rtype, 1);
  t.strictSame(registrants, [
    { id: 1, key: 11, holds: true },
    { id: 2, key: 12, holds: false },
  ]);
  const short = ReservationReport.fields({ nsid: 1, numdZ: 5, prp1: one.client.memory.iova });
  t.equal(await one.run(short), '0/18', 'the short format has no room for the identifier');
});

t.test('preempting the holder, a registrant, all; and who is told', async (t) => {
  const { hosts } = await start(t, 3);
  const [one, two, three] = hosts;
  for (const [i, host] of hosts.entries()) {
    await host.register(REGISTER, 0, 11 + i);
  }
  t.equal(await one.acquire(ACQUIRE, 1, 11), OK);
  let gen = (await one.report()).gen;
  t.equal(gen, 3);
  t.equal(await two.acquire(PREEMPT, 2, 12, 99), CONFLICT, 'nobody has this key');
  t.equal(await two.acquire(PREEMPT, 2, 12, 0), INVALID);
  t.equal(await two.acquire(PREEMPT, 2, 12, 11), OK, 'the holder');
  t.match(await one.notice(), { type: RESERVATION_PREEMPTED, left: 0, nsid: 1 });
  t.equal(await one.acquire(ACQUIRE, 1, 11), CONFLICT, 'not registered any more');
  t.match(await two.report(), {
    ...{ gen: gen + 1, rtype: 2 },
    registrants: [
      { id: 2, key: 12, holds: true },
      { id: 3, holds: false },
    ],
  });
  t.strictSame(await one.access(), { reads: CONFLICT, writes: CONFLICT });
  t.equal(await two.acquire(PREEMPT, 2, 12, 13), OK, 'a registrant');
  t.match(await three.notice(), { type: REGISTRATION_PREEMPTED, nsid: 1 });
  t.match(await three.readNotice(), { type: 0 }, 'none is left');
  t.equal((await two.report()).rtype, 2, 'it keeps what it has');
  await one.register(REGISTER, 0, 11);
  await three.register(REGISTER, 0, 13);
  await two.release(RELEASE, 2, 12);
  t.equal(await one.acquire(ACQUIRE, 6, 11), OK);
  t.ok(
    (await one.report()).registrants.every(({ holds }) => holds),
    'all hold it',
  );
  gen = (await one.report()).gen;
  t.equal(await three.acquire(PREEMPT, 4, 13, 0), OK, 'all others');
  t.match(await three.report(), { gen: gen + 1, rtype: 4, registrants: [{ id: 3, holds: true }] });
  t.match(await two.notice(), { type: RESERVATION_PREEMPTED });
  t.equal(await three.acquire(PREEMPT, 1, 13, 13), OK, 'its own, to change the type');
  t.match(await three.report(), { rtype: 1, registrants: [{ id: 3, holds: true }] });
});

t.test('notices of release, unregistration and clearing, and their mask', async (t) => {
  const { hosts } = await start(t, 3);
  const [one, two, three] = hosts;
  for (const [i, host] of hosts.entries()) {
    await host.register(REGISTER, 0, 11 + i);
  }
  const admin = new AdminCaller(three.client);
  const fid = Fid.RESERVATION_NOTIFICATION_MASK;
  const mask = ReservationMask.encode({ resrel: true });
  const set = (nsid: number, value: number) => admin.call(SetFeatures.fields({ fid, nsid, value }));
  t.equal((await set(1, 1)).code, INVALID);
  t.equal((await set(2, mask)).code, INVALID);
  t.equal((await set(1, mask)).code, OK);
  t.equal((await admin.call(GetFeatures.fields({ fid, nsid: 1 }))).dw0, mask);
  await one.acquire(ACQUIRE, 3, 11);
  await one.release(RELEASE, 3, 11);
  t.match(await two.notice(), { type: RESERVATION_RELEASED });
  await one.acquire(ACQUIRE, 4, 11);
  t.equal(await one.register(UNREGISTER, 11, 0), OK);
  t.match(await two.notice(), { type: RESERVATION_RELEASED });
  t.equal((await two.report()).rtype, 0);
  t.equal(await two.release(CLEAR, 0, 12), OK);
  t.strictSame((await two.report()).registrants, []);
  t.match(await three.notice(), { type: RESERVATION_PREEMPTED }, 'the first it wants to hear of');
});

t.test('two controllers of one host, and one that is reset', async (t) => {
  const { target, served, hosts } = await start(t, 2);
  const [one, two] = hosts;
  const twin = await ReservingHost.of(await target.connect(await target.listen(served.nqn)), 1);
  await one.register(REGISTER, 0, 11);
  await one.acquire(ACQUIRE, 2, 11);
  const free = { reads: OK, writes: OK };
  const shut = { reads: CONFLICT, writes: CONFLICT };
  t.strictSame(await twin.access(), free);
  t.strictSame(await two.access(), shut);
  t.equal((await one.report()).registrants.length, 2, 'an entry for each controller');
  // A reset forgets who the host is, not what it has.
  await twin.client.disable();
  await twin.client.enable();
  const again = await twin.client.createQueuePair(2, 16);
  const flush = { opcode: 0, nsid: 1 };
  t.equal(code(await again.execute(flush)), CONFLICT);
  t.equal(await twin.identify(), OK);
  t.equal(code(await again.execute(flush)), OK);
  two.client.close();
  one.client.close();
  const late = await ReservingHost.of(await target.connect(await target.listen(served.nqn)), 3);
  t.strictSame(await late.access(), shut, 'it stays when its host goes');
});

t.test('preempt and abort: what waits is not carried out', async (t) => {
  const { target, served, hosts } = await start(t, 2);
  const [one, two] = hosts;
  const { bdev } = target.target.subsystem(served.nqn).namespaces.get(1)!;
  // Eight milliseconds each.
  await target.target.limit(bdev.name, { rwBytes: MIB });
  await one.register(REGISTER, 0, 11);
  await two.register(REGISTER, 0, 12);
  await one.acquire(ACQUIRE, 1, 11);
  const prp1 = one.client.memory.iova;
  const large = { nsid: 1, prp1, prp2: prp1 + 4096, cdw12: 15 };
  const commands = Array.from({ length: 60 }, (_, i) =>
    one.pair.execute({ ...large, opcode: 1 + (i % 2), cdw10: i }),
  );
  // Then all have been taken, and wait.
  await commands[4];
  t.equal(await two.acquire(PREEMPT_AND_ABORT, 1, 12, 11), OK);
  const codes = (await Promise.all(commands)).map(code);
  t.ok(
    codes.every((each) => each === '0/1b' || each === CONFLICT || each === OK),
    codes.join(),
  );
  t.ok(codes.filter((each) => each === '0/1b').length > 10, codes.join());
  t.equal(await one.run({ nsid: 1, opcode: 1, prp1 }), CONFLICT);
});

t.test('what persists is kept over kill -9', async (t) => {
  const target = new TargetProcess(t);
  const state = join(target.folder, 'state');
  const image = join(target.folder, 'disk.img');
  writeFileSync(image, '');
  truncateSync(image, MIB);
  const traddr = join(target.folder, 'vm');
  mkdirSync(traddr);
  const nqn = 'nqn.2026-11.io.doorbell:reserved';
  const connect = async (id: number) =>
    ReservingHost.of(await NvmeClient.connect(join(traddr, 'cntrl')), id);
  await target.start('--state-dir', state);
  await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await target.call('bdev_aio_create', { name: 'disk', filename: image, block_size: 512 });
  await target.call('nvmf_create_subsystem', { nqn, allow_any_host: true });
  await target.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'disk' } });
  const listen_address = { trtype: 'VFIOUSER', traddr };
  await target.call('nvmf_subsystem_add_listener', { nqn, listen_address });
  let host = await connect(1);
  t.equal(Rescap.decode((await host.client.identifyNamespace(1)).rescap).ptpl, true);
  t.equal(await host.register(REGISTER, 0, 11, { cptpl: ChangePtpl.PERSIST }), OK);
  t.equal(await host.acquire(ACQUIRE, 2, 11), OK);
  const restart = async (id: number) => {
    await target.kill();
    host.client.close();
    await target.start('--state-dir', state);
    host = await connect(id);
  };
  await restart(1);
  const kept = { rtype: 2, ptpls: 1, registrants: [{ id: 1, key: 11, holds: true }] };
  t.match(await host.report(), kept);
  t.strictSame(await host.access(), { reads: OK, writes: OK });
  await restart(2);
  t.strictSame(await host.access(), { reads: CONFLICT, writes: CONFLICT });
  t.match(await host.report(), kept);
  host.client.close();
  host = await connect(1);
  t.equal(await host.register(REPLACE, 11, 11, { cptpl: ChangePtpl.RELEASE }), OK);
  await restart(2);
  t.match(await host.report(), { rtype: 0, ptpls: 0, registrants: [] });
  host.client.close();
  await target.stop();
});
