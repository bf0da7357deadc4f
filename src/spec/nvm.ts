/** NVM Command Set Specification 1.0: the commands and structures of block storage. Layouts only. */
import { bytes, struct, u8, u16, u32, u64 } from '../util/struct.ts';

/** NVM Command Set 1.0 figure 16. */
export const NvmOpcode = { FLUSH: 0x00, WRITE: 0x01, READ: 0x02 } as const;

/** Force Unit Access: bit 30 of command dword 12. NVM Command Set 1.0 §3.2.4, §3.2.6. */
export const CDW12_FUA = 1 << 30;
/** Number of Logical Blocks, zero-based. */
export const CDW12_NLB_MASK = 0xffff;

/** Identify Namespace, CNS 00h. NVM Command Set 1.0 figure 97; only the fields this controller sets. */
export const IdentifyNamespace = struct('IdentifyNamespace', 4096, {
  nsze: u64(0),
  ncap: u64(8),
  nuse: u64(16),
  nsfeat: u8(24),
  nlbaf: u8(25),
  flbas: u8(26),
  mc: u8(27),
  dpc: u8(28),
  dps: u8(29),
  nmic: u8(30),
  rescap: u8(31),
  nsattr: u8(99),
  nguid: bytes(104, 16),
  eui64: bytes(120, 8),
  /** LBA format 0: metadata size, log2 of the data size, relative performance. */
  lbaf0Ms: u16(128),
  lbaf0Ds: u8(130),
  lbaf0Rp: u8(131),
});

/** NSATTR: the namespace is write protected. */
export const NSATTR_WRITE_PROTECTED = 1;

/** Identify Namespace, I/O command set independent, CNS 08h. NVMe Base 2.0 figure 280. */
export const IdentifyNamespaceIndependent = struct('IdentifyNamespaceIndependent', 4096, {
  nsfeat: u8(0),
  nmic: u8(1),
  rescap: u8(2),
  fpi: u8(3),
  anagrpid: u32(4),
  nsattr: u8(8),
  nvmsetid: u16(10),
  endgid: u16(12),
  nstat: u8(14),
});

/** NSTAT: the namespace is ready. */
export const NSTAT_READY = 1;
