/**
 * Random reads, writes, copies, compares, verifies, zeroes, discards and flushes from several queues at once, checked against a copy of the disk. Each worker has a part of the disk of
 * its own, as NVMe orders no commands that are under way together.
 */
import assert from 'node:assert/strict';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { MAX_TRANSFER_BYTES } from '../../src/limits.ts';
import {
  CopySourceRange,
  DatasetDword11,
  DsmRange,
  NvmOpcode,
  RangeDword12,
  WriteZeroesDword12,
} from '../../src/spec/nvm.ts';
import { Random } from './random.ts';
import { PagePool, Scatter } from './scatter.ts';
import { MIB, type TestTarget } from './target.ts';

const { deac: DEAC, fua: FUA } = WriteZeroesDword12.mask;

export interface Workload {
  readonly pairs: readonly QueuePair[];
  /** Commands that each queue has under way at a time. */
  readonly workers: number;
  /** Commands of each worker. */
  readonly commands: number;
  readonly nsid: number;
  readonly blockSize: number;
  /** What the disk holds: kept up to date. */
  readonly copy: Uint8Array;
  readonly pool: PagePool;
  readonly random: Random;
  readonly maxBytes?: number;
  /** The disk knows no discard: one leaves everything as it was. */
  readonly keepsDiscarded?: boolean;
}

interface Part {
  /** Blocks. */
  readonly first: number;
  readonly count: number;
}

/** Throws at the first status or byte that is wrong. */
export async function runWorkload(load: Workload): Promise<void> {
  const count = load.pairs.length * load.workers;
  const blocks = Math.floor(load.copy.length / load.blockSize / count);
  const workers = load.pairs.flatMap((pair, p) =>
    Array.from({ length: load.workers }, (_, w) =>
      work(load, pair, { first: (p * load.workers + w) * blocks, count: blocks }),
    ),
  );
  await Promise.all(workers);
}

async function work(load: Workload, pair: QueuePair, part: Part): Promise<void> {
  const { random, nsid, blockSize, maxBytes = MAX_TRANSFER_BYTES } = load;
  const mostBlocks = Math.min(part.count, maxBytes / blockSize);
  for (let i = 0; i < load.commands; i++) {
    if (random.chance(0.05)) {
      const { status } = await pair.execute({ opcode: NvmOpcode.FLUSH, nsid });
      assert.equal(status, 0, 'flush');
      continue;
    }
    if (random.chance(0.05)) {
      await copyBlocks(load, pair, part);
      continue;
    }
    const blocks = random.size(mostBlocks);
    const lba = part.first + random.below(part.count - blocks + 1);
    if (random.chance(0.2)) {
      await random.pick([zero, discard, verify, compare])(load, pair, lba, blocks);
    } else {
      await transfer(load, pair, lba, blocks, random.chance(0.5));
    }
  }
}

async function transfer(
  { nsid, blockSize, copy, pool, random }: Workload,
  pair: QueuePair,
  lba: number,
  blocks: number,
  isWrite: boolean,
): Promise<void> {
  const buffer = new Scatter(pool, blocks * blockSize, random, chooseOffset(random));
  const expected = copy.subarray(lba * blockSize, (lba + blocks) * blockSize);
  if (isWrite) {
    // Every byte tells where and when it was written.
    const words = new Uint32Array(buffer.length / 4);
    const seed = random.bits();
    words.forEach((_, j) => {
      words[j] = Math.imul(seed + j, 0x9e37_79b1);
    });
    expected.set(new Uint8Array(words.buffer));
    buffer.write(expected);
  }
  const fua = isWrite && random.chance(0.1) ? RangeDword12.mask.fua : 0;
  const { status } = await pair.execute({
    opcode: isWrite ? NvmOpcode.WRITE : NvmOpcode.READ,
    nsid,
    prp1: buffer.prp1,
    prp2: buffer.prp2,
    cdw10: lba,
    cdw12: (blocks - 1) | fua,
  });
  const what = `${isWrite ? 'write' : 'read'} of ${blocks} blocks at ${lba}`;
  assert.equal(status, 0, what);
  assert.ok(Buffer.from(buffer.read()).equals(expected), `${what}: data`);
  assert.ok(buffer.intact, `${what}: bytes around the buffer`);
  buffer.release();
}

type Command = (load: Workload, pair: QueuePair, lba: number, blocks: number) => Promise<void>;

const zero: Command = async ({ nsid, blockSize, copy, random }, pair, lba, blocks) => {
  copy.fill(0, lba * blockSize, (lba + blocks) * blockSize);
  const fields = { opcode: NvmOpcode.WRITE_ZEROES, nsid, cdw10: lba };
  const flags = random.pick([0, DEAC, FUA, DEAC | FUA]);
  const { status } = await pair.execute({ ...fields, cdw12: (blocks - 1) | flags });
  assert.equal(status, 0, `write zeroes of ${blocks} blocks at ${lba}`);
};

