/** Device Self-test: what it tests, its log, its end. NVMe Base 2.0 §5.9, §5.16.1.7. */
import t, { type Test } from 'tap';
import { DeviceSelfTest, SelfTestCode } from '../../src/spec/admin.ts';
import { Oacs } from '../../src/spec/identify.ts';
import {
  Lid,
  SELF_TEST_RESULTS,
  SelfTestEnd,
  SelfTestLog,
  SelfTestResult,
  SelfTestStatus,
  SelfTestValid,
} from '../../src/spec/logs.ts';
import { WriteUncorrectable } from '../../src/spec/nvm.ts';
import { NSID_ALL } from '../../src/spec/nvme.ts';
import { AdminCaller } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { SHORT, EXTENDED, ABORT } = SelfTestCode;
const BYTES = SelfTestLog.size + SELF_TEST_RESULTS * SelfTestResult.size;

async function start(t: Test, bytes = 2 * MIB) {
  const target = await TestTarget.start(t);
  const served = await target.serve(
    await target.malloc(bytes),
    await target.file(target.image(bytes)),
  );
  const client = await target.connect(served);
  const admin = new AdminCaller(client);
  const test = async (stc: number, nsid: number = NSID_ALL) =>
    (await admin.call(DeviceSelfTest.fields({ stc, nsid }))).code;
  const read = async () => {
    const { data, code } = await admin.log(Lid.SELF_TEST, BYTES);
    t.equal(code, '0/00');
    const view = new DataView(data.buffer);
    const results = Array.from({ length: SELF_TEST_RESULTS }, (_, i) => {
      const result = SelfTestResult.read(view, SelfTestLog.size + i * SelfTestResult.size);
      return { ...result, ...SelfTestStatus.decode(result.status) };
    });
    return { ...SelfTestLog.read(view), results };
  };
  const over = async () => {
    for (;;) {
      const log = await read();
      if (log.operation === 0) {
        return log;
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  return { target, served, client, admin, test, read, over };
}

t.test('short and extended tests pass', async (t) => {
  const { client, test, over, read } = await start(t);
  const { oacs, edstt } = await client.identifyController();
  t.equal(Oacs.decode(oacs).selfTest, true);
  t.equal(edstt, 1);
  const before = await read();
  t.ok(before.results.every(({ result }) => result === SelfTestEnd.NOT_USED));
  for (const [stc, nsid] of [
    [SHORT, NSID_ALL],
    [EXTENDED, NSID_ALL],
    [SHORT, 2],
    [SHORT, 0],
  ]) {
    t.equal(await test(stc, nsid), '0/00');
    const { results } = await over();
    t.match(results[0], { code: stc, result: SelfTestEnd.PASSED, valid: 0, poh: 0 });
  }
  const { results } = await read();
  t.strictSame(
    results.slice(0, 5).map(({ code }) => code),
    [SHORT, SHORT, EXTENDED, SHORT, 0],
  );
});

t.test('what is asked for wrongly', async (t) => {
  const { test } = await start(t);
  t.equal(await test(0), '0/02');
  t.equal(await test(3), '0/02');
  t.equal(await test(SHORT, 33), '0/0b');
  t.equal(await test(SHORT, 3), '0/02', 'no namespace there');
  t.equal(await test(ABORT), '0/00', 'nothing to abort');
});

t.test('a block that cannot be read is found', async (t) => {
  const { client, test, over } = await start(t);
  const pair = await client.createQueuePair(1, 16);
  const marked = WriteUncorrectable.fields({ nsid: 1, slba: 1234, nlbZ: 1 });
  t.equal((await pair.execute(marked)).status, 0);
  for (const stc of [SHORT, EXTENDED]) {
    await test(stc);
    const { results } = await over();
    t.match(results[0], {
      ...{ code: stc, result: SelfTestEnd.FAILED, segment: 2, nsid: 1 },
      ...{ flba: 1234, sct: 2, sc: 0x81 },
    });
    t.strictSame(SelfTestValid.decode(results[0].valid), {
      ...{ nsid: true, flba: true, sct: true, sc: true },
    });
  }
  await test(EXTENDED, 2);
  t.equal((await over()).results[0].result, SelfTestEnd.PASSED, 'the other namespace is well');
});

t.test('one at a time, progress, abort, reset, a namespace that goes', async (t) => {
  const { target, served, client, test, read, over } = await start(t, 64 * MIB);
  const namespace = target.target.subsystem(served.nqn).namespaces.get(2)!;
  await target.target.limit(namespace.bdev.name, { rwBytes: 10 * MIB });
  await test(EXTENDED);
  t.equal(await test(SHORT), '1/1d');
  let { operation, completion } = await read();
  t.equal(operation, EXTENDED);
  while (completion < 50) {
    const next = (await read()).completion;
    t.ok(next >= completion && next < 100);
    completion = next;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  t.equal(await test(ABORT), '0/00');
  let log = await read();
  t.equal(log.operation, 0);
  t.match(log.results[0], { code: EXTENDED, result: SelfTestEnd.ABORTED });
  await test(SHORT, 2);
  await client.disable();
  await client.enable();
  log = await read();
  t.match(log.results[0], { code: SHORT, result: SelfTestEnd.RESET });
  await test(EXTENDED, 2);
  await client.disable();
  await client.enable();
  ({ operation } = await read());
  t.equal(operation, EXTENDED, 'an extended test goes on');
  await target.target.removeNamespace(served.nqn, 2);
  log = await over();
  t.match(log.results[0], { code: EXTENDED, result: SelfTestEnd.NAMESPACE_REMOVED });
  await test(EXTENDED, 1);
  t.match((await over()).results[0], { code: EXTENDED, result: SelfTestEnd.PASSED });
});
