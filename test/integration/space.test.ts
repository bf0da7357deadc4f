/**
 * Write Zeroes, Dataset Management, Compare and Verify: ranges, statuses, what becomes of the disk, and of the host's file. NVM Command Set
 * 1.0 §3.2. That they do what they should among other commands is in `io.test.ts`.
 */
import { readFileSync, statSync, writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import type { CommandFields, NvmeClient } from '../../src/client/nvme.ts';
import { IdentifyController, IdentifyNamespace } from '../../src/spec/identify.ts';
import { EFFECTS_IO_OFFSET, Lid } from '../../src/spec/logs.ts';
import { DatasetDword11, DsmRange, NvmOpcode, WriteZeroesDword12 } from '../../src/spec/nvm.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, COMPARE, WRITE_ZEROES, DATASET_MANAGEMENT, VERIFY } = NvmOpcode;
const { deac: DEAC, fua: FUA } = WriteZeroesDword12.mask;
const AD = DatasetDword11.mask.ad;
const DISK = 8 * MIB;
const BLOCK = 512;
const BLOCKS = DISK / BLOCK;

type Kind = 'malloc' | 'null' | 'file' | 'direct' | 'delay' | 'error';
const KINDS: readonly Kind[] = ['malloc', 'null', 'file', 'direct', 'delay', 'error'];

async function make(target: TestTarget, kind: Kind): Promise<string> {
  switch (kind) {
    case 'malloc':
      return target.malloc(DISK);
    case 'null':
      return target.null(DISK);
    case 'delay': {
      const latencies = { avg_read: 100, p99_read: 100, avg_write: 100, p99_write: 100 };
      const base = await target.file(target.image(DISK));
      return (await target.target.createDelay({ name: 'slow' }, base, latencies)).name;
    }
    case 'error':
      return (await target.target.createError(await target.malloc(DISK))).name;
    default:
      return target.file(target.image(DISK), { direct: kind === 'direct' });
  }
}

class Driver {
  readonly client: NvmeClient;
  readonly #execute: (fields: CommandFields) => Promise<string>;
  readonly #offset: number;
  readonly #list: number;

  private constructor(client: NvmeClient, execute: (fields: CommandFields) => Promise<string>) {
    this.client = client;
    this.#execute = execute;
    // A megabyte, and the list of its pages.
    this.#offset = client.memory.allocate(MIB);
    this.#list = client.memory.allocate(4096);
    const entries = new BigUint64Array(client.memory.buffer, this.#list, 512);
    entries.forEach((_, i) => {
      entries[i] = BigInt(client.memory.iova + this.#offset + 4096 * ((i + 1) % 256));
    });
  }

  static async start(target: TestTarget, ...bdevs: string[]): Promise<Driver> {
    const client = await target.connect(await target.serve(...bdevs));
    const pair = await client.createQueuePair(1, 64);
    return new Driver(client, async (fields) => code(await pair.execute({ nsid: 1, ...fields })));
  }

  get buffer(): Uint8Array {
    return this.client.memory.bytes(this.#offset, MIB);
  }

  get #prps() {
    const { iova } = this.client.memory;
    return { prp1: iova + this.#offset, prp2: iova + this.#list };
  }

  run(fields: CommandFields): Promise<string> {
    return this.#execute({ ...this.#prps, ...fields });
  }

  range(opcode: number, lba: number, blocks: number, flags = 0): Promise<string> {
    const cdw11 = Math.floor(lba / 2 ** 32);
    return this.run({ opcode, cdw10: lba % 2 ** 32, cdw11, cdw12: (blocks - 1) | flags });
  }

  async read(lba: number, blocks: number): Promise<Uint8Array> {
    this.buffer.fill(0xee);
    t.equal(await this.range(READ, lba, blocks), '0/00');
    return this.buffer.slice(0, blocks * BLOCK);
  }

  async fill(lba: number, blocks: number, value: number): Promise<void> {
    this.buffer.fill(value);
    for (let at = 0; at < blocks; at += MIB / BLOCK) {
      t.equal(await this.range(WRITE, lba + at, Math.min(blocks - at, MIB / BLOCK)), '0/00');
    }
  }

  discard(ranges: readonly (readonly [number, number])[], cdw11 = AD): Promise<string> {
    for (const [i, [slba, length]] of ranges.entries()) {
      this.buffer.set(DsmRange.encode({ attributes: 0, length, slba }), i * DsmRange.size);
    }
    return this.run({ opcode: DATASET_MANAGEMENT, cdw10: ranges.length - 1, cdw11 });
  }
}

async function start(t: Test, kind: Kind) {
  const target = await TestTarget.start(t);
  const bdev = await make(target, kind);
  return { target, bdev, driver: await Driver.start(target, bdev) };
}

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
const isZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);

for (const kind of KINDS) {
  t.test(`${kind}: ranges of blocks`, async (t) => {
    const { driver } = await start(t, kind);
    driver.buffer.fill(0);
    for (const opcode of [WRITE_ZEROES, COMPARE, VERIFY]) {
      const at = (lba: number, blocks: number) => driver.range(opcode, lba, blocks);
      t.equal(await at(BLOCKS - 1, 1), '0/00', 'the last block');
      t.equal(await at(BLOCKS - 2048, 2048), '0/00', '1 MiB');
      t.equal(await at(BLOCKS, 1), '0/80', 'one too far');
      t.equal(await at(BLOCKS - 7, 8), '0/80', 'one too many');
      t.equal(await at(2 ** 32, 1), '0/80', 'block 2^32');
      t.equal(await at(2 ** 53, 1), '0/80', 'block 2^53');
      t.equal(await driver.run({ opcode, cdw10: -8 >>> 0, cdw11: -1 >>> 0, cdw12: 15 }), '0/80');
      t.equal(await driver.run({ opcode, nsid: 2 }), '0/0b');
    }
    for (const opcode of [WRITE_ZEROES, VERIFY]) {
      t.equal(await driver.range(opcode, 0, BLOCKS), '0/00', 'no data, so no limit by MDTS');
      t.equal(await driver.run({ opcode, prp1: 3, cdw12: 7 }), '0/00', 'nor a buffer');
    }
    t.equal(await driver.range(COMPARE, 0, 2049), '0/02', 'more than MDTS');
    t.equal(await driver.run({ opcode: COMPARE, prp1: 2 ** 40, cdw12: 7 }), '0/04', 'no memory');
    t.equal(await driver.run({ opcode: COMPARE, prp1: 3, cdw12: 7 }), '0/13');
  });

  t.test(`${kind}: ranges of Dataset Management`, async (t) => {
    const { driver } = await start(t, kind);
    t.equal(await driver.discard([[0, 8]]), '0/00');
    t.equal(await driver.discard([[0, BLOCKS]]), '0/00', 'all of it');
    t.equal(await driver.discard([[BLOCKS - 1, 2]]), '0/80');
    t.equal(await driver.discard([[BLOCKS, 1]]), '0/80');
    t.equal(await driver.discard([[BLOCKS, 0]]), '0/00', 'nothing, at the end');
    t.equal(await driver.discard([[0, 0]]), '0/00', 'nothing');
    t.equal(await driver.discard([[2 ** 52, 2 ** 32 - 1]]), '0/80');
    const both = [[0, 8], [BLOCKS, 8]] as const; // biome-ignore format: pairs
    t.equal(await driver.discard(both), '0/80', 'the second is wrong');
    t.equal(await driver.discard(both, 0), '0/80', 'also as a hint');
    t.equal(await driver.discard([[0, 8]], 0), '0/00', 'a hint');
    const most = Array.from({ length: 256 }, (_, i) => [i * 8, 8] as const);
    t.equal(await driver.discard(most), '0/00', '256 ranges');
    const fields = { opcode: DATASET_MANAGEMENT, cdw10: 255, cdw11: AD };
    t.equal(await driver.run({ ...fields, prp1: 2 ** 40 }), '0/04', 'no memory');
    t.equal(await driver.run({ ...fields, prp1: 2 }), '0/13');
    const { iova } = driver.client.memory;
    t.equal(await driver.run({ ...fields, prp1: iova + 2048, prp2: 2 ** 40 }), '0/04');
    t.equal(await driver.run({ ...fields, nsid: 2 }), '0/0b');
  });
}

for (const kind of KINDS.filter((kind) => kind !== 'null')) {
  t.test(`${kind}: zeroes, and nothing else changes`, async (t) => {
    const { driver } = await start(t, kind);
    const whole = async (zeroes: readonly (readonly [number, number])[]) => {
      for (let lba = 0; lba < BLOCKS; lba += 2048) {
        const bytes = await driver.read(lba, 2048);
        const expected = new Uint8Array(bytes.length).fill(0xa5);
        for (const [first, count] of zeroes) {
          const from = Math.max(0, first - lba) * BLOCK;
          expected.fill(0, from, Math.max(from, (first + count - lba) * BLOCK));
        }
        t.ok(Buffer.from(bytes).equals(expected), `from block ${lba}`);
      }
    };
    for (const flags of [0, DEAC, FUA, DEAC | FUA]) {
      await driver.fill(0, BLOCKS, 0xa5);
      t.equal(await driver.range(WRITE_ZEROES, 1001, 5003, flags), '0/00');
      await whole([[1001, 5003]]);
    }
    await driver.fill(0, BLOCKS, 0xa5);
    const ranges = [[3, 1], [77, 0], [100, 5000], [9001, 1], [BLOCKS - 9, 9]] as const; // biome-ignore format: pairs
    t.equal(await driver.discard(ranges), '0/00');
    await whole(ranges);
  });

  t.test(`${kind}: compare`, async (t) => {
    const { driver } = await start(t, kind);
    await driver.fill(0, 2048, 0x5a);
    t.equal(await driver.range(COMPARE, 0, 2048), '0/00');
    for (const at of [0, 511, 65_535, 65_536, MIB - 1]) {
      driver.buffer[at] ^= 0x10;
      t.equal(await driver.range(COMPARE, 0, 2048), '2/85', `byte ${at}`);
      driver.buffer[at] ^= 0x10;
    }
    t.equal(await driver.range(COMPARE, 1, 2048), '2/85', 'zeroes behind');
    t.equal(await driver.range(COMPARE, 0, 2048), '0/00');
  });
}

t.test('a namespace that is write protected', async (t) => {
  const target = await TestTarget.start(t);
  const path = target.image(DISK);
  writeFileSync(path, Buffer.alloc(DISK, 0x77));
  const driver = await Driver.start(target, await target.file(path, { readonly: true }));
  t.equal(await driver.range(WRITE_ZEROES, 0, 8), '0/20');
  t.equal(await driver.discard([[0, 8]]), '0/20');
  t.equal(await driver.discard([[0, 8]], 0), '0/00', 'a hint changes nothing');
  driver.buffer.fill(0x77);
  t.equal(await driver.range(COMPARE, 0, 8), '0/00');
  t.equal(await driver.range(VERIFY, 0, 8), '0/00');
  t.ok(readFileSync(path).every((byte) => byte === 0x77));
});

for (const direct of [false, true]) {
  t.test(`the host's file shrinks${direct ? ', O_DIRECT' : ''}`, async (t) => {
    const target = await TestTarget.start(t);
    const path = target.image(DISK);
    const driver = await Driver.start(target, await target.file(path, { direct }));
    const used = () => statSync(path).blocks * 512;
    await driver.fill(0, BLOCKS, 0x11);
    await driver.run({ opcode: NvmOpcode.FLUSH });
    t.ok(used() >= DISK);
    t.equal(await driver.discard([[0, BLOCKS / 2]]), '0/00');
    t.ok(used() <= DISK / 2 + 65_536, `${used()} bytes`);
    t.equal(await driver.range(WRITE_ZEROES, BLOCKS / 2, BLOCKS / 4, DEAC), '0/00');
    t.ok(used() <= DISK / 4 + 65_536, `${used()} bytes`);
    t.equal(statSync(path).size, DISK);
    t.ok(isZero(readFileSync(path).subarray(0, (3 * DISK) / 4)));
  });
}

t.test('counters tell what was done', async (t) => {
  const { target, bdev, driver } = await start(t, 'file');
  await driver.discard([[0, 8], [100, 16]]); // biome-ignore format: pairs
  await driver.range(WRITE_ZEROES, 0, 8);
  await driver.range(VERIFY, 0, 8);
  driver.buffer.fill(0);
  await driver.range(COMPARE, 0, 8);
  await driver.range(COMPARE, BLOCKS, 8);
  const tally = target.pool.bdevTally(target.target.bdevs.get(bdev).index, 0);
  t.strictSame(tally.discards, { ops: 1, bytes: 24 * BLOCK });
  t.equal(tally.others, 2);
  t.match(tally.of(0), { ops: 1, bytes: 8 * BLOCK });
  t.equal(tally.of(1).ops, 0);
  t.equal(tally.backendErrors, 0);
  driver.buffer.fill(1);
  t.equal(await driver.range(COMPARE, 0, 8), '2/85');
  t.equal(tally.backendErrors, 0, 'that they differ is no error of the disk');
});

t.test('an error is injected, and a command is held back and carried out later', async (t) => {
  const { target, bdev, driver } = await start(t, 'error');
  const error = target.target.bdevs.get(bdev) as unknown as {
    inject(op: number, injection: unknown): void;
  };
  const injection = { count: 1, status: 0, queueDepth: 0, corruptOffset: 0, corruptValue: 0 };
  await driver.fill(0, 64, 0x33);
  for (const op of [3, 4]) {
    const run = () =>
      op === 3
        ? driver.range(WRITE_ZEROES, 0, 8, DEAC)
        : driver.discard([[16, 8], [32, 8]]); // biome-ignore format: pairs
    error.inject(op, { ...injection, error: 'failure' });
    t.equal(await run(), '0/06');
    error.inject(op, { ...injection, error: 'nomem' });
    t.equal(await run(), '0/00');
  }
  const bytes = await driver.read(0, 64);
  const zero = [0, 16, 32].every((lba) => isZero(bytes.subarray(lba * BLOCK, (lba + 8) * BLOCK)));
  t.ok(zero, 'all pieces');
  t.equal(bytes.filter((byte) => byte === 0x33).length, 40 * BLOCK);
});

t.test('Identify and the effects log tell of them', async (t) => {
  const target = await TestTarget.start(t);
  const bdevs = [await target.malloc(DISK), await target.null(DISK)];
  const client = await target.connect(await target.serve(...bdevs));
  const admin = new AdminCaller(client);
  const { oncs } = IdentifyController.read(view((await admin.identify(1)).data));
  t.equal(oncs & 0x8d, 0x8d, 'Compare, Dataset Management, Write Zeroes, Verify');
  const effects = new DataView((await admin.log(Lid.COMMAND_EFFECTS, 4096)).data.buffer);
  const effectsOf = (opcode: number) => effects.getUint32(EFFECTS_IO_OFFSET + 4 * opcode, true) & 3;
  t.strictSame([COMPARE, VERIFY, WRITE_ZEROES, DATASET_MANAGEMENT].map(effectsOf), [1, 1, 3, 3]);
  for (const [i, dlfeat, granule] of [
    [1, 9, 7],
    [2, 0, 0],
  ]) {
    const { data } = await admin.identify(0, i);
    const namespace = IdentifyNamespace.read(view(data));
    t.match(namespace, { dlfeat, npdg: granule, npda: granule, npwg: granule, npwa: granule });
    t.equal(namespace.nsfeat & 0x10, 0x10, 'and they mean something');
  }
});
