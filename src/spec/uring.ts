/** io_uring: the kernel's entries, operations and flags that are used here (linux/io_uring.h). Layouts only. */
import { struct, u8, u16, u32, u64 } from '../util/struct.ts';

export const UringSqe = struct('io_uring_sqe', 64, {
  opcode: u8(0),
  flags: u8(1),
  ioprio: u16(2),
  fd: u32(4),
  off: u64(8),
  addr: u64(16),
  len: u32(24),
  /** rw_flags, fsync_flags, poll32_events: by operation. */
  opFlags: u32(28),
  userData: u64(32),
  bufIndex: u16(40),
});

export const UringCqe = struct('io_uring_cqe', 16, {
  userData: u64(0),
  res: u32(8),
  flags: u32(12),
});

/** SQE flag: `fd` is an index of the registered files. */
export const IOSQE_FIXED_FILE = 1 << 0;
/** SQE flag: not tried within the submission, but by a thread of the kernel. */
export const IOSQE_ASYNC = 1 << 4;
/** SQE flag: no CQE if it succeeds. */
export const IOSQE_CQE_SKIP_SUCCESS = 1 << 6;

export const UringOp = {
  NOP: 0,
  READV: 1,
  WRITEV: 2,
  FSYNC: 3,
  POLL_ADD: 6,
  POLL_REMOVE: 7,
  TIMEOUT: 11,
  TIMEOUT_REMOVE: 12,
  ASYNC_CANCEL: 14,
  FALLOCATE: 17,
  READ: 22,
  WRITE: 23,
  SEND: 26,
  RECV: 27,
} as const;

export const UringSetup = {
  SUBMIT_ALL: 1 << 7,
  TASKRUN_FLAG: 1 << 9,
  SINGLE_ISSUER: 1 << 12,
  DEFER_TASKRUN: 1 << 13,
} as const;

export const UringEnter = { GETEVENTS: 1 << 0 } as const;

/** Bits of the SQ ring's flags word. */
export const UringSqFlags = { CQ_OVERFLOW: 1 << 1, TASKRUN: 1 << 2 } as const;

/** POLL_ADD in `len`: stay armed. */
export const POLL_ADD_MULTI = 1;
/** CQE flag: a multishot request stays armed. */
export const CQE_F_MORE = 1 << 1;
export const POLLIN = 1;
export const POLLOUT = 4;

/** SEND: no signal if the peer has gone; not over before all is sent. */
export const MSG_NOSIGNAL = 0x4000;
export const MSG_WAITALL = 0x100;

export const FSYNC_DATASYNC = 1;
/** Per-write O_DSYNC: data and the metadata needed to read it are on stable storage at completion. */
export const RWF_DSYNC = 2;

/** Modes of FALLOCATE (linux/falloc.h): a hole, or zeroes that hold their blocks; neither changes the file's size. */
export const FALLOCATE_HOLE = 0x02 | 0x01;
export const FALLOCATE_ZEROES = 0x10 | 0x01;

/** struct __kernel_timespec. */
export const Timespec = struct('__kernel_timespec', 16, { seconds: u64(0), nanoseconds: u64(8) });

/** struct iovec. */
export const Iovec = struct('iovec', 16, { base: u64(0), len: u64(8) });
