/**
 * The contract of the C++ addon: every function it exports, typed.
 *
 * Unless a comment says otherwise a function checks its arguments, and throws an `Error` with `code` (`'EBADF'`), `errno`
 * (positive) and `syscall` when the system refuses. Functions marked "hot" return `-errno` instead of throwing.
 * Node's `fs` serves for what it can do with a plain descriptor: `openSync`, `closeSync`, `fstatSync`, `fdatasync`.
 */

export interface NativeAddon {
  // --- memory -------------------------------------------------------------------------------------------------

  /**
   * mmap(MAP_SHARED) of `length` bytes of a file as a SharedArrayBuffer; pages are left out of core dumps. The file must
   * cover the range (EINVAL if not, checked by fstat; devices excepted). `offset` is page aligned: to 4 KiB, also in a file
   * of huge pages. Guarded against SIGBUS: when a page is touched that the file's owner has truncated away, or that the hardware
   * has lost, zeros replace the whole mapping for good instead of killing the process; `owner` (0: nobody) says whom `takeLost`
   * is to name then. The file system is asked, which may block: see `isMemoryFile`. The descriptor may be closed afterwards.
   *
   * Writing to a mapping that is not `writable` ends the process (SIGSEGV): the caller keeps account of which ones are.
   */
  mapFile(
    fd: number,
    offset: number,
    length: number,
    writable: boolean,
    owner?: number,
  ): SharedArrayBuffer;
  /**
   * Whether the file is a memfd, or on tmpfs or hugetlbfs: memory that no server and no device is behind. Never blocks, whatever
   * file it is (fcntl, F_GET_SEALS).
   */
  isMemoryFile(fd: number): boolean;
  /**
   * Zeroed anonymous memory, MAP_SHARED so that `mapAlias` can map it again. The caller rounds `length` up to pages.
   * `hugePages`: MAP_PRIVATE instead (shared by the threads all the same), and the kernel is asked for huge pages.
   */
  mapAnonymous(length: number, hugePages?: boolean): SharedArrayBuffer;
  /**
   * Maps pieces of existing shared mappings once more, side by side: one contiguous SharedArrayBuffer.
   * All addresses and lengths are page aligned, and each piece lies in one mapping made by this addon. EINVAL if it is
   * revoked, ENOTSUP if it has huge pages. Revoking a source does not revoke its aliases: they are mappings of their own.
   * (`mremap` with an old size of 0.)
   */
  mapAlias(addresses: Float64Array, lengths: Float64Array): SharedArrayBuffer;
  /** Host address of the first byte of a view. Exact: user addresses have 47 bits. */
  addressOf(view: ArrayBufferView): number;
  /**
   * Replaces the pages of a mapping made above by private zero pages, in place: stale reads give 0, stale writes vanish,
   * the file is no longer referenced. `view` must cover exactly one whole mapping. The addresses are freed when the last
   * reference in any thread is collected.
   */
  revoke(view: ArrayBufferView): void;
  /**
   * Runs a full garbage collection of this thread (2 to 10 ms), if since its last one 4096 mappings or 1 TiB were revoked in
   * the process; otherwise it costs nothing. Every thread that had views of a mapping calls it after it has dropped them:
   * nothing else makes V8 collect them, and with them the addresses they hold. True if it collected.
   */
  reclaim(): boolean;
  /** Mappings of files that were lost in the whole process (see `mapFile`). */
  faultCount(): number;
  /** An eventfd that becomes readable when one more is. It is the addon's: not to be closed. */
  faultEvent(): number;
  /** The owners of mappings, and of aliases of them, that were lost since the last call. */
  takeLost(): number[];
  /** Whether the mapping that a view lies in is lost. */
  isLost(view: ArrayBufferView): boolean;
  /** A sealed-size memfd (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), close-on-exec. */
  memfdCreate(name: string, size: number): number;
  /**
   * Hot. Runs `count` memory copies: `list` holds [destination, source, length] triples of host addresses and bytes.
   * The caller has checked the addresses against live mappings. RangeError if `list` does not hold `count` triples.
   */
  copyBatch(list: Float64Array, count: number): void;
  /**
   * `copyBatch` bound to a list over a SharedArrayBuffer, which it looks into once instead of at each call: 20 ns a call
   * instead of 60 ns. The list may be rewritten between calls.
   */
  bindCopyBatch(list: Float64Array): (count: number) => void;
  /** The same for comparisons: [one, other, length] triples. Hot. Whether all pieces are equal. */
  bindCompareBatch(list: Float64Array): (count: number) => boolean;
  /**
   * Hot. Zeroes `range[1]` bytes at the host address `range[0]` (of three), of a mapping that `mapAnonymous` made with huge pages: whole pages are given
   * back (MADV_DONTNEED). The caller has checked the range. `range` views a SharedArrayBuffer.
   */
  bindZeroMemory(range: Float64Array): () => void;

