/** NVM Express Base Specification 2.0: registers, queue entries, admin commands and their data structures. Layouts only. */
import { bytes, struct, u8, u16, u32, u64 } from '../util/struct.ts';

// --- Controller registers (NVMe Base 2.0 §3.1.3, properties) ------------------------------------------------------

export const Register = struct('Registers', 0x1000, {
  cap: u64(0x00),
  vs: u32(0x08),
  intms: u32(0x0c),
  intmc: u32(0x10),
  cc: u32(0x14),
  csts: u32(0x1c),
  nssr: u32(0x20),
  aqa: u32(0x24),
  asq: u64(0x28),
  acq: u64(0x30),
  cmbloc: u32(0x38),
  cmbsz: u32(0x3c),
  crto: u32(0x68),
});

/** Offset of the first doorbell in BAR0; SQ y tail at 8y, CQ y head at 8y + 4 (CAP.DSTRD = 0). NVMe over PCIe 1.0 §3.1.2. */
export const DOORBELL_OFFSET = 0x1000;

/** VS: 2.0.0. */
export const NVME_VERSION = 0x0002_0000;

/** CC fields: shift and mask. NVMe Base 2.0 §3.1.3.5. */
export const Cc = {
  EN: 1 << 0,
  CSS_SHIFT: 4,
  CSS_MASK: 7,
  MPS_SHIFT: 7,
  MPS_MASK: 15,
  AMS_SHIFT: 11,
  AMS_MASK: 7,
  SHN_SHIFT: 14,
  SHN_MASK: 3,
  IOSQES_SHIFT: 16,
  IOCQES_SHIFT: 20,
  ES_MASK: 15,
} as const;

/** CSTS bits. NVMe Base 2.0 §3.1.3.6. */
export const Csts = {
  RDY: 1 << 0,
  CFS: 1 << 1,
  SHST_OCCURRING: 1 << 2,
  SHST_COMPLETE: 2 << 2,
  SHST_MASK: 3 << 2,
} as const;

// --- Queue entries ---------------------------------------------------------------------------------------------------

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

/** FUSE and PSDT bits of command dword 0. */
export const SQE_FUSE_MASK = 3 << 8;
export const SQE_PSDT_MASK = 3 << 14;

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

// --- Status (NVMe Base 2.0 §3.3.3.2.1): the 15-bit status field, SC | SCT << 8 | DNR << 14 ------------------------------

const DNR = 1 << 14;
const generic = (code: number): number => code | DNR;
const specific = (code: number): number => code | (1 << 8) | DNR;
const media = (code: number): number => code | (2 << 8);

export const Status = {
  SUCCESS: 0,
  // Generic (SCT 0)
  INVALID_OPCODE: generic(0x01),
  INVALID_FIELD: generic(0x02),
  /** A transfer could not be made: the memory is gone. */
  DATA_TRANSFER_ERROR: generic(0x04),
  /** Retryable: no DNR. */
  INTERNAL_ERROR: 0x06,
  ABORTED_BY_REQUEST: 0x07,
  ABORTED_SQ_DELETION: 0x08,
  INVALID_NAMESPACE: generic(0x0b),
  COMMAND_SEQUENCE_ERROR: generic(0x0c),
  INVALID_PRP_OFFSET: generic(0x13),
  KEEP_ALIVE_TIMEOUT_INVALID: generic(0x1a),
  NAMESPACE_WRITE_PROTECTED: generic(0x20),
  LBA_OUT_OF_RANGE: generic(0x80),
  CAPACITY_EXCEEDED: generic(0x81),
  // Command specific (SCT 1)
  COMPLETION_QUEUE_INVALID: specific(0x00),
  INVALID_QUEUE_IDENTIFIER: specific(0x01),
  INVALID_QUEUE_SIZE: specific(0x02),
  ASYNC_EVENT_REQUEST_LIMIT: specific(0x05),
  INVALID_INTERRUPT_VECTOR: specific(0x08),
  INVALID_LOG_PAGE: specific(0x09),
  INVALID_QUEUE_DELETION: specific(0x0c),
  FEATURE_NOT_SAVEABLE: specific(0x0d),
  // Media and data integrity (SCT 2)
  WRITE_FAULT: media(0x80),
  /** Another try is of no use. */
  WRITE_FAULT_FOR_GOOD: media(0x80) | DNR,
  UNRECOVERED_READ_ERROR: media(0x81),
} as const;

// --- Admin commands (NVMe Base 2.0 figure 138) -----------------------------------------------------------------------

export const AdminOpcode = {
  DELETE_IO_SQ: 0x00,
  CREATE_IO_SQ: 0x01,
  GET_LOG_PAGE: 0x02,
  DELETE_IO_CQ: 0x04,
  CREATE_IO_CQ: 0x05,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT_REQUEST: 0x0c,
  KEEP_ALIVE: 0x18,
  DOORBELL_BUFFER_CONFIG: 0x7c,
} as const;

/** OACS bit: Doorbell Buffer Config is supported. NVMe Base 2.0 figure 275. */
export const OACS_DOORBELL_BUFFER_CONFIG = 1 << 8;

