/** Copy: formats, ranges, limits, statuses, and what becomes of the blocks. NVM Command Set 1.0 §3.2.2, 1.1 §3.3.2. */
import { writeFileSync } from 'node:fs';
import t, { type Test } from 'tap';
import { Op } from '../../src/bdev/op.ts';
import type { NvmeClient } from '../../src/client/nvme.ts';
import type { Completion, QueuePair } from '../../src/client/queue-pair.ts';
import { MAX_COPY_BYTES, MAX_COPY_RANGE_BYTES } from '../../src/limits.ts';
import { FormatNvm, SetFeatures } from '../../src/spec/admin.ts';
import { Fid, HostBehavior } from '../../src/spec/features.ts';
import { IdentifyController, IdentifyNamespace } from '../../src/spec/identify.ts';
import { CopySourceRange, NvmOpcode, RangeDword12 } from '../../src/spec/nvm.ts';
import { AdminCaller, code } from '../helpers/admin.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, COPY, WRITE_UNCORRECTABLE } = NvmOpcode;
const BLOCK = 512;
const DISK = 16 * MIB;
const BLOCKS = DISK / BLOCK;
const FUA = RangeDword12.mask.fua;
const FAST_ONLY = 0x8000;
type Source = { slba: number; blocks: number; snsid?: number; sopt?: number };
type Kind = 'malloc' | 'file' | 'direct' | 'delay' | 'error';
const KINDS: readonly Kind[] = ['malloc', 'file', 'direct', 'delay', 'error'];

