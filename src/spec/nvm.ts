/** The commands of block storage and their command dwords. Layouts only. NVM Command Set Specification 1.0 §3.2. */
import { bits, flag, word } from '../util/bits.ts';
import { struct, u16, u32, u64 } from '../util/struct.ts';
import { command, qword } from './command.ts';

/** Opcodes. NVM Command Set 1.0 figure 16. */
export const NvmOpcode = {
  FLUSH: 0x00,
  WRITE: 0x01,
  READ: 0x02,
  WRITE_UNCORRECTABLE: 0x04,
  COMPARE: 0x05,
  WRITE_ZEROES: 0x08,
  DATASET_MANAGEMENT: 0x09,
  VERIFY: 0x0c,
  COPY: 0x19,
} as const;

/** NVMe Base 2.0 §7.1. */
export const Flush = command('Flush', NvmOpcode.FLUSH, {});

/** Command dword 12 of what works on a range of blocks. `fua`: Force Unit Access; `lr`: limited retry. */
export const RangeDword12 = word('Range.cdw12', {
  nlbZ: bits(0, 16),
  prinfo: bits(26, 4),
  fua: flag(30),
  lr: flag(31),
});
const RANGE = { 10: { slba: qword }, 12: RangeDword12.fields } as const;

/** §3.2.1, §3.2.4, §3.2.6. */
export const Compare = command('Compare', NvmOpcode.COMPARE, RANGE);
export const Read = command('Read', NvmOpcode.READ, RANGE);
export const Write = command('Write', NvmOpcode.WRITE, RANGE);
/** §3.2.5, §3.2.7. */
export const Verify = command('Verify', NvmOpcode.VERIFY, RANGE);
export const WriteUncorrectable = command('WriteUncorrectable', NvmOpcode.WRITE_UNCORRECTABLE, {
  10: { slba: qword },
  12: { nlbZ: bits(0, 16) },
});
/** §3.2.8. `deac`: deallocate. */
export const WriteZeroesDword12 = word('WriteZeroes.cdw12', {
  nlbZ: bits(0, 16),
  deac: flag(25),
  prinfo: bits(26, 4),
  fua: flag(30),
  lr: flag(31),
});
export const WriteZeroes = command('WriteZeroes', NvmOpcode.WRITE_ZEROES, {
  10: { slba: qword },
  12: WriteZeroesDword12.fields,
});
/** §3.2.3. `ad`: deallocate. */
export const DatasetDword10 = word('DatasetManagement.cdw10', { nrZ: bits(0, 8) });
export const DatasetDword11 = word('DatasetManagement.cdw11', {
  idr: flag(0),
  idw: flag(1),
  ad: flag(2),
});
export const DatasetManagement = command('DatasetManagement', NvmOpcode.DATASET_MANAGEMENT, {
  10: DatasetDword10.fields,
  11: DatasetDword11.fields,
});
/** A range of it. Figure 40. `length`: blocks. */
export const DsmRange = struct('DsmRange', 16, {
  attributes: u32(0),
  length: u32(4),
  slba: u64(8),
});
/** §3.2.2. */
export const CopyDword12 = word('Copy.cdw12', {
  nrZ: bits(0, 8),
  descriptorFormat: bits(8, 4),
  prinfor: bits(12, 4),
  prinfow: bits(26, 4),
  fua: flag(30),
  lr: flag(31),
});
export const Copy = command('Copy', NvmOpcode.COPY, {
  10: { sdlba: qword },
  12: CopyDword12.fields,
});
/**
 * What all formats of its source ranges begin with; formats 1 and 3 are 8 bytes longer. `snsid` is of formats 2 and 3, `sopt` too: its bit 15 is
 * Fast Copy Only. NVM Command Set 1.0 figure 36, 1.1 figures 34 to 37.
 */
export const CopySourceRange = struct('CopySourceRange', 32, {
  snsid: u32(0),
  slba: u64(8),
  nlbZ: u16(16),
  sopt: u16(22),
});
