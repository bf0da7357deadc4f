/**
 * Whether the write-back of a file has failed: a word of memory that main and all reactors share, one for each file. Whoever sees a
 * failure writes it there; a Flush, and a write with FUA, looks when it starts and again when it has ended. Linux marks the pages of a
 * failed write-back clean and tells each open file description only once, so that the next fdatasync succeeds though data is gone.
 */
const EPERM = 1;
const EINTR = 4;
const EBADF = 9;
const EAGAIN = 11;
const ENOMEM = 12;
const EFAULT = 14;
const EINVAL = 22;
const EFBIG = 27;
const EROFS = 30;
const ECANCELED = 125;

/** Index of the word: 0, or the errno of the first failure. Written once, by whoever is first. */
const ERRNO = 0;
/** Syncs that reactors which have died left under way. */
const LEFT = 1;
const WORDS = 2;

/** `errno`: of a failure that is known already. */
export function makeWriteBack(errno = 0): SharedArrayBuffer {
  const memory = new SharedArrayBuffer(WORDS * Int32Array.BYTES_PER_ELEMENT);
  new Int32Array(memory)[ERRNO] = errno;
  return memory;
}

export class WriteBack {
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.#words = new Int32Array(memory);
  }

  /** Hot. What was completed may not be on stable storage, and never will. */
  get failed(): boolean {
    return Atomics.load(this.#words, ERRNO) !== 0;
  }

  /**
   * A reactor has died, and its sync goes on. The next reactor of that place has the same open file: until the sync has ended, one of the
   * next may have succeeded only because the dead one's is told of the failure.
   */
  leaveSync(): void {
    Atomics.add(this.#words, LEFT, 1);
  }

  /** It has ended, and `fail` was called if it told of a failure. */
  leftSyncEnded(): void {
    Atomics.sub(this.#words, LEFT, 1);
  }

  /** Hot. Whether there is such a sync. To be asked before `failed`. */
  get syncsLeft(): boolean {
    return Atomics.load(this.#words, LEFT) > 0;
  }

  /** Of the first failure, or 0. */
  get errno(): number {
    return Atomics.load(this.#words, ERRNO);
  }

  /** Somebody was told of a failure. For ever: a file that is opened again has another word. */
  fail(errno: number): void {
    if (Atomics.compareExchange(this.#words, ERRNO, 0, errno) === 0) {
      Atomics.notify(this.#words, ERRNO);
    }
  }

  /** Resolves after a failure, or when `forget` is called. On main only. */
  async wait(): Promise<void> {
    await Atomics.waitAsync(this.#words, ERRNO, 0).value;
  }

  /** Ends all waiting. */
  forget(): void {
    Atomics.notify(this.#words, ERRNO);
  }
}

/** Whether this errno of a sync says that data is lost. The others say that there was none, and that another try may do. */
export function syncLost(errno: number): boolean {
  return errno !== EINTR && errno !== EAGAIN && errno !== ECANCELED;
}

/**
 * Whether this errno of a write with RWF_DSYNC may be that of its sync. It does not tell the two apart, so everything counts but what
 * can only come before.
 */
export function writeLost(errno: number): boolean {
  switch (errno) {
    case EPERM:
    case EBADF:
    case ENOMEM:
    case EFAULT:
    case EINVAL:
    case EFBIG:
    case EROFS:
      return false;
    default:
      return syncLost(errno);
  }
}
