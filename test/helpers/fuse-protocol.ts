/** What the test's file system needs of FUSE 7.31 (include/uapi/linux/fuse.h). */
import { struct, u16, u32, u64 } from '../../src/util/struct.ts';

export const ROOT_NODE = 1;
export const MAX_WRITE = 1024 * 1024;

export const Op = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  INIT: 26,
  INTERRUPT: 36,
  BATCH_FORGET: 42,
} as const;

/** FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_ASYNC_DIO, FUSE_MAX_PAGES. */
const INIT_FLAGS = (1 << 0) | (1 << 5) | (1 << 15) | (1 << 22);
export const FOPEN_DIRECT_IO = 1;

export const InHeader = struct('InHeader', 40, {
  len: u32(0),
  opcode: u32(4),
  unique: u64(8),
  nodeid: u64(16),
  /** The thread that asks. */
  pid: u32(32),
});
export const OutHeader = struct('OutHeader', 16, { len: u32(0), error: u32(4), unique: u64(8) });
const InitOut = struct('InitOut', 64, {
  major: u32(0),
  minor: u32(4),
  maxReadahead: u32(8),
  flags: u32(12),
  maxBackground: u16(16),
  congestionThreshold: u16(18),
  maxWrite: u32(20),
  timeGran: u32(24),
  maxPages: u16(28),
});
const Attr = struct('Attr', 88, {
  ino: u64(0),
  size: u64(8),
  blocks: u64(16),
  mode: u32(60),
  nlink: u32(64),
  blksize: u32(80),
});
/** The times that the kernel may keep an answer stay 0: it asks each time, so that each question can wait or fail. */
const EntryOut = struct('EntryOut', 40, { nodeid: u64(0) });
const AttrOut = struct('AttrOut', 16, { attrValid: u64(0) });
const OpenOut = struct('OpenOut', 16, { fh: u64(0), openFlags: u32(8) });
export const Transfer = struct('Transfer', 40, {
  fh: u64(0),
  offset: u64(8),
  size: u32(16),
  flags: u32(32),
});
export const WriteOut = struct('WriteOut', 8, { size: u32(0) });

export function initOut(): Uint8Array {
  return InitOut.encode({
    major: 7,
    minor: 31,
    maxReadahead: 0,
    flags: INIT_FLAGS,
    maxBackground: 64,
    congestionThreshold: 64,
    maxWrite: MAX_WRITE,
    timeGran: 1,
    maxPages: 256,
  });
}

function attributes(node: number, bytes: number): Uint8Array {
  const root = { ino: node, mode: 0o040755, nlink: 2, blksize: 4096 };
  const file = {
    ino: node,
    size: bytes,
    blocks: bytes / 512,
    mode: 0o100644,
    nlink: 1,
    blksize: 4096,
  };
  return Attr.encode(node === ROOT_NODE ? root : file);
}

export function attrOut(node: number, bytes: number): Uint8Array {
  return Buffer.concat([AttrOut.encode({}), attributes(node, bytes)]);
}

export function entryOut(node: number, bytes: number): Uint8Array {
  return Buffer.concat([EntryOut.encode({ nodeid: node }), attributes(node, bytes)]);
}

/** `direct`: reads and writes pass the page cache by; such a file cannot be mapped (MAP_SHARED). */
export function openOut(direct: boolean): Uint8Array {
  return OpenOut.encode({ fh: 1, openFlags: direct ? FOPEN_DIRECT_IO : 0 });
}