  // --- UNIX sockets (non-blocking, close-on-exec) -----------------------------------------------------------------

  /**
   * socket + bind + listen; the file has mode 0600 from its first moment. EADDRINUSE if the path exists: whether it is stale
   * is the caller's to find out.
   */
  socketListen(path: string, backlog: number): number;
  /** The next connection, or -1 if none waits. */
  socketAccept(fd: number): number;
  /** A connected socket. Connecting blocks while the listener's backlog is full, at most 2 s (EAGAIN). */
  socketConnect(path: string): number;
  /** A connected pair. */
  socketPair(): [number, number];
  /**
   * Sends bytes and descriptors (SCM_RIGHTS, at most 253; the first byte carries them). Bytes sent (may be fewer: the
   * descriptors have then gone with them), or -1 if it would block. EPIPE, and no signal, if the peer has closed.
   */
  socketSend(fd: number, data: Uint8Array, fds: readonly number[]): number;
  /**
   * Receives into `buffer`. Bytes received, 0 at the end of the stream, -1 if it would block. Received descriptors are
   * close-on-exec; `fds[0]` is set to their count, `fds[1..]` to the descriptors. `fds` needs room for 254. EMFILE if there were more than
   * the process may have: the message is lost, and `fds` holds those that came, to be closed.
   */
  socketReceive(fd: number, buffer: Uint8Array, fds: Int32Array): number;
  /** Ends the connection for both sides at once. What was received and not read stays with the descriptor until it is closed. */
  socketShutdown(fd: number): void;
  /**
   * Lowers how many descriptors the process may have (RLIMIT_NOFILE) by `count`, and lets `socketReceive` alone go beyond: where none is left
   * the kernel would close what it cannot deliver itself, in the receiving thread, and that may wait for ever. Once, before threads run.
   */
  reserveDescriptors(count: number): void;

  // --- what a service manager passes ------------------------------------------------------------------------------

  /**
   * Makes a UNIX stream socket that another process passed non-blocking and close-on-exec. `address` is its path, '@' and the name
   * of an abstract one, or ''. ENOTSOCK, EAFNOSUPPORT, EPROTOTYPE (no stream), ENOTCONN (neither listens nor is connected).
   */
  socketAdopt(fd: number): { readonly listening: boolean; readonly address: string };
  /** Sends one datagram to a UNIX socket: a path, or '@' and the name of an abstract one. EAGAIN if its queue is full. */
  datagramSend(address: string, data: Uint8Array): void;

  /** Readiness of a descriptor on this thread's event loop (uv_poll). */
  FdPoll: FdPollConstructor;

  // --- events -----------------------------------------------------------------------------------------------------

  /** A non-blocking, close-on-exec eventfd. */
  eventfdCreate(): number;
  /**
   * Takes an eventfd that another process passed: EINVAL if the descriptor is anything else. It becomes non-blocking, for the other process, too, only
   * if a signal could wait otherwise (`eventfdSignalCannotBlock`).
   */
  eventfdAdopt(fd: number): void;
  /**
   * Hot. Adds 1, and wakes the reader also if the counter is full. 0, or -errno (-EINVAL: no eventfd). Never waits, whatever other processes
   * do with flags and counter, if `eventfdSignalCannotBlock`.
   */
  eventfdSignal(fd: number): number;
  /** False if the kernel has no asynchronous I/O for this thread (io_setup): then a signal is an ordinary write. */
  eventfdSignalCannotBlock(): boolean;
  /** Hot. Reads and clears: the count (up to 2^53 exact), 0 if not signalled, or -errno. Never waits. */
  eventfdRead(fd: number): number;

  // --- io_uring ---------------------------------------------------------------------------------------------------

