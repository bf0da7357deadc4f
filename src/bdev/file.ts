/**
 * A file or a block device as a bdev, made on the main thread. AIO and uring bdevs are this one kind under two names: the
 * reactors do all their I/O through io_uring (`uring.ts`). The file's content and size are never changed here.
 */
import { resolve } from 'node:path';
import { BlockingCalls } from '../native/blocking-calls.ts';
import { ErrnoError, errnoName, errnoOf } from '../util/errors.ts';
import type { BackendDescriptor, BdevHints } from './bdev.ts';
import { Descriptions } from './descriptions.ts';
import { type BdevIdentity, Disk } from './disk.ts';
import { type BdevFile, type FailedFile, type FailedFiles, keyOf } from './failed-files.ts';
import { lockImage, type Unlock } from './image-lock.ts';
import { currentBlocks, type OpenFile, type OpenOptions, openFile } from './open-file.ts';
import type { UncorrectableFiles } from './uncorrectable-files.ts';
import type { UncorrectableRanges } from './uncorrectable-ranges.ts';
import { syncLost } from './write-back.ts';

/** What a reactor needs to do I/O on a file. */
export interface FileDescriptor extends BackendDescriptor {
  readonly kind: 'uring';
  /** By reactor: an open file description for each (`descriptions.ts`). */
  readonly fds: readonly number[];
  /** What they ask of buffers, a power of two: 1 when buffered. Bytes. */
  readonly alignment: number;
  /** See `write-back.ts`. */
  readonly writeBack: SharedArrayBuffer;
  /** Its file system may wait for somebody in the middle of any call: FUSE, NFS and the like. */
  readonly mayBlock: boolean;
  /** Data goes through the reactor's own buffers, so that an operation that hangs can be left to itself. */
  readonly ownBuffers: boolean;
}

export interface FileBdevOptions extends OpenOptions {
  readonly module: 'aio' | 'uring';
  /** A hint that SPDK's AIO bdev knows; shown, and not used. */
  readonly nowait?: boolean | undefined;
}

/** What all file bdevs of a target share. */
export interface FileContext {
  readonly reactors: number;
  readonly failed: FailedFiles;
  readonly uncorrectable: UncorrectableFiles;
}

/** All that a bdev has open. */
interface Opened {
  readonly calls: BlockingCalls;
  readonly file: OpenFile;
  readonly unlock: Unlock;
  readonly descriptions: Descriptions;
}

export class FileBdev extends Disk {
  readonly module: 'aio' | 'uring';
  readonly productName: string;
  readonly readonly: boolean;
  readonly filename: string;
  readonly direct: boolean;
  readonly nowait: boolean;
  readonly file: BdevFile;
  readonly #uncorrectable: UncorrectableRanges;
  readonly #options: FileBdevOptions;
  readonly #context: FileContext;
  readonly #alignment: number;
  readonly #mayBlock: boolean;
  /** See FileDescriptor. */
  readonly ownBuffers: boolean;
  readonly hints: BdevHints;
  readonly #calls: BlockingCalls;
  readonly #unlock: Unlock;
  #descriptions: Descriptions;
  #closing: Promise<void> | undefined;

  private constructor(
    identity: BdevIdentity,
    options: FileBdevOptions,
    context: FileContext,
    { calls, file, unlock, descriptions }: Opened,
  ) {
    super(identity, file.geometry);
    const { module, filename, readonly = false, direct = false, nowait = false } = options;
    this.module = module;
    this.productName = module === 'aio' ? 'AIO disk' : 'URING bdev';
    this.readonly = readonly;
    this.filename = filename;
    this.direct = direct;
    this.nowait = nowait;
    this.#options = options;
    this.#context = context;
    this.#alignment = file.alignment;
    this.#mayBlock = file.mayBlock;
    this.ownBuffers = file.mayBlock;
    // Holes read as zeroes, and there is no other way that blocks are discarded.
    this.hints = { granularity: file.granularity, readsZeroes: true };
    this.#calls = calls;
    this.#unlock = unlock;
    this.#descriptions = descriptions;
    this.file = context.failed.take(file.identity);
    this.#uncorrectable = context.uncorrectable.take(file.identity);
  }

  /**
   * Rejects with InvalidError, EBUSY if another process has locked the file, or what the system says to `stat` and `open`. Lasts as long as
   * the file system likes.
   */
  static async open(
    identity: BdevIdentity,
    options: FileBdevOptions,
    context: FileContext,
  ): Promise<FileBdev> {
    const calls = new BlockingCalls();
    const { filename, readonly = false } = options;
    const file = await openFile(calls, options);
    const { fd, flags } = file;
    let unlock: Unlock | undefined;
    let descriptions: Descriptions | undefined;
    try {
      unlock = await lockImage(calls, fd, keyOf(file.identity), filename, readonly);
      descriptions = await Descriptions.share(calls, fd, flags, context.reactors);
      return new FileBdev(identity, options, context, { calls, file, unlock, descriptions });
    } catch (error) {
      await (descriptions?.close() ?? calls.run('close', fd).catch(() => {}));
      await unlock?.();
      throw error;
    }
  }

  get backend(): FileDescriptor {
    const { reactors: fds } = this.#descriptions;
    const { memory: writeBack } = this.file;
    return {
      kind: 'uring',
      fds,
      alignment: this.#alignment,
      mayBlock: this.#mayBlock,
      ownBuffers: this.ownBuffers,
      writeBack,
    };
  }

  override get fileId(): string {
    return this.file.key;
  }

  override get failure(): FailedFile | undefined {
    return this.file.failure;
  }

  override get uncorrectable(): UncorrectableRanges {
    return this.#uncorrectable;
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

  /** The size that the file has now, in blocks. Rejects with EINVAL if that is none. */
  currentBlocks(): Promise<number> {
    return currentBlocks(this.#calls, this.#descriptions.main, this.blockSize, this.filename);
  }

  async sync(): Promise<void> {
    if (this.readonly || this.#closing !== undefined) {
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
    this.renew();
    return before;
  }

  /** Resolves when the file is closed and unlocked, after the syncs under way. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#descriptions.close();
    this.#context.failed.give(this.file);
    this.#context.uncorrectable.give(this.file.identity);
    await this.#unlock();
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
