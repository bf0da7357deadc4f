/**
 * The last commands of a queue pair, read from its entries in guest memory when somebody asks: nothing is recorded on the way. Opcodes and
 * statuses, no data and no addresses. What the guest has overwritten since is what it says now. Owned by main.
 */
import type { GuestMemory } from '../memory/guest.ts';
import { native } from '../native/index.ts';
import type { CqRequest, SqRequest } from '../nvme/host.ts';
import { Cdw0, CQE_SIZE, Cqe, CqeDword3, SQE_SIZE, Sqe, STATUS_CODE } from '../spec/nvme.ts';
import type { QueuePairInfo } from './types.ts';

/** Commands and completions listed. */
const MAX_LISTED = 16;
const SQE_WORDS = SQE_SIZE / 4;
const CQE_WORDS = CQE_SIZE / 4;

export interface RecentCommands {
  readonly qid: number;
  /** The oldest first. `waiting`: not taken from the queue yet. */
  readonly commands: readonly {
    readonly opcode: string;
    readonly cid: number;
    readonly nsid: number;
    readonly waiting?: true;
  }[];
  /** Of its completion queue: the oldest first. `status`: SCT and SC, '0x0' is success. */
  readonly completions: readonly {
    readonly sqid: number;
    readonly cid: number;
    readonly status: string;
  }[];
}

export function recentCommands(
  memory: GuestMemory,
  sq: SqRequest,
  cq: CqRequest,
  { qid, size, head, tail, cqSize, cqTail }: QueuePairInfo,
): RecentCommands {
  const waiting = Math.min((tail - head + size) % size, MAX_LISTED / 2);
  const last = (head + waiting) % size;
  return {
    qid,
    commands: readBack(memory, sq.iova, SQE_WORDS, size, last, (words, age) => {
      const { opcode, cid } = Cdw0.decode(words[Sqe.word('cdw0')]);
      const nsid = words[Sqe.word('nsid')] >>> 0;
      const waits = age <= waiting && { waiting: true as const };
      return { opcode: `0x${opcode.toString(16)}`, cid, nsid, ...waits };
    }),
    completions: readBack(memory, cq.iova, CQE_WORDS, cqSize, cqTail, (words) => {
      const { cid, status } = CqeDword3.decode(words[Cqe.word('cid')]);
      const sqid = words[Cqe.word('sqhd')] >>> 16;
      return { sqid, cid, status: `0x${(status & STATUS_CODE).toString(16)}` };
    }),
  };
}

/** The entries before `end`, the oldest first; those that were never written are left out. `age`: 1 for the last one. */
function readBack<T>(
  memory: GuestMemory,
  iova: number,
  entryWords: number,
  size: number,
  end: number,
  read: (entry: Int32Array, age: number) => T,
): T[] {
  const queue = memory.queueMemory(iova, size * entryWords * 4, false);
  if (queue === undefined) {
    return [];
  }
  const entries: T[] = [];
  for (let age = Math.min(MAX_LISTED, size - 1); age >= 1; age--) {
    const at = ((end - age + size) % size) * entryWords;
    const entry = queue.words.slice(at, at + entryWords);
    if (entry.some((word) => word !== 0)) {
      entries.push(read(entry, age));
    }
  }
  if (queue.alias !== undefined) {
    native.revoke(queue.alias);
  }
  return entries;
}