  /**
   * io_uring_setup and the mapping of its rings. IORING_SETUP_CQSIZE is added if `cqEntries` > 0, the other flags are the
   * caller's. The ring belongs to the calling thread, which closes it with `closeSync(fd)`; the mappings outlive that.
   */
  uringSetup(entries: number, cqEntries: number, flags: number): UringRegion;
  /**
   * Hot. io_uring_enter. `timeoutUs` ≥ 0 bounds the wait (IORING_ENTER_EXT_ARG), < 0 waits without bound; it matters only
   * with `minComplete` > 0, which adds IORING_ENTER_GETEVENTS. SQEs consumed, or -errno (-ETIME: the time passed; -EINTR;
   * -EBUSY; -EAGAIN).
   */
  uringEnter(
    ring: number,
    toSubmit: number,
    minComplete: number,
    flags: number,
    timeoutUs: number,
  ): number;
  /** IORING_REGISTER_FILES (replaces an earlier table). -1 leaves a slot empty. */
  uringRegisterFiles(ring: number, fds: Int32Array): void;
  /** IORING_REGISTER_FILES_UPDATE of one slot of the table; -1 empties it. Operations under way keep the file they began with. */
  uringUpdateFile(ring: number, index: number, fd: number): void;
  /** IORING_REGISTER_BUFFERS: [address, length] pairs. */
  uringRegisterBuffers(ring: number, pairs: Float64Array): void;
  /** IORING_REGISTER_IOWQ_AFF: where the kernel's workers for operations that block may run; by default where the ring's thread may. */
  uringRegisterWorkerCpus(ring: number, cpus: readonly number[]): void;
  /** IORING_REGISTER_IOWQ_MAX_WORKERS: threads of the kernel for operations of this thread's rings that block, of each of its two kinds. */
  uringRegisterMaxWorkers(ring: number, workers: number): void;

  // --- processor ----------------------------------------------------------------------------------------------------

  /** Processors this thread may run on. */
  getAffinity(): number[];
  /** Binds this thread to the given processors. */
  setAffinity(cpus: readonly number[]): void;
  /** Kernel thread id. */
  getTid(): number;
  /** At most 15 bytes. */
  setThreadName(name: string): void;
  /** PR_SET_TIMERSLACK of this thread, in ns. */
  setTimerSlack(ns: number): void;
  /** CLOCK_MONOTONIC in ns. */
  clock(): number;
  /** A hot `clock` that allocates nothing: writes into `times[index]` (0 by default). `times` views a SharedArrayBuffer. */
  bindClock(times: Float64Array): (index?: number) => void;
  /** The same for the processor time of the calling thread (CLOCK_THREAD_CPUTIME_ID). */
  bindThreadClock(times: Float64Array): (index?: number) => void;

  // --- files and block devices ------------------------------------------------------------------------------------------------

  /** Calls on what may wait for ever; for `BlockingCalls`, which bounds how many run at once. */
  readonly blocking: BlockingFunctions;
  /** `blocking.blockDeviceInfo` in place. */
  blockDeviceInfo(fd: number): BlockDeviceInfo;
  /** `blocking.directAlignment` in place. */
  directAlignment(fd: number): DirectAlignment | undefined;
  /** `blocking.fileSystemType` in place. */
  fileSystemType(fd: number): number;
  /** `blocking.lockFile` in place. */
  lockFile(fd: number, exclusive: boolean): boolean;
}

/**
 * Calls that each run on a native thread of their own, apart from libuv's four, so that one that never ends holds up nothing else. Rejects
 * with what the system says; EAGAIN of `pthread_create` if it gives no more threads. Under way they keep the event loop alive, not
 * the process: `process.exit` waits for none. Arguments are copied first, and a call that does not fit throws.
 */
