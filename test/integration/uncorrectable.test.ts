/**
 * Write Uncorrectable: what reads marked blocks fails until they are written, whoever asks, and over the end of the process. NVM Command Set
 * 1.0 §3.2.7.
 */
import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type CommandFields, NvmeClient } from '../../src/client/nvme.ts';
import { MAX_UNCORRECTABLE_RANGES } from '../../src/limits.ts';
import { IdentifyController } from '../../src/spec/identify.ts';
import { DatasetDword11, DsmRange, NvmOpcode, WriteZeroesDword12 } from '../../src/spec/nvm.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';
import { TargetProcess } from '../helpers/target-process.ts';

const { READ, WRITE, COMPARE, WRITE_ZEROES, DATASET_MANAGEMENT, VERIFY, FLUSH } = NvmOpcode;
const MARK = NvmOpcode.WRITE_UNCORRECTABLE;
const DISK = 4 * MIB;
const BLOCK = 512;
const BLOCKS = DISK / BLOCK;
/** Unrecovered Read Error. */
const LOST = '2/81';
const KINDS = ['malloc', 'null', 'file', 'direct', 'delay', 'error'] as const;
type Kind = (typeof KINDS)[number];

async function make(target: TestTarget, kind: Kind): Promise<string> {
  switch (kind) {
    case 'malloc':
      return target.malloc(DISK);
    case 'null':
      return target.null(DISK);
    case 'delay': {
      const latencies = { avg_read: 0, p99_read: 100, avg_write: 100, p99_write: 100 };
      const base = await target.file(target.image(DISK));
      return (await target.target.createDelay({ name: 'slow' }, base, latencies)).name;
    }
    case 'error':
      return (await target.target.createError(await target.malloc(DISK))).name;
    default:
      return target.file(target.image(DISK), { direct: kind === 'direct' });
  }
}

/** A guest with one queue and a buffer of 64 KiB. */
class Guest {
  readonly client: NvmeClient;
  readonly execute: (fields: CommandFields) => Promise<{ status: number }>;
  readonly buffer: Uint8Array;
  readonly #prp: number;

  static async of(client: NvmeClient): Promise<Guest> {
    const pair = await client.createQueuePair(1, 64);
    return new Guest(client, (fields) => pair.execute(fields));
  }

  private constructor(client: NvmeClient, execute: Guest['execute']) {
    this.client = client;
    this.execute = execute;
    const offset = client.memory.allocate(4096);
    this.buffer = client.memory.bytes(offset, 4096);
    this.#prp = client.memory.iova + offset;
  }

