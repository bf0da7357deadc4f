/**
 * A file or a block device as a bdev, made on the main thread. AIO and uring bdevs are this one kind under two names: the
 * reactors do all their I/O through io_uring (`uring.ts`). The file's content and size are never changed here.
 */
import { closeSync, constants, fstatSync, readSync, type Stats, statSync } from 'node:fs';
import { resolve } from 'node:path';
import { PAGE_SIZE } from '../limits.ts';
import { native } from '../native/index.ts';
import { ErrnoError, errnoName, errnoOf, InvalidError, withErrnoDetail } from '../util/errors.ts';
import { Descriptions, openQuietly } from './descriptions.ts';
import { type BdevIdentity, BLOCK_SIZES, checkBlockSize, Disk, type Geometry } from './disk.ts';
import {
  type BdevFile,
  type FailedFile,
  type FailedFiles,
  identifyFile,
  keyOf,
} from './failed-files.ts';
import { lockImage } from './image-lock.ts';
import { syncLost } from './write-back.ts';

export interface FileBdevOptions {
  readonly module: 'aio' | 'uring';
  readonly filename: string;
  /** 512 or 4096. Default: the logical block size of a device, 512 for a file. */
  readonly blockSize?: number | undefined;
  readonly readonly?: boolean | undefined;
  /** O_DIRECT: past the page cache. */
  readonly direct?: boolean | undefined;
  /** A hint that SPDK's AIO bdev knows; shown, and not used. */
  readonly nowait?: boolean | undefined;
}

/** What all file bdevs of a target share. */
export interface FileContext {
  readonly reactors: number;
  readonly failed: FailedFiles;
}

/** The file as it was opened. */
interface OpenFile {
  readonly fd: number;
  readonly flags: number;
  readonly alignment: number;
  readonly geometry: Geometry;
}

export class FileBdev extends Disk {
  readonly module: 'aio' | 'uring';
  readonly productName: string;
  readonly readonly: boolean;
  readonly filename: string;
  readonly direct: boolean;
  readonly nowait: boolean;
  readonly file: BdevFile;
  readonly #options: FileBdevOptions;
  readonly #context: FileContext;
  readonly #alignment: number;
  readonly #unlock: () => void;
  #descriptions: Descriptions;
  #closed = false;

  private constructor(
    identity: BdevIdentity,
    options: FileBdevOptions,
    context: FileContext,
    { fd, flags, alignment, geometry }: OpenFile,
  ) {
    super(identity, geometry);
    const { module, filename, readonly = false, direct = false, nowait = false } = options;
    this.module = module;
    this.productName = module === 'aio' ? 'AIO disk' : 'URING bdev';
    this.readonly = readonly;
    this.filename = filename;
    this.direct = direct;
    this.nowait = nowait;
    this.#options = options;
    this.#context = context;
    this.#alignment = alignment;
    const file = identifyFile(fd, filename);
    this.#unlock = lockImage(fd, keyOf(file), filename, readonly);
    try {
      this.#descriptions = Descriptions.share(fd, flags, context.reactors);
    } catch (error) {
      this.#unlock();
      throw error;
    }
    this.file = context.failed.take(file);
  }

  /** Throws InvalidError, EBUSY if another process has locked the file, or what the system says to `stat` and `open`. */
  static open(identity: BdevIdentity, options: FileBdevOptions, context: FileContext): FileBdev {
    const file = openFile(options);
    try {
      return new FileBdev(identity, options, context, file);
    } catch (error) {
      closeSync(file.fd);
      throw error;
    }
  }

