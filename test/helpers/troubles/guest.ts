/** What troublemakers have in common: commands that nobody waits for, on queues of a guest. */
import assert from 'node:assert/strict';
import type { NvmeClient } from '../../../src/client/nvme.ts';
import { describeStatus, type QueuePair } from '../../../src/client/queue-pair.ts';
import type { NvmOpcode } from '../../../src/spec/nvm.ts';

type Opcode = (typeof NvmOpcode)[keyof typeof NvmOpcode];

export const PAGE = 4096;
export const LBAS = PAGE / 512;

/** A page of the guest's memory as the buffer of the first `count` command ids. */
export function sharedBuffer(client: NvmeClient, pair: QueuePair, count: number): number {
  const iova = client.memory.iova + client.memory.allocate(PAGE);
  for (let cid = 0; cid < count; cid++) {
    pair.setBuffer(cid, iova, 0);
  }
  return iova;
}

/** Submits `count` commands of one page, ids and pages 0, 1, …; the queue must have room, and a shared buffer. */
export function submit(pair: QueuePair, opcode: Opcode, nsid: number, count: number): void {
  for (let cid = 0; cid < count; cid++) {
    pair.push(cid, opcode, nsid, opcode === 0 ? 0 : cid * LBAS, opcode === 0 ? 0 : LBAS - 1);
  }
  pair.ring();
}

/** Status fields of what has completed since the last look, as words. */
export function completed(pair: QueuePair): string[] {
  const count = pair.poll();
  return [...pair.doneStatus.subarray(0, count)].map(describeStatus);
}

/** Throws if anything has completed: it is not held. */
export function assertHeld(pair: QueuePair): void {
  assert.deepEqual(completed(pair), [], 'what was to be held has completed');
}