  async run(opcode: number, lba: number, blocks: number, flags = 0): Promise<string> {
    const range = { cdw10: lba % 2 ** 32, cdw11: Math.floor(lba / 2 ** 32) };
    const fields = { opcode, nsid: 1, prp1: this.#prp, ...range, cdw12: (blocks - 1) | flags };
    return code(await this.execute(fields));
  }

  async discard(...ranges: readonly (readonly [number, number])[]): Promise<string> {
    for (const [i, [slba, length]] of ranges.entries()) {
      this.buffer.set(DsmRange.encode({ attributes: 0, length, slba }), i * DsmRange.size);
    }
    const cdw11 = DatasetDword11.mask.ad;
    const fields = { opcode: DATASET_MANAGEMENT, nsid: 1, prp1: this.#prp };
    return code(await this.execute({ ...fields, cdw10: ranges.length - 1, cdw11 }));
  }

  /** Of each of the blocks, whether reading it fails as it should. */
  async lost(t: Test, first: number, count: number): Promise<string> {
    let map = '';
    for (let lba = first; lba < first + count; lba++) {
      const read = await this.run(READ, lba, 1);
      t.equal(await this.run(VERIFY, lba, 1), read, 'a Verify says the same');
      map += read === LOST ? 'x' : read === '0/00' ? '.' : '?';
    }
    return map;
  }
}

async function start(t: Test, kind: Kind) {
  const target = await TestTarget.start(t);
  const bdev = await make(target, kind);
  const served = await target.serve(bdev);
  return { target, bdev, served, guest: await Guest.of(await target.connect(served)) };
}

for (const kind of KINDS) {
  t.test(`${kind}: marked, and cleared by what writes`, async (t) => {
    const { target, bdev, guest } = await start(t, kind);
    guest.buffer.fill(0x5a);
    t.equal(await guest.run(WRITE, 0, 8), '0/00');
    t.equal(await guest.run(WRITE, 8, 8), '0/00');
    t.equal(await guest.run(MARK, 2, 12), '0/00');
    t.equal(await guest.lost(t, 0, 16), '..xxxxxxxxxxxx..');
    t.equal(await guest.run(READ, 0, 3), LOST, 'one of three');
    t.equal(await guest.run(READ, 13, 2), LOST);
    t.equal(await guest.run(COMPARE, 1, 2), LOST, 'before it is compared');
    t.equal(await guest.run(FLUSH, 0, 1), '0/00');
    t.equal(await guest.run(WRITE, 4, 2), '0/00');
    t.equal(await guest.lost(t, 0, 16), '..xx..xxxxxxxx..', 'a write, in the middle');
    t.equal(await guest.run(WRITE_ZEROES, 1, 2), '0/00');
    t.equal(await guest.lost(t, 0, 16), '...x..xxxxxxxx..', 'zeroes, over an edge');
    t.equal(await guest.run(WRITE_ZEROES, 3, 1, WriteZeroesDword12.mask.deac), '0/00');
    t.equal(await guest.discard([7, 1], [12, 5], [9, 0], [9, 1]), '0/00');
    t.equal(await guest.lost(t, 0, 16), '......x.x.xx....', 'a discard, in pieces');
    t.equal(await guest.run(MARK, 7, 3), '0/00');
    t.equal(await guest.lost(t, 0, 16), '......xxxxxx....', 'two and what was between');
    guest.buffer.fill(0x5a);
    t.equal(await guest.run(WRITE, 0, 8, WriteZeroesDword12.mask.fua), '0/00');
    t.equal(await guest.run(WRITE, 8, 8), '0/00');
    t.equal(await guest.lost(t, 0, 16), '................');
    guest.buffer.fill(0x5a);
    if (kind !== 'null') {
      t.equal(await guest.run(COMPARE, 0, 8), '0/00', 'and has what was written');
    }
    const tally = target.pool.bdevTally(target.target.bdevs.get(bdev).index, 0);
    t.equal(tally.backendErrors, 0, 'no error of the disk');
    t.ok((tally.errors.get(0x4281) ?? 0) > 0, 'but counted');
  });
}

t.test('ranges, and namespaces that do not take it', async (t) => {
  const { target, guest } = await start(t, 'malloc');
  t.equal(await guest.run(MARK, BLOCKS - 1, 1), '0/00');
  t.equal(await guest.run(MARK, BLOCKS, 1), '0/80');
  t.equal(await guest.run(MARK, BLOCKS - 1, 2), '0/80');
  t.equal(await guest.run(MARK, 2 ** 53, 1), '0/80');
  t.equal(await guest.run(MARK, 0, BLOCKS), '0/00', 'all of it');
  t.equal(code(await guest.execute({ opcode: MARK, nsid: 2 })), '0/0b');
  const path = target.image(DISK);
  const readonly = await target.file(path, { readonly: true });
  const other = await Guest.of(await target.connect(await target.serve(readonly)));
  t.equal(await other.run(MARK, 0, 1), '0/20');
  const { data } = await new AdminCaller(guest.client).identify(1);
  const { oncs } = IdentifyController.read(new DataView(data.buffer, data.byteOffset));
  t.equal(oncs & 2, 2);
});

t.test('more ranges than there may be', async (t) => {
  const { guest } = await start(t, 'malloc');
  const all = Array.from({ length: MAX_UNCORRECTABLE_RANGES }, (_, i) => guest.run(MARK, 3 * i, 2));
  t.ok((await Promise.all(all)).every((status) => status === '0/00'));
  const last = 3 * MAX_UNCORRECTABLE_RANGES;
  t.equal(await guest.run(MARK, last, 1), '0/81', 'Capacity Exceeded');
  t.equal(await guest.run(READ, last, 1), '0/00');
  t.equal(await guest.run(MARK, 2, 1), '0/00', 'one that joins two');
  t.equal(await guest.run(MARK, last, 1), '0/00');
  t.equal(await guest.run(WRITE, 3, 1), '0/81', 'one that would be in the middle');
  t.equal(await guest.run(READ, 3, 1), LOST);
  t.equal(await guest.run(WRITE, 0, 5), '0/00', 'the whole range');
  t.equal(await guest.lost(t, 0, 9), '.....' + '.xx.');
});

t.test('every queue and reactor sees it, and it stays when the guest goes', async (t) => {
  const target = await TestTarget.start(t, { reactors: 2 });
  for (const bdev of [await target.malloc(DISK), await target.file(target.image(DISK))]) {
    const served = await target.serve(bdev);
    const client = await target.connect(served);
    const pairs = [await client.createQueuePair(1, 8), await client.createQueuePair(2, 8)];
    const offset = client.memory.iova + client.memory.allocate(4096);
    const run = async (queue: number, opcode: number) =>
      code(await pairs[queue].execute({ opcode, nsid: 1, prp1: offset, cdw10: 77, cdw12: 0 }));
    for (const [one, other] of [
      [0, 1],
      [1, 0],
    ]) {
      // biome-ignore format: pairs
      t.equal(await run(one, MARK), '0/00');
      t.equal(await run(other, READ), LOST);
      t.equal(await run(other, WRITE), '0/00');
      t.equal(await run(one, READ), '0/00');
    }
    t.equal(await run(0, MARK), '0/00');
    client.close();
    const next = await Guest.of(await target.connect(served));
    t.equal(await next.lost(t, 76, 3), '.x.');
  }
});

t.test('two bdevs on one file, and a bdev that is made again', async (t) => {
  const { target, bdev, served, guest } = await start(t, 'file');
  t.equal(await guest.run(MARK, 8, 8), '0/00');
  const { filename } = target.target.bdevs.get(bdev) as unknown as { filename: string };
  guest.client.close();
  await target.target.removeListener(served.nqn, join(served.socket, '..'));
  await target.target.deleteBdev(bdev, 'uring');
  const again = await target.file(filename, { blockSize: 4096 });
  const next = await Guest.of(await target.connect(await target.serve(again)));
  t.equal(await next.lost(t, 0, 3), '.x.', 'in blocks of another size');
});

t.test('a command that waits for it goes with its controller', async (t) => {
  const { guest, target, served } = await start(t, 'file');
  for (let i = 0; i < 20; i++) {
    void guest.run(MARK, 3 * i, 1).catch(() => {});
  }
  await guest.client.disable();
  guest.client.close();
  const next = await Guest.of(await target.connect(served));
  t.match(await next.lost(t, 0, 60), /^([x.]\.\.)+$/);
});

t.test('it is kept over kill -9', async (t) => {
  const target = new TargetProcess(t);
  const state = join(target.folder, 'state');
  const image = join(target.folder, 'disk.img');
  writeFileSync(image, '');
  truncateSync(image, DISK);
  const traddr = join(target.folder, 'vm');
  mkdirSync(traddr);
  const nqn = 'nqn.2026-11.io.doorbell:marked';
  const connect = async () => Guest.of(await NvmeClient.connect(join(traddr, 'cntrl')));
  await target.start('--state-dir', state);
  await target.call('nvmf_create_transport', { trtype: 'VFIOUSER' });
  await target.call('bdev_aio_create', { name: 'disk', filename: image, block_size: 512 });
  await target.call('nvmf_create_subsystem', { nqn, allow_any_host: true });
  await target.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'disk' } });
  const listen_address = { trtype: 'VFIOUSER', traddr };
  await target.call('nvmf_subsystem_add_listener', { nqn, listen_address });
  let guest = await connect();
  t.equal(await guest.run(MARK, 4, 8), '0/00');
  guest.buffer.fill(0x77);
  t.equal(await guest.run(WRITE, 8, 2), '0/00');
  for (const marked of ['....xxxx..xx....', '......xx..xx....']) {
    await target.kill();
    guest.client.close();
    await target.start('--state-dir', state);
    guest = await connect();
    t.equal(await guest.lost(t, 0, 16), marked);
    t.equal(await guest.run(READ, 8, 2), '0/00');
    t.ok(guest.buffer.subarray(0, 1024).every((byte) => byte === 0x77));
    t.equal(await guest.run(WRITE, 4, 2), '0/00');
  }
  // What cannot be kept is not told of as if it were.
  const file = join(state, 'uncorrectable.json');
  mkdirSync(`${file}.new`);
  t.equal(await guest.run(MARK, 20, 1), '2/80');
  t.equal(await guest.run(WRITE, 6, 1), '2/80');
  t.equal(await guest.lost(t, 4, 18), '..xx..xx..........', 'as before');
  rmSync(`${file}.new`, { recursive: true });
  t.equal(await guest.run(WRITE, 6, 8), '0/00');
  t.equal(await guest.lost(t, 0, 32), '.'.repeat(32));
  t.match(JSON.parse(readFileSync(file, 'utf8')), { version: 1, files: [] });
  guest.client.close();
  await target.stop();
});
