/** Namespace Write Protection: states, what is refused, and who is told. NVMe Base 2.0 §5.27.1.29, §8.12. */
import t, { type Test } from 'tap';
import { AsyncEventRequest, GetFeatures, SetFeatures } from '../../src/spec/admin.ts';
import { AsyncEventConfig, Fid, WriteProtectionState } from '../../src/spec/features.ts';
import { Nsattr, Nwpc } from '../../src/spec/identify.ts';
import {
  Compare,
  DatasetManagement,
  Flush,
  Read,
  Verify,
  Write,
  WriteZeroes,
} from '../../src/spec/nvm.ts';
import { NSID_ALL } from '../../src/spec/nvme.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const fid = Fid.NAMESPACE_WRITE_PROTECTION;
const { NONE, WRITE_PROTECT, UNTIL_POWER_CYCLE, PERMANENT } = WriteProtectionState;

async function start(t: Test) {
  const target = await TestTarget.start(t, { reactors: 2 });
  const served = await target.serve(await target.malloc(MIB), await target.file(target.image(MIB)));
  const client = await target.connect(served);
  const admin = new AdminCaller(client);
  const set = (nsid: number, value: number) => admin.call(SetFeatures.fields({ fid, nsid, value }));
  const get = (nsid: number, sel = 0) => admin.call(GetFeatures.fields({ fid, nsid, sel }));
  return { target, served, client, admin, set, get };
}

t.test('all commands that change blocks are refused, and no others', async (t) => {
  const { client, set, get } = await start(t);
  const { nwpc } = await client.identifyController();
  t.strictSame(Nwpc.decode(nwpc), { writeProtect: true, untilPowerCycle: true, permanent: false });
  const pair = await client.createQueuePair(1, 16);
  const prp1 = client.memory.iova + client.memory.allocate(4096);
  const range = { slba: 0, nlbZ: 0, prp1 };
  const changing = (nsid: number) => [
    Write.fields({ ...range, nsid }),
    WriteZeroes.fields({ slba: 0, nlbZ: 0, nsid }),
    DatasetManagement.fields({ nrZ: 0, ad: true, prp1, nsid }),
  ];
  const others = (nsid: number) => [
    Read.fields({ ...range, nsid }),
    Compare.fields({ ...range, nsid }),
    Verify.fields({ slba: 0, nlbZ: 0, nsid }),
    Flush.fields({ nsid }),
  ];
  for (const nsid of [1, 2]) {
    for (const state of [WRITE_PROTECT, NONE, WRITE_PROTECT]) {
      t.equal((await set(nsid, state)).code, '0/00');
      t.equal((await get(nsid)).dw0, state);
      const expected = state === NONE ? '0/00' : '0/20';
      for (const command of changing(nsid)) {
        t.equal(code(await pair.execute(command)), expected, `opcode ${command.opcode}`);
      }
      for (const command of others(nsid)) {
        t.equal(code(await pair.execute(command)), '0/00', `opcode ${command.opcode}`);
      }
      const { nsattr } = await client.identifyNamespace(nsid);
      t.equal(Nsattr.decode(nsattr).writeProtected, state !== NONE);
    }
  }
});

t.test('states, and which of them can be left', async (t) => {
  const { client, set, get, admin } = await start(t);
  t.equal((await set(1, PERMANENT)).code, '0/02', 'not offered');
  t.equal((await set(1, 5)).code, '0/02');
  t.equal((await set(1, WRITE_PROTECT | 8)).code, '0/02');
  t.equal((await set(3, WRITE_PROTECT)).code, '0/02', 'no namespace there');
  t.equal((await set(0, WRITE_PROTECT)).code, '0/0b');
  t.equal((await set(33, WRITE_PROTECT)).code, '0/0b');
  t.equal((await get(3)).code, '0/02');
  t.equal((await set(NSID_ALL, WRITE_PROTECT)).code, '0/00');
  t.strictSame([(await get(1)).dw0, (await get(2)).dw0], [1, 1]);
  t.equal((await get(1, 3)).dw0, 6, 'of namespaces, changeable');
  t.equal((await set(1, UNTIL_POWER_CYCLE)).code, '0/00');
  t.equal((await get(1, 3)).dw0, 2, 'not changeable');
  for (const state of [NONE, WRITE_PROTECT, UNTIL_POWER_CYCLE]) {
    t.equal((await set(1, state)).code, '1/0e');
  }
  t.equal((await set(NSID_ALL, NONE)).code, '1/0e');
  t.equal((await get(2)).dw0, WRITE_PROTECT, 'none of them was changed');
  t.equal((await get(1, 1)).dw0, NONE, 'default');
  // A reset is no power cycle.
  await client.disable();
  await client.enable();
  t.strictSame([(await get(1)).dw0, (await get(2)).dw0], [UNTIL_POWER_CYCLE, WRITE_PROTECT]);
  t.equal((await admin.setFeature(fid, WRITE_PROTECT)).code, '0/0b');
});

t.test('other controllers refuse, too, and their hosts are told', async (t) => {
  const { target, served, set } = await start(t);
  const other = await target.connect(await target.listen(served.nqn));
  const admin = new AdminCaller(other);
  const pair = await other.createQueuePair(1, 16);
  await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, AsyncEventConfig.mask.namespaceAttribute);
  const event = other.admin.execute(AsyncEventRequest.fields());
  const write = Write.fields({ nsid: 2, slba: 0, nlbZ: 0, prp1: admin.buffer });
  t.equal(code(await pair.execute(write)), '0/00');
  await set(2, WRITE_PROTECT);
  t.equal(code(await pair.execute(write)), '0/20');
  t.equal((await event).dw0, 0x0004_0002);
  t.equal((await admin.call(GetFeatures.fields({ fid, nsid: 2 }))).dw0, WRITE_PROTECT);
  // A controller, and a queue, that come later find it as it is.
  const third = await target.connect(await target.listen(served.nqn));
  const late = await third.createQueuePair(1, 16);
  t.equal(code(await late.execute({ ...write, prp1: third.memory.iova })), '0/20');
  await set(2, NONE);
  t.equal(code(await late.execute({ ...write, prp1: third.memory.iova })), '0/00');
});

t.test('no write is under way any more, and none that waited is carried out', async (t) => {
  const { target, served, client, admin, set } = await start(t);
  await target.target.limit('malloc1', { rwIos: 1000 });
  const pair = await client.createQueuePair(1, 256);
  const bytes = client.memory.bytes(admin.buffer - client.memory.iova, 512);
  bytes.fill(1);
  const writes = Array.from({ length: 200 }, (_, slba) =>
    pair.execute(Write.fields({ nsid: 1, slba, nlbZ: 0, prp1: admin.buffer })),
  );
  const codes: string[] = [];
  for (const write of writes) {
    void write.then((completion) => codes.push(code(completion)));
  }
  t.equal((await set(1, WRITE_PROTECT)).code, '0/00');
  await Promise.all(writes);
  const refused = codes.filter((each) => each === '0/20').length;
  t.ok(refused > 0, `${refused} of 200 refused`);
  t.equal(codes.filter((each) => each === '0/00').length, 200 - refused);
  t.ok(served.nqn);
});
