/**
 * The target: bdevs, the vfio-user transport, subsystems and their listeners. What the RPC methods and the command line
 * call. Changes of one subsystem, or of one bdev, run one after the other (`orders.ts`). Owned by main.
 */
import { isAbsolute, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Latencies, Latency } from '../bdev/delay.ts';
import type { Disk, Geometry } from '../bdev/disk.ts';
import { type FailedFile, FailedFiles } from '../bdev/failed-files.ts';
import { FileBdev, type FileBdevOptions } from '../bdev/file.ts';
import type { RateLimits } from '../bdev/limiter.ts';
import { reopenFile } from '../bdev/reopen.ts';
import type { Tally } from '../bdev/tally.ts';
import type { DelayBdev } from '../bdev/wrapper.ts';
import { statPath } from '../native/paths.ts';
import {
  describeError,
  ErrnoError,
  errnoName,
  FailedError,
  InvalidError,
  strerror,
  withErrnoDetail,
} from '../util/errors.ts';
import { componentLogger, type Logger } from '../util/log.ts';
import { patiently } from '../util/patience.ts';
import { checkSocketPath } from '../util/socket-path.ts';
import { type BdevNaming, Bdevs } from './bdevs.ts';
import { TargetEvents } from './events.ts';
import { DISCOVERY_NQN } from './nqn.ts';
import { Orders } from './orders.ts';
import { type Schedulable, Scheduler, type SchedulerOptions } from './scheduler.ts';
import {
  type ListenAddress,
  type Listener,
  MAX_LISTENERS,
  type NamespaceOptions,
  SOCKET_NAME,
  Subsystem,
  type SubsystemOptions,
  type TargetNamespace,
} from './subsystem.ts';
import type { EndpointView, SubsystemView, TransportOptions } from './types.ts';

export const DEFAULT_MAX_SUBSYSTEMS = 1024;
const MIB = 1024 * 1024;
/** At the end: how long a VM may take to go before the disks are made durable that it has. Milliseconds. */
const FLUSH_ANYWAY_MS = 2000;
/** How long the close of a bdev's file is waited for. Milliseconds. */
const CLOSE_MS = 1000;

/** What the target needs of the reactors. */
export interface Reactors {
  readonly count: number;
  /** Processor of each reactor. */
  readonly cores: readonly number[];
  /** What a reactor did on a bdev since the statistics were last reset; and ever. */
  iostat(bdevIndex: number, reactor: number): Tally;
  bdevTally(bdevIndex: number, reactor: number): Tally;
  resetIostat(bdevIndex: number, what: 'all' | 'error' | 'maxmin'): void;
  /** The bdev is gone: its index may be another's next. */
  forgetBdev(bdevIndex: number): void;
  state(reactor: number): ReactorState;
  /** Controllers that there were, with those that there are. */
  readonly controllersSeen: number;
  /** Has every reactor write down how far its queues are. Resolves when they have, or soon in any case. */
  report(): Promise<void>;
  /** `listener` is told of each reactor that dies. */
  onLost(listener: (reactor: number, message: string) => void): void;
}

/** What a reactor tells of itself. Counted since it started; a dead one's successor starts anew. */
export interface ReactorState {
  readonly alive: boolean;
  /** Time with and without work, in ns. */
  readonly busy: number;
  readonly idle: number;
  /** Times it went to sleep in the kernel. */
  readonly sleeps: number;
  /** Eventfds it signalled: interrupts of guests. */
  readonly interrupts: number;
  /** Of its thread, in the kernel; 0 if it is dead. */
  readonly tid: number;
  /** I/O queue pairs made there, those of dead threads too. */
  readonly queuePairs: number;
}

export interface TargetOptions {
  readonly log: Logger;
  readonly reactors: Reactors;
  /** Its own folder for reports; none: where temporary files go. */
  readonly reportFolder?: string | undefined;
  /** Listens at a socket, and serves the subsystem to the client that connects. Rejects with a system error. */
  readonly listen: (options: {
    readonly subsystem: SubsystemView;
    readonly transport: TransportOptions;
    readonly socketPath: string;
    /** Where to tell what happens to the client. */
    readonly events: TargetEvents;
  }) => Promise<EndpointView>;
}

