/** The Host Identifier feature. NVMe Base 2.0 §5.27.1.25. */
import t from 'tap';
import { GetFeatures, SetFeatures } from '../../src/spec/admin.ts';
import { Fid, HostIdentifier } from '../../src/spec/features.ts';
import { Ctratt } from '../../src/spec/identify.ts';
import { AdminCaller } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const fid = Fid.HOST_IDENTIFIER;
const EXTENDED = HostIdentifier.encode({ exhid: true });

t.test('of 64 and of 128 bits', async (t) => {
  const target = await TestTarget.start(t);
  const client = await target.connect(await target.serve(await target.malloc(MIB)));
  const admin = new AdminCaller(client);
  const { ctratt } = await client.identifyController();
  t.equal(Ctratt.decode(ctratt).hostId128, true);
  const get = async (value: number, sel = 0) => {
    const { code, data } = await admin.call(GetFeatures.fields({ fid, value, sel }), 24);
    return { code, id: Buffer.from(data).toString('hex') };
  };
  // The caller's buffer is full of a5h: what the command sends, and what the answer leaves as it was.
  const set = async (value: number) => (await admin.call(SetFeatures.fields({ fid, value }))).code;
  const [zeros, given] = ['00', 'a5'].map((byte) => (bytes: number) => byte.repeat(bytes));
  t.strictSame(await get(0), { code: '0/00', id: zeros(8) + given(16) });
  t.strictSame(await get(EXTENDED), { code: '0/00', id: zeros(16) + given(8) });
  t.equal(await set(0), '0/00');
  t.strictSame(await get(EXTENDED), { code: '0/00', id: given(8) + zeros(8) + given(8) });
  t.strictSame(await get(0, 1), { code: '0/00', id: zeros(8) + given(16) }, 'default');
  t.equal(await set(EXTENDED), '0/00');
  t.strictSame(await get(EXTENDED), { code: '0/00', id: given(24) });
  t.equal((await get(0)).code, '0/02', 'it does not fit');
  t.equal(await set(2), '0/02');
  t.equal((await get(2)).code, '0/02');
  t.equal((await admin.call({ ...SetFeatures.fields({ fid }), prp1: 1 })).code, '0/13');
  await client.disable();
  await client.enable();
  t.strictSame(await get(EXTENDED), { code: '0/00', id: zeros(16) + given(8) }, 'after a reset');
});
