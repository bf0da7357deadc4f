/**
 * O_DIRECT is all or nothing. Writes through the page cache beside writes past it lose data, or let a later Flush fail ("Page cache
 * invalidation failure on direct I/O" in the kernel's log), so one disk never does both, whatever buffers its guest uses.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { linkSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { Random } from '../helpers/random.ts';
import { PagePool, Scatter } from '../helpers/scatter.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;

/** Bytes of a file in the page cache, or why that is not known. */
function cached(path: string): number | string {
  const { status, stdout, error } = spawnSync('fincore', ['-b', '-n', '-o', 'RES', path], {
    encoding: 'utf8',
  });
  return status === 0 ? Number(stdout) : (error?.message ?? 'fincore fails');
}

async function start(t: Test) {
  const target = await TestTarget.start(t);
  const path = target.image(8 * MIB);
  const client = await target.connect(
    await target.serve(await target.file(path, { direct: true })),
  );
  const random = new Random();
  t.comment(`SEED=${random.seed}`);
  const pool = new PagePool(random).add(client.memory, 1024);
  const pair = await client.createQueuePair(1, 64);
  /** A command whose data begins `offset` bytes after a page's start. */
  const command = async (opcode: number, lba: number, bytes: number, offset: number, fill = 0) => {
    const buffer = new Scatter(pool, bytes, random, offset);
    if (opcode === WRITE) {
      buffer.write(new Uint8Array(bytes).fill(fill));
    }
    const { prp1, prp2 } = buffer;
    const cdw12 = bytes / 512 - 1;
    const { status } = await pair.execute({ opcode, nsid: 1, prp1, prp2, cdw10: lba, cdw12 });
    assert.equal(status, 0, `opcode ${opcode} of ${bytes} bytes at ${lba}, offset ${offset}`);
    assert.ok(buffer.intact);
    const data = buffer.read();
    buffer.release();
    return data;
  };
  const flush = async () => (await pair.execute({ opcode: FLUSH, nsid: 1 })).status;
  return { target, path, command, flush };
}

t.test('nothing goes through the page cache', async (t) => {
  const { path, command, flush } = await start(t);
  const expected = Buffer.alloc(8 * MIB);
  if (typeof cached(path) === 'string') {
    t.plan(0, String(cached(path)));
    return;
  }
  let fill = 1;
  for (const offset of [0, 4, 508, 512, 4092]) {
    for (const [lba, bytes] of [
      [1, 512],
      [7, 1024],
      [8, 4096],
      [11, 65_536],
      [2048, MIB],
      [4097, MIB],
    ]) {
      await command(WRITE, lba, bytes, offset, fill);
      expected.fill(fill, 512 * lba, 512 * lba + bytes);
      const data = await command(READ, lba, bytes, offset);
      assert.ok(data.every((byte) => byte === fill));
      fill += 1;
    }
  }
  t.equal(await flush(), 0);
  t.equal(cached(path), 0);
  t.ok(readFileSync(path).equals(expected));
});

t.test('writes of all kinds to the same blocks, and a Flush', async (t) => {
  const { command, flush } = await start(t);
  for (let round = 0; round < 100; round++) {
    const writes = Array.from({ length: 16 }, (_, i) =>
      command(WRITE, 8 * (i % 2), i % 3 === 0 ? 512 : 16_384, i % 2 === 0 ? 0 : 4, round),
    );
    await Promise.all(writes);
    assert.equal(await flush(), 0, `round ${round}`);
  }
  t.pass('each Flush succeeded');
});

t.test('two bdevs of a file are both direct, or neither', async (t) => {
  const target = await TestTarget.start(t);
  const path = target.image(MIB);
  const other = join(target.folder, 'other');
  linkSync(path, other);
  for (const direct of [true, false]) {
    const first = await target.file(path, { direct });
    await t.rejects(target.file(other, { direct: !direct }), {
      code: 'EBUSY',
      message: new RegExp(`other is the file of bdev '${first}', .*'direct'`),
    });
    const more = [
      await target.file(other, { direct }),
      // Who only reads leaves nothing behind in the page cache that others would have to write.
      await target.file(path, { direct: !direct, readonly: true }),
    ];
    for (const name of [first, ...more]) {
      await target.target.deleteBdev(name, 'uring');
    }
  }
});

/** What it printed, or why it failed. */
function system(command: string, ...args: string[]): { output: string } | { problem: string } {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  return status === 0 ? { output: stdout.trim() } : { problem: error?.message ?? stderr.trim() };
}

t.test('a file system whose blocks are larger than the disk is to have', async (t) => {
  const target = await TestTarget.start(t);
  const image = target.image(16 * MIB);
  const folder = join(target.folder, 'mounted');
  mkdirSync(folder);
  const loop = system('losetup', '--find', '--show', '--sector-size', '4096', image);
  if ('problem' in loop) {
    t.plan(0, loop.problem);
    return;
  }
  t.teardown(() => system('losetup', '--detach', loop.output));
  for (const step of [
    ['mkfs.ext4', '-q', loop.output],
    ['mount', loop.output, folder],
  ]) {
    const done = system(step[0], ...step.slice(1));
    if ('problem' in done) {
      t.plan(0, done.problem);
      return;
    }
  }
  t.teardown(async () => {
    await target.target.close();
    system('umount', folder);
  });
  const path = join(folder, 'disk');
  writeFileSync(path, Buffer.alloc(MIB));
  await t.rejects(target.file(path, { direct: true }), {
    name: 'InvalidError',
    message: /'block_size' must be 4096 or 'direct' false/,
  });
  await target.file(path, { direct: true, blockSize: 4096 });
});
