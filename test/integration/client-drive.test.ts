/** The driver for scripts: what it reads is what it wrote, whatever the length; errors are the controller's; an end is an end. */
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { AdminOpcode, connect, Fid, NvmOpcode } from '../../src/client/index.ts';
import { startTestTarget } from '../../src/library/testing.ts';

const MIB = 2 ** 20;

t.test('ranges of any length come back as they were written', async (t) => {
  const test = await startTestTarget({ disks: [{ ram: '8M' }, { ram: '8M', 'block-size': 4096 }] });
  t.teardown(() => test.stop());
  const drive = await test.connect();
  t.equal(drive.maxTransferBytes, MIB);
  for (const nsid of await drive.namespaces()) {
    const namespace = await drive.namespace(nsid);
    t.equal(namespace.bytes, 8 * MIB);
    const model = new Uint8Array(namespace.bytes);
    const range = fc.tuple(fc.nat(namespace.blocks - 1), fc.nat(namespace.blocks), fc.boolean());
    await fc.assert(
      fc.asyncProperty(range, async ([lba, length, fua]) => {
        const blocks = Math.min(length, namespace.blocks - lba);
        const data = new Uint8Array(blocks * namespace.blockSize).map(
          (_, i) => (i ^ (i >> 8) ^ lba ^ length) & 0xff,
        );
        await namespace.write(lba, data, { fua });
        model.set(data, lba * namespace.blockSize);
        const around = Math.max(0, lba - 1);
        const count = Math.min(namespace.blocks - around, blocks + 2);
        const expected = model.subarray(
          around * namespace.blockSize,
          (around + count) * namespace.blockSize,
        );
        return Buffer.compare(await namespace.read(around, count), expected) === 0;
      }),
      { numRuns: 12 },
    );
    await namespace.flush();
  }
  // More of them at once than there are buffers, and entries in the queue.
  const namespace = await drive.namespace(1);
  const blocks = await Promise.all(
    Array.from({ length: 200 }, async (_, lba) => {
      await namespace.write(lba, new Uint8Array(512).fill(lba));
      return (await namespace.read(lba))[511];
    }),
  );
  t.strictSame(
    blocks,
    Array.from({ length: 200 }, (_, lba) => lba & 0xff),
  );
});

t.test('what the controller says, and what it refuses', async (t) => {
  const test = await startTestTarget();
  t.teardown(() => test.stop());
  const drive = await test.connect();
  const info = await drive.identify();
  t.match(info, {
    model: 'Doorbell Controller',
    nqn: 'nqn.2026-11.io.doorbell:vm',
    volatileWriteCache: Boolean,
    fields: { mdts: 8 },
  });
  t.match(info.serial, /^DB[0-9A-F]{16}$/);
  const { dw0 } = await drive.admin({
    opcode: AdminOpcode.GET_FEATURES,
    cdw10: Fid.NUMBER_OF_QUEUES,
  });
  t.equal(dw0 & 0xffff, 63, 'zero-based');
  const namespace = await drive.namespace();
  await namespace.read(0, 4);
  t.equal((await drive.smart()).hostReads, 1);
  const outOfRange = { name: 'NvmeError', message: 'NVMe status 0/0x80' };
  await t.rejects(namespace.read(namespace.blocks, 1), outOfRange);
  await t.rejects(namespace.write(namespace.blocks - 1, new Uint8Array(1024)), outOfRange);
  await t.rejects(drive.io({ opcode: NvmOpcode.READ, nsid: 9 }, { read: 512 }), {
    name: 'NvmeError',
    message: 'NVMe status 0/0xb',
  });
  await t.rejects(drive.namespace(9), /NVMe status|not active/);
  for (const wrong of [
    () => namespace.write(0, new Uint8Array(513)),
    () => namespace.read(-1),
    () => namespace.read(0.5),
    () => namespace.read(0, Number.NaN),
    () => drive.io({ opcode: NvmOpcode.READ, nsid: 1 }, { read: drive.maxTransferBytes + 1 }),
  ]) {
    await t.rejects(async () => {
      await wrong();
    }, RangeError);
  }
  t.equal((await namespace.read(0)).length, 512, 'and it goes on');
});

t.test('a connection that ends rejects what waits for it', async (t) => {
  const test = await startTestTarget({ disks: [{ ram: '4M', name: 'base' }] });
  t.teardown(() => test.stop());
  const { rpc } = test.target;
  const other = await test.addVm('other', {});
  await rpc.bdev_malloc_create({ name: 'below', num_blocks: 1024, block_size: 512 });
  await rpc.bdev_delay_create({
    base_bdev_name: 'below',
    name: 'slow',
    avg_read_latency: 30_000_000,
    p99_read_latency: 30_000_000,
    avg_write_latency: 0,
    p99_write_latency: 0,
  });
  await rpc.nvmf_subsystem_add_ns({ nqn: other.nqn, namespace: { bdev_name: 'slow' } });
  const drive = await test.connect('other');
  const namespace = await drive.namespace();
  const reads = Array.from({ length: 40 }, () => namespace.read(0));
  const ends = Promise.allSettled(reads);
  drive.close();
  for (const { status } of await ends) {
    t.equal(status, 'rejected');
  }
  await t.rejects(namespace.read(0));
  await t.rejects(connect(join(test.folder, 'nobody')), { code: 'ENOENT' });
  // The other VM's socket has a client: who waits for it can give up.
  const first = await test.connect();
  const signal = AbortSignal.timeout(200);
  await t.rejects(connect(test.socket, { signal }));
  t.ok(await first.namespace());
});
