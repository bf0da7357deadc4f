/** The load generator: keeps a queue pair at a depth for a while and counts. Polls without a pause; allocates nothing per command. */

import type { NvmeClient } from '../src/client/nvme.ts';
import type { QueuePair } from '../src/client/queue-pair.ts';
import { MAX_TRANSFER_BYTES } from '../src/limits.ts';
import { native } from '../src/native/index.ts';
import { NvmOpcode } from '../src/spec/nvm.ts';

export interface Load {
  readonly depth: number;
  /** Bytes of a command. */
  readonly blockSize: number;
  readonly op: 'read' | 'write';
  readonly random: boolean;
  readonly seconds: number;
}

export interface Geometry {
  readonly nsid: number;
  /** Bytes of a logical block, and how many there are (at most 2^31). */
  readonly lbaSize: number;
  readonly lbas: number;
}

export interface Result {
  readonly iops: number;
  /** Bytes a second. */
  readonly throughput: number;
}

const PAGE = 4096;
/** Polls between two looks at the clock. */
const POLLS_PER_CLOCK = 4096;

/** A buffer for each command that can be in flight, as long as the largest load needs. */
export function prepareBuffers(
  client: NvmeClient,
  pair: QueuePair,
  depth: number,
  bytes: number,
): void {
  const { memory } = client;
  for (let cid = 0; cid < depth; cid++) {
    const prp1 = memory.iova + memory.allocate(bytes);
    pair.setBuffer(cid, prp1, bytes <= PAGE ? 0 : secondPrp(client, prp1, bytes));
  }
}

/** PRP2 of a page-aligned contiguous buffer: its second page, or a list. */
function secondPrp({ memory }: NvmeClient, prp1: number, bytes: number): number {
  if (bytes <= 2 * PAGE || bytes > MAX_TRANSFER_BYTES) {
    return prp1 + PAGE;
  }
  const pages = bytes / PAGE - 1;
  const list = memory.allocate(8 * pages);
  const entries = new BigUint64Array(memory.buffer, list, pages);
  for (let i = 0; i < pages; i++) {
    entries[i] = BigInt(prp1 + (i + 1) * PAGE);
  }
  return memory.iova + list;
}

/** Runs a load. Throws at the first error status. */
export function runLoad(pair: QueuePair, { nsid, lbaSize, lbas }: Geometry, load: Load): Result {
  const opcode = load.op === 'read' ? NvmOpcode.READ : NvmOpcode.WRITE;
  const blocks = load.blockSize / lbaSize;
  const places = Math.floor(lbas / blocks);
  let seed = 0x9e37_79b9;
  let place = 0;
  const next = (): number => {
    if (load.random) {
      seed ^= seed << 13;
      seed ^= seed >>> 17;
      seed ^= seed << 5;
      place = (seed >>> 1) % places;
    } else {
      place = place + 1 === places ? 0 : place + 1;
    }
    return place * blocks;
  };
  for (let cid = 0; cid < load.depth; cid++) {
    pair.push(cid, opcode, nsid, next(), blocks - 1);
  }
  pair.ring();
  const start = native.clock();
  const end = start + load.seconds * 1e9;
  let now = start;
  let done = 0;
  let polls = 0;
  while (now < end) {
    const count = pair.poll();
    for (let i = 0; i < count; i++) {
      if (pair.doneStatus[i] !== 0) {
        throw new Error(`NVMe status 0x${pair.doneStatus[i].toString(16)}`);
      }
      pair.push(pair.doneIds[i], opcode, nsid, next(), blocks - 1);
    }
    if (count > 0) {
      pair.ring();
      done += count;
    }
    polls += 1;
    if (polls % POLLS_PER_CLOCK === 0 || load.blockSize > 65536) {
      now = native.clock();
    }
  }
  while (pair.inflight > 0) {
    pair.poll();
  }
  const seconds = (now - start) / 1e9;
  return { iops: done / seconds, throughput: (done * load.blockSize) / seconds };
}
