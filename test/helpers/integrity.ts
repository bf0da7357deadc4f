/**
 * Random reads, writes and flushes from several queues at once, checked against a copy of the disk. Each worker has a part of the disk of
 * its own, as NVMe orders no commands that are under way together.
 */
import assert from 'node:assert/strict';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { MAX_TRANSFER_BYTES } from '../../src/limits.ts';
import { CDW12_FUA, NvmOpcode } from '../../src/spec/nvm.ts';
import type { Random } from './random.ts';
import { type PagePool, Scatter } from './scatter.ts';

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
    const blocks = random.size(mostBlocks);
    const lba = part.first + random.below(part.count - blocks + 1);
    await transfer(load, pair, lba, blocks, random.chance(0.5));
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
  const fua = isWrite && random.chance(0.1) ? CDW12_FUA : 0;
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

/** Page aligned, block aligned, or any dword. */
function chooseOffset(random: Random): number {
  return random.pick([0, random.below(8) * 512, random.below(1024) * 4]);
}
