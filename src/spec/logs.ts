/** Log pages. Layouts only. NVMe Base 2.0 §5.16. */
import { bits, flag, word } from '../util/bits.ts';
import { bytes, struct, u8, u16, u32, u64 } from '../util/struct.ts';

/** Log page identifiers. NVMe Base 2.0 figure 202. */
export const Lid = {
  SUPPORTED: 0x00,
  ERROR: 0x01,
  SMART: 0x02,
  FIRMWARE_SLOT: 0x03,
  CHANGED_NAMESPACES: 0x04,
  COMMAND_EFFECTS: 0x05,
  SELF_TEST: 0x06,
  TELEMETRY_HOST: 0x07,
  TELEMETRY_CONTROLLER: 0x08,
  FEATURE_EFFECTS: 0x12,
  RESERVATION: 0x80,
  SANITIZE: 0x81,
} as const;

/** Supported Log Pages: a dword for each identifier. NVMe Base 2.0 figures 204, 205. */
export const SUPPORTED_LOG_SIZE = 1024;
/** `ios`: an index offset instead of one in bytes is taken. */
export const SupportedLog = word('SupportedLog', { lsupp: flag(0), ios: flag(1) });

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
/** Where in the command the error is. */
export const ParameterLocation = word('ParameterLocation', { byte: bits(0, 8), bit: bits(8, 3) });
/** The error is at no place of the command. */
export const NO_LOCATION = 0xffff;

/** Critical Warning; also the bits 7:0 of the Asynchronous Event Configuration. */
export const CriticalWarning = word('CriticalWarning', {
  spare: flag(0),
  temperature: flag(1),
  reliability: flag(2),
  readOnly: flag(3),
  backup: flag(4),
  pmr: flag(5),
});

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
/** AFI: the slot that is active, and the one that is after the next reset (0: the same). */
export const Afi = word('AFI', { active: bits(0, 3), next: bits(4, 3) });

/** Commands Supported and Effects log: a dword for each opcode, admin commands first. NVMe Base 2.0 figures 211, 212. */
export const EFFECTS_LOG_SIZE = 4096;
export const EFFECTS_IO_OFFSET = 1024;
/** Supported; changes blocks, namespaces' or the controller's capabilities, the inventory of namespaces; submission and execution. */
export const Effects = word('Effects', {
  csupp: flag(0),
  lbcc: flag(1),
  ncc: flag(2),
  nic: flag(3),
  ccc: flag(4),
  cse: bits(16, 3),
  uss: flag(19),
});

/** Device Self-test log: what is under way, and results, the newest first. NVMe Base 2.0 figure 213. */
export const SelfTestLog = struct('SelfTestLog', 4, { operation: u8(0), completion: u8(1) });
export const SELF_TEST_RESULTS = 20;
/** NVMe Base 2.0 figure 214. `poh`: hours. */
export const SelfTestResult = struct('SelfTestResult', 28, {
  status: u8(0),
  segment: u8(1),
  valid: u8(2),
  poh: u64(4),
  nsid: u32(12),
  flba: u64(16),
  sct: u8(24),
  sc: u8(25),
});
export const SelfTestStatus = word('SelfTestStatus', { result: bits(0, 4), code: bits(4, 4) });
/** How a self-test ended. */
export const SelfTestEnd = {
  PASSED: 0,
  ABORTED: 1,
  RESET: 2,
  NAMESPACE_REMOVED: 3,
  FORMAT: 4,
  FATAL: 5,
  FAILED: 7,
  SANITIZE: 9,
  NOT_USED: 15,
} as const;
/** Which fields of a result mean something. */
export const SelfTestValid = word('SelfTestValid', {
  nsid: flag(0),
  flba: flag(1),
  sct: flag(2),
  sc: flag(3),
});

/** Sanitize Status log. NVMe Base 2.0 figure 265. `sprog`: of 65536. Estimated times: seconds. */
export const SanitizeLog = struct('SanitizeLog', 512, {
  sprog: u16(0),
  sstat: u16(2),
  scdw10: u32(4),
  etOverwrite: u32(8),
  etBlockErase: u32(12),
  etCryptoErase: u32(16),
  etOverwriteNoDeallocate: u32(20),
  etBlockEraseNoDeallocate: u32(24),
  etCryptoEraseNoDeallocate: u32(28),
});
export const SANITIZE_IDLE = 0xffff;
/** No time is told. */
export const SANITIZE_UNKNOWN = 0xffff_ffff;
/** SSTAT: the state, and passes of an overwrite that are done. */
export const SanitizeStatus = word('SSTAT', {
  state: bits(0, 3),
  passes: bits(3, 5),
  erased: flag(8),
});
export const SanitizeStateCode = {
  NEVER: 0,
  COMPLETED: 1,
  IN_PROGRESS: 2,
  FAILED: 3,
  COMPLETED_NO_DEALLOCATE: 4,
} as const;

/** The head of both telemetry logs; blocks of 512 bytes follow. `last1` to `last3`: the last block of each data area. NVMe Base 2.0 figures 214, 216. */
export const TelemetryLog = struct('TelemetryLog', 512, {
  lid: u8(0),
  ieee: bytes(5, 3),
  last1: u16(8),
  last2: u16(10),
  last3: u16(12),
  hostGeneration: u8(381),
  controllerAvailable: u8(382),
  controllerGeneration: u8(383),
  reason: bytes(384, 128),
});
export const TELEMETRY_BLOCK = 512;
/** LSP of Get Log Page, of the host-initiated log: gather data anew. */
export const TELEMETRY_CREATE = 1;

/** Feature Identifiers Supported and Effects log: a dword for each feature. NVMe Base 2.0 figures 261, 262. */
export const FEATURE_EFFECTS_LOG_SIZE = 1024;
/** As `Effects`; then its scope. */
export const FeatureEffects = word('FeatureEffects', {
  fsupp: flag(0),
  udcc: flag(1),
  ncc: flag(2),
  nic: flag(3),
  ccc: flag(4),
  uss: flag(19),
  namespace: flag(20),
  controller: flag(21),
});
