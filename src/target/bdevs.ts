/** The bdevs of the target: how they come to be, and their indices. Who has which name and uses which is in the model. Owned by main. */
import type { BdevIdentity, Disk } from '../bdev/disk.ts';
import { FileBdev, type FileContext } from '../bdev/file.ts';
import type { BdevKind, BdevParams, NoticeSink } from '../bdev/kind.ts';
import { makingMethod } from '../bdev/kind-rules.ts';
import { MAX_BDEVS } from '../limits.ts';
import { ErrnoError } from '../util/errors.ts';
import { randomUuid, uuidFromName } from '../util/uuid.ts';
import { planOfBdev } from './bdev-plan.ts';
import { Making } from './making.ts';
import { nameOf, uuidOf } from './model/bdevs.ts';
import type { Model } from './model/model.ts';

interface Waiter {
  readonly name: string;
  readonly resolve: (bdev: Disk | undefined) => void;
}

export class Bdevs {
  readonly #files: FileContext;
  readonly #model: Model;
  readonly #notice: NoticeSink;
  /** In the order of creation. */
  readonly #byName = new Map<string, Disk>();
  readonly #indices = new Set<number>();
  readonly #making = new Set<Making>();
  /** Being deleted: nobody gets them any more. */
  readonly #leaving = new Set<Disk>();
  /** Deleted, and something of them may be open yet. */
  readonly #closing = new Set<Disk>();
  readonly #waiters = new Set<Waiter>();

  constructor(files: FileContext, model: Model, notice: NoticeSink) {
    this.#files = files;
    this.#notice = notice;
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

  /**
   * Makes a bdev by the parameters of its kind's method. Without a UUID it gets one that is always the same for the same file (or, if that
   * is served already, the same file and name), and for the same bdev below and name; else one made at random. Lasts as long as a file system
   * takes to open its file; who asks for the name or the UUID meanwhile is told that it is taken. Rejects with InvalidError, ENODEV, EPERM,
   * EEXIST, ENOSPC, EBUSY for a file that another bdev writes another way, what the system says, ECANCELED if it was deleted before it was
   * there.
   */
  async create(kind: BdevKind, params: BdevParams): Promise<Disk> {
    const base = kind.base === undefined ? undefined : this.get(String(params[kind.base]));
    const given = nameOf(makingMethod(kind), params, base?.name);
    const name = given ?? this.#model.names.nextMalloc();
    if (base !== undefined) {
      this.#checkStays(base);
      this.#model.checkBase(base.name, name);
    }
    const identity = this.#reserve(name, this.#uuid(params, name, base));
    const register = (bdev: Disk): Disk => {
      this.#checkFile(bdev);
      this.#register(bdev);
      if (base !== undefined) {
        this.#model.claims.add(base.name, { bdev: bdev.name });
      }
      return bdev;
    };
    let made: Disk | Promise<Disk>;
    try {
      made = kind.create(identity, params, { files: this.#files, base, notice: this.#notice });
    } catch (error) {
      this.#indices.delete(identity.index);
      this.#model.names.release(identity.name);
      throw error;
    }
    // What is there at once is known at once: the next request may be about it.
    return made instanceof Promise ? this.#await(identity, kind, made, register) : register(made);
  }

  /** Something takes its time to be made, or never is. */
  async #await(
    identity: BdevIdentity,
    { name }: BdevKind,
    opening: Promise<Disk>,
    register: (bdev: Disk) => Disk,
  ): Promise<Disk> {
    const making = new Making(identity, name);
    this.#making.add(making);
    try {
      return register(await making.opened(opening));
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

  #uuid(params: BdevParams, name: string, base: Disk | undefined): string {
    if (typeof params.uuid === 'string') {
      return params.uuid.toLowerCase();
    }
    return (
      uuidOf(params, name, (wanted) => !this.#model.names.isHeld(wanted)) ??
      (base === undefined ? randomUuid() : uuidFromName(`${base.uuid}\0${name}`))
    );
  }

  /** See `Model.checkFile`. A bdev that cannot stay is closed. */
  #checkFile(bdev: Disk): void {
    if (bdev.fileId === undefined) {
      return;
    }
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

  /** Takes an index, if nobody has the name or the UUID. */
  #reserve(name: string, uuid: string): BdevIdentity {
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
      this.#model.record(planOfBdev(bdev), bdev.fileId);
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
    this.#closing.add(bdev);
    await bdev.close();
    this.#closing.delete(bdev);
  }

  /** A reactor has died: nothing waits for what it had open. To be called before its successor is told of any bdev. */
  reactorDied(reactor: number): void {
    for (const bdev of [...this.#byName.values(), ...this.#closing]) {
      bdev.reactorDied(reactor);
    }
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
