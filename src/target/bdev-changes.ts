/**
 * Changes of bdevs: each in the order of its bdev, then of the one on top of it, then of the subsystem that uses that, whose guests are told.
 * Owned by main.
 */
import type { Latency } from '../bdev/delay.ts';
import type { Disk } from '../bdev/disk.ts';
import type { FailedFile, FailedFiles } from '../bdev/failed-files.ts';
import { FileBdev } from '../bdev/file.ts';
import type { BdevKind, BdevNotice, BdevParams } from '../bdev/kind.ts';
import type { RateLimits } from '../bdev/limiter.ts';
import { NbdBdev } from '../bdev/nbd/bdev.ts';
import { reopenFile } from '../bdev/reopen.ts';
import type { DelayBdev } from '../bdev/wrapper.ts';
import { describeError, ErrnoError, errnoName, strerror } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { patiently } from '../util/patience.ts';
import type { Parts } from './parts.ts';
import type { Reactors } from './reactors.ts';
import type { SubsystemChanges } from './subsystem-changes.ts';

const MIB = 1024 * 1024;
/** How long the close of a bdev's file is waited for. Milliseconds. */
const CLOSE_MS = 1000;

interface Context {
  readonly parts: Parts;
  readonly users: SubsystemChanges;
  readonly reactors: Reactors;
  readonly failedFiles: FailedFiles;
  readonly log: Logger;
}

export class BdevChanges {
  readonly #parts: Parts;
  readonly #users: SubsystemChanges;
  readonly #reactors: Reactors;
  readonly #failedFiles: FailedFiles;
  readonly #log: Logger;

  constructor({ parts, users, reactors, failedFiles, log }: Context) {
    this.#parts = parts;
    this.#users = users;
    this.#reactors = reactors;
    this.#failedFiles = failedFiles;
    this.#log = log;
  }

  // --- making and deleting ----------------------------------------------------------------------------------------

  async create(kind: BdevKind, params: BdevParams): Promise<Disk> {
    const { bdevs } = this.#parts;
    const making = kind.base === undefined ? undefined : bdevs.making(String(params[kind.base]));
    if (making !== undefined) {
      await making;
    }
    const name = typeof params.name === 'string' ? params.name : undefined;
    return this.#create(name, () => bdevs.create(kind, params));
  }

