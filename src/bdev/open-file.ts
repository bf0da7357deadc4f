/**
 * Opening the file or block device of a bdev, and what can be asked of it. Its file system may never answer: each call waits for it in a
 * thread of the bdev's own.
 */
import { constants } from 'node:fs';
import { PAGE_SIZE } from '../limits.ts';
import type { BlockingCalls } from '../native/blocking-calls.ts';
import { statExisting } from '../native/paths.ts';
import type { FileStatus } from '../native/types.ts';
import { ErrnoError, InvalidError, withErrnoDetail } from '../util/errors.ts';
import { BLOCK_SIZES, checkBlockSize, type Geometry } from './disk.ts';
import { type FileIdentity, identifyFile } from './failed-files.ts';

export interface OpenOptions {
  readonly filename: string;
  /** 512 or 4096. Default: the logical block size of a device, 512 for a file. */
  readonly blockSize?: number | undefined;
  readonly readonly?: boolean | undefined;
  /** O_DIRECT: past the page cache. */
  readonly direct?: boolean | undefined;
}

export interface OpenFile {
  readonly fd: number;
  /** That it was opened with. */
  readonly flags: number;
  readonly identity: FileIdentity;
  /** What it asks of buffers, a power of two: 1 when buffered. Bytes. */
  readonly alignment: number;
  /** Its file system may wait for somebody in the middle of any call. */
  readonly mayBlock: boolean;
  readonly geometry: Geometry;
  /** See BdevHints. */
  readonly granularity: number;
}

/** Bytes. */
const MAX_GRANULARITY = 64 * 1024;

/** Rejects with InvalidError, or with what the system says to `stat` and `open`. */
export async function openFile(
  calls: BlockingCalls,
  { filename, blockSize, readonly, direct }: OpenOptions,
): Promise<OpenFile> {
  // Before it is opened: opening a FIFO would wait for its other end.
  checkKind(await statExisting(calls, filename), filename);
  const flags =
    (readonly ? constants.O_RDONLY : constants.O_RDWR) | (direct ? constants.O_DIRECT : 0);
  const fd = await attempt(
    openQuietly(calls, filename, flags),
    direct ? `${filename} cannot be opened with O_DIRECT` : filename,
  );
  try {
    const { status, size, logicalBlockSize, ...inspected } = await inspect(calls, fd, filename);
    const chosen = chooseBlockSize(blockSize, logicalBlockSize, filename);
    const geometry = { blockSize: chosen, numBlocks: countBlocks(size, chosen, filename) };
    const alignment = direct ? await directAlignment(calls, fd, chosen, filename) : 1;
    const identity = identifyFile(status, await calls.run('birth', fd), filename);
    const mayBlock = status.kind === 'file' && !(await isLocal(calls, fd));
    const granularity = Math.max(chosen, saneGranularity(inspected.granularity));
    return { fd, flags, identity, alignment, mayBlock, geometry, granularity };
  } catch (error) {
    await calls.run('close', fd).catch(() => {});
    throw error;
  }
}

/**
 * File systems of which a call waits for this machine's own disks at worst, by f_type: ext2 to ext4, XFS, Btrfs, F2FS, tmpfs, ramfs, ZFS,
 * bcachefs. Any other may wait for a server, in the middle of any call, for as long as that likes.
 */
const LOCAL_FILE_SYSTEMS = [
  0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994, 0x8584_58f6, 0x2fc1_2fc1, 0xca45_1a4e,
];

async function isLocal(calls: BlockingCalls, fd: number): Promise<boolean> {
  try {
    return LOCAL_FILE_SYSTEMS.includes(await calls.run('fileSystemType', fd));
  } catch {
    // The kernel's own would have told.
    return false;
  }
}

/** Without access times, which cost every read some work; only the file's owner and root may ask for that. */
export async function openQuietly(
  calls: BlockingCalls,
  filename: string,
  flags: number,
): Promise<number> {
  try {
    return await calls.run('open', filename, flags | constants.O_NOATIME, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') {
      throw error;
    }
    return calls.run('open', filename, flags, 0);
  }
}

async function attempt<T>(operation: Promise<T>, detail: string): Promise<T> {
  try {
    return await operation;
  } catch (error) {
    throw withErrnoDetail(error, detail);
  }
}

/** Throws EINVAL for anything but a regular file or block device. */
export function checkKind({ kind }: FileStatus, filename: string): void {
  if (kind !== 'file' && kind !== 'block-device') {
    throw new ErrnoError('EINVAL', `${filename} is neither a regular file nor a block device`);
  }
}

/** All in bytes. */
async function inspect(calls: BlockingCalls, fd: number, filename: string) {
  const status = await calls.run('fstat', fd);
  checkKind(status, filename);
  if (status.kind === 'file') {
    const { size, blockSize: granularity } = status;
    return { status, size, logicalBlockSize: BLOCK_SIZES[0], granularity };
  }
  const { size, logicalBlockSize, physicalBlockSize } = await attempt(
    calls.run('blockDeviceInfo', fd),
    filename,
  );
  return { status, size, logicalBlockSize, granularity: physicalBlockSize };
}

/** What a file system says is best is not always a power of two, or of use to a guest. Bytes. */
function saneGranularity(told: number): number {
  const isPower = told > 0 && (told & (told - 1)) === 0;
  return isPower ? Math.min(told, MAX_GRANULARITY) : PAGE_SIZE;
}

/** The size that an open file has now, in whole blocks. Rejects with EINVAL if that is none. */
export async function currentBlocks(
  calls: BlockingCalls,
  fd: number,
  blockSize: number,
  filename: string,
): Promise<number> {
  const { size } = await inspect(calls, fd, filename);
  return countBlocks(size, blockSize, filename);
}

/**
 * What O_DIRECT asks of buffers. Of offsets and lengths it must not ask for more than a block: there is no other way to such blocks that
 * agrees with O_DIRECT (see `bounce.ts`).
 */
async function directAlignment(
  calls: BlockingCalls,
  fd: number,
  blockSize: number,
  filename: string,
): Promise<number> {
  const { memory, offset } = await askDirect(calls, fd, filename);
  if (offset > blockSize) {
    throw new InvalidError(
      `key 'block_size' must be ${offset} or 'direct' false: O_DIRECT takes no smaller blocks of ${filename}`,
    );
  }
  return Math.max(memory, offset);
}

async function askDirect(
  calls: BlockingCalls,
  fd: number,
  filename: string,
): Promise<{ memory: number; offset: number }> {
  const told = await attempt(calls.run('directAlignment', fd), filename);
  if (told !== undefined && told.offset > 0) {
    return told;
  }
  if ((await calls.run('fstat', fd)).kind === 'block-device') {
    const { logicalBlockSize } = await calls.run('blockDeviceInfo', fd);
    return { memory: logicalBlockSize, offset: logicalBlockSize };
  }
  // Before Linux 6.1, and where a file system does not say: what a read gets away with.
  let [offset]: readonly number[] = BLOCK_SIZES;
  while (offset < PAGE_SIZE && !(await canRead(calls, fd, offset))) {
    offset *= 2;
  }
  return { memory: PAGE_SIZE, offset };
}

async function canRead(calls: BlockingCalls, fd: number, offset: number): Promise<boolean> {
  try {
    await calls.run('pread', fd, offset, offset);
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
