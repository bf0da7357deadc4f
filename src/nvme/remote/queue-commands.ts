/**
 * Commands that create and delete I/O queues, where the host's memory is reached by messages: the controller is given queues of ours, and what
 * it has carried out is done to the host's.
 */
import { MAX_IO_QUEUE_PAIRS, MAX_IOVA, MAX_QUEUE_ENTRIES, PAGE_SIZE } from '../../limits.ts';
import { AdminOpcode, CreateIoCq, CreateIoSq, DeleteIoCq, DeleteIoSq } from '../../spec/admin.ts';
import { CQE_SIZE, SQE_SIZE, Sqe, Status } from '../../spec/nvme.ts';
import type { RemoteCommand } from './command.ts';
import type { RemoteMemory } from './memory.ts';
import type { QueueSet } from './queue-set.ts';
import { NOWHERE, type Staging } from './staging.ts';

const PRP1 = Sqe.word('prp1');
const CDW11 = Sqe.word('cdw11');
const TWO_32 = 0x1_0000_0000;

/** Makes an admin command one for the controller, if it is about queues. A status: what it ends with at once, if not Success. */
export function prepareQueueCommand(
  command: RemoteCommand,
  memory: RemoteMemory,
  staging: Staging,
  queues: QueueSet,
): number {
  switch (command.opcode) {
    case AdminOpcode.CREATE_IO_CQ:
      createCq(command, memory, staging, queues);
      break;
    case AdminOpcode.CREATE_IO_SQ:
      createSq(command, memory, staging, queues);
      break;
    case AdminOpcode.DELETE_IO_SQ:
      deleteSq(command, queues);
      break;
    case AdminOpcode.DELETE_IO_CQ: {
      const { qid } = DeleteIoCq.parse(command.values);
      command.after = (status) => {
        if (status === Status.SUCCESS) {
          queues.removeCq(qid);
        }
        return true;
      };
      break;
    }
  }
  return Status.SUCCESS;
}

/** Whether there may be such a queue. The controller refuses what is not so, and gets it as it is. */
function isPossible(qid: number, sizeZ: number, iova: number): boolean {
  return (
    qid >= 1 &&
    qid <= MAX_IO_QUEUE_PAIRS &&
    sizeZ < MAX_QUEUE_ENTRIES &&
    iova % PAGE_SIZE === 0 &&
    iova <= MAX_IOVA
  );
}

/** Where the controller is to find the queue: nowhere, if the host does not have that memory. */
function place(command: RemoteCommand, isThere: boolean, iova: number): void {
  command.words[PRP1] = isThere ? iova : NOWHERE;
  command.words[PRP1 + 1] = (isThere ? iova : NOWHERE) / TWO_32;
}

function createCq(
  command: RemoteCommand,
  memory: RemoteMemory,
  staging: Staging,
  queues: QueueSet,
): void {
  const { values } = command;
  const parameters = CreateIoCq.parse(values);
  const { qid, sizeZ, ien, iv } = parameters;
  const iova = values.prp1;
  if (!isPossible(qid, sizeZ, iova)) {
    return;
  }
  const size = sizeZ + 1;
  place(command, memory.holds(iova, size * CQE_SIZE, true), staging.cq(qid, size).iova);
  // The relay is told of each completion, whether the host wants to be or not.
  command.words[CDW11] = CreateIoCq.fields({ ...parameters, ien: true }).cdw11 ?? 0;
  command.after = (status) => {
    if (status === Status.SUCCESS) {
      queues.addCq({ qid, size, iova, interrupts: ien, vector: iv });
    }
    return true;
  };
}

function createSq(
  command: RemoteCommand,
  memory: RemoteMemory,
  staging: Staging,
  queues: QueueSet,
): void {
  const { values } = command;
  const { qid, sizeZ, cqid } = CreateIoSq.parse(values);
  const iova = values.prp1;
  if (!isPossible(qid, sizeZ, iova)) {
    return;
  }
  const size = sizeZ + 1;
  place(command, memory.holds(iova, size * SQE_SIZE, false), staging.sq(qid, size).iova);
  command.after = (status) => {
    if (status === Status.SUCCESS) {
      queues.addSq({ qid, size, iova, cqid });
    }
    return true;
  };
}

/** The host learns of it after the last command of the queue. A second such command finds a queue that goes already, or another of its id. */
function deleteSq(command: RemoteCommand, queues: QueueSet): void {
  const { qid } = DeleteIoSq.parse(command.values);
  const sq = qid === 0 ? undefined : queues.sqs.get(qid);
  if (sq !== undefined) {
    sq.closing = true;
  }
  command.after = (status, resume) => {
    const gone = sq ?? queues.sqs.get(qid);
    if (gone === undefined || qid === 0 || gone !== queues.sqs.get(qid)) {
      return true;
    }
    if (status !== Status.SUCCESS) {
      gone.closing = gone.deletion !== undefined;
      return true;
    }
    gone.closing = true;
    const isOver = (): boolean => {
      const over = gone.commands.size === 0 && !gone.fetching;
      if (over && queues.sqs.get(qid) === gone) {
        queues.removeSq(qid);
      }
      return over;
    };
    if (isOver()) {
      return true;
    }
    gone.deletion = () => {
      if (isOver()) {
        gone.deletion = undefined;
        resume();
      }
    };
    return false;
  };
}
