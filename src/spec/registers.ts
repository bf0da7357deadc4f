/** Controller registers, which NVMe 2.0 calls properties, and their fields. Layouts only. NVMe Base 2.0 §3.1.3. */
import { bits, flag, word } from '../util/bits.ts';
import { struct, u32, u64 } from '../util/struct.ts';

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

/** CAP, its lower dword. `to`: in units of 500 ms. §3.1.3.1. */
export const CapLow = word('CAP[31:0]', {
  mqesZ: bits(0, 16),
  cqr: flag(16),
  ams: bits(17, 2),
  to: bits(24, 8),
});

/** CAP, its upper dword. */
export const CapHigh = word('CAP[63:32]', {
  dstrd: bits(0, 4),
  nssrs: flag(4),
  cssNvm: flag(5),
  cssIocs: flag(11),
  cssNone: flag(12),
  bps: flag(13),
  /** Smallest and largest page: 2^(12 + n) bytes. */
  mpsmin: bits(16, 4),
  mpsmax: bits(20, 4),
  pmrs: flag(24),
  cmbs: flag(25),
  nsss: flag(26),
  crwms: flag(27),
  crims: flag(28),
});

/** VS. §3.1.3.2. */
export const Version = word('VS', { ter: bits(0, 8), mnr: bits(8, 8), mjr: bits(16, 16) });
/** 2.0.0. */
export const NVME_VERSION = Version.encode({ mjr: 2 });

/** CC. §3.1.3.5. */
export const Cc = word('CC', {
  en: flag(0),
  css: bits(4, 3),
  /** Memory page: 2^(12 + n) bytes. */
  mps: bits(7, 4),
  ams: bits(11, 3),
  shn: bits(14, 2),
  /** Entries of I/O queues: 2^n bytes. */
  iosqes: bits(16, 4),
  iocqes: bits(20, 4),
  crime: flag(24),
});

/** CC.CSS: NVM alone; all that are supported. */
export const CommandSets = { NVM: 0, ALL: 6 } as const;

/** CC.SHN. */
export const Shn = { NONE: 0, NORMAL: 1, ABRUPT: 2 } as const;

/** CSTS. §3.1.3.6. */
export const Csts = word('CSTS', {
  rdy: flag(0),
  cfs: flag(1),
  shst: bits(2, 2),
  nssro: flag(4),
  pp: flag(5),
  st: flag(6),
});

/** CSTS.SHST. */
export const Shst = { NORMAL: 0, OCCURRING: 1, COMPLETE: 2 } as const;

/** What a write of NSSR must be to reset the subsystem: "NVMe". §3.1.3.7. */
export const NSSR_RESET = 0x4e56_4d65;

/** AQA: entries of the admin queues. §3.1.3.8. */
export const Aqa = word('AQA', { asqsZ: bits(0, 12), acqsZ: bits(16, 12) });

/** CRTO, in units of 500 ms. §3.1.3.26. */
export const Crto = word('CRTO', { crwmt: bits(0, 16), crimt: bits(16, 16) });