/** In up to three ranges. Every bdev but null gives zeroes for what is gone. */
const discard: Command = async (load, pair, lba, blocks) => {
  const { nsid, blockSize, copy, pool, random, keepsDiscarded = false } = load;
  const cuts = [0, random.below(blocks + 1), random.below(blocks + 1), blocks].sort(
    (a, b) => a - b,
  );
  const buffer = new Scatter(pool, 3 * DsmRange.size, random, random.below(1024) * 4);
  const ranges = new Uint8Array(3 * DsmRange.size);
  for (let i = 0; i < 3; i++) {
    const [slba, length] = [lba + cuts[i], cuts[i + 1] - cuts[i]];
    ranges.set(DsmRange.encode({ attributes: random.bits(), length, slba }), i * DsmRange.size);
  }
  buffer.write(ranges);
  if (!keepsDiscarded) {
    copy.fill(0, lba * blockSize, (lba + blocks) * blockSize);
  }
  const { prp1, prp2 } = buffer;
  const fields = { opcode: NvmOpcode.DATASET_MANAGEMENT, nsid, prp1, prp2 };
  const { status } = await pair.execute({ ...fields, cdw10: 2, cdw11: DatasetDword11.mask.ad });
  assert.equal(status, 0, `deallocation of ${blocks} blocks at ${lba}`);
  buffer.release();
};

/** From up to three places in one half of a part to the other half. */
async function copyBlocks(load: Workload, pair: QueuePair, { first, count }: Part): Promise<void> {
  const { nsid, blockSize, copy, pool, random } = load;
  const half = Math.floor(count / 2);
  const [from, to] = random.chance(0.5) ? [first, first + half] : [first + half, first];
  const lengths = Array.from({ length: 1 + random.below(3) }, () =>
    random.size(Math.max(1, Math.min(2048, Math.floor(half / 3)))),
  );
  const total = lengths.reduce((all, length) => all + length, 0);
  if (total > half) {
    return;
  }
  const format = random.below(2);
  const bytes = CopySourceRange.size + 8 * format;
  const buffer = new Scatter(pool, lengths.length * bytes, random, random.below(1024) * 4);
  const entries = new Uint8Array(lengths.length * bytes);
  const target = to + random.below(half - total + 1);
  let at = target * blockSize;
  for (const [i, length] of lengths.entries()) {
    const slba = from + random.below(half - length + 1);
    entries.set(CopySourceRange.encode({ slba, nlbZ: length - 1 }), i * bytes);
    copy.copyWithin(at, slba * blockSize, (slba + length) * blockSize);
    at += length * blockSize;
  }
  buffer.write(entries);
  const { prp1, prp2 } = buffer;
  const fua = random.chance(0.2) ? FUA : 0;
  const cdw12 = (lengths.length - 1) | (format << 8) | fua;
  const fields = { opcode: NvmOpcode.COPY, nsid, prp1, prp2, cdw10: target };
  const { status } = await pair.execute({ ...fields, cdw12 });
  assert.equal(status, 0, `copy of ${lengths} blocks to ${target}`);
  buffer.release();
}

const verify: Command = async ({ nsid }, pair, lba, blocks) => {
  const fields = { opcode: NvmOpcode.VERIFY, nsid, cdw10: lba, cdw12: blocks - 1 };
  const { status } = await pair.execute(fields);
  assert.equal(status, 0, `verify of ${blocks} blocks at ${lba}`);
};

/** With what is there, or with a byte changed. */
const compare: Command = async ({ nsid, blockSize, copy, pool, random }, pair, lba, blocks) => {
  const buffer = new Scatter(pool, blocks * blockSize, random, chooseOffset(random));
  const data = copy.slice(lba * blockSize, (lba + blocks) * blockSize);
  const differs = random.chance(0.5);
  if (differs) {
    data[random.below(data.length)] ^= 1 << random.below(8);
  }
  buffer.write(data);
  const { prp1, prp2 } = buffer;
  const fields = { opcode: NvmOpcode.COMPARE, nsid, prp1, prp2, cdw10: lba, cdw12: blocks - 1 };
  const { status } = await pair.execute(fields);
  assert.equal(status & 0x7ff, differs ? 0x285 : 0, `compare of ${blocks} blocks at ${lba}`);
  assert.ok(buffer.intact, 'bytes around the buffer');
  buffer.release();
};

/** Page aligned, block aligned, or any dword. */
function chooseOffset(random: Random): number {
  return random.pick([0, random.below(8) * 512, random.below(1024) * 4]);
}

/** A guest that does as it should, on a disk of its own, until told to stop. Throws if anything is not as it should be. */
export async function neighbour(target: TestTarget): Promise<() => Promise<void>> {
  const bdevs = [await target.malloc(4 * MIB), await target.file(target.image(4 * MIB))];
  const client = await target.connect(await target.serve(...bdevs), { memoryBytes: 16 * MIB });
  const pairs = [await client.createQueuePair(1, 16), await client.createQueuePair(2, 16)];
  const random = new Random();
  const pool = new PagePool(random).add(client.memory, 2048);
  const copies = bdevs.map(() => new Uint8Array(4 * MIB));
  let stopped = false;
  let rounds = 0;
  const work = async () => {
    while (!stopped || rounds === 0) {
      for (const [i, copy] of copies.entries()) {
        const load = { pairs, workers: 3, nsid: i + 1, blockSize: 512, copy, pool, random };
        await runWorkload({ ...load, commands: 5, maxBytes: 64 * 1024 });
      }
      rounds += 1;
      assert.equal((await client.identifyController()).vid, 0x4e58);
    }
  };
  const working = work();
  working.catch(() => {});
  return () => {
    stopped = true;
    return working;
  };
}