async function make(target: TestTarget, kind: Kind): Promise<string> {
  switch (kind) {
    case 'malloc':
      return target.malloc(DISK);
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

class Guest {
  readonly client: NvmeClient;
  readonly admin: AdminCaller;
  readonly #pair: QueuePair;
  readonly #offset: number;
  readonly #list: number;

  static async start(target: TestTarget, ...bdevs: string[]): Promise<Guest> {
    const client = await target.connect(await target.serve(...bdevs));
    return new Guest(client, await client.createQueuePair(1, 64));
  }

  private constructor(client: NvmeClient, pair: QueuePair) {
    this.client = client;
    this.admin = new AdminCaller(client);
    this.#pair = pair;
    this.#offset = client.memory.allocate(MIB);
    this.#list = client.memory.allocate(4096);
    const entries = new BigUint64Array(client.memory.buffer, this.#list, 512);
    entries.forEach((_, i) => {
      entries[i] = BigInt(client.memory.iova + this.#offset + 4096 * ((i + 1) % 256));
    });
  }

  get buffer(): Uint8Array {
    return this.client.memory.bytes(this.#offset, MIB);
  }

  /** Where the list of sources is: one that is long goes over a page. */
  async copy(
    to: number,
    sources: readonly Source[],
    { format = 0, flags = 0, nsid = 1, prp1 = this.client.memory.iova + this.#offset } = {},
  ): Promise<Completion> {
    const bytes = format % 2 === 0 ? 32 : 40;
    this.buffer.fill(0xff, 0, sources.length * bytes);
    for (const [i, { slba, blocks, snsid = 0xabcd, sopt = 0 }] of sources.entries()) {
      const entry = CopySourceRange.encode({ snsid, slba, nlbZ: blocks - 1, sopt });
      this.buffer.set(entry, i * bytes);
    }
    const prp2 = this.client.memory.iova + this.#list;
    const cdw12 = ((sources.length - 1) | (format << 8) | flags) >>> 0;
    const range = { cdw10: to % 2 ** 32, cdw11: Math.floor(to / 2 ** 32) };
    const long = sources.length * bytes > 8192;
    const second = this.client.memory.iova + this.#offset + 4096;
    return this.#pair.execute({
      ...{ opcode: COPY, nsid, prp1, prp2: long ? prp2 : second, cdw12 },
      ...range,
    });
  }

  async run(opcode: number, lba: number, blocks: number, nsid = 1): Promise<string> {
    const { iova } = this.client.memory;
    const prps = { prp1: iova + this.#offset, prp2: iova + this.#list };
    const fields = { opcode, nsid, ...prps, cdw10: lba, cdw12: blocks - 1 };
    // A second page needs no list.
    const two = blocks * BLOCK > 4096 && blocks * BLOCK <= 8192;
    return code(await this.#pair.execute({ ...fields, ...(two && { prp2: prps.prp1 + 4096 }) }));
  }

  /** Every block tells its number and a salt, in its first bytes. */
  async fill(t: Test, salt: number, nsid = 1): Promise<void> {
    for (let lba = 0; lba < BLOCKS; lba += 2048) {
      const words = new Uint32Array(this.buffer.buffer, this.buffer.byteOffset, MIB / 4);
      words.forEach((_, i) => {
        words[i] = (lba + Math.floor(i / 128)) * 0x100 + salt;
      });
      t.equal(await this.run(WRITE, lba, 2048, nsid), '0/00');
    }
  }

  /** What `fill` gave each of the blocks. */
  async look(t: Test, lba: number, blocks: number, nsid = 1): Promise<[number, number][]> {
    t.equal(await this.run(READ, lba, blocks, nsid), '0/00');
    const view = new DataView(this.buffer.buffer, this.buffer.byteOffset);
    return Array.from({ length: blocks }, (_, i) => {
      const word = view.getUint32(i * BLOCK, true);
      t.equal(view.getUint32(i * BLOCK + BLOCK - 4, true), word, 'the whole block');
      return [word >>> 8, word & 0xff];
    });
  }
}

/** Has the controller take these formats, a bit each, too. */
async function enableFormats(client: NvmeClient, cdfe: number): Promise<string> {
  const offset = client.memory.allocate(4096);
  client.memory.bytes(offset, HostBehavior.size).set(HostBehavior.encode({ cdfe }));
  const prp1 = client.memory.iova + offset;
  return code(
    await client.admin.execute(SetFeatures.fields({ fid: Fid.HOST_BEHAVIOR_SUPPORT, prp1 })),
  );
}

const numbers = (found: readonly [number, number][]): number[] => found.map(([lba]) => lba);
const run = (first: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => first + i);

for (const kind of KINDS) {
  t.test(`${kind}: blocks get what others have, in order`, async (t) => {
    const target = await TestTarget.start(t);
    const bdev = await make(target, kind);
    const guest = await Guest.start(target, bdev);
    await guest.fill(t, 7);
    for (const format of [0, 1]) {
      const sources = [
        { slba: 5000, blocks: 3 },
        { slba: 4000, blocks: 1 },
        { slba: 4100, blocks: 300 },
      ];
      const { status, dw0 } = await guest.copy(100, sources, { format, flags: format * FUA });
      t.equal(code({ status }), '0/00');
      t.equal(dw0, 0);
      const found = numbers(await guest.look(t, 99, 306));
      t.strictSame(found, [99, ...run(5000, 3), 4000, ...run(4100, 300), 404]);
      await guest.fill(t, 7);
    }
    const many = Array.from({ length: 256 }, (_, i) => ({ slba: 20_000 - 2 * i, blocks: 1 }));
    for (const format of [0, 1]) {
      t.equal(code(await guest.copy(512, many, { format })), '0/00', '256 ranges');
      const found = numbers(await guest.look(t, 512, 256));
      t.strictSame(found, run(0, 256).map((i) => 20_000 - 2 * i)); // biome-ignore format: short
    }
    const large = MAX_COPY_RANGE_BYTES / BLOCK;
    t.equal(code(await guest.copy(0, [{ slba: BLOCKS - large, blocks: large }])), '0/00');
    t.strictSame(numbers(await guest.look(t, large - 8, 9)), [...run(BLOCKS - 8, 8), large]);
    const tally = target.pool.bdevTally(target.target.bdevs.get(bdev).index, 0);
    t.equal(tally.others, 5, 'one each');
    t.equal(tally.backendErrors, 0);
  });
}

t.test('limits, ranges and fields', async (t) => {
  const target = await TestTarget.start(t);
  const readonly = await target.file(target.image(DISK), { readonly: true });
  const guest = await Guest.start(target, await target.malloc(DISK), readonly);
  const copy = async (...parameters: Parameters<Guest['copy']>) =>
    code(await guest.copy(...parameters));
  const one = (slba: number, blocks = 1) => [{ slba, blocks }];
  const large = MAX_COPY_RANGE_BYTES / BLOCK;
  t.equal(await copy(0, one(0, large)), '0/00');
  t.equal(await copy(0, one(0, large + 1)), '1/83', 'more than MSSRL');
  const parts = Array.from({ length: MAX_COPY_BYTES / MAX_COPY_RANGE_BYTES }, () => one(0, large));
  t.equal(await copy(0, parts.flat()), '0/80', 'MCL, which the disk has not');
  t.equal(await copy(0, [...parts.flat(), ...one(0)]), '1/83', 'more than MCL');
  t.equal(await copy(BLOCKS - 1, one(0)), '0/00');
  t.equal(await copy(BLOCKS - 1, one(0, 2)), '0/80');
  t.equal(await copy(BLOCKS, one(0)), '0/80');
  t.equal(await copy(2 ** 53, one(0)), '0/80');
  t.equal(await copy(0, one(BLOCKS - 1)), '0/00');
  t.equal(await copy(0, one(BLOCKS - 1, 2)), '0/80');
  t.equal(await copy(0, one(2 ** 52)), '0/80');
  t.equal(await copy(0, [...one(0), ...one(BLOCKS)]), '0/80', 'the second is wrong');
  for (let format = 2; format < 16; format++) {
    t.equal(await copy(0, one(0), { format }), '0/02', `format ${format}`);
  }
  t.equal(await copy(0, one(0), { nsid: 2 }), '0/20', 'write protected');
  t.equal(await copy(0, one(0), { nsid: 3 }), '0/0b');
  t.equal(await copy(0, one(0), { prp1: 2 ** 40 }), '0/04', 'no memory');
  t.equal(await copy(0, one(0), { prp1: 2 }), '0/13');
  const view = ({ data }: { data: Uint8Array }) => new DataView(data.buffer, data.byteOffset);
  const { oncs, ocfs } = IdentifyController.read(view(await guest.admin.identify(1)));
  t.equal(oncs & 0x100, 0x100);
  t.equal(ocfs, 15);
  const namespace = IdentifyNamespace.read(view(await guest.admin.identify(0, 1)));
  t.match(namespace, { mssrl: large, mcl: MAX_COPY_BYTES / BLOCK, msrc: 255 });
});

t.test('from other namespaces, when the host enables it', async (t) => {
  const target = await TestTarget.start(t);
  const bdevs = [
    await target.malloc(DISK),
    await target.file(target.image(DISK)),
    await target.file(target.image(DISK), { direct: true }),
    await target.malloc(DISK, 4096),
  ];
  const guest = await Guest.start(target, ...bdevs);
  const copy = async (...parameters: Parameters<Guest['copy']>) =>
    code(await guest.copy(...parameters));
  const enable = (cdfe: number) => enableFormats(guest.client, cdfe);
  for (const nsid of [1, 2, 3]) {
    await guest.fill(t, nsid, nsid);
  }
  const sources = [
    { snsid: 2, slba: 100, blocks: 200 },
    { snsid: 1, slba: 9000, blocks: 2 },
    { snsid: 3, slba: 50, blocks: 300 },
  ];
  t.equal(await copy(1000, sources, { format: 2 }), '0/02', 'not enabled');
  t.equal(await enable(0x10), '0/02', 'a format that there is not');
  t.equal(await enable(0x1), '0/02', 'nor is there anything to enable of the first');
  t.equal(await enable(0x4), '0/00');
  t.equal(await copy(1000, sources, { format: 3 }), '0/02', 'only the other');
  t.equal(await enable(0xc), '0/00');
  for (const format of [2, 3]) {
    for (const nsid of [1, 2, 3]) {
      const to = 1000 * format;
      t.equal(await copy(to, sources, { format, nsid, flags: FUA }), '0/00');
      const found = await guest.look(t, to - 1, 504, nsid);
      t.strictSame(found[0], [to - 1, nsid]);
      t.strictSame(found.slice(1, 201), run(100, 200).map((lba) => [lba, 2])); // biome-ignore format: short
      t.strictSame(found.slice(201, 203), run(9000, 2).map((lba) => [lba, 1])); // biome-ignore format: short
      t.strictSame(found.slice(203, 503), run(50, 300).map((lba) => [lba, 3])); // biome-ignore format: short
      t.strictSame(found[503], [to + 502, nsid]);
    }
  }
  const format = 2;
  t.equal(await copy(0, [{ snsid: 4, slba: 0, blocks: 1 }], { format }), '1/85', 'other blocks');
  for (const snsid of [0, 5, 0xffff_ffff]) {
    t.equal(await copy(0, [{ snsid, slba: 0, blocks: 1 }], { format }), '0/0b');
  }
  const own = { snsid: 1, slba: 100, blocks: 8 };
  t.equal(await copy(107, [own], { format }), '1/87', 'it overlaps');
  t.equal(await copy(93, [own], { format }), '1/87');
  t.equal(await copy(108, [own], { format }), '0/00');
  t.equal(await copy(100, [{ ...own, snsid: 2 }], { format }), '0/00', 'on another disk');
  const fast = { snsid: 2, slba: 0, blocks: 1, sopt: FAST_ONLY };
  t.equal(await copy(0, [fast], { format }), '1/86', 'Fast Copy Only');
  // As its first word says nothing in the other formats.
  t.equal(await copy(0, [{ snsid: 77, slba: 0, blocks: 1 }], { format: 0 }), '0/00');
  await guest.client.disable();
  await guest.client.enable();
  const again = await guest.client.createQueuePair(2, 8);
  const { iova } = guest.client.memory;
  const after = { opcode: COPY, nsid: 1, prp1: iova, cdw12: 2 << 8 };
  t.equal(code(await again.execute(after)), '0/02', 'a reset disables it');
});

t.test('a block that cannot be read ends it, and the completion says which range', async (t) => {
  const target = await TestTarget.start(t);
  const guest = await Guest.start(target, await target.malloc(DISK));
  await guest.fill(t, 7);
  t.equal(await guest.run(WRITE_UNCORRECTABLE, 1002, 1), '0/00');
  const sources = [
    { slba: 2000, blocks: 4 },
    { slba: 3000, blocks: 4 },
    { slba: 1000, blocks: 4 },
    { slba: 4000, blocks: 4 },
  ];
  const { status, dw0 } = await guest.copy(100, sources);
  t.equal(code({ status }), '2/81');
  t.equal(dw0, 2);
  t.strictSame(numbers(await guest.look(t, 100, 8)), [...run(2000, 4), ...run(3000, 4)]);
  t.equal((await guest.copy(BLOCKS, sources)).dw0, 0, 'no later completion says so');
  t.equal(code(await guest.copy(1000, [{ slba: 0, blocks: 4 }])), '0/00');
  t.strictSame(numbers(await guest.look(t, 1000, 4)), run(0, 4), 'a copy writes it');
});

t.test('an error of the disk, on its way', async (t) => {
  const target = await TestTarget.start(t);
  const { name } = await target.target.createError(await target.file(target.image(DISK)));
  const guest = await Guest.start(target, name);
  const error = target.target.bdevs.get(name) as unknown as {
    inject(op: number, injection: unknown): void;
  };
  const injection = { status: 0, queueDepth: 0, corruptOffset: 0, corruptValue: 0 };
  const sources = [{ slba: 0, blocks: 4 }, { slba: 8, blocks: 4 }]; // biome-ignore format: short
  for (const op of [Op.READ, Op.WRITE]) {
    error.inject(op, { ...injection, count: 1, error: 'failure' });
    t.equal(code(await guest.copy(100, sources)), '0/06');
    error.inject(op, { ...injection, count: 1, error: 'nomem' });
    t.equal(code(await guest.copy(100, sources)), '0/00');
  }
});

t.test('a reset, and the end of a namespace, leave copies behind', async (t) => {
  const target = await TestTarget.start(t);
  const latencies = { avg_read: 20_000, p99_read: 20_000, avg_write: 0, p99_write: 0 };
  const base = await target.file(target.image(DISK));
  const slow = (await target.target.createDelay({ name: 'slow' }, base, latencies)).name;
  const bdevs = [await target.malloc(DISK), slow];
  const served = await target.serve(...bdevs);
  const client = await target.connect(served);
  t.equal(await enableFormats(client, 4), '0/00');
  const pair = await client.createQueuePair(1, 64);
  const offset = client.memory.allocate(4096);
  const prp1 = client.memory.iova + offset;
  client.memory.bytes(offset, 32).set(CopySourceRange.encode({ snsid: 2, slba: 0, nlbZ: 9999 }));
  const copies = Array.from({ length: 20 }, (_, i) =>
    pair.execute({ opcode: COPY, nsid: 1, prp1, cdw10: 1000 * i, cdw12: 2 << 8 }),
  );
  await new Promise((resolve) => setTimeout(resolve, 50));
  await target.target.removeNamespace(served.nqn, 2);
  for (const { status } of await Promise.all(copies)) {
    t.equal(code({ status }), '0/07', 'aborted: the source went');
  }
  await target.target.deleteBdev('slow', 'delay');
  const format = { opcode: COPY, nsid: 1, prp1, cdw12: 0 };
  client.memory.bytes(offset, 32).set(CopySourceRange.encode({ slba: 0, nlbZ: 15_000 }));
  for (let i = 0; i < 20; i++) {
    void pair.execute({ ...format, cdw10: 16_000 }).catch(() => {});
  }
  await client.disable();
  client.close();
  const next = await target.connect(served);
  const last = await next.createQueuePair(1, 8);
  t.equal((await last.execute({ opcode: NvmOpcode.FLUSH, nsid: 1 })).status, 0);
});

t.test('a Format waits for the copies from its namespace, too', async (t) => {
  const target = await TestTarget.start(t);
  const latencies = { avg_read: 200_000, p99_read: 200_000, avg_write: 0, p99_write: 0 };
  const base = await target.file(target.image(DISK));
  const slow = (await target.target.createDelay({ name: 'slow' }, base, latencies)).name;
  const client = await target.connect(await target.serve(await target.malloc(DISK), slow));
  t.equal(await enableFormats(client, 4), '0/00');
  const pair = await client.createQueuePair(1, 64);
  const offset = client.memory.allocate(4096);
  const prp1 = client.memory.iova + offset;
  client.memory.bytes(offset, 32).set(CopySourceRange.encode({ snsid: 2, slba: 0, nlbZ: 9999 }));
  const codes: string[] = [];
  for (let i = 0; i < 20; i++) {
    const fields = { opcode: COPY, nsid: 1, prp1, cdw10: 1000 * i, cdw12: 2 << 8 };
    void pair.execute(fields).then(({ status }) => codes.push(code({ status })));
  }
  // What comes by the queue behind them was taken behind them.
  t.equal(code(await pair.execute({ opcode: READ, nsid: 1, prp1 })), '0/00');
  t.equal(code(await client.admin.execute(FormatNvm.fields({ nsid: 2 }))), '0/00');
  t.equal(code(await pair.execute({ opcode: READ, nsid: 1, prp1 })), '0/00');
  t.equal(codes.length, 20, 'none reads on');
});

t.test('what is copied is in the file', async (t) => {
  const target = await TestTarget.start(t);
  const path = target.image(DISK);
  writeFileSync(path, Buffer.alloc(DISK, 0x11));
  const guest = await Guest.start(target, await target.file(path, { blockSize: 4096 }));
  guest.buffer.fill(0x22);
  t.equal(await guest.run(WRITE, 8, 1), '0/00');
  t.equal(code(await guest.copy(2, [{ slba: 8, blocks: 1 }], { flags: FUA })), '0/00');
  t.equal(await guest.run(READ, 2, 1), '0/00');
  t.ok(guest.buffer.subarray(0, 4096).every((byte) => byte === 0x22));
});
