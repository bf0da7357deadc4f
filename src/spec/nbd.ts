/**
 * The NBD protocol: messages, options, commands, flags, errors. Layouts only. The normative text is doc/proto.md of the project
 * NetworkBlockDevice/nbd; all numbers are in the order of the network.
 */
import { networkStruct, u16, u32, u64 } from '../util/struct.ts';

/** The port that IANA gave it. */
export const NBD_PORT = 10809;

// --- handshake ("newstyle fixed") ---------------------------------------------------------------------------------

/** "NBDMAGIC" and "IHAVEOPT", each as two halves. */
export const NBD_MAGIC = [0x4e42_444d, 0x4147_4943] as const;
export const OPTION_MAGIC = [0x4948_4156, 0x454f_5054] as const;
export const OPTION_REPLY_MAGIC = [0x0003_e889, 0x0455_65a9] as const;

/** What a server begins with. */
export const NbdGreeting = networkStruct('NbdGreeting', 18, {
  magicHigh: u32(0),
  magicLow: u32(4),
  optionHigh: u32(8),
  optionLow: u32(12),
  flags: u16(16),
});
export const HandshakeFlag = { FIXED_NEWSTYLE: 1 << 0, NO_ZEROES: 1 << 1 } as const;

/** Followed by `length` bytes of data. */
export const NbdOption = networkStruct('NbdOption', 16, {
  magicHigh: u32(0),
  magicLow: u32(4),
  option: u32(8),
  length: u32(12),
});
export const NbdOptionReply = networkStruct('NbdOptionReply', 20, {
  magicHigh: u32(0),
  magicLow: u32(4),
  option: u32(8),
  type: u32(12),
  length: u32(16),
});
/** The longest name of an export. Bytes of UTF-8. */
export const MAX_EXPORT_NAME = 4096;
/** More data than this no reply to an option needs: a name, a text. Bytes. */
export const MAX_OPTION_REPLY = 2 * 4096 + 64;

export const Option = { ABORT: 2, STARTTLS: 5, GO: 7, STRUCTURED_REPLY: 8 } as const;

const ERROR_REPLY = 2 ** 31;
export const OptionReply = {
  ACK: 1,
  INFO: 3,
  /** This and all above say no. */
  ERRORS: ERROR_REPLY,
  UNSUPPORTED: ERROR_REPLY + 1,
  POLICY: ERROR_REPLY + 2,
  INVALID: ERROR_REPLY + 3,
  TLS_REQUIRED: ERROR_REPLY + 5,
  UNKNOWN_EXPORT: ERROR_REPLY + 6,
  SHUTDOWN: ERROR_REPLY + 7,
  BLOCK_SIZE_REQUIRED: ERROR_REPLY + 8,
} as const;

/** What OPTION GO asks for, and is told. */
export const Info = { EXPORT: 0, BLOCK_SIZE: 3 } as const;
/** In place of a block size that a server does not tell: what the specification has clients assume. Bytes. */
export const DEFAULT_MINIMUM_BLOCK = 1;
export const DEFAULT_MAXIMUM_PAYLOAD = 32 * 1024 * 1024;

export const InfoExport = networkStruct('InfoExport', 12, {
  type: u16(0),
  size: u64(2),
  flags: u16(10),
});
export const InfoBlockSize = networkStruct('InfoBlockSize', 14, {
  type: u16(0),
  minimum: u32(2),
  preferred: u32(6),
  maximum: u32(10),
});

export const ExportFlag = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  /** What one connection has flushed, and what was completed before on any, the others see and it is on stable storage. */
  CAN_MULTI_CONN: 1 << 8,
} as const;

// --- transmission -------------------------------------------------------------------------------------------------

export const NbdRequest = networkStruct('NbdRequest', 28, {
  magic: u32(0),
  flags: u16(4),
  type: u16(6),
  /** Two halves of the client's own, which come back in the reply: here a slot, and a number that no two requests of it share. */
  cookieHigh: u32(8),
  cookieLow: u32(12),
  offset: u64(16),
  length: u32(24),
});
export const REQUEST_MAGIC = 0x2560_9513;

export const NbdCommand = {
  READ: 0,
  WRITE: 1,
  DISCONNECT: 2,
  FLUSH: 3,
  TRIM: 4,
  WRITE_ZEROES: 6,
} as const;
export const NbdCommandFlag = { FUA: 1 << 0, NO_HOLE: 1 << 1 } as const;

/** Followed by the data of a read that succeeded. */
export const NbdSimpleReply = networkStruct('NbdSimpleReply', 16, {
  magic: u32(0),
  error: u32(4),
  cookieHigh: u32(8),
  cookieLow: u32(12),
});
export const SIMPLE_REPLY_MAGIC = 0x6744_6698;

/** Followed by `length` bytes of data. A reply is one or several of them. */
export const NbdChunk = networkStruct('NbdChunk', 20, {
  magic: u32(0),
  flags: u16(4),
  type: u16(6),
  cookieHigh: u32(8),
  cookieLow: u32(12),
  length: u32(16),
});
export const CHUNK_MAGIC = 0x668e_33ef;
/** Of a chunk: the reply ends with it. */
export const CHUNK_DONE = 1 << 0;
export const ChunkType = {
  NONE: 0,
  /** An offset of 64 bits, then data. */
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  /** This bit: an error. */
  ERRORS: 1 << 15,
} as const;
/** What OFFSET_DATA begins with. */
export const ChunkOffset = networkStruct('ChunkOffset', 8, { offset: u64(0) });
/** All of OFFSET_HOLE. */
export const ChunkHole = networkStruct('ChunkHole', 12, { offset: u64(0), length: u32(8) });
/** What an error begins with; a text of `length` bytes follows, and more for some types. */
export const ChunkError = networkStruct('ChunkError', 6, { error: u32(0), length: u16(4) });
/** The longest text of an error. Bytes. */
export const MAX_ERROR_TEXT = 4096;

/** Errors are those of Linux, but a client takes any that it does not know for EINVAL. */
export const NbdError = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  /** The server is about to end: no request was or will be carried out. */
  ESHUTDOWN: 108,
} as const;