export interface Transport {
  readonly options: TransportOptions;
  /** What nvmf_get_transports shows. */
  readonly report: Readonly<Record<string, unknown>>;
}

export class Target {
  readonly reactors: Reactors;
  /** See TargetOptions. */
  readonly reportFolder: string | undefined;
  /** Files of bdevs, now or earlier, whose write-back has failed. */
  readonly failedFiles = new FailedFiles((failure) => this.#writeBackFailed(failure));
  readonly bdevs: Bdevs;
  readonly events: TargetEvents;
  readonly #scheduler: Scheduler;
  readonly #log: Logger;
  readonly #bdevLog: Logger;
  readonly #listen: TargetOptions['listen'];
  readonly #orders = new Orders();
  readonly #subsystems = new Map<string, Subsystem>();
  /** Sockets that are being made. */
  readonly #sockets = new Set<string>();
  #transport: Transport | undefined;
  #maxSubsystems = DEFAULT_MAX_SUBSYSTEMS;
  #revision = 0;
  #closing: Promise<void> | undefined;

  constructor(options: TargetOptions) {
    this.#log = componentLogger(options.log, 'target');
    this.#bdevLog = componentLogger(options.log, 'bdev');
    this.reactors = options.reactors;
    this.reportFolder = options.reportFolder;
    this.#listen = options.listen;
    this.bdevs = new Bdevs({ reactors: this.reactors.count, failed: this.failedFiles });
    this.events = new TargetEvents(options.log);
    this.#scheduler = new Scheduler(
      this.reactors,
      () => this.#schedulable(),
      componentLogger(options.log, 'reactor'),
    );
    this.reactors.onLost((reactor, message) => {
      this.events.emit({ type: 'reactor-lost', reactor, message });
    });
  }

  /** Counts what may have changed the configuration: the same number, the same configuration. */
  get revision(): number {
    return this.#revision;
  }

  /** nvmf_set_max_subsystems. */
  get maxSubsystems(): number {
    return this.#maxSubsystems;
  }

  set maxSubsystems(count: number) {
    this.#maxSubsystems = count;
    this.#revision += 1;
  }

  /** framework_set_scheduler. */
  get scheduler(): SchedulerOptions {
    return this.#scheduler.options;
  }

  set scheduler(options: SchedulerOptions) {
    this.#scheduler.options = options;
    this.#revision += 1;
  }

  get transport(): Transport | undefined {
    return this.#transport;
  }

