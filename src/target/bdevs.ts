/** The bdevs of the target: how they come to be, and their indices. Who has which name and uses which is in the model. Owned by main. */
import { MallocBdev, NullBdev } from '../bdev/create.ts';
import type { Latencies } from '../bdev/delay.ts';
import type { BdevIdentity, Disk, Geometry } from '../bdev/disk.ts';
import { FileBdev, type FileBdevOptions, type FileContext } from '../bdev/file.ts';
import { DelayBdev, ErrorBdev, type WrapperDisk } from '../bdev/wrapper.ts';
import { MAX_BDEVS } from '../limits.ts';
import { ErrnoError } from '../util/errors.ts';
import { randomUuid, uuidFromName } from '../util/uuid.ts';
import { planOfBdev } from './bdev-plan.ts';
import { Making } from './making.ts';
import { uuidOfFile } from './model/bdevs.ts';
import type { Model } from './model/model.ts';

/** What the operator may choose of a bdev's identity. */
export interface BdevNaming {
  readonly name: string;
  readonly uuid?: string | undefined;
}

interface Waiter {
  readonly name: string;
  readonly resolve: (bdev: Disk | undefined) => void;
}

export class Bdevs {
  readonly #files: FileContext;
  readonly #model: Model;
  /** In the order of creation. */
  readonly #byName = new Map<string, Disk>();
  readonly #indices = new Set<number>();
  readonly #making = new Set<Making>();
  /** Being deleted: nobody gets them any more. */
  readonly #leaving = new Set<Disk>();
  readonly #waiters = new Set<Waiter>();

  constructor(files: FileContext, model: Model) {
    this.#files = files;
    this.#model = model;
  }

  /** In the order of creation. */
  list(): readonly Disk[] {
    return [...this.#byName.values()];
  }

  /** By name or alias (the UUID). */
  find(name: string): Disk | undefined {
    return this.#byName.get(this.#model.names.find(name) ?? '');
  }

  /** Throws ENODEV. */
  get(name: string): Disk {
    const bdev = this.find(name);
    if (bdev === undefined) {
      throw new ErrnoError('ENODEV', `there is no bdev '${name}'`);
    }
    return bdev;
  }

  /** Throws InvalidError, EEXIST, ENOSPC; the other two as well, and what the system says. */
  createNull(naming: BdevNaming, geometry: Geometry): Disk {
    return this.#add(naming, randomUuid(), (identity) => new NullBdev(identity, geometry));
  }

  /** Without a name it is the next of Malloc0, Malloc1, … */
  createMalloc(naming: Partial<BdevNaming>, geometry: Geometry): Disk {
    const name = naming.name ?? this.#model.names.nextMalloc();
    return this.#add(
      { ...naming, name },
      randomUuid(),
      (identity) => new MallocBdev(identity, geometry),
    );
  }

  /**
   * EBUSY if the file is written by another bdev past the page cache, and not by this one. Without a UUID it gets one that the file's path
   * (or, if the file is served already, its path and the name) always has. Lasts as long as the file system takes to open the file; who
   * asks for the name or the UUID meanwhile is told that it is taken. ECANCELED if it was deleted before it was there.
   */
  async createFile(naming: BdevNaming, options: FileBdevOptions): Promise<Disk> {
    const isFree = (uuid: string) => !this.#model.names.isHeld(uuid);
    const uuid = uuidOfFile(options.filename, naming.name, isFree);
    const identity = this.#reserve(naming, uuid);
    const making = new Making(identity, options.module);
    this.#making.add(making);
    const opening = FileBdev.open(identity, options, this.#files);
    try {
      const bdev = await making.opened(opening);
      this.#checkFile(bdev);
      this.#register(bdev);
      return bdev;
    } catch (error) {
      // A file system that never answers keeps its index for ever: there is an end to how many files are asked for at once.
      const free = () => this.#indices.delete(identity.index);
      opening.then(free, free);
      this.#giveUp(making);
      throw error;
    } finally {
      this.#making.delete(making);
      making.end();
    }
  }

  /** See `Model.checkFile`. A bdev that cannot stay is closed. */
  #checkFile(bdev: FileBdev): void {
    try {
      this.#model.checkFile(planOfBdev(bdev), bdev.fileId);
    } catch (error) {
      void bdev.close();
      throw error;
    }
  }

