/** NVM Command Set Specification 1.0: the commands of block storage. Constants only. */
/** NVM Command Set 1.0 figure 16. */
export const NvmOpcode = { FLUSH: 0x00, WRITE: 0x01, READ: 0x02 } as const;

/** Force Unit Access: bit 30 of command dword 12. NVM Command Set 1.0 §3.2.4, §3.2.6. */
export const CDW12_FUA = 1 << 30;
/** Number of Logical Blocks, zero-based. */
export const CDW12_NLB_MASK = 0xffff;
