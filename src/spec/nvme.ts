/** Queue entries and statuses, which all NVMe commands share. Layouts only. NVMe Base 2.0 §3.3.3. */
import { bits, flag, word } from '../util/bits.ts';
import { struct, u8, u16, u32, u64 } from '../util/struct.ts';

/** Submission queue entry. NVMe Base 2.0 §3.3.3.1. */
export const Sqe = struct('SQE', 64, {
  opcode: u8(0),
  flags: u8(1),
  cid: u16(2),
  /** Command dword 0: opcode, FUSE, PSDT and CID at once. */
  cdw0: u32(0),
  nsid: u32(4),
  cdw2: u32(8),
  cdw3: u32(12),
  mptr: u64(16),
  prp1: u64(24),
  prp2: u64(32),
  /** Of an SGL descriptor in place of both, whose address is `prp1`: see SglDescriptor. */
  sglLength: u32(32),
  sglId: u8(39),
  cdw10: u32(40),
  cdw11: u32(44),
  cdw12: u32(48),
  cdw13: u32(52),
  cdw14: u32(56),
  cdw15: u32(60),
});
export const SQE_SIZE = 64;
/** log2 of the entry sizes, as CC.IOSQES/IOCQES and Identify give them. */
export const SQE_SHIFT = 6;
export const CQE_SHIFT = 4;

/** Command dword 0. */
export const Cdw0 = word('CDW0', {
  opcode: bits(0, 8),
  fuse: bits(8, 2),
  psdt: bits(14, 2),
  cid: bits(16, 16),
});

/** PSDT: PRPs; or an SGL, in place of PRP1 and PRP2, and the metadata in one buffer or in an SGL, too. NVMe Base 2.0 figure 86. */
export const Psdt = { PRP: 0, SGL: 1, SGL_AND_METADATA: 2 } as const;

/** SGL descriptor. NVMe Base 2.0 figure 101. */
export const SglDescriptor = struct('SGL descriptor', 16, {
  address: u64(0),
  length: u32(8),
  id: u8(15),
});
/** Its last byte. Figures 102 and 103: of the subtypes only the first, an address, is of use over PCIe. */
export const SglIdentifier = word('SGL identifier', { subtype: bits(0, 4), type: bits(4, 4) });
export const SglType = { DATA_BLOCK: 0, BIT_BUCKET: 1, SEGMENT: 2, LAST_SEGMENT: 3 } as const;

/** Completion queue entry. NVMe Base 2.0 §3.3.3.2. */
export const Cqe = struct('CQE', 16, {
  dw0: u32(0),
  dw1: u32(4),
  sqhd: u16(8),
  sqid: u16(10),
  cid: u16(12),
  /** Phase tag in bit 0, status field above. */
  status: u16(14),
});
export const CQE_SIZE = 16;
/** The last dword of a completion queue entry: command id, phase tag, status field. */
export const CqeDword3 = word('CQE dword 3', {
  cid: bits(0, 16),
  p: flag(16),
  status: bits(17, 15),
});

/** The status field of a completion. NVMe Base 2.0 §3.3.3.2.1. */
export const StatusField = word('Status Field', {
  sc: bits(0, 8),
  sct: bits(8, 3),
  crd: bits(11, 2),
  more: flag(13),
  dnr: flag(14),
});
/** Status code and its type: what the others leave of a status field. */
export const STATUS_CODE = StatusField.mask.sc | StatusField.mask.sct;

const generic = (sc: number): number => StatusField.encode({ sc, dnr: true });
const specific = (sc: number): number => StatusField.encode({ sc, sct: 1, dnr: true });
const media = (sc: number, dnr = false): number => StatusField.encode({ sc, sct: 2, dnr });

