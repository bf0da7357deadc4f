/** Files and block devices that are not what they were: shorter, write protected, without room, broken. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import { code } from '../helpers/admin.ts';
import { runWorkload } from '../helpers/integrity.ts';
import { Random } from '../helpers/random.ts';
import { PagePool } from '../helpers/scatter.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;

async function open(t: Test, target: TestTarget, bdev: string) {
  const client = await target.connect(await target.serve(bdev));
  const pair = await client.createQueuePair(1, 64);
  const offset = client.memory.allocate(4096);
  const bytes = client.memory.bytes(offset, 4096);
  const prp1 = client.memory.iova + offset;
  const command = async (opcode: number, lba: number, blocks = 8) =>
    code(await pair.execute({ opcode, nsid: 1, prp1, cdw10: lba, cdw12: blocks - 1 }));
  t.equal(await command(READ, 0), '0/00');
  return { client, pair, bytes, command };
}

/** Runs a program as root. Its output; or why it could not be done. */
function system(command: string, ...args: string[]): { output: string } | { problem: string } {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  return status === 0
    ? { output: stdout.trim() }
    : { problem: `${command}: ${error?.message ?? stderr.trim()}` };
}

for (const direct of [false, true]) {
  t.test(`a file is truncated${direct ? ' under O_DIRECT' : ''}`, async (t) => {
    const target = await TestTarget.start(t);
    const path = target.image(MIB);
    writeFileSync(path, Buffer.alloc(MIB, 0x5a));
    const { bytes, command } = await open(t, target, await target.file(path, { direct }));
    truncateSync(path, MIB / 2);
    t.equal(await command(READ, 1016), '0/00', 'what is left');
    t.ok(bytes.every((byte) => byte === 0x5a));
    t.equal(await command(READ, 1024), '2/81', 'what is gone');
    t.equal(await command(READ, 2040), '2/81');
    t.equal(await command(READ, 1020), '2/81', 'half of it is gone');
    t.equal(await command(READ, 2048), '0/80', 'never there');
    truncateSync(path, 1000);
    t.equal(await command(READ, 0, 1), '0/00');
    t.equal(await command(READ, 1, 1), '2/81', 'a part of a block');
    t.equal(await command(FLUSH, 0), '0/00');
    bytes.fill(0x33);
    t.equal(await command(WRITE, 2040), '0/00', 'a write makes the file longer again');
    bytes.fill(0);
    t.equal(await command(READ, 2040), '0/00');
    t.ok(bytes.every((byte) => byte === 0x33));
  });
}

t.test('a disk that is write protected', async (t) => {
  const target = await TestTarget.start(t);
  const path = target.image(MIB);
  const { command } = await open(t, target, await target.file(path, { readonly: true }));
  t.equal(await command(WRITE, 0), '0/20');
  t.equal(await command(WRITE, 2047, 1), '0/20');
  t.equal(await command(FLUSH, 0), '0/00');
  t.equal(await command(READ, 0), '0/00');
  t.ok(readFileSync(path).equals(Buffer.alloc(MIB)));
});

t.test('a file system without room', async (t) => {
  const target = await TestTarget.start(t);
  const folder = join(target.folder, 'small');
  mkdirSync(folder);
  const mounted = system('mount', '-t', 'tmpfs', '-o', 'size=256k', 'doorbell-test', folder);
  if ('problem' in mounted) {
    t.comment(mounted.problem);
    t.plan(0, 'a tmpfs cannot be mounted');
    return;
  }
  t.teardown(() => system('umount', '-l', folder));
  const path = join(folder, 'disk.img');
  writeFileSync(path, '');
  truncateSync(path, MIB);
  const { bytes, command } = await open(t, target, await target.file(path));
  const outcomes: string[] = [];
  for (let lba = 0; lba < 2048; lba += 8) {
    bytes.fill(lba / 8);
    outcomes.push(await command(WRITE, lba));
  }
  t.equal(outcomes[0], '0/00');
  t.ok(outcomes.includes('0/81'), 'capacity exceeded');
  t.strictSame([...new Set(outcomes)].sort(), ['0/00', '0/81']);
  for (const [i, outcome] of outcomes.entries()) {
    assert.equal(await command(READ, 8 * i), '0/00');
    const value = outcome === '0/00' ? i : 0;
    assert.ok(
      bytes.every((byte) => byte === value),
      `block ${8 * i}`,
    );
  }
  t.equal(await command(WRITE, 0), '0/00', 'where there is room already');
});

t.test('a block device: its block size, its data, its errors', async (t) => {
  const target = await TestTarget.start(t);
  const path = target.image(4 * MIB);
  const loop = system('losetup', '--find', '--show', '--sector-size', '4096', path);
  if ('problem' in loop) {
    t.comment(loop.problem);
    t.plan(0, 'there are no loop devices');
    return;
  }
  t.teardown(() => system('losetup', '--detach', loop.output));
  for (const direct of [false, true]) {
    const bdev = await target.file(loop.output, { direct });
    const served = await target.serve(bdev);
    const client = await target.connect(served);
    const { lbafs, nsze } = await client.identifyNamespace(1);
    t.strictSame({ ds: lbafs[2], nsze }, { ds: 12, nsze: 1024 });
    const random = new Random();
    t.comment(`SEED=${random.seed}`);
    const pool = new PagePool(random).add(client.memory, 4096);
    const pairs = [await client.createQueuePair(1, 16), await client.createQueuePair(2, 16)];
    const pair = pairs[0];
    const copy = new Uint8Array(4 * MIB);
    // Both rounds begin with a disk of zeros.
    const prp1 = client.memory.iova + client.memory.allocate(4096);
    for (let lba = 0; lba < 1024; lba++) {
      const { status } = await pair.execute({ opcode: WRITE, nsid: 1, prp1, cdw10: lba });
      assert.equal(status, 0);
    }
    const load = { pairs, nsid: 1, blockSize: 4096, copy, pool, random };
    await runWorkload({ ...load, workers: 4, commands: 30, maxBytes: 256 * 1024 });
    assert.equal((await pair.execute({ opcode: FLUSH, nsid: 1 })).status, 0);
    t.ok(readFileSync(path).equals(copy), 'the file behind it holds what was written');
    if (direct) {
      truncateSync(path, MIB);
      const read = { opcode: READ, nsid: 1, prp1, cdw10: 1000 };
      t.equal(code(await pair.execute(read)), '2/81', 'the device says EIO');
      t.equal(code(await pair.execute({ ...read, cdw10: 3 })), '0/00');
    }
    await target.target.deleteBdev(bdev, 'uring');
  }
});
