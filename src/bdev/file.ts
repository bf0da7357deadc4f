/**
 * A file or a block device as a bdev, made on the main thread. AIO and uring bdevs are this one kind under two names: the
 * reactors do all their I/O through io_uring (`uring.ts`). The file's content and size are never changed here.
 */
import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  openSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { PAGE_SIZE } from '../limits.ts';
import { native } from '../native/index.ts';
import { ErrnoError, InvalidError, withErrnoDetail } from '../util/errors.ts';
import { type BdevIdentity, BLOCK_SIZES, checkBlockSize, Disk, type Geometry } from './disk.ts';
import { lockImage } from './image-lock.ts';

const fdatasyncAsync = promisify(fdatasync);

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

/** The file as it was opened. */
interface OpenFile {
  readonly fd: number;
  readonly alignment: number;
  readonly geometry: Geometry;
}

export class FileBdev extends Disk {
  readonly module: 'aio' | 'uring';
  readonly productName: string;
  readonly readonly: boolean;
  readonly backend: {
    readonly kind: 'uring';
    readonly fd: number;
    readonly alignment: number;
  };
  readonly driverSpecific: Readonly<Record<string, unknown>>;
  readonly filename: string;
  readonly direct: boolean;
  readonly nowait: boolean;
  /** The same for two bdevs of the same file or device, by whatever path. */
  readonly fileId: string;
  readonly #unlock: () => void;
  #closed = false;
  /** Under way in other threads: the descriptor must not become another file's meanwhile. */
  #syncs = 0;

  private constructor(identity: BdevIdentity, options: FileBdevOptions, file: OpenFile) {
    super(identity, file.geometry);
    const { module, filename, readonly = false, direct = false, nowait = false } = options;
    const { fd, alignment } = file;
    this.module = module;
    this.productName = module === 'aio' ? 'AIO disk' : 'URING bdev';
    this.readonly = readonly;
    this.filename = filename;
    this.direct = direct;
    this.nowait = nowait;
    this.fileId = identify(fd);
    this.#unlock = lockImage(fd, this.fileId, filename, readonly);
    this.backend = { kind: 'uring', fd, alignment };
    this.driverSpecific =
      module === 'uring'
        ? { uring: { filename, readonly, direct } }
        : {
            aio: {
              filename,
              block_size_override: options.blockSize !== undefined,
              readonly,
              fallocate: false,
              nowait,
              direct,
            },
          };
  }

  /** Throws InvalidError, EBUSY if another process has locked the file, or what the system says to `stat` and `open`. */
  static open(identity: BdevIdentity, options: FileBdevOptions): FileBdev {
    const file = openFile(options);
    try {
      return new FileBdev(identity, options, file);
    } catch (error) {
      closeSync(file.fd);
      throw error;
    }
  }

  /** The size that the file has now, in blocks. Throws EINVAL if that is none. */
  currentBlocks(): number {
    const { size } = inspect(this.backend.fd, this.filename);
    return countBlocks(size, this.blockSize, this.filename);
  }

  async sync(): Promise<void> {
    if (!this.readonly && !this.#closed) {
      this.#syncs += 1;
      try {
        await fdatasyncAsync(this.backend.fd);
      } finally {
        this.#syncs -= 1;
        this.#closeIfUnused();
      }
    }
  }

  #closeIfUnused(): void {
    if (this.#closed && this.#syncs === 0) {
      closeSync(this.backend.fd);
      this.#unlock();
    }
  }

  close(): void {
    if (!this.#closed) {
      this.#closed = true;
      this.#closeIfUnused();
    }
  }
}

/** What the default UUID of a file is made from: its path, so that a guest finds the same disk after a restart. */
export function fileIdentity(filename: string): string {
  return resolve(filename);
}

function openFile({ filename, blockSize, readonly, direct }: FileBdevOptions): OpenFile {
  const access = readonly ? constants.O_RDONLY : constants.O_RDWR;
  // Before it is opened: opening a FIFO would wait for its other end.
  checkKind(
    attempt(() => statSync(filename), filename),
    filename,
  );
  const fd = direct
    ? attempt(
        () => openQuietly(filename, access | constants.O_DIRECT),
        `${filename} cannot be opened with O_DIRECT`,
      )
    : attempt(() => openQuietly(filename, access), filename);
  try {
    const { size, logicalBlockSize } = inspect(fd, filename);
    const chosen = chooseBlockSize(blockSize, logicalBlockSize, filename);
    const geometry = { blockSize: chosen, numBlocks: countBlocks(size, chosen, filename) };
    return { fd, alignment: direct ? directAlignment(fd, chosen, filename) : 1, geometry };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Without access times, which cost every read some work; only the file's owner and root may ask for that. */
function openQuietly(filename: string, flags: number): number {
  try {
    return openSync(filename, flags | constants.O_NOATIME);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') {
      throw error;
    }
    return openSync(filename, flags);
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

function identify(fd: number): string {
  const stats = fstatSync(fd, { bigint: true });
  return stats.isFile() ? `file ${stats.dev}:${stats.ino}` : `device ${stats.rdev}`;
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
