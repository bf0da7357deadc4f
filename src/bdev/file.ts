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
  type Stats,
  statSync,
} from 'node:fs';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { PAGE_SIZE } from '../limits.ts';
import { native } from '../native/index.ts';
import { ErrnoError, InvalidError, withErrnoDetail } from '../util/errors.ts';
import { type BdevIdentity, BLOCK_SIZES, checkBlockSize, Disk, type Geometry } from './disk.ts';

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
  readonly bufferedFd: number;
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
    readonly bufferedFd: number;
    readonly alignment: number;
  };
  readonly driverSpecific: Readonly<Record<string, unknown>>;
  readonly filename: string;
  readonly direct: boolean;
  readonly nowait: boolean;
  #closed = false;
  /** Under way in other threads: the descriptor must not become another file's meanwhile. */
  #syncs = 0;

  private constructor(identity: BdevIdentity, options: FileBdevOptions, file: OpenFile) {
    super(identity, file.geometry);
    const { module, filename, readonly = false, direct = false, nowait = false } = options;
    const { fd, bufferedFd, alignment } = file;
    this.module = module;
    this.productName = module === 'aio' ? 'AIO disk' : 'URING bdev';
    this.readonly = readonly;
    this.filename = filename;
    this.direct = direct;
    this.nowait = nowait;
    this.backend = { kind: 'uring', fd, bufferedFd, alignment };
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

  /** Throws InvalidError, or what the system says to `stat` and `open`. */
  static open(identity: BdevIdentity, options: FileBdevOptions): FileBdev {
    const file = openFile(options);
    try {
      return new FileBdev(identity, options, file);
    } catch (error) {
      closeFile(file);
      throw error;
    }
  }

  /** The size that the file has now, in blocks. Throws EINVAL if that is none. */
  currentBlocks(): number {
    const { size } = inspect(this.backend.bufferedFd, this.filename);
    return countBlocks(size, this.blockSize, this.filename);
  }

  async sync(): Promise<void> {
    if (!this.readonly && !this.#closed) {
      this.#syncs += 1;
      try {
        await fdatasyncAsync(this.backend.bufferedFd);
      } finally {
        this.#syncs -= 1;
        this.#closeIfUnused();
      }
    }
  }

  #closeIfUnused(): void {
    if (this.#closed && this.#syncs === 0) {
      closeFile(this.backend);
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
  const bufferedFd = attempt(() => openQuietly(filename, access), filename);
  try {
    const { size, logicalBlockSize, directAlignment } = inspect(bufferedFd, filename);
    const chosen = chooseBlockSize(blockSize, logicalBlockSize, filename);
    const geometry = { blockSize: chosen, numBlocks: countBlocks(size, chosen, filename) };
    if (!direct) {
      return { fd: bufferedFd, bufferedFd, alignment: 1, geometry };
    }
    const fd = attempt(
      () => openQuietly(filename, access | constants.O_DIRECT),
      `${filename} cannot be opened with O_DIRECT`,
    );
    return { fd, bufferedFd, alignment: directAlignment, geometry };
  } catch (error) {
    closeSync(bufferedFd);
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

function closeFile({ fd, bufferedFd }: { readonly fd: number; readonly bufferedFd: number }): void {
  closeSync(bufferedFd);
  if (fd !== bufferedFd) {
    closeSync(fd);
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

/** All in bytes. What a file system asks of O_DIRECT is not known, and never more than a page. */
function inspect(
  fd: number,
  filename: string,
): { size: number; logicalBlockSize: number; directAlignment: number } {
  const stats = fstatSync(fd);
  checkKind(stats, filename);
  if (stats.isFile()) {
    return { size: stats.size, logicalBlockSize: BLOCK_SIZES[0], directAlignment: PAGE_SIZE };
  }
  const { size, logicalBlockSize } = attempt(() => native.blockDeviceInfo(fd), filename);
  return { size, logicalBlockSize, directAlignment: logicalBlockSize };
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
