/** What a request layer's result is called in NVMe: the one place where that is decided. */
import { protocolStatus, Result } from '../../bdev/result.ts';
import { Status } from '../../spec/nvme.ts';

const STATUSES: Readonly<Record<keyof typeof Result, number>> = {
  OK: Status.SUCCESS,
  FAILED: Status.INTERNAL_ERROR,
  NO_SPACE: Status.CAPACITY_EXCEEDED,
  READ_ONLY: Status.NAMESPACE_WRITE_PROTECTED,
  READ_ERROR: Status.UNRECOVERED_READ_ERROR,
  WRITE_ERROR: Status.WRITE_FAULT,
  NOT_DURABLE: Status.WRITE_FAULT_FOR_GOOD,
  OUT_OF_RANGE: Status.LBA_OUT_OF_RANGE,
  BAD_MEMORY: Status.DATA_TRANSFER_ERROR,
  ABORTED: Status.ABORTED_BY_REQUEST,
  QUEUE_GONE: Status.ABORTED_SQ_DELETION,
  BDEV_GONE: Status.INVALID_NAMESPACE,
  UNSUPPORTED: Status.INVALID_OPCODE,
  NOT_READY: Status.NAMESPACE_NOT_READY,
  PATH_LOST: Status.INTERNAL_PATH_ERROR,
  MISCOMPARE: Status.COMPARE_FAILURE,
  UNCORRECTABLE: Status.UNRECOVERED_READ_ERROR_FOR_GOOD,
};

const BY_RESULT = new Int32Array(Object.keys(Result).length);
for (const [name, result] of Object.entries(Result)) {
  BY_RESULT[result] = STATUSES[name as keyof typeof Result];
}

/** Hot. Result → the 15-bit status field of a completion. One that an operator chose (`protocolResult`) is taken as it is. */
export function statusOf(result: number): number {
  return result < BY_RESULT.length ? BY_RESULT[result] : protocolStatus(result);
}
