/** Reservations: their commands, which are I/O commands of every command set, and their structures. Layouts only. NVMe Base 2.0 §7.2 to §7.5. */
import { bits, flag, word } from '../util/bits.ts';
import { bytes, struct, u8, u16, u32, u64 } from '../util/struct.ts';
import { command } from './command.ts';

/** NVMe Base 2.0 figure 393. */
export const ReservationOpcode = {
  REGISTER: 0x0d,
  REPORT: 0x0e,
  ACQUIRE: 0x11,
  RELEASE: 0x15,
} as const;

/** §7.5. `iekey`: the existing key is not checked; `cptpl`: whether it persists through power loss. */
export const ReservationRegister = command('ReservationRegister', ReservationOpcode.REGISTER, {
  10: { rrega: bits(0, 3), iekey: flag(3), cptpl: bits(30, 2) },
});
export const RegisterAction = { REGISTER: 0, UNREGISTER: 1, REPLACE: 2 } as const;
export const ChangePtpl = { NO_CHANGE: 0, RELEASE: 2, PERSIST: 3 } as const;
/** §7.2. */
export const ReservationAcquire = command('ReservationAcquire', ReservationOpcode.ACQUIRE, {
  10: { racqa: bits(0, 3), iekey: flag(3), rtype: bits(8, 8) },
});
export const AcquireAction = { ACQUIRE: 0, PREEMPT: 1, PREEMPT_AND_ABORT: 2 } as const;
/** §7.3. */
export const ReservationRelease = command('ReservationRelease', ReservationOpcode.RELEASE, {
  10: { rrela: bits(0, 3), iekey: flag(3), rtype: bits(8, 8) },
});
export const ReleaseAction = { RELEASE: 0, CLEAR: 1 } as const;
/** §7.4. `numdZ`: dwords; `eds`: the extended structure. */
export const ReservationReport = command('ReservationReport', ReservationOpcode.REPORT, {
  10: { numdZ: bits(0, 32) },
  11: { eds: flag(0) },
});

/** RTYPE. NVMe Base 2.0 figure 394. */
export const ReservationType = {
  NONE: 0,
  WRITE_EXCLUSIVE: 1,
  EXCLUSIVE_ACCESS: 2,
  WRITE_EXCLUSIVE_REGISTRANTS: 3,
  EXCLUSIVE_ACCESS_REGISTRANTS: 4,
  WRITE_EXCLUSIVE_ALL: 5,
  EXCLUSIVE_ACCESS_ALL: 6,
} as const;

/** Data of Register (the current and the new key) and of Acquire (the current key and that to be preempted); of Release, the first half. */
export const ReservationKeys = struct('ReservationKeys', 16, {
  current: bytes(0, 8),
  other: bytes(8, 8),
});
export const RELEASE_BYTES = 8;

/** Reservation Status, and a registered controller of it. NVMe Base 2.0 figures 405 to 408. */
export const ReservationStatus = struct('ReservationStatus', 24, {
  gen: u32(0),
  rtype: u8(4),
  regctl: u16(5),
  ptpls: u8(9),
});
export const RegisteredController = struct('RegisteredController', 24, {
  cntlid: u16(0),
  rcsts: u8(2),
  hostid: bytes(8, 8),
  rkey: bytes(16, 8),
});
export const EXTENDED_STATUS_BYTES = 64;
export const RegisteredControllerExtended = struct('RegisteredControllerExtended', 64, {
  cntlid: u16(0),
  rcsts: u8(2),
  rkey: bytes(8, 8),
  hostid: bytes(16, 16),
});
export const Rcsts = word('RCSTS', { holds: flag(0) });
/** In place of a controller: the host has none just now. */
export const NO_CNTLID = 0xffff;

/** RESCAP. */
export const Rescap = word('RESCAP', {
  ptpl: flag(0),
  writeExclusive: flag(1),
  exclusiveAccess: flag(2),
  writeExclusiveRegistrants: flag(3),
  exclusiveAccessRegistrants: flag(4),
  writeExclusiveAll: flag(5),
  exclusiveAccessAll: flag(6),
  iekey13: flag(7),
});

/** Reservation Notification log page. NVMe Base 2.0 figure 264. */
export const ReservationLog = struct('ReservationLog', 64, {
  lpc: u64(0),
  type: u8(8),
  nalp: u8(9),
  nsid: u32(12),
});
export const ReservationNotice = {
  EMPTY: 0,
  REGISTRATION_PREEMPTED: 1,
  RESERVATION_RELEASED: 2,
  RESERVATION_PREEMPTED: 3,
} as const;