/** Status fields. Those without Do Not Retry are worth another try. */
export const Status = {
  SUCCESS: 0,
  // Generic (SCT 0)
  INVALID_OPCODE: generic(0x01),
  INVALID_FIELD: generic(0x02),
  COMMAND_ID_CONFLICT: generic(0x03),
  /** A transfer could not be made: the memory is gone. */
  DATA_TRANSFER_ERROR: generic(0x04),
  /** Retryable: no DNR. */
  INTERNAL_ERROR: 0x06,
  ABORTED_BY_REQUEST: 0x07,
  ABORTED_SQ_DELETION: 0x08,
  INVALID_NAMESPACE: generic(0x0b),
  COMMAND_SEQUENCE_ERROR: generic(0x0c),
  INVALID_SGL_SEGMENT: generic(0x0d),
  INVALID_SGL_DESCRIPTOR_COUNT: generic(0x0e),
  DATA_SGL_LENGTH_INVALID: generic(0x0f),
  SGL_DESCRIPTOR_TYPE_INVALID: generic(0x11),
  INVALID_PRP_OFFSET: generic(0x13),
  KEEP_ALIVE_TIMEOUT_INVALID: generic(0x1a),
  SANITIZE_FAILED: generic(0x1c),
  /** Retryable: no DNR. */
  SANITIZE_IN_PROGRESS: StatusField.encode({ sc: 0x1d }),
  NAMESPACE_WRITE_PROTECTED: generic(0x20),
  HOST_IDENTIFIER_INCONSISTENT_FORMAT: generic(0x18),
  /** Retryable: no DNR. */
  ABORTED_BY_PREEMPTION: StatusField.encode({ sc: 0x1b }),
  RESERVATION_CONFLICT: generic(0x83),
  LBA_OUT_OF_RANGE: generic(0x80),
  CAPACITY_EXCEEDED: generic(0x81),
  /** Retryable: no DNR. */
  NAMESPACE_NOT_READY: StatusField.encode({ sc: 0x82 }),
  /** Retryable: no DNR. */
  FORMAT_IN_PROGRESS: StatusField.encode({ sc: 0x84 }),
  // Command specific (SCT 1)
  COMPLETION_QUEUE_INVALID: specific(0x00),
  INVALID_QUEUE_IDENTIFIER: specific(0x01),
  INVALID_QUEUE_SIZE: specific(0x02),
  ABORT_LIMIT_EXCEEDED: specific(0x03),
  ASYNC_EVENT_REQUEST_LIMIT: specific(0x05),
  INVALID_FIRMWARE_SLOT: specific(0x06),
  INVALID_FIRMWARE_IMAGE: specific(0x07),
  INVALID_INTERRUPT_VECTOR: specific(0x08),
  INVALID_LOG_PAGE: specific(0x09),
  INVALID_FORMAT: specific(0x0a),
  INVALID_QUEUE_DELETION: specific(0x0c),
  FEATURE_NOT_SAVEABLE: specific(0x0d),
  FEATURE_NOT_CHANGEABLE: specific(0x0e),
  FEATURE_NOT_NAMESPACE_SPECIFIC: specific(0x0f),
  COPY_SIZE_LIMIT_EXCEEDED: specific(0x83),
  INCOMPATIBLE_NAMESPACE: specific(0x85),
  FAST_COPY_NOT_POSSIBLE: specific(0x86),
  OVERLAPPING_IO_RANGE: specific(0x87),
  SELF_TEST_IN_PROGRESS: specific(0x1d),
  // Media and data integrity (SCT 2)
  WRITE_FAULT: media(0x80),
  /** Another try is of no use. */
  WRITE_FAULT_FOR_GOOD: media(0x80, true),
  UNRECOVERED_READ_ERROR: media(0x81),
  /** The same: the block was marked so, until it is written. */
  UNRECOVERED_READ_ERROR_FOR_GOOD: media(0x81, true),
  COMPARE_FAILURE: media(0x85, true),
  // Path related (SCT 3)
  /** Retryable, on another path if there is one. */
  INTERNAL_PATH_ERROR: StatusField.encode({ sc: 0x00, sct: 3 }),
} as const;

/** NSID that means all namespaces. */
export const NSID_ALL = 0xffff_ffff;