  async #create(name: string | undefined, make: () => Promise<Disk>): Promise<Disk> {
    const { bdevs, changes, events } = this.#parts;
    const leaving = name === undefined ? undefined : bdevs.leavingOf(name);
    if (leaving !== undefined) {
      await changes.orders.settled(leaving);
    }
    return changes.run(async () => {
      const bdev = await make();
      const { numBlocks: blocks, blockSize } = bdev;
      this.#log.info({ bdev: bdev.name, blocks, blockSize }, 'bdev created');
      events.emit({ type: 'bdev-created', bdev: bdev.name });
      if (bdev instanceof FileBdev && bdev.failure !== undefined) {
        this.#tellFailure(bdev, bdev.failure);
      }
      return bdev;
    });
  }

  async delete(name: string, module: Disk['module']): Promise<void> {
    const { bdevs, changes } = this.#parts;
    changes.check();
    if (!bdevs.cancel(name, module)) {
      const bdev = this.#bdevOf(name, module);
      bdevs.leave(bdev);
      await this.#run(bdev, () => this.#delete(bdev));
    }
  }

  /** In the bdev's order. */
  async #delete(bdev: Disk): Promise<void> {
    const { bdevs, changes, events } = this.#parts;
    bdevs.leave(bdev);
    try {
      const wrapper = bdevs.wrapperOf(bdev);
      if (wrapper !== undefined) {
        await changes.orders.run(wrapper, () => this.#delete(wrapper));
      }
      await this.#users.abandon(bdev);
    } catch (error) {
      bdevs.stay(bdev);
      throw error;
    }
    if (bdevs.has(bdev)) {
      const closing = bdevs.remove(bdev);
      this.#reactors.forgetBdev(bdev.index);
      this.#log.info({ bdev: bdev.name }, 'bdev deleted');
      events.emit({ type: 'bdev-deleted', bdev: bdev.name });
      await this.closed(bdev, closing);
    }
  }

  /** Its file is closed; or its file system does not answer: that is nobody's concern any more. */
  async closed({ name }: Disk, closing: Promise<void>): Promise<void> {
    const words = 'its file is not closed yet: the file system does not answer';
    await patiently(closing, CLOSE_MS, words).catch((error: unknown) =>
      this.#log.warn({ bdev: name, reason: describeError(error) }, 'gone'),
    );
  }

  /** Something has happened to a bdev by itself. */
  notice(notice: BdevNotice): void {
    if (notice.type === 'grown') {
      this.#grow(notice.bdev, notice.numBlocks);
      return;
    }
    const { type, bdev, message = '' } = notice;
    if (type === 'write-back-failed') {
      this.#log.error({ bdev, reason: message }, 'data that was written may be lost');
      this.#parts.events.emit({ type, bdev, message });
    } else if (type === 'bdev-connected') {
      this.#log.info({ bdev }, 'connected again');
      this.#parts.events.emit({ type, bdev });
    } else {
      const words = type === 'error' ? 'its server is not reached' : 'its server is lost';
      this.#log.warn({ bdev, reason: message }, words);
      this.#parts.events.emit({ type, bdev, message });
    }
  }

  #grow(name: string, numBlocks: number): void {
    const bdev = this.#parts.bdevs.find(name);
    if (bdev === undefined) {
      return;
    }
    this.#run(bdev, () => this.#resize(bdev, numBlocks)).catch((error: unknown) =>
      this.#log.warn({ bdev: name, reason: describeError(error) }, 'not resized'),
    );
  }

  // --- files ------------------------------------------------------------------------------------------------------

  /** Tells of it for each bdev on the file. */
  writeBackFailed(failure: FailedFile): void {
    for (const bdev of this.#parts.bdevs.list()) {
      if (bdev instanceof FileBdev && bdev.failure === failure) {
        this.#tellFailure(bdev, failure);
      }
    }
  }

  #tellFailure({ name }: FileBdev, { errno, path, time }: FailedFile): void {
    const reason = errnoName(errno);
    this.#log.error(
      { bdev: name, path, reason, since: time },
      'write-back failed: data that was written is lost; no flush succeeds until the bdev is reopened',
    );
    const message = `write-back to ${path} failed: ${reason} (${strerror(errno)}); no flush succeeds until the bdev is reopened`;
    this.#parts.events.emit({ type: 'write-back-failed', bdev: name, message });
  }

  async reopen(name: string, module: 'aio' | 'uring'): Promise<void> {
    const bdev = this.#bdevOf(name, module);
    if (bdev instanceof FileBdev) {
      await this.#parts.changes.runFor(bdev.file, () => this.#reopen(bdev));
    }
  }

  async #reopen(bdev: FileBdev): Promise<void> {
    const { bdevs, events } = this.#parts;
    if (!bdevs.has(bdev)) {
      throw new ErrnoError('ENODEV', `bdev '${bdev.name}' was deleted`);
    }
    const before = await reopenFile(bdevs.sharing(bdev), this.#failedFiles);
    // Also those that were made meanwhile: reactors may know them as failed.
    for (const each of bdevs.sharing(bdev)) {
      await this.#renew(each);
      this.#log.info({ bdev: each.name }, 'bdev reopened');
      events.emit({ type: 'bdev-reopened', bdev: each.name });
    }
    // Unless one could not be renewed: then a reactor may still use them.
    const closing = Promise.all(before.map((descriptions) => descriptions.close()));
    await this.closed(
      bdev,
      closing.then(() => {}),
    );
  }

  /** Flushes of an NBD bdev may succeed again. */
  reopenNbd(name: string): Promise<void> {
    return this.#run(this.#bdevOf(name, 'nbd'), async (bdev) => {
      if (bdev instanceof NbdBdev) {
        await bdev.reopen();
        this.#log.info({ bdev: bdev.name }, 'bdev reopened');
        this.#parts.events.emit({ type: 'bdev-reopened', bdev: bdev.name });
      }
    });
  }

  /** To reactors and guests it is the namespace anew. */
  async #renew(bdev: Disk): Promise<void> {
    await this.#users.tellUser(bdev, (endpoint, each) => endpoint.addNamespace(each));
    const wrapper = this.#parts.bdevs.wrapperOf(bdev);
    if (wrapper !== undefined) {
      await this.#renew(wrapper);
    }
  }

  // --- size, limits, latencies ------------------------------------------------------------------------------------

  async rescan(name: string, module: 'aio' | 'uring' | 'nbd', force: boolean): Promise<void> {
    const making = this.#parts.bdevs.making(name);
    if (making !== undefined) {
      await making;
    }
    const bdev = this.#bdevOf(name, module);
    if (bdev instanceof FileBdev || bdev instanceof NbdBdev) {
      // Not in the bdev's order: where the file system, or the server, does not answer, the bdev can be deleted all the same.
      const blocks = await bdev.currentBlocks();
      await this.#run(bdev, () => {
        this.#checkShrink(bdev, blocks, force);
        return this.#resize(bdev, blocks);
      });
    }
  }

  async resizeNull(name: string, mebibytes: number, force: boolean): Promise<void> {
    await this.#run(this.#bdevOf(name, 'null'), (bdev) => {
      const blocks = Math.floor((mebibytes * MIB) / bdev.blockSize);
      this.#checkShrink(bdev, blocks, force);
      return this.#resize(bdev, blocks);
    });
  }

  /** A guest that uses the end of a disk would lose it. */
  #checkShrink(bdev: Disk, numBlocks: number, force: boolean): void {
    if (numBlocks < bdev.numBlocks && !force && this.#parts.bdevs.userOf(bdev) !== undefined) {
      throw new ErrnoError(
        'EBUSY',
        `bdev '${bdev.name}' has ${bdev.numBlocks} blocks, is in use, and would have ${numBlocks}: 'force' shrinks it all the same`,
      );
    }
  }

  /** In the bdev's order. */
  async #resize(bdev: Disk, numBlocks: number): Promise<void> {
    const { bdevs, changes, events } = this.#parts;
    if (numBlocks === bdev.numBlocks) {
      return;
    }
    bdev.setNumBlocks(numBlocks);
    bdevs.changed(bdev);
    // To reactors and guests it is the namespace anew, in its new size.
    const used = await this.#users.tellUser(bdev, (endpoint, each) => endpoint.addNamespace(each));
    if (used !== undefined) {
      events.emit({ type: 'namespace-resized', ...used, bdev: bdev.name });
    }
    const wrapper = bdevs.wrapperOf(bdev);
    if (wrapper !== undefined) {
      await changes.orders.run(wrapper, () => this.#resize(wrapper, numBlocks));
    }
  }

  async limit(name: string, limits: Partial<RateLimits>): Promise<void> {
    const { model, bdevs } = this.#parts;
    const making = bdevs.making(name);
    if (making !== undefined) {
      await making;
    }
    await this.#run(bdevs.get(name), async (bdev) => {
      model.checkLimited(bdev.name);
      const isNew = bdev.setRateLimits({ ...bdev.rateLimits, ...limits });
      bdevs.changed(bdev);
      if (isNew) {
        await this.#users.tellUser(bdev, (endpoint, { nsid }) =>
          endpoint.limitNamespace(nsid, bdev.limits),
        );
      }
    });
  }

  setLatency(bdev: DelayBdev, latency: Latency, us: number): Promise<void> {
    const { bdevs, changes } = this.#parts;
    return changes.run(() => {
      bdev.setLatency(latency, us);
      bdevs.changed(bdev);
    });
  }

  #bdevOf(name: string, module: Disk['module']): Disk {
    const bdev = this.#parts.bdevs.get(name);
    if (bdev.module !== module) {
      throw new ErrnoError('ENODEV', `bdev '${name}' is no ${module} bdev but ${bdev.module}`);
    }
    return bdev;
  }

  /** Runs a change in a bdev's order. Rejects with ENODEV if it was deleted before its turn. */
  #run(bdev: Disk, change: (bdev: Disk) => Promise<void> | void): Promise<void> {
    return this.#parts.changes.runFor(bdev, () => {
      if (!this.#parts.bdevs.has(bdev)) {
        throw new ErrnoError('ENODEV', `bdev '${bdev.name}' was deleted`);
      }
      return change(bdev);
    });
  }
}