/** Identify CNS values. NVMe Base 2.0 figure 273. */
export const Cns = {
  NAMESPACE: 0x00,
  CONTROLLER: 0x01,
  ACTIVE_NAMESPACES: 0x02,
  NAMESPACE_DESCRIPTORS: 0x03,
  CSI_NAMESPACE: 0x05,
  CSI_CONTROLLER: 0x06,
  CSI_ACTIVE_NAMESPACES: 0x07,
  INDEPENDENT_NAMESPACE: 0x08,
} as const;

/** Bits of OAES and of the Asynchronous Event Configuration feature. */
export const AsyncEvent = {
  NAMESPACE_ATTRIBUTE: 1 << 8,
} as const;

/** Log page identifiers. NVMe Base 2.0 figure 202. */
export const Lid = {
  SUPPORTED: 0x00,
  ERROR: 0x01,
  SMART: 0x02,
  FIRMWARE_SLOT: 0x03,
  CHANGED_NAMESPACES: 0x04,
  COMMAND_EFFECTS: 0x05,
  FEATURE_EFFECTS: 0x12,
} as const;

/** Error Information log entry. NVMe Base 2.0 figure 206. */
export const ErrorLogEntry = struct('ErrorLogEntry', 64, {
  errorCount: u64(0),
  sqid: u16(8),
  cid: u16(10),
  /** Status field shifted left by one, as in the completion entry (phase in bit 0). */
  status: u16(12),
  parameterLocation: u16(14),
  lba: u64(16),
  nsid: u32(24),
});

/** The temperature: a bit of the critical warning, and of the Asynchronous Event Configuration for events about it. */
export const SMART_TEMPERATURE = 1 << 1;

/** SMART / Health Information log. NVMe Base 2.0 figure 207. 128-bit counters: the low 64 bits are declared. */
export const SmartLog = struct('SmartLog', 512, {
  criticalWarning: u8(0),
  compositeTemperature: u16(1),
  availableSpare: u8(3),
  availableSpareThreshold: u8(4),
  percentageUsed: u8(5),
  enduranceGroupWarnings: u8(6),
  dataUnitsRead: u64(32),
  dataUnitsWritten: u64(48),
  hostReads: u64(64),
  hostWrites: u64(80),
  controllerBusyMinutes: u64(96),
  powerCycles: u64(112),
  powerOnHours: u64(128),
  unsafeShutdowns: u64(144),
  mediaErrors: u64(160),
  errorLogEntries: u64(176),
  warningTemperatureMinutes: u32(192),
  criticalTemperatureMinutes: u32(196),
  thermal1Transitions: u32(216),
  thermal2Transitions: u32(220),
  thermal1Seconds: u32(224),
  thermal2Seconds: u32(228),
});

/** Firmware Slot Information log. NVMe Base 2.0 figure 209. */
export const FirmwareSlotLog = struct('FirmwareSlotLog', 512, { afi: u8(0), frs1: bytes(8, 8) });

/** Commands Supported and Effects log: one dword an opcode, admin commands first. NVMe Base 2.0 figure 211. */
export const EFFECTS_LOG_SIZE = 4096;
export const EFFECTS_IO_OFFSET = 1024;
/** Command supported; logical block content change. */
export const Effects = { CSUPP: 1 << 0, LBCC: 1 << 1 } as const;

/** Feature Identifiers Supported and Effects log: one dword a feature. NVMe Base 2.0 figures 261, 262. */
export const FEATURE_EFFECTS_LOG_SIZE = 1024;
/** Feature supported; its scope: a namespace, the controller. */
export const FeatureEffects = { FSUPP: 1 << 0, NAMESPACE: 1 << 20, CONTROLLER: 1 << 21 } as const;

/** Feature identifiers. NVMe Base 2.0 figure 317. */
export const Fid = {
  ARBITRATION: 0x01,
  POWER_MANAGEMENT: 0x02,
  TEMPERATURE_THRESHOLD: 0x04,
  ERROR_RECOVERY: 0x05,
  VOLATILE_WRITE_CACHE: 0x06,
  NUMBER_OF_QUEUES: 0x07,
  INTERRUPT_COALESCING: 0x08,
  INTERRUPT_VECTOR_CONFIG: 0x09,
  WRITE_ATOMICITY: 0x0a,
  ASYNC_EVENT_CONFIG: 0x0b,
  TIMESTAMP: 0x0e,
  KEEP_ALIVE_TIMER: 0x0f,
} as const;

/** Asynchronous event types and what they carry. NVMe Base 2.0 §5.2.1. */
export const AsyncEventType = { ERROR: 0, SMART: 1, NOTICE: 2 } as const;
export const AsyncErrorInfo = {
  INVALID_DOORBELL_REGISTER: 0,
  INVALID_DOORBELL_VALUE: 1,
} as const;
export const AsyncSmartInfo = { TEMPERATURE_THRESHOLD: 1 } as const;
export const AsyncNoticeInfo = { NAMESPACE_ATTRIBUTE_CHANGED: 0 } as const;

/** NSID that means all namespaces. */
export const NSID_ALL = 0xffff_ffff;
