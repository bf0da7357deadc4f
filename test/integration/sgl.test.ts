/** I/O commands with Scatter Gather Lists: data, bit buckets, chains, and lists that are wrong. NVMe Base 2.0 §4.1.2. */
import t, { type Test } from 'tap';
import type { CommandFields, NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { MAX_SEGMENTS, MAX_SGL_DESCRIPTORS } from '../../src/limits.ts';
import { CopySourceRange, DatasetDword11, DsmRange, NvmOpcode } from '../../src/spec/nvm.ts';
import { SglDescriptor, SglIdentifier, SglType } from '../../src/spec/nvme.ts';
import { code } from '../helpers/admin.ts';
import { Random } from '../helpers/random.ts';
import { MIB, TestTarget } from '../helpers/target.ts';

const { READ, WRITE, COMPARE, COPY, DATASET_MANAGEMENT, VERIFY, FLUSH } = NvmOpcode;
const { DATA_BLOCK, BIT_BUCKET, SEGMENT, LAST_SEGMENT } = SglType;
const BLOCK = 512;
const DISK = 4 * MIB;
/** PSDT 01b and 10b, in the second byte of the command. */
const SGL = 0x40;
const SGL_AND_METADATA = 0x80;
/** The last one is a host whose memory is reached by messages. */
const KINDS = ['malloc', 'file', 'direct', 'unshared'] as const;
type Descriptor = readonly [type: number, offset: number, length: number];

type Options = CommandFields & { lba?: number; subtype?: number };

class Guest {
  readonly client: NvmeClient;
  readonly #pair: QueuePair;
  /** A megabyte of data, and as much of lists. */
  readonly #data: number;
  readonly #lists: number;

  static async start(t: Test, kind: (typeof KINDS)[number]): Promise<Guest> {
    const target = await TestTarget.start(t);
    const bdev =
      kind === 'malloc' || kind === 'unshared'
        ? await target.malloc(DISK)
        : await target.file(target.image(DISK), { direct: kind === 'direct' });
    const options = kind === 'unshared' ? { shareMemory: false, memoryBytes: 8 * MIB } : {};
    const client = await target.connect(await target.serve(bdev), options);
    return new Guest(client, await client.createQueuePair(1, 16));
  }

  constructor(client: NvmeClient, pair: QueuePair) {
    this.client = client;
    this.#pair = pair;
    this.#data = client.memory.allocate(MIB + 4096);
    this.#lists = client.memory.allocate(MIB);
  }

  get data(): Uint8Array {
    return this.client.memory.bytes(this.#data, MIB + 4096);
  }

  /** Data blocks are offsets of the data, segments of the lists; what is not a safe offset is an address itself. */
  #encode([type, offset, length]: Descriptor, subtype = 0): Uint8Array {
    const isList = type === SEGMENT || type === LAST_SEGMENT;
    const base = this.client.memory.iova + (isList ? this.#lists : this.#data);
    const address = type === BIT_BUCKET ? 0 : offset < 2 * MIB ? base + offset : offset;
    return SglDescriptor.encode({ address, length, id: SglIdentifier.encode({ type, subtype }) });
  }

  /** Writes descriptors to the lists, from a byte on. */
  list(offset: number, ...descriptors: readonly Descriptor[]): void {
    for (const [i, descriptor] of descriptors.entries()) {
      const at = this.#lists + offset + i * SglDescriptor.size;
      this.client.memory.bytes(at, SglDescriptor.size).set(this.#encode(descriptor));
    }
  }

  async run(
    opcode: number,
    first: Descriptor,
    blocks: number,
    { lba = 0, flags = SGL, subtype = 0, ...rest }: Options = {},
  ): Promise<string> {
    const view = new DataView(this.#encode(first, subtype).buffer);
    const prp1 = Number(view.getBigUint64(0, true));
    const completion = await this.#pair.execute({
      ...{ opcode, flags, nsid: 1, prp1, cdw10: lba, cdw12: blocks - 1, ...rest },
      sglLength: view.getUint32(8, true),
      sglId: view.getUint8(15),
    });
    return code(completion);
  }

  /** The same, of a list that begins at a byte of the lists. */
  last(opcode: number, descriptors: readonly Descriptor[], blocks: number, options = {}) {
    this.list(0, ...descriptors);
    const length = descriptors.length * SglDescriptor.size;
    return this.run(opcode, [LAST_SEGMENT, 0, length], blocks, options);
  }
}

for (const kind of KINDS) {
  t.test(`${kind}: data comes and goes by lists of every form`, async (t) => {
    const random = new Random();
    t.comment(`SEED=${random.seed}`);
    const guest = await Guest.start(t, kind);
    const disk = new Uint8Array(DISK);
    for (let i = 0; i < 60; i++) {
      const blocks = random.size(256);
      const bytes = blocks * BLOCK;
      const lba = random.below(DISK / BLOCK - blocks);
      const isWrite = random.chance(0.5);
      const unit = random.pick([1, 4, BLOCK, 4096]);
      // Pieces of the command, in any order in memory, with others between.
      const pieces: Descriptor[] = [];
      const most = 1 + random.below(Math.min(60, Math.ceil(bytes / unit)));
      let rest = bytes;
      let at = random.below(4096 / unit) * unit;
      while (rest > 0) {
        const part =
          pieces.length >= most ? rest : Math.min(rest, unit * random.size(Math.ceil(rest / unit)));
        const isBucket = !isWrite && random.chance(0.1);
        if (random.chance(0.1)) {
          pieces.push([random.pick([DATA_BLOCK, BIT_BUCKET]), 0, 0]);
        }
        if (isWrite && random.chance(0.1)) {
          pieces.push([BIT_BUCKET, 0, 12_345]);
        }
        pieces.push([isBucket ? BIT_BUCKET : DATA_BLOCK, at, part]);
        rest -= part;
        at += (isBucket ? 0 : part) + random.pick([0, unit]);
        if (at + rest > MIB) {
          at = 0;
        }
      }
      guest.data.forEach((_, j) => {
        guest.data[j] = random.below(256);
      });
      const before = guest.data.slice();
      // In segments, which lie anywhere in the lists.
      let first: Descriptor = pieces[0];
      if (pieces.length > 1 || random.chance(0.5)) {
        const segments: Descriptor[][] = [];
        for (let j = 0; j < pieces.length; ) {
          const count = random.size(pieces.length - j);
          segments.push(pieces.slice(j, j + count));
          j += count;
        }
        const places = segments.map((_, j) => j * 16_384 + random.below(1024) * 4);
        let next: Descriptor | undefined;
        for (let j = segments.length - 1; j >= 0; j--) {
          const entries = next === undefined ? segments[j] : [...segments[j], next];
          guest.list(places[j], ...entries);
          const type = next === undefined ? LAST_SEGMENT : SEGMENT;
          next = [type, places[j], entries.length * SglDescriptor.size];
        }
        first = next!;
      }
      const flags = random.pick([SGL, SGL_AND_METADATA]);
      t.equal(await guest.run(isWrite ? WRITE : READ, first, blocks, { lba, flags }), '0/00');
      let position = lba * BLOCK;
      for (const [type, offset, length] of pieces) {
        if (type === DATA_BLOCK) {
          const host = before.subarray(offset, offset + length);
          const stored = disk.subarray(position, position + length);
          isWrite ? stored.set(host) : host.set(stored);
        }
        position += type === BIT_BUCKET && isWrite ? 0 : length;
      }
      t.ok(Buffer.from(guest.data).equals(before), 'every byte, and none beside');
    }
    for (let lba = 0; lba < DISK / BLOCK; lba += 2048) {
      t.equal(await guest.run(READ, [DATA_BLOCK, 0, MIB], 2048, { lba }), '0/00');
      t.ok(Buffer.from(guest.data.subarray(0, MIB)).equals(disk.subarray(lba * BLOCK, lba * BLOCK + MIB))); // biome-ignore format: short
    }
  });
}

t.test('all commands with data', async (t) => {
  const guest = await Guest.start(t, 'malloc');
  guest.data.fill(0x5a);
  const pieces: Descriptor[] = [[DATA_BLOCK, 100, 1000], [DATA_BLOCK, 7, 24]]; // biome-ignore format: short
  t.equal(await guest.last(WRITE, pieces, 2), '0/00');
  t.equal(await guest.last(COMPARE, pieces, 2), '0/00');
  guest.data[8] = 0;
  t.equal(await guest.last(COMPARE, pieces, 2), '2/85');
  const halves: Descriptor[] = [[DATA_BLOCK, 0, 16], [DATA_BLOCK, 64, 16]]; // biome-ignore format: short
  const entry = CopySourceRange.encode({ slba: 0, nlbZ: 1 });
  guest.data.set(entry.subarray(0, 16), 0);
  guest.data.set(entry.subarray(16), 64);
  t.equal(await guest.last(COPY, halves, 1, { lba: 100 }), '0/00');
  guest.data.fill(0x5a);
  t.equal(await guest.run(COMPARE, [DATA_BLOCK, 0, 1024], 2, { lba: 100 }), '0/00');
  guest.data.set(DsmRange.encode({ attributes: 0, length: 1, slba: 0 }));
  const cdw11 = DatasetDword11.mask.ad;
  const discard = { cdw11, cdw12: 0 };
  t.equal(await guest.run(DATASET_MANAGEMENT, [DATA_BLOCK, 0, 16], 1, discard), '0/00');
  t.equal(await guest.run(READ, [DATA_BLOCK, 0, 1024], 2), '0/00');
  t.ok(guest.data.subarray(0, 512).every((byte) => byte === 0));
  t.ok(guest.data.subarray(512, 1024).every((byte) => byte === 0x5a));
  t.equal(await guest.run(FLUSH, [7, 0, 1], 1), '0/00', 'without data, without a look');
  t.equal(await guest.run(VERIFY, [7, 0, 1], 1), '0/00');
});

for (const kind of ['malloc', 'unshared'] as const) {
  t.test(`${kind}: lists that are wrong end in their own statuses`, async (t) => {
    const guest = await Guest.start(t, kind);
    const nowhere = 2 ** 40;
    for (const opcode of [READ, WRITE, COMPARE]) {
      const run = (first: Descriptor, options = {}) => guest.run(opcode, first, 2, options);
      const last = (...descriptors: Descriptor[]) => guest.last(opcode, descriptors, 2);
      for (const flags of [0xc0, 0x41, 0x42, 0x43]) {
        t.equal(await run([DATA_BLOCK, 0, 1024], { flags }), '0/02');
      }
      t.equal(await run([DATA_BLOCK, 0, 1024], { nsid: 2 }), '0/0b');
      t.equal(await run([DATA_BLOCK, 0, 1024], { lba: DISK / BLOCK - 1 }), '0/80');
      t.equal(await guest.run(opcode, [DATA_BLOCK, 0, 2049 * BLOCK], 2049), '0/02', 'MDTS');
      for (const type of [4, 5, 6, 14, 15]) {
        t.equal(await run([type, 0, 1024]), '0/11', `type ${type}`);
        t.equal(await last([type, 0, 1024]), '0/11');
      }
      t.equal(await run([DATA_BLOCK, 0, 1024], { subtype: 1 }), '0/11', 'an offset');
      t.equal(await run([DATA_BLOCK, 0, 1023]), '0/0f', 'too short');
      t.equal(await run([DATA_BLOCK, 0, 1025]), '0/0f', 'too long');
      t.equal(await run([DATA_BLOCK, 0, 2 ** 32 - 1]), '0/0f');
      t.equal(await run([DATA_BLOCK, 0, 0]), '0/0f');
      t.equal(await run([BIT_BUCKET, 0, 1025]), '0/0f');
      t.equal(await last([DATA_BLOCK, 0, 1000], [DATA_BLOCK, 0, 23]), '0/0f');
      t.equal(await last([DATA_BLOCK, 0, 1000], [DATA_BLOCK, 0, 25]), '0/0f');
      t.equal(await run([DATA_BLOCK, nowhere, 1024]), '0/04', 'no memory');
      t.equal(await last([DATA_BLOCK, 0, 1000], [DATA_BLOCK, nowhere, 24]), '0/04');
      for (const type of [SEGMENT, LAST_SEGMENT]) {
        t.equal(await run([type, nowhere, 16]), '0/04');
        for (const length of [0, 8, 17, 2 ** 32 - 1]) {
          t.equal(await run([type, 0, length]), '0/0d', `a segment of ${length} bytes`);
        }
        t.equal(await run([type, 0, 2 ** 32 - 16]), '0/0e');
      }
      t.equal(await last([DATA_BLOCK, 0, 1000], [LAST_SEGMENT, 64, 16]), '0/0d', 'after the last');
      t.equal(await last([SEGMENT, 64, 16]), '0/0d');
      guest.list(0, [DATA_BLOCK, 0, 1024]);
      t.equal(await run([SEGMENT, 0, 16]), '0/0d', 'it does not go on');
      guest.list(0, [LAST_SEGMENT, 64, 16], [DATA_BLOCK, 0, 1024]);
      guest.list(64, [DATA_BLOCK, 0, 1024]);
      t.equal(await run([SEGMENT, 0, 32]), '0/0e', 'it goes on before its end');
      guest.list(0, [SEGMENT, 0, 16]);
      t.equal(await run([SEGMENT, 0, 16]), '0/0e', 'a list without end');
      guest.list(0, [DATA_BLOCK, 0, 0], [SEGMENT, 0, 32]);
      t.equal(await run([SEGMENT, 0, 32]), '0/0e');
      const empty = Array.from(
        { length: MAX_SGL_DESCRIPTORS },
        (): Descriptor => [DATA_BLOCK, 0, 0],
      );
      t.equal(
        await last(...empty.slice(1), [DATA_BLOCK, 0, 1024]),
        '0/00',
        'as many as there may be',
      );
      t.equal(await last(...empty, [DATA_BLOCK, 0, 1024]), '0/0e', 'too many that say nothing');
      const dots = (count: number) => [
        ...Array.from({ length: count - 1 }, (_, i): Descriptor => [DATA_BLOCK, 2 * i, 1]),
        [DATA_BLOCK, 4096, 1024 - count + 1] as const,
      ];
      t.equal(await last(...dots(MAX_SEGMENTS)), '0/00', 'as many pieces as there may be');
      t.equal(await last(...dots(MAX_SEGMENTS + 1)), '0/0e', 'one more');
      t.equal(await run([DATA_BLOCK, 0, 1024]), '0/00', 'and all is well');
    }
  });
}