  #makingOf(name: string): Making | undefined {
    const alias = name.toLowerCase();
    return [...this.#making].find(
      ({ identity }) => identity.name === name || identity.uuid === alias,
    );
  }

  /** If a bdev of that name is being made: resolves when it is there, or will never be. */
  making(name: string): Promise<void> | undefined {
    return this.#makingOf(name)?.over;
  }

  /** Gives up making a bdev. False if none of that name and module is being made. */
  cancel(name: string, module: Disk['module']): boolean {
    const making = this.#makingOf(name);
    if (making?.module !== module) {
      return false;
    }
    this.#giveUp(making);
    making.cancel(
      new ErrnoError('ECANCELED', `bdev '${making.identity.name}' was deleted before it was there`),
    );
    return true;
  }

  /** Its name is free. */
  #giveUp(making: Making): void {
    if (this.#making.delete(making)) {
      this.#model.names.release(making.identity.name);
    }
  }

  /** Gives up making any. */
  cancelAll(): void {
    for (const making of [...this.#making]) {
      making.cancel(new ErrnoError('ECANCELED', 'the target is shutting down'));
    }
  }

  /** All bdevs on the file of this one. */
  sharing({ file }: FileBdev): readonly FileBdev[] {
    return this.list()
      .filter((bdev) => bdev instanceof FileBdev)
      .filter((bdev) => bdev.file === file);
  }

  /** On top of a bdev that nobody uses. Throws ENODEV, EPERM, EEXIST, InvalidError. */
  createDelay(naming: BdevNaming, baseName: string, latencies: Latencies): Disk {
    return this.#wrap(naming, baseName, (id, base) => new DelayBdev(id, base, latencies));
  }

  /** The same; its name is `EE_` and that of the base, as SPDK has it. */
  createError(baseName: string, uuid?: string): Disk {
    const name = `EE_${this.get(baseName).name}`;
    return this.#wrap({ name, uuid }, baseName, (id, base) => new ErrorBdev(id, base));
  }

  #wrap(
    naming: BdevNaming,
    baseName: string,
    make: (identity: BdevIdentity, base: Disk) => WrapperDisk,
  ): Disk {
    const base = this.get(baseName);
    this.#checkStays(base);
    this.#model.checkBase(base.name, naming.name);
    const uuid = uuidFromName(`${base.uuid}\0${naming.name}`);
    const bdev = this.#add(naming, uuid, (identity) => make(identity, base));
    this.#model.claims.add(base.name, { bdev: bdev.name });
    return bdev;
  }

  /** Makes a bdev under a free index. If `make` throws, nothing is kept. */
  #add(naming: BdevNaming, defaultUuid: string, make: (identity: BdevIdentity) => Disk): Disk {
    const identity = this.#reserve(naming, defaultUuid);
    let bdev: Disk;
    try {
      bdev = make(identity);
    } catch (error) {
      this.#indices.delete(identity.index);
      this.#model.names.release(identity.name);
      throw error;
    }
    this.#register(bdev);
    return bdev;
  }

  /** Takes an index, if nobody has the name or the UUID. */
  #reserve(naming: BdevNaming, defaultUuid: string): BdevIdentity {
    const { name } = naming;
    const uuid = naming.uuid?.toLowerCase() ?? defaultUuid;
    const index = this.#freeIndex();
    this.#model.names.hold(name, uuid);
    this.#indices.add(index);
    return { index, name, uuid };
  }

  #register(bdev: Disk): void {
    this.#byName.set(bdev.name, bdev);
    this.#model.names.made(bdev.name);
    this.changed(bdev);
    for (const waiter of this.#waiters) {
      if (this.find(waiter.name) === bdev) {
        waiter.resolve(bdev);
      }
    }
  }

  /** It is otherwise than the model has it. */
  changed(bdev: Disk): void {
    if (this.has(bdev)) {
      this.#model.record(planOfBdev(bdev), bdev instanceof FileBdev ? bdev.fileId : undefined);
    }
  }

  /** From now on nobody can begin to use it. */
  leave(bdev: Disk): void {
    this.#leaving.add(bdev);
  }

  /** It could not be deleted. */
  stay(bdev: Disk): void {
    this.#leaving.delete(bdev);
  }

  /** The bdev of that name, if it is being deleted. */
  leavingOf(name: string): Disk | undefined {
    const bdev = this.find(name);
    return bdev !== undefined && this.#leaving.has(bdev) ? bdev : undefined;
  }

  isLeaving(bdev: Disk): boolean {
    return this.#leaving.has(bdev);
  }

  #checkStays(bdev: Disk): void {
    if (this.isLeaving(bdev)) {
      throw new ErrnoError('EBUSY', `bdev '${bdev.name}' is being deleted`);
    }
  }

  /** It is still there. */
  has(bdev: Disk): boolean {
    return this.#byName.get(bdev.name) === bdev;
  }

  /** Forgets a bdev that nobody uses, and frees what it holds: resolves when that is done. */
  async remove(bdev: Disk): Promise<void> {
    if (!this.has(bdev)) {
      return;
    }
    this.#leaving.delete(bdev);
    this.#byName.delete(bdev.name);
    this.#model.forgetBdev(bdev.name);
    this.#indices.delete(bdev.index);
    await bdev.close();
  }

  /** NQN of the subsystem that uses it. */
  claimOf(bdev: Disk): string | undefined {
    return this.has(bdev) ? this.#model.claims.subsystemOf(bdev.name) : undefined;
  }

  /** The same, also if another bdev is between. */
  userOf(bdev: Disk): string | undefined {
    const wrapper = this.wrapperOf(bdev);
    return wrapper === undefined ? this.claimOf(bdev) : this.userOf(wrapper);
  }

  /** The bdev on top of it. */
  wrapperOf(bdev: Disk): Disk | undefined {
    return this.has(bdev)
      ? this.#byName.get(this.#model.claims.wrapperOf(bdev.name) ?? '')
      : undefined;
  }

  /** Whoever uses it, in words. */
  ownerOf(bdev: Disk): string | undefined {
    return this.has(bdev) ? this.#model.claims.ownerOf(bdev.name) : undefined;
  }

  /** Nothing uses it any more. */
  release(bdev: Disk): void {
    if (this.has(bdev)) {
      this.#model.claims.release(bdev.name);
    }
  }

  /** The bdev of that name as soon as there is one, or `undefined` after `timeoutMs`. */
  waitFor(name: string, timeoutMs: number): Promise<Disk | undefined> {
    const found = this.find(name);
    if (found !== undefined || timeoutMs === 0) {
      return Promise.resolve(found);
    }
    return new Promise((resolve) => {
      const waiter = {
        name,
        resolve: (bdev: Disk | undefined) => {
          clearTimeout(timer);
          this.#waiters.delete(waiter);
          resolve(bdev);
        },
      };
      const timer = setTimeout(() => waiter.resolve(undefined), timeoutMs);
      this.#waiters.add(waiter);
    });
  }

  /** Ends all waiting. */
  stopWaiting(): void {
    for (const waiter of this.#waiters) {
      waiter.resolve(undefined);
    }
  }

  #freeIndex(): number {
    for (let index = 0; index < MAX_BDEVS; index++) {
      if (!this.#indices.has(index)) {
        return index;
      }
    }
    throw new ErrnoError('ENOSPC', `there are ${MAX_BDEVS} bdevs`);
  }
}
