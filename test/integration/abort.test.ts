/** Abort of commands of I/O queues: those that wait are not carried out, others complete by themselves. NVMe Base 2.0 §5.1. */
import t, { type Test } from 'tap';
import type { NvmeClient } from '../../src/client/nvme.ts';
import { Abort, AbortResult } from '../../src/spec/admin.ts';
import { Flush, Write } from '../../src/spec/nvm.ts';
import { code } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

async function start(t: Test) {
  const target = await TestTarget.start(t, { reactors: 2 });
  const name = await target.malloc(MIB);
  const client = await target.connect(await target.serve(name));
  const pair = await client.createQueuePair(1, 64);
  return { target, name, client, pair };
}

const abort = (client: NvmeClient, sqid: number, cid: number) =>
  client.admin.execute(Abort.fields({ sqid, cid }));

t.test('what waits for a rate limit', async (t) => {
  const { target, name, client, pair } = await start(t);
  // 128 of these writes in a second.
  await target.target.limit(name, { rwBytes: MIB });
  const prp1 = client.memory.iova + client.memory.allocate(8192);
  const buffer = { prp1, prp2: prp1 + 4096 };
  // Command ids are given from the top: 62, 61, …
  const writes = Array.from({ length: 50 }, (_, slba) =>
    pair.execute(Write.fields({ nsid: 1, slba, nlbZ: 15, ...buffer })),
  );
  const last = 62 - 49;
  t.strictSame(await abort(client, 1, last), { status: 0, dw0: 0 });
  t.equal(code(await writes[49]), '0/07');
  const { dw0 } = await abort(client, 1, last);
  t.equal(AbortResult.decode(dw0).notAborted, true, 'nothing is left to abort');
  t.equal((await abort(client, 2, last + 1)).dw0, 1, 'not in that queue');
  t.equal((await abort(client, 1, 1234)).dw0, 1);
  const codes = (await Promise.all(writes)).map(code);
  t.equal(codes.filter((each) => each === '0/00').length, 49, 'all others were carried out');
  t.equal(code(await pair.execute(Flush.fields({ nsid: 1 }))), '0/00');
});

t.test('more at a time than the controller takes', async (t) => {
  const { client } = await start(t);
  const { acl } = await client.identifyController();
  const codes = (await Promise.all(Array.from({ length: 12 }, () => abort(client, 1, 5)))).map(
    code,
  );
  t.ok(codes.every((each) => each === '0/00' || each === '1/03'));
  t.ok(codes.filter((each) => each === '0/00').length > acl);
  t.equal(code(await abort(client, 1, 5)), '0/00', 'and then again');
});