  /** In the order of creation. */
  get subsystems(): readonly Subsystem[] {
    return [...this.#subsystems.values()];
  }

  findSubsystem(nqn: string): Subsystem | undefined {
    return this.#subsystems.get(nqn);
  }

  /** Throws InvalidError, as all methods of SPDK but one do. */
  subsystem(nqn: string): Subsystem {
    const subsystem = this.#subsystems.get(nqn);
    if (subsystem === undefined) {
      throw new InvalidError(
        nqn === DISCOVERY_NQN
          ? `key 'nqn': the discovery subsystem has nothing to configure`
          : `key 'nqn': there is no subsystem ${nqn}`,
      );
    }
    return subsystem;
  }

  // --- bdevs ----------------------------------------------------------------------------------------------------

  createNull(naming: BdevNaming, geometry: Geometry): Promise<Disk> {
    return this.#create(naming.name, () => this.bdevs.createNull(naming, geometry));
  }

  createMalloc(naming: Partial<BdevNaming>, geometry: Geometry): Promise<Disk> {
    return this.#create(naming.name, () => this.bdevs.createMalloc(naming, geometry));
  }

  createFile(naming: BdevNaming, options: FileBdevOptions): Promise<Disk> {
    return this.#create(naming.name, () => this.bdevs.createFile(naming, options));
  }

  /** Rejects with ENODEV without the base, EPERM if that is in use. */
  async createDelay(naming: BdevNaming, baseName: string, latencies: Latencies): Promise<Disk> {
    const making = this.bdevs.making(baseName);
    if (making !== undefined) {
      await making;
    }
    return this.#create(naming.name, () => this.bdevs.createDelay(naming, baseName, latencies));
  }

  /** The same. */
  async createError(baseName: string, uuid?: string): Promise<Disk> {
    const making = this.bdevs.making(baseName);
    if (making !== undefined) {
      await making;
    }
    return this.#create(undefined, () => this.bdevs.createError(baseName, uuid));
  }

  async #create(name: string | undefined, make: () => Promise<Disk> | Disk): Promise<Disk> {
    const leaving = name === undefined ? undefined : this.bdevs.leavingOf(name);
    if (leaving !== undefined) {
      await this.#orders.settled(leaving);
    }
    return this.#change(async () => {
      const bdev = await make();
      this.#bdevLog.info(
        { bdev: bdev.name, blocks: bdev.numBlocks, blockSize: bdev.blockSize },
        'bdev created',
      );
      this.events.emit({ type: 'bdev-created', bdev: bdev.name });
      if (bdev instanceof FileBdev && bdev.failure !== undefined) {
        this.#tellFailure(bdev, bdev.failure);
      }
      return bdev;
    });
  }

  #writeBackFailed(failure: FailedFile): void {
    for (const bdev of this.bdevs.list()) {
      if (bdev instanceof FileBdev && bdev.failure === failure) {
        this.#tellFailure(bdev, failure);
      }
    }
  }

  #tellFailure({ name }: FileBdev, { errno, path, time }: FailedFile): void {
    const reason = errnoName(errno);
    this.#bdevLog.error(
      { bdev: name, path, reason, since: time },
      'write-back failed: data that was written is lost; no flush succeeds until the bdev is reopened',
    );
    const message = `write-back to ${path} failed: ${reason} (${strerror(errno)}); no flush succeeds until the bdev is reopened`;
    this.events.emit({ type: 'write-back-failed', bdev: name, message });
  }

  /**
   * Removes its namespace, and the bdev on top of it, first; one whose file is still being opened is given up. Rejects with ENODEV if there
   * is no such bdev of that module.
   */
  async deleteBdev(name: string, module: Disk['module']): Promise<void> {
    this.#checkOpen();
    if (!this.bdevs.cancel(name, module)) {
      const bdev = this.#bdevOf(name, module);
      this.bdevs.leave(bdev);
      await this.#changeBdev(bdev, () => this.#delete(bdev));
    }
  }

  /** In the bdev's order. */
  async #delete(bdev: Disk): Promise<void> {
    this.bdevs.leave(bdev);
    try {
      const wrapper = this.bdevs.wrapperOf(bdev);
      if (wrapper !== undefined) {
        await this.#orders.run(wrapper, () => this.#delete(wrapper));
      }
      await this.#abandon(bdev);
    } catch (error) {
      this.bdevs.stay(bdev);
      throw error;
    }
    if (this.bdevs.has(bdev)) {
      const closing = this.bdevs.remove(bdev);
      this.reactors.forgetBdev(bdev.index);
      this.#bdevLog.info({ bdev: bdev.name }, 'bdev deleted');
      this.events.emit({ type: 'bdev-deleted', bdev: bdev.name });
      await this.#closed(bdev, closing);
    }
  }

  /**
   * Opens the file of a bdev again, for all bdevs on it, after its write-back failed. Rejects with what the system says to opening and
   * syncing it; then nothing was changed.
   */
  async reopen(name: string, module: 'aio' | 'uring'): Promise<void> {
    const bdev = this.#bdevOf(name, module);
    if (bdev instanceof FileBdev) {
      await this.#orders.run(bdev.file, () => this.#change(() => this.#reopen(bdev)));
    }
  }

  async #reopen(bdev: FileBdev): Promise<void> {
    if (!this.bdevs.has(bdev)) {
      throw new ErrnoError('ENODEV', `bdev '${bdev.name}' was deleted`);
    }
    const before = await reopenFile(this.bdevs.sharing(bdev), this.failedFiles);
    // Also those that were made meanwhile: reactors may know them as failed.
    for (const each of this.bdevs.sharing(bdev)) {
      await this.#renew(each);
      this.#bdevLog.info({ bdev: each.name }, 'bdev reopened');
      this.events.emit({ type: 'bdev-reopened', bdev: each.name });
    }
    // Unless one could not be renewed: then a reactor may still use them.
    const closing = Promise.all(before.map((descriptions) => descriptions.close()));
    await this.#closed(
      bdev,
      closing.then(() => {}),
    );
  }

  /** To reactors and guests it is the namespace anew. */
  async #renew(bdev: Disk): Promise<void> {
    await this.#tellUser(bdev, (endpoint, each) => endpoint.addNamespace(each));
    const wrapper = this.bdevs.wrapperOf(bdev);
    if (wrapper !== undefined) {
      await this.#renew(wrapper);
    }
  }

  /**
   * Takes over the size that the file has now. Guests that use it are told. Rejects with EBUSY if it is in use and would shrink, unless
   * forced.
   */
  async rescan(name: string, module: 'aio' | 'uring', force = false): Promise<void> {
    const making = this.bdevs.making(name);
    if (making !== undefined) {
      await making;
    }
    const bdev = this.#bdevOf(name, module);
    if (bdev instanceof FileBdev) {
      // Not in the bdev's order: where the file system does not answer, the bdev can be deleted all the same.
      const blocks = await bdev.currentBlocks();
      await this.#changeBdev(bdev, () => {
        this.#checkShrink(bdev, blocks, force);
        return this.#resize(bdev, blocks);
      });
    }
  }

  /** `mebibytes`: the new size. The same. */
  async resizeNull(name: string, mebibytes: number, force = false): Promise<void> {
    await this.#changeBdev(this.#bdevOf(name, 'null'), (bdev) => {
      const blocks = Math.floor((mebibytes * MIB) / bdev.blockSize);
      this.#checkShrink(bdev, blocks, force);
      return this.#resize(bdev, blocks);
    });
  }

  /** A guest that uses the end of a disk would lose it. */
  #checkShrink(bdev: Disk, numBlocks: number, force: boolean): void {
    if (numBlocks < bdev.numBlocks && !force && this.bdevs.userOf(bdev) !== undefined) {
      throw new ErrnoError(
        'EBUSY',
        `bdev '${bdev.name}' has ${bdev.numBlocks} blocks, is in use, and would have ${numBlocks}: 'force' shrinks it all the same`,
      );
    }
  }

  /** Changes the rate limits that are given; 0: no limit. Rejects with ENODEV, or EPERM if another bdev is on top. */
  async limit(name: string, limits: Partial<RateLimits>): Promise<void> {
    const making = this.bdevs.making(name);
    if (making !== undefined) {
      await making;
    }
    await this.#changeBdev(this.bdevs.get(name), async (bdev) => {
      const wrapper = this.bdevs.wrapperOf(bdev);
      if (wrapper !== undefined) {
        throw new ErrnoError(
          'EPERM',
          `bdev '${wrapper.name}' is on top of it, and can have rate limits`,
        );
      }
      if (bdev.setRateLimits({ ...bdev.rateLimits, ...limits })) {
        await this.#tellUser(bdev, (endpoint, { nsid }) =>
          endpoint.limitNamespace(nsid, bdev.limits),
        );
      }
    });
  }

  /** Microseconds, for the commands that end from now on. */
  setLatency(bdev: DelayBdev, latency: Latency, us: number): Promise<void> {
    return this.#change(() => bdev.setLatency(latency, us));
  }

  #bdevOf(name: string, module: Disk['module']): Disk {
    const bdev = this.bdevs.get(name);
    if (bdev.module !== module) {
      throw new ErrnoError('ENODEV', `bdev '${name}' is no ${module} bdev but ${bdev.module}`);
    }
    return bdev;
  }

  /** Runs a change in a bdev's order. Rejects with ENODEV if it was deleted before its turn. */
  #changeBdev(bdev: Disk, change: (bdev: Disk) => Promise<void> | void): Promise<void> {
    return this.#orders.run(bdev, () =>
      this.#change(() => {
        if (!this.bdevs.has(bdev)) {
          throw new ErrnoError('ENODEV', `bdev '${bdev.name}' was deleted`);
        }
        return change(bdev);
      }),
    );
  }

  /** In the bdev's order. */
  async #resize(bdev: Disk, numBlocks: number): Promise<void> {
    if (numBlocks === bdev.numBlocks) {
      return;
    }
    bdev.setNumBlocks(numBlocks);
    // To reactors and guests it is the namespace anew, in its new size.
    const used = await this.#tellUser(bdev, (endpoint, each) => endpoint.addNamespace(each));
    if (used !== undefined) {
      this.events.emit({ type: 'namespace-resized', ...used, bdev: bdev.name });
    }
    const wrapper = this.bdevs.wrapperOf(bdev);
    if (wrapper !== undefined) {
      await this.#orders.run(wrapper, () => this.#resize(wrapper, numBlocks));
    }
  }

  /** Calls the endpoints of the subsystem that uses a bdev, in its order. Resolves with the namespace that it is there, if any. */
  async #tellUser(
    bdev: Disk,
    operation: (endpoint: EndpointView, namespace: TargetNamespace) => Promise<void>,
  ): Promise<{ readonly nqn: string; readonly nsid: number } | undefined> {
    const owner = this.#subsystems.get(this.bdevs.claimOf(bdev) ?? '');
    if (owner === undefined) {
      return undefined;
    }
    return this.#orders.run(owner, async () => {
      const namespace = owner.namespaceOf(bdev);
      if (namespace === undefined) {
        return undefined;
      }
      await everyEndpoint(owner, (endpoint) => operation(endpoint, namespace));
      return { nqn: owner.nqn, nsid: namespace.nsid };
    });
  }

  /** Removes the namespace that uses a bdev. */
  async #abandon(bdev: Disk): Promise<void> {
    const owner = this.#subsystems.get(this.bdevs.claimOf(bdev) ?? '');
    if (owner !== undefined) {
      await this.#orders.run(owner, async () => {
        const namespace = owner.namespaceOf(bdev);
        if (namespace !== undefined) {
          await this.#dropNamespace(owner, namespace.nsid);
        }
      });
    }
    if (this.bdevs.claimOf(bdev) !== undefined) {
      throw new ErrnoError('EBUSY', `an earlier removal of bdev '${bdev.name}' did not finish`);
    }
  }

  // --- transport and subsystems -----------------------------------------------------------------------------------

  createTransport(transport: Transport): Promise<void> {
    return this.#change(() => {
      if (this.#transport !== undefined) {
        throw new FailedError("Transport type 'VFIOUSER' already exists");
      }
      this.#transport = transport;
    });
  }

  async createSubsystem(options: SubsystemOptions): Promise<void> {
    const { nqn } = options;
    const before = this.#subsystems.get(nqn);
    if (before?.leaving === true) {
      await this.#orders.settled(before);
    }
    await this.#change(() => {
      if (this.#subsystems.has(nqn) || nqn === DISCOVERY_NQN) {
        throw new FailedError(`Unable to create subsystem ${nqn}: it exists`);
      }
      if (this.#subsystems.size >= this.maxSubsystems) {
        throw new FailedError(`Unable to create subsystem ${nqn}: there are ${this.maxSubsystems}`);
      }
      this.#subsystems.set(nqn, new Subsystem(options));
      this.#log.info({ nqn }, 'subsystem created');
      this.events.emit({ type: 'subsystem-created', nqn });
    });
  }

  /** Disconnects its clients, and gives its bdevs free. */
  async deleteSubsystem(nqn: string): Promise<void> {
    const subsystem = this.#staying(nqn);
    subsystem.leave();
    // At once: what a guest holds up ends when its client goes, and with it the changes that are before this one.
    this.#hangUp(subsystem.listeners.values());
    try {
      await this.#orders.run(subsystem, () =>
        this.#change(async () => {
          await this.#closeListeners(subsystem);
          for (const { bdev } of subsystem.namespaces.values()) {
            this.bdevs.release(bdev);
          }
          this.#subsystems.delete(nqn);
          this.#log.info({ nqn }, 'subsystem deleted');
          this.events.emit({ type: 'subsystem-deleted', nqn });
        }),
      );
    } catch (error) {
      subsystem.stay();
      throw error;
    }
  }

  /** Changes the hosts or the allow-any-host flag of a subsystem. */
  configureSubsystem(nqn: string, configure: (subsystem: Subsystem) => void): Promise<void> {
    return this.#changeSubsystem(nqn, configure);
  }

  /** Throws InvalidError, also if it is being deleted; FailedError if nothing is changed any more. */
  #staying(nqn: string): Subsystem {
    this.#checkOpen();
    const subsystem = this.subsystem(nqn);
    if (subsystem.leaving) {
      throw new InvalidError(`key 'nqn': ${nqn} is being deleted`);
    }
    return subsystem;
  }

  /** Runs a change in the subsystem's order. Rejects with InvalidError if there is none, or it is deleted before its turn. */
  async #changeSubsystem<T>(
    nqn: string,
    change: (subsystem: Subsystem) => Promise<T> | T,
  ): Promise<T> {
    const subsystem = this.#staying(nqn);
    return this.#orders.run(subsystem, () =>
      this.#change(() => {
        if (this.#subsystems.get(nqn) !== subsystem) {
          throw new InvalidError(`key 'nqn': ${nqn} was deleted`);
        }
        return change(subsystem);
      }),
    );
  }

  // --- namespaces -------------------------------------------------------------------------------------------------

  /** Resolves with the NSID, once every connected controller has the namespace. */
  async addNamespace(nqn: string, bdevName: string, options: NamespaceOptions): Promise<number> {
    const making = this.bdevs.making(bdevName);
    if (making !== undefined) {
      this.#staying(nqn);
      // Not in the subsystem's order: where the file system does not answer, others can be added all the same.
      await making;
    }
    return this.#changeSubsystem(nqn, async (subsystem) => {
      const bdev = this.bdevs.find(bdevName);
      if (bdev === undefined) {
        throw new InvalidError(`key 'namespace.bdev_name': there is no bdev '${bdevName}'`);
      }
      const namespace = subsystem.planNamespace(bdev, options);
      const { nsid } = namespace;
      this.bdevs.claim(bdev, nqn);
      // In the map first: a client that connects meanwhile finds it there, and a guest that is told looks there.
      subsystem.namespaces.set(nsid, namespace);
      try {
        await everyEndpoint(subsystem, (endpoint) => endpoint.addNamespace(namespace));
      } catch (error) {
        await this.#dropNamespace(subsystem, nsid);
        throw error;
      }
      this.#log.info({ nqn, nsid, bdev: bdev.name }, 'namespace added');
      this.events.emit({ type: 'namespace-added', nqn, nsid, bdev: bdev.name });
      return nsid;
    });
  }

  /** Resolves once no controller uses the namespace any more. */
  removeNamespace(nqn: string, nsid: number): Promise<void> {
    return this.#changeSubsystem(nqn, async (subsystem) => {
      if (!subsystem.namespaces.has(nsid)) {
        throw new InvalidError(`key 'nsid': ${nqn} has no namespace ${nsid}`);
      }
      await this.#dropNamespace(subsystem, nsid);
    });
  }

  /** If an endpoint fails to let go of it, the bdev stays claimed: its descriptor may still be in use. */
  async #dropNamespace(subsystem: Subsystem, nsid: number): Promise<void> {
    const namespace = subsystem.namespaces.get(nsid);
    if (namespace !== undefined) {
      subsystem.namespaces.delete(nsid);
      await everyEndpoint(subsystem, (endpoint) => endpoint.removeNamespace(nsid));
      this.bdevs.release(namespace.bdev);
      const { nqn } = subsystem;
      this.#log.info({ nqn, nsid }, 'namespace removed');
      this.events.emit({ type: 'namespace-removed', nqn, nsid, bdev: namespace.bdev.name });
    }
  }

  // --- listeners --------------------------------------------------------------------------------------------------

  /** Listens at `traddr`/cntrl; or, if the socket was passed to the process, at `passedAt`. Resolves with the path of the socket. */
  addListener(nqn: string, address: ListenAddress, passedAt?: string): Promise<string> {
    return this.#changeSubsystem(nqn, async (subsystem) => {
      const socketPath = passedAt ?? (await this.#planSocket(subsystem, address.traddr));
      if (this.#transport === undefined) {
        throw new InvalidError(
          `key 'listen_address.trtype': there is no VFIOUSER transport (nvmf_create_transport)`,
        );
      }
      const { options } = this.#transport;
      let endpoint: EndpointView;
      this.#sockets.add(socketPath);
      try {
        checkSocketPath(socketPath);
        const { events } = this;
        endpoint = await this.#listen({ subsystem, transport: options, socketPath, events });
      } catch (error) {
        const cause = error instanceof ErrnoError ? error : withErrnoDetail(error, socketPath);
        throw new InvalidError(`key 'listen_address.traddr': ${describeError(cause)}`, { cause });
      } finally {
        this.#sockets.delete(socketPath);
      }
      if (subsystem.leaving || this.#closing !== undefined) {
        await endpoint.close();
        throw new InvalidError(`key 'nqn': ${nqn} is being deleted`);
      }
      subsystem.listeners.set(socketPath, { address, endpoint });
      this.#log.info({ nqn, socket: socketPath }, 'listening');
      this.events.emit({ type: 'listener-added', nqn, socket: socketPath });
      return socketPath;
    });
  }

  async #planSocket(subsystem: Subsystem, traddr: string): Promise<string> {
    const key = `key 'listen_address.traddr'`;
    if (!isAbsolute(traddr)) {
      throw new InvalidError(`${key} must be the absolute path of a folder`);
    }
    const stats = await subsystem.unlessLeaving(statPath(subsystem.calls, traddr));
    if (subsystem.leaving) {
      throw new InvalidError(`key 'nqn': ${subsystem.nqn} is being deleted`);
    }
    if (stats?.kind !== 'folder') {
      throw new InvalidError(`${key}: there is no folder ${traddr}`);
    }
    const socketPath = join(traddr, SOCKET_NAME);
    if (this.#sockets.has(socketPath)) {
      throw new InvalidError(`${key}: ${socketPath} is being made`);
    }
    for (const other of this.#subsystems.values()) {
      if (other.listeners.has(socketPath)) {
        throw new InvalidError(`${key}: ${other.nqn} listens at ${socketPath} already`);
      }
    }
    if (subsystem.listeners.size >= MAX_LISTENERS) {
      throw new InvalidError(`${subsystem.nqn} has ${MAX_LISTENERS} listeners`);
    }
    return socketPath;
  }

  /** Disconnects the client of a listener, and removes its socket. */
  async removeListener(nqn: string, traddr: string): Promise<void> {
    // As in `deleteSubsystem`.
    const listening = this.#staying(nqn).listenerAt(traddr);
    this.#hangUp(listening === undefined ? [] : [listening]);
    await this.#changeSubsystem(nqn, async (subsystem) => {
      const listener = subsystem.listenerAt(traddr);
      if (listener === undefined) {
        throw new InvalidError(`key 'listen_address.traddr': ${nqn} does not listen at ${traddr}`);
      }
      const { endpoint } = listener;
      await endpoint.close();
      subsystem.listeners.delete(endpoint.socketPath);
      this.#log.info({ nqn, socket: endpoint.socketPath }, 'listener removed');
      this.events.emit({ type: 'listener-removed', nqn, socket: endpoint.socketPath });
    });
  }

  /** Begins to close listeners. Whoever closes them again learns how that ended. */
  #hangUp(listeners: Iterable<Listener>): void {
    for (const { endpoint } of listeners) {
      endpoint.close().catch(() => {});
    }
  }

  // --- queues -----------------------------------------------------------------------------------------------------

  /**
   * Moves a completion queue of the client at a socket, with its submission queues, to another reactor. Resolves when they go on there.
   * Rejects with InvalidError if there is no such queue or reactor, else as `EndpointView.moveQueue` does; the queues go on where they were.
   */
  async moveQueue(nqn: string, socket: string, cqid: number, reactor: number): Promise<void> {
    const endpoint = this.subsystem(nqn).listeners.get(socket)?.endpoint;
    if (endpoint === undefined) {
      throw new InvalidError(`key 'socket': ${nqn} does not listen at ${socket}`);
    }
    if (reactor >= this.reactors.count) {
      throw new InvalidError(`key 'reactor': there are ${this.reactors.count}, from 0 on`);
    }
    if (!this.reactors.state(reactor).alive) {
      throw new FailedError(`Reactor ${reactor} is dead`);
    }
    const from = await endpoint.moveQueue(cqid, reactor);
    if (from !== reactor) {
      this.events.emit({ type: 'queue-moved', nqn, socket, cqid, from, reactor });
    }
  }

  #schedulable(): Schedulable[] {
    return this.subsystems.flatMap(({ nqn, listeners }) =>
      [...listeners].flatMap(([socket, { endpoint }]) => {
        const { controller } = endpoint;
        if (controller === undefined) {
          return [];
        }
        const key = `${nqn}/${socket}/${controller.cntlid}/${controller.connectedAt}`;
        const move = (cqid: number, reactor: number) => this.moveQueue(nqn, socket, cqid, reactor);
        return [{ key, controller, move }];
      }),
    );
  }

  /** Each goes as soon as it is closed, whatever becomes of the others. */
  async #closeListeners(subsystem: Subsystem): Promise<void> {
    await everyEndpoint(subsystem, async (endpoint) => {
      await endpoint.close();
      const { socketPath } = endpoint;
      if (subsystem.listeners.delete(socketPath)) {
        this.events.emit({ type: 'listener-removed', nqn: subsystem.nqn, socket: socketPath });
      }
    });
  }

  // --- life ---------------------------------------------------------------------------------------------------------

  /**
   * Disconnects all clients, makes all data durable, and frees everything: all at once, so that what hangs holds up nothing else. What is not
   * done yet is still in `subsystems` and in `bdevs`. Never rejects: what fails is logged.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.bdevs.stopWaiting();
    this.bdevs.cancelAll();
    this.#scheduler.stop();
    const vms = new Map(
      this.subsystems.map((subsystem) => [subsystem.nqn, this.#closeSubsystem(subsystem)]),
    );
    const bdevs = this.bdevs
      .list()
      .map((bdev) => this.#closeBdev(bdev, vms.get(this.bdevs.userOf(bdev) ?? '')));
    await Promise.all([...vms.values(), ...bdevs]);
  }

  async #closeSubsystem(subsystem: Subsystem): Promise<void> {
    await this.#try('closing a listener', () => this.#closeListeners(subsystem));
    this.#subsystems.delete(subsystem.nqn);
  }

  /** `gone`: the VM that uses it is. */
  async #closeBdev(bdev: Disk, gone: Promise<void> = Promise.resolve()): Promise<void> {
    const sync = () => this.#try(`syncing bdev '${bdev.name}'`, () => bdev.sync());
    const late = delay(FLUSH_ANYWAY_MS, true, { ref: false });
    if ((await Promise.race([gone, late])) === true) {
      // What the guest was told is done becomes durable, also if another of its disks holds it up for ever.
      await sync();
      await gone;
    }
    await sync();
    await this.#closed(bdev, this.bdevs.remove(bdev));
  }

  /** Its file is closed; or its file system does not answer: that is nobody's concern any more. */
  async #closed({ name }: Disk, closing: Promise<void>): Promise<void> {
    const words = 'its file is not closed yet: the file system does not answer';
    await patiently(closing, CLOSE_MS, words).catch((error: unknown) =>
      this.#bdevLog.warn({ bdev: name, reason: describeError(error) }, 'gone'),
    );
  }

  async #try(what: string, operation: () => Promise<void> | void): Promise<void> {
    try {
      await operation();
    } catch (error) {
      this.#log.error({ err: error }, `${what} failed`);
    }
  }

  #checkOpen(): void {
    if (this.#closing !== undefined) {
      throw new FailedError('The target is shutting down');
    }
  }

  async #change<T>(operation: () => Promise<T> | T): Promise<T> {
    this.#checkOpen();
    try {
      return await operation();
    } finally {
      // Also one that failed may have done a part.
      this.#revision += 1;
    }
  }
}

/** Calls all endpoints of a subsystem at once. Rejects with the first failure, after all have ended. */
async function everyEndpoint(
  subsystem: Subsystem,
  operation: (endpoint: EndpointView) => Promise<void>,
): Promise<void> {
  const outcomes = await Promise.allSettled(
    [...subsystem.listeners.values()].map(async ({ endpoint }) => operation(endpoint)),
  );
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') {
      throw outcome.reason;
    }
  }
}
