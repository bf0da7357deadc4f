/** Format NVM. NVMe Base 2.0 §5.14. */
import { statSync } from 'node:fs';
import t, { type Test } from 'tap';
import { AsyncEventRequest, FormatNvm, SetFeatures } from '../../src/spec/admin.ts';
import { AsyncEventConfig, Fid } from '../../src/spec/features.ts';
import { Fpi, Oacs } from '../../src/spec/identify.ts';
import { Flush, Read, Write } from '../../src/spec/nvm.ts';
import { NSID_ALL } from '../../src/spec/nvme.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

async function start(t: Test, bytes = MIB) {
  const target = await TestTarget.start(t, { reactors: 2 });
  const path = target.image(bytes);
  const served = await target.serve(await target.malloc(bytes), await target.file(path));
  const client = await target.connect(served);
  const admin = new AdminCaller(client);
  const format = async (nsid: number, fields = {}) =>
    (await admin.call(FormatNvm.fields({ nsid, ...fields }))).code;
  const pair = await client.createQueuePair(1, 64);
  const offset = client.memory.allocate(4096);
  const prp1 = client.memory.iova + offset;
  const buffer = client.memory.bytes(offset, 4096);
  const write = async (nsid: number, slba: number, byte: number) => {
    buffer.fill(byte);
    return code(await pair.execute(Write.fields({ nsid, slba, nlbZ: 7, prp1 })));
  };
  const read = async (nsid: number, slba: number) => {
    buffer.fill(0xee);
    const status = code(await pair.execute(Read.fields({ nsid, slba, nlbZ: 7, prp1 })));
    return status === '0/00' ? [...new Set(buffer)].join() : status;
  };
  return { target, served, path, client, admin, format, pair, write, read };
}

t.test('what was written is gone, of one namespace or of all', async (t) => {
  const { client, path, format, write, read, pair } = await start(t);
  const { oacs, fna } = await client.identifyController();
  t.equal(Oacs.decode(oacs).format, true);
  t.equal(fna, 0);
  const places = [0, 1024, MIB / 512 - 8];
  const fill = async () => {
    for (const nsid of [1, 2]) {
      for (const slba of places) {
        t.equal(await write(nsid, slba, 7), '0/00');
      }
    }
  };
  for (const ses of [0, 1]) {
    await fill();
    for (const nsid of [1, 2]) {
      t.equal(await format(nsid, { ses }), '0/00');
      for (const slba of places) {
        t.equal(await read(nsid, slba), '0');
        t.equal(await read(3 - nsid, slba), nsid === 1 ? '7' : '0', 'the other is as it was');
      }
    }
  }
  await fill();
  t.equal(await format(NSID_ALL, { ses: 1 }), '0/00');
  for (const nsid of [1, 2]) {
    t.equal(await read(nsid, 1024), '0');
    t.equal(Fpi.decode((await client.identifyNamespace(nsid)).fpi).left, 0);
    t.equal(code(await pair.execute(Flush.fields({ nsid }))), '0/00');
  }
  t.equal(statSync(path).blocks, 0, 'the file is sparse again');
});

t.test('what is asked for wrongly', async (t) => {
  const { format, admin, write, read } = await start(t);
  await write(1, 0, 5);
  for (const [fields, expected] of [
    [{ lbafL: 1 }, '1/0a'],
    [{ lbafU: 1 }, '1/0a'],
    [{ pi: 1 }, '1/0a'],
    [{ mset: true }, '1/0a'],
    [{ pil: true }, '1/0a'],
    [{ ses: 2 }, '0/02'],
    [{ ses: 3 }, '0/02'],
  ] as const) {
    t.equal(await format(1, fields), expected, JSON.stringify(fields));
  }
  t.equal(await format(0), '0/0b');
  t.equal(await format(33), '0/0b');
  t.equal(await format(3), '0/02', 'no namespace there');
  const protect = (value: number) =>
    admin.call(SetFeatures.fields({ fid: Fid.NAMESPACE_WRITE_PROTECTION, nsid: 1, value }));
  await protect(1);
  t.equal(await format(1), '0/20');
  t.equal(await format(NSID_ALL), '0/20');
  await protect(0);
  t.equal(await read(1, 0), '5', 'nothing was formatted');
});

t.test('meanwhile commands of all controllers are refused, and then told', async (t) => {
  const { target, served, client, format, write, read } = await start(t, 64 * MIB);
  const other = await target.connect(await target.listen(served.nqn));
  const admin = new AdminCaller(other);
  const pair = await other.createQueuePair(1, 16);
  await admin.setFeature(Fid.ASYNC_EVENT_CONFIG, AsyncEventConfig.mask.namespaceAttribute);
  const event = other.admin.execute(AsyncEventRequest.fields());
  const { bdev } = target.target.subsystem(served.nqn).namespaces.get(1)!;
  await target.target.limit(bdev.name, { rwBytes: 200 * MIB });
  await write(1, 0, 9);
  const formatting = format(1);
  const flush = Flush.fields({ nsid: 1 });
  const readOther = Read.fields({ nsid: 1, slba: 0, nlbZ: 0, prp1: other.memory.iova });
  let status = code(await pair.execute(readOther));
  while (status === '0/00') {
    status = code(await pair.execute(readOther));
  }
  t.equal(status, '0/84');
  t.equal(code(await pair.execute(flush)), '0/84');
  t.equal(code(await pair.execute(Flush.fields({ nsid: 2 }))), '0/00', 'not the other namespace');
  t.equal(await write(1, 0, 9), '0/84');
  t.equal(await format(1), '0/84', 'nor another format');
  const { left } = Fpi.decode((await client.identifyNamespace(1)).fpi);
  t.ok(left >= 0 && left <= 100);
  t.equal(await formatting, '0/00');
  t.equal((await event).dw0, 0x0004_0002);
  t.equal(code(await pair.execute(readOther)), '0/00');
  t.equal(await read(1, 0), '0');
});

t.test('a guest that goes, or resets, leaves the namespaces usable', async (t) => {
  const { target, served, client } = await start(t, 64 * MIB);
  const { bdev } = target.target.subsystem(served.nqn).namespaces.get(1)!;
  await target.target.limit(bdev.name, { rwBytes: 200 * MIB });
  client.admin.execute(FormatNvm.fields({ nsid: 1 })).catch(() => {});
  await new Promise((resolve) => setTimeout(resolve, 20));
  client.close();
  const next = await target.connect(await target.listen(served.nqn));
  const pair = await next.createQueuePair(1, 16);
  for (;;) {
    const status = code(await pair.execute(Flush.fields({ nsid: 1 })));
    if (status !== '0/84') {
      t.equal(status, '0/00');
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
});