  get backend() {
    const { reactors: fds } = this.#descriptions;
    const { memory: writeBack } = this.file;
    return { kind: 'uring', fds, alignment: this.#alignment, writeBack } as const;
  }

  /** The same for two bdevs of the same file or device, by whatever path. */
  get fileId(): string {
    return this.file.key;
  }

  override get failure(): FailedFile | undefined {
    return this.file.failure;
  }

  get driverSpecific() {
    const { module, filename, readonly, direct, nowait, failure } = this;
    const block_size_override = this.#options.blockSize !== undefined;
    const shown =
      module === 'uring'
        ? { filename, readonly, direct }
        : { filename, block_size_override, readonly, fallocate: false, nowait, direct };
    return { [module]: { ...shown, ...describeWriteBack(failure) } };
  }

  /** The size that the file has now, in blocks. Throws EINVAL if that is none. */
  currentBlocks(): number {
    const { size } = inspect(this.#descriptions.main, this.filename);
    return countBlocks(size, this.blockSize, this.filename);
  }

  async sync(): Promise<void> {
    if (this.readonly || this.#closed) {
      return;
    }
    const { writeBack } = this.file;
    const refuse = (): void => {
      if (writeBack.failed) {
        throw new ErrnoError('EIO', `an earlier write-back of ${this.filename} has failed`);
      }
    };
    refuse();
    try {
      await this.#descriptions.sync();
    } catch (error) {
      const errno = errnoOf(error);
      if (errno !== undefined && syncLost(errno)) {
        writeBack.fail(errno);
      }
      throw error;
    }
    refuse();
  }

  /** For `reopen.ts`. */
  get descriptions(): Descriptions {
    return this.#descriptions;
  }

  /** From now on reactors that open the bdev get these. Gives those before, which reactors still use. */
  replace(descriptions: Descriptions): Descriptions {
    const before = this.#descriptions;
    this.#descriptions = descriptions;
    return before;
  }

  close(): void {
    if (!this.#closed) {
      this.#closed = true;
      this.#descriptions.close(this.#unlock);
      this.#context.failed.give(this.file);
    }
  }
}

/** For `driver_specific`. */
function describeWriteBack(failure: FailedFile | undefined) {
  return failure === undefined
    ? { write_back_failed: false }
    : {
        write_back_failed: true,
        write_back_error: errnoName(failure.errno),
        write_back_failed_at: failure.time,
      };
}

/** What the default UUID of a file is made from: its path, so that a guest finds the same disk after a restart. */
export function fileIdentity(filename: string): string {
  return resolve(filename);
}

function openFile({ filename, blockSize, readonly, direct }: FileBdevOptions): OpenFile {
  const flags =
    (readonly ? constants.O_RDONLY : constants.O_RDWR) | (direct ? constants.O_DIRECT : 0);
  // Before it is opened: opening a FIFO would wait for its other end.
  checkKind(
    attempt(() => statSync(filename), filename),
    filename,
  );
  const fd = attempt(
    () => openQuietly(filename, flags),
    direct ? `${filename} cannot be opened with O_DIRECT` : filename,
  );
  try {
    const { size, logicalBlockSize } = inspect(fd, filename);
    const chosen = chooseBlockSize(blockSize, logicalBlockSize, filename);
    const geometry = { blockSize: chosen, numBlocks: countBlocks(size, chosen, filename) };
    return { fd, flags, alignment: direct ? directAlignment(fd, chosen, filename) : 1, geometry };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function attempt<T>(operation: () => T, detail: string): T {
  try {
    return operation();
  } catch (error) {
    throw withErrnoDetail(error, detail);
  }
}

/** Throws EINVAL for anything but a regular file or block device. */
export function checkKind(stats: Stats, filename: string): void {
  if (!stats.isFile() && !stats.isBlockDevice()) {
    throw new ErrnoError('EINVAL', `${filename} is neither a regular file nor a block device`);
  }
}

/** All in bytes. */
function inspect(fd: number, filename: string): { size: number; logicalBlockSize: number } {
  const stats = fstatSync(fd);
  checkKind(stats, filename);
  if (stats.isFile()) {
    return { size: stats.size, logicalBlockSize: BLOCK_SIZES[0] };
  }
  return attempt(() => native.blockDeviceInfo(fd), filename);
}

/**
 * What O_DIRECT asks of buffers. Of offsets and lengths it must not ask for more than a block: there is no other way to such blocks that
 * agrees with O_DIRECT (see `bounce.ts`).
 */
function directAlignment(fd: number, blockSize: number, filename: string): number {
  const { memory, offset } = askDirect(fd, filename);
  if (offset > blockSize) {
    throw new InvalidError(
      `key 'block_size' must be ${offset} or 'direct' false: O_DIRECT takes no smaller blocks of ${filename}`,
    );
  }
  return Math.max(memory, offset);
}

function askDirect(fd: number, filename: string): { memory: number; offset: number } {
  const told = attempt(() => native.directAlignment(fd), filename);
  if (told !== undefined && told.offset > 0) {
    return told;
  }
  if (fstatSync(fd).isBlockDevice()) {
    const { logicalBlockSize } = native.blockDeviceInfo(fd);
    return { memory: logicalBlockSize, offset: logicalBlockSize };
  }
  // Before Linux 6.1, and where a file system does not say: what a read gets away with.
  const page = new Uint8Array(native.mapAnonymous(PAGE_SIZE));
  let [offset]: readonly number[] = BLOCK_SIZES;
  while (offset < PAGE_SIZE && !canRead(fd, page.subarray(0, offset), offset)) {
    offset *= 2;
  }
  return { memory: PAGE_SIZE, offset };
}

function canRead(fd: number, buffer: Uint8Array, offset: number): boolean {
  try {
    readSync(fd, buffer, 0, buffer.length, offset);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'EINVAL';
  }
}

function chooseBlockSize(wanted: number | undefined, logical: number, filename: string): number {
  const blockSize = wanted ?? logical;
  checkBlockSize(blockSize);
  if (blockSize < logical) {
    throw new InvalidError(
      `key 'block_size' must not be less than the ${logical} bytes of ${filename}'s own blocks`,
    );
  }
  return blockSize;
}

function countBlocks(size: number, blockSize: number, filename: string): number {
  const numBlocks = Math.floor(size / blockSize);
  if (numBlocks < 1) {
    throw new ErrnoError('EINVAL', `${filename} is shorter than one block of ${blockSize} bytes`);
  }
  return numBlocks;
}