export interface BlockingFunctions {
  /** A descriptor, close-on-exec. `flags` are `fs.constants`, `mode` (of a new file) is subject to the umask. */
  open(path: string, flags: number, mode: number): Promise<number>;
  /** The descriptor is gone whatever comes back: an error tells of earlier writes. */
  close(fd: number): Promise<void>;
  /** One after the other; errors are ignored. For descriptors of others (`DescriptorCloser`). */
  closeAll(fds: readonly number[]): Promise<void>;
  stat(path: string): Promise<FileStatus>;
  /** Of a symbolic link itself. */
  lstat(path: string): Promise<FileStatus>;
  fstat(fd: number): Promise<FileStatus>;
  /** When the file came to be (statx, STATX_BTIME): ns since 1970, 0 if the file system does not know. */
  birth(fd: number): Promise<bigint>;
  /** `mode`: R_OK, W_OK, X_OK of `fs.constants`. */
  access(path: string, mode: number): Promise<void>;
  fsync(fd: number): Promise<void>;
  fdatasync(fd: number): Promise<void>;
  /** What the page cache has of the file, and is not to be written: later reads ask the disk (posix_fadvise, DONTNEED). */
  dropCache(fd: number): Promise<void>;
  ftruncate(fd: number, length: number): Promise<void>;
  /** At most `length` (up to 64 MiB) bytes; fewer at the end of the file. Into memory that O_DIRECT takes. */
  pread(fd: number, length: number, offset: number): Promise<Buffer>;
  /** The bytes written: fewer than given, if the system says so. At most 64 MiB. */
  pwrite(fd: number, data: Uint8Array, offset: number): Promise<number>;
  mkdir(path: string, mode: number): Promise<void>;
  unlink(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** BLKGETSIZE64, BLKSSZGET and BLKPBSZGET. */
  blockDeviceInfo(fd: number): Promise<BlockDeviceInfo>;
  /** statx, STATX_DIOALIGN. Undefined if not told. */
  directAlignment(fd: number): Promise<DirectAlignment | undefined>;
  /** Type of the file system that a file is on (fstatfs, f_type). */
  fileSystemType(fd: number): Promise<number>;
  /** Locks the whole file (F_OFD_SETLK): false if another open file holds a lock that excludes it. It goes with the descriptor. */
  lockFile(fd: number, exclusive: boolean): Promise<boolean>;
  /**
   * A TCP connection to a host, by name or address, and a port in digits: without delays, and with keep-alive, by which a peer whose machine is gone
   * is noticed within some 15 s. All addresses of the name together have `timeoutMs` to answer; looking up the name takes as long as the
   * system likes. The descriptor is non-blocking and close-on-exec. ENOENT or EAGAIN of getaddrinfo if the name is not known, ECONNREFUSED, ETIMEDOUT.
   */
  connectTcp(host: string, port: string, timeoutMs: number): Promise<number>;
  /** The same to a UNIX socket. Waits while the listener's backlog is full. */
  connectUnix(path: string, timeoutMs: number): Promise<number>;
}

export interface FileStatus {
  readonly kind: 'file' | 'block-device' | 'folder' | 'socket' | 'other';
  /** The permissions: 12 bits. */
  readonly mode: number;
  /** Bytes. */
  readonly size: number;
  readonly dev: bigint;
  readonly ino: bigint;
  /** Of the device that it stands for. */
  readonly rdev: bigint;
  readonly uid: number;
  /** What the file system is best written in (st_blksize). Bytes. */
  readonly blockSize: number;
}

/** Bytes. */
export interface BlockDeviceInfo {
  readonly size: number;
  readonly logicalBlockSize: number;
  readonly physicalBlockSize: number;
}

/** What O_DIRECT asks of memory, and of offset and length, in bytes; 0: not supported. */
export interface DirectAlignment {
  readonly memory: number;
  readonly offset: number;
}

/** A UNIX stream socket that another process opened. It stays open until this process ends. */
export interface PassedSocket {
  readonly fd: number;
  /** Or it is connected to a client. */
  readonly listening: boolean;
  /** Its path, '@' and an abstract name, or a name that we gave it. */
  readonly address: string;
}

export interface UringRegion {
  readonly fd: number;
  readonly features: number;
  readonly sqEntries: number;
  readonly cqEntries: number;
  /** SQ and CQ rings (IORING_FEAT_SINGLE_MMAP). */
  readonly rings: SharedArrayBuffer;
  readonly sqes: SharedArrayBuffer;
  /** Byte offsets in `rings`. `sqArray` is 0 with IORING_SETUP_NO_SQARRAY: there is none. */
  readonly sqHead: number;
  readonly sqTail: number;
  readonly sqMask: number;
  readonly sqFlags: number;
  readonly sqDropped: number;
  readonly sqArray: number;
  readonly cqHead: number;
  readonly cqTail: number;
  readonly cqMask: number;
  readonly cqOverflow: number;
  readonly cqes: number;
}

/**
 * Watches one descriptor, level-triggered. It keeps the event loop, and itself, alive while started; `close` may be called
 * from within `onReady`. Only one FdPoll may watch a descriptor on a thread (EEXIST). An error thrown by `onReady` is an
 * uncaught exception.
 */
export interface FdPoll {
  /**
   * Calls `onReady(readable, writable)` each time the descriptor is ready for what is asked. An error counts as both, a
   * hang-up as what is asked. EBADF after `close`.
   */
  start(readable: boolean, writable: boolean): void;
  stop(): void;
  /** Stops and frees. The descriptor stays open and is the caller's to close, after this call. */
  close(): void;
}

export type FdPollConstructor = new (
  fd: number,
  onReady: (readable: boolean, writable: boolean) => void,
) => FdPoll;

/** What the addon's errors carry, like Node's own system errors. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}
