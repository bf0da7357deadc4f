/** Features: identifiers, and what command dword 11 and the data of each say. Layouts only. NVMe Base 2.0 §5.27.1. */
import { bits, flag, word } from '../util/bits.ts';
import { struct, u8, u16, u32 } from '../util/struct.ts';

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
  HOST_BEHAVIOR_SUPPORT: 0x16,
  IO_COMMAND_SET_PROFILE: 0x19,
  HOST_IDENTIFIER: 0x81,
  RESERVATION_NOTIFICATION_MASK: 0x82,
  RESERVATION_PERSISTENCE: 0x83,
  NAMESPACE_WRITE_PROTECTION: 0x84,
} as const;

/** Select, of Get Features. */
export const Select = { CURRENT: 0, DEFAULT: 1, SAVED: 2, CAPABILITIES: 3 } as const;

/** What Select 3 gives in dword 0: the feature can be saved, is a namespace's, can be changed. */
export const Capabilities = word('Capabilities', {
  saveable: flag(0),
  namespace: flag(1),
  changeable: flag(2),
});

export const Arbitration = word('Arbitration', {
  /** Burst: 2^n commands; 7: no limit. */
  ab: bits(0, 3),
  lpwZ: bits(8, 8),
  mpwZ: bits(16, 8),
  hpwZ: bits(24, 8),
});
export const PowerManagement = word('PowerManagement', { ps: bits(0, 5), wh: bits(5, 3) });
/** `tmpth`: kelvin. `tmpsel`: 0 is the composite temperature, 15 all. */
export const TemperatureThreshold = word('TemperatureThreshold', {
  tmpth: bits(0, 16),
  tmpsel: bits(16, 4),
  thsel: bits(20, 2),
});
export const TMPSEL_COMPOSITE = 0;
export const TMPSEL_ALL = 15;
export const Thsel = { OVER: 0, UNDER: 1 } as const;
/** `tler`: 100 ms. NVM Command Set 1.0 §4.1.3.2. */
export const ErrorRecovery = word('ErrorRecovery', { tler: bits(0, 16), dulbe: flag(16) });
export const VolatileWriteCache = word('VolatileWriteCache', { wce: flag(0) });
export const NumberOfQueues = word('NumberOfQueues', { nsqZ: bits(0, 16), ncqZ: bits(16, 16) });
/** `thrZ`: completions. `time`: 100 µs. */
export const InterruptCoalescing = word('InterruptCoalescing', {
  thrZ: bits(0, 8),
  time: bits(8, 8),
});
export const InterruptVectorConfig = word('InterruptVectorConfig', {
  iv: bits(0, 16),
  cd: flag(16),
});
export const WriteAtomicity = word('WriteAtomicity', { dn: flag(0) });
/** Bits 7:0 are those of the SMART log's critical warning; the others are also bits of OAES. */
export const AsyncEventConfig = word('AsyncEventConfig', {
  smart: bits(0, 8),
  namespaceAttribute: flag(8),
  firmwareActivation: flag(9),
  telemetry: flag(10),
});

/** Timestamp, 8 bytes: 48 bits of milliseconds. §5.27.1.11. */
export const Timestamp = struct('Timestamp', 8, {
  msLow: u32(0),
  msHigh: u16(4),
  attributes: u8(6),
});
/** `origin`: 0 since a reset, 1 set by the host. */
export const TimestampAttributes = word('TimestampAttributes', {
  synch: flag(0),
  origin: bits(1, 3),
});
/** Host Behavior Support, 512 bytes. §5.27.1.18. */
export const HostBehavior = struct('HostBehavior', 512, {
  acre: u8(0),
  etdas: u8(1),
  lbafee: u8(2),
  /** Formats of source ranges of Copy that the host enables: a bit each. NVMe Base 2.1 §5.1.25.1.14. */
  cdfe: u16(4),
});
/** I/O Command Set Profile: an index into what Identify lists (CNS 1Ch). §5.27.1.21. */
export const IoCommandSetProfile = word('IoCommandSetProfile', { iocsci: bits(0, 9) });

/** `exhid`: 128 bits instead of 64. §5.27.1.25. */
export const HostIdentifier = word('HostIdentifier', { exhid: flag(0) });
export const HOST_ID_BYTES = 8;
export const EXTENDED_HOST_ID_BYTES = 16;

/** Notices that the host does not want. §5.27.1.26. */
export const ReservationMask = word('ReservationMask', {
  regpre: flag(1),
  resrel: flag(2),
  respre: flag(3),
});
/** §5.27.1.27. */
export const ReservationPersistence = word('ReservationPersistence', { ptpl: flag(0) });

/** Namespace Write Protection states. §5.27.1.24. */
export const WriteProtection = word('WriteProtection', { wps: bits(0, 3) });
export const WriteProtectionState = {
  NONE: 0,
  WRITE_PROTECT: 1,
  UNTIL_POWER_CYCLE: 2,
  PERMANENT: 3,
} as const;
