/**
 * The target: bdevs, the vfio-user transport, subsystems and their listeners. What the RPC methods and the command line call. It is its model
 * (`model/`) and the effects of that: bdevs that are open, endpoints that listen, guests that are told. Changes of one subsystem, or of one
 * bdev, run one after the other (`orders.ts`). Owned by main.
 */
import type { Latencies, Latency } from '../bdev/delay.ts';
import type { Disk, Geometry } from '../bdev/disk.ts';
import { FailedFiles } from '../bdev/failed-files.ts';
import type { FileBdevOptions } from '../bdev/file.ts';
import type { BdevParams } from '../bdev/kind.ts';
import { bdevKind } from '../bdev/kinds.ts';
import type { RateLimits } from '../bdev/limiter.ts';
import { UncorrectableFiles } from '../bdev/uncorrectable-files.ts';
import type { DelayBdev } from '../bdev/wrapper.ts';
import { FailedError, InvalidError } from '../util/errors.ts';
import { componentLogger, type Logger } from '../util/log.ts';
import { BdevChanges } from './bdev-changes.ts';
import { Bdevs } from './bdevs.ts';
import { Changes } from './changes.ts';
import { Closing } from './closing.ts';
import { TargetEvents } from './events.ts';
import { KeptReservations } from './kept-reservations.ts';
import { KeptSanitize } from './kept-sanitize.ts';
import { Listeners } from './listeners.ts';
import { found, Model } from './model/model.ts';
import type { ListenAddress } from './model/plan.ts';
import type { SchedulerOptions } from './model/scheduler.ts';
import type { SubsystemModel, SubsystemOptions } from './model/subsystem.ts';
import type { Transport } from './model/transport.ts';
import type { Parts } from './parts.ts';
import type { Reactors } from './reactors.ts';
import { type Schedulable, Scheduler } from './scheduler.ts';
import type { Subsystem } from './subsystem.ts';
import { type NamespaceOptions, SubsystemChanges } from './subsystem-changes.ts';
import type { EndpointView, SubsystemView, TransportOptions } from './types.ts';

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

/** What the operator may choose of a bdev's identity. */
export interface BdevNaming {
  readonly name: string;
  readonly uuid?: string | undefined;
}

const geometryParams = ({ blockSize, numBlocks }: Geometry) => ({
  block_size: blockSize,
  num_blocks: numBlocks,
});

export class Target {
  readonly reactors: Reactors;
  /** See TargetOptions. */
  readonly reportFolder: string | undefined;
  /** Files of bdevs, now or earlier, whose write-back has failed. */
  readonly failedFiles = new FailedFiles((failure) => this.#bdevChanges.writeBackFailed(failure));
  /** Files of bdevs, now or earlier, with blocks that guests have marked uncorrectable. */
  readonly uncorrectableFiles = new UncorrectableFiles();
  /** Reservations that persist through power loss. */
  readonly keptReservations = new KeptReservations();
  /** Sanitize operations, also of earlier runs. */
  readonly keptSanitize = new KeptSanitize();
  readonly model = new Model();
  readonly bdevs: Bdevs;
  readonly events: TargetEvents;
  readonly #scheduler: Scheduler;
  readonly #parts: Parts;
  readonly #changes = new Changes();
  /** By their NQNs, in the order of creation. */
  readonly #subsystems = new Map<string, Subsystem>();
  readonly #listeners: Listeners;
  readonly #subsystemChanges: SubsystemChanges;
  readonly #bdevChanges: BdevChanges;
  #closing: Promise<readonly string[]> | undefined;

  constructor({ log, reactors, reportFolder, listen }: TargetOptions) {
    this.reactors = reactors;
    this.reportFolder = reportFolder;
    const { failedFiles, uncorrectableFiles: uncorrectable, model } = this;
    const files = { reactors: reactors.count, failed: failedFiles, uncorrectable };
    this.bdevs = new Bdevs(files, model, (notice) => this.#bdevChanges.notice(notice));
    this.events = new TargetEvents(log);
    const parts: Parts = {
      model,
      bdevs: this.bdevs,
      subsystems: this.#subsystems,
      changes: this.#changes,
      events: this.events,
      keptReservations: this.keptReservations,
      keptSanitize: this.keptSanitize,
      log: componentLogger(log, 'target'),
    };
    this.#parts = parts;
    const { events } = this;
    this.#listeners = new Listeners(parts, (subsystem, { options: transport }, socketPath) =>
      listen({ subsystem, transport, socketPath, events }),
    );
    const users = new SubsystemChanges(parts, this.#listeners);
    this.#subsystemChanges = users;
    const bdevLog = componentLogger(log, 'bdev');
    this.#bdevChanges = new BdevChanges({ parts, users, reactors, failedFiles, log: bdevLog });
    const reactorLog = componentLogger(log, 'reactor');
    this.#scheduler = new Scheduler(reactors, () => this.#schedulable(), reactorLog);
    reactors.onLost((reactor, message) => {
      events.emit({ type: 'reactor-lost', reactor, message });
      this.bdevs.reactorDied(reactor);
    });
  }

  /** Counts what may have changed the configuration: the same number, the same configuration. */
  get revision(): number {
    return this.#changes.revision;
  }

  /** nvmf_set_max_subsystems. */
  get maxSubsystems(): number {
    return this.model.maxSubsystems;
  }

  set maxSubsystems(count: number) {
    this.model.maxSubsystems = count;
    this.#changes.count();
  }

  /** framework_set_scheduler. */
  get scheduler(): SchedulerOptions {
    return this.model.scheduler;
  }

  set scheduler(options: SchedulerOptions) {
    this.model.scheduler = options;
    this.#scheduler.options = options;
    this.#changes.count();
  }

  get transport(): Transport | undefined {
    return this.model.transport;
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
    return found(this.#subsystems, nqn);
  }

  // --- bdevs ----------------------------------------------------------------------------------------------------

  /** Makes a bdev by the parameters of the method `bdev_KIND_create`, checked. See `Bdevs.create` for how it rejects. */
  createBdev(kind: string, params: BdevParams): Promise<Disk> {
    return this.#bdevChanges.create(bdevKind(kind), params);
  }

  // The same, for those who write programs.

  createNull({ name, uuid }: BdevNaming, geometry: Geometry): Promise<Disk> {
    return this.createBdev('null', { name, uuid, ...geometryParams(geometry) });
  }

  /** Without a name it is the next of Malloc0, Malloc1, … */
  createMalloc({ name, uuid }: Partial<BdevNaming>, geometry: Geometry): Promise<Disk> {
    return this.createBdev('malloc', { name, uuid, ...geometryParams(geometry) });
  }

  createFile({ name, uuid }: BdevNaming, options: FileBdevOptions): Promise<Disk> {
    const { module, blockSize: block_size, ...rest } = options;
    return this.createBdev(module, { name, uuid, block_size, ...rest });
  }

  /** Rejects with ENODEV without the base, EPERM if that is in use. */
  createDelay({ name, uuid }: BdevNaming, base: string, latencies: Latencies): Promise<Disk> {
    const named = Object.entries(latencies).map(([key, us]) => [`${key}_latency`, us]);
    const params = { name, uuid, base_bdev_name: base, ...Object.fromEntries(named) };
    return this.createBdev('delay', params);
  }

  /** The same. */
  createError(base: string, uuid?: string): Promise<Disk> {
    return this.createBdev('error', { base_name: base, uuid });
  }

  /**
   * Removes its namespace, and the bdev on top of it, first; one whose file is still being opened is given up. Rejects with ENODEV if there
   * is no such bdev of that module.
   */
  deleteBdev(name: string, module: Disk['module']): Promise<void> {
    return this.#bdevChanges.delete(name, module);
  }

  /**
   * Opens the file of a bdev again, for all bdevs on it, after its write-back failed. Rejects with what the system says to opening and
   * syncing it; then nothing was changed.
   */
  reopen(name: string, module: 'aio' | 'uring'): Promise<void> {
    return this.#bdevChanges.reopen(name, module);
  }

  /** Has flushes of an NBD bdev succeed again whose server may have lost data. Rejects with ENODEV. */
  reopenNbd(name: string): Promise<void> {
    return this.#bdevChanges.reopenNbd(name);
  }

  /**
   * Takes over the size that the file has now. Guests that use it are told. Rejects with EBUSY if it is in use and would shrink, unless
   * forced.
   */
  rescan(name: string, module: 'aio' | 'uring' | 'nbd', force = false): Promise<void> {
    return this.#bdevChanges.rescan(name, module, force);
  }

  /** `mebibytes`: the new size. The same. */
  resizeNull(name: string, mebibytes: number, force = false): Promise<void> {
    return this.#bdevChanges.resizeNull(name, mebibytes, force);
  }

  /** Changes the rate limits that are given; 0: no limit. Rejects with ENODEV, or EPERM if another bdev is on top. */
  limit(name: string, limits: Partial<RateLimits>): Promise<void> {
    return this.#bdevChanges.limit(name, limits);
  }

  /** Microseconds, for the commands that end from now on. */
  setLatency(bdev: DelayBdev, latency: Latency, us: number): Promise<void> {
    return this.#bdevChanges.setLatency(bdev, latency, us);
  }

  // --- transport, subsystems, namespaces --------------------------------------------------------------------------

  createTransport(transport: Transport): Promise<void> {
    return this.#changes.run(() => this.model.createTransport(transport));
  }

  createSubsystem(options: SubsystemOptions): Promise<void> {
    return this.#subsystemChanges.create(options);
  }

  /** Disconnects its clients, and gives its bdevs free. */
  deleteSubsystem(nqn: string): Promise<void> {
    return this.#subsystemChanges.delete(nqn);
  }

  /** Changes the hosts or the allow-any-host flag of a subsystem. */
  configureSubsystem(nqn: string, configure: (model: SubsystemModel) => void): Promise<void> {
    return this.#subsystemChanges.configure(nqn, configure);
  }

  /** Resolves with the NSID, once every connected controller has the namespace. */
  addNamespace(nqn: string, bdevName: string, options: NamespaceOptions): Promise<number> {
    return this.#subsystemChanges.addNamespace(nqn, bdevName, options);
  }

  /** Resolves once no controller uses the namespace any more. */
  removeNamespace(nqn: string, nsid: number): Promise<void> {
    return this.#subsystemChanges.removeNamespace(nqn, nsid);
  }

  // --- listeners --------------------------------------------------------------------------------------------------

  /** Listens at `traddr`/cntrl; or, if the socket was passed to the process, at `passedAt`. Resolves with the path of the socket. */
  addListener(nqn: string, address: ListenAddress, passedAt?: string): Promise<string> {
    return this.#subsystemChanges.run(nqn, (subsystem) =>
      this.#listeners.add(subsystem, address, passedAt),
    );
  }

  /** Disconnects the client of a listener, and removes its socket. */
  async removeListener(nqn: string, traddr: string): Promise<void> {
    // As when a subsystem is deleted: at once.
    const listening = this.#subsystemChanges.staying(nqn).listenerAt(traddr);
    this.#listeners.hangUp(listening === undefined ? [] : [listening]);
    await this.#subsystemChanges.run(nqn, (subsystem) => this.#listeners.remove(subsystem, traddr));
  }

  // --- queues -----------------------------------------------------------------------------------------------------

  /**
   * Moves a completion queue of the client at a socket, with its submission queues, to another reactor. Resolves when they go on there.
   * Rejects with InvalidError if there is no such queue or reactor, else as `EndpointView.moveQueue` does; the queues go on where they were.
   */
  async moveQueue(nqn: string, socket: string, cqid: number, reactor: number): Promise<void> {
    const endpoint = this.subsystem(nqn).listeners.get(socket)?.endpoint;
    if (endpoint === undefined) {
      throw new InvalidError(`${nqn} does not listen at ${socket}`, { key: 'socket' });
    }
    if (reactor >= this.reactors.count) {
      throw new InvalidError(`there are ${this.reactors.count}, from 0 on`, { key: 'reactor' });
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

  // --- life ---------------------------------------------------------------------------------------------------------

  /**
   * Disconnects all clients, makes all data durable, and frees everything: all at once, so that what hangs holds up nothing else. What is not
   * done yet is still in `subsystems` and in `bdevs`. Never rejects: what fails is logged, and resolves with that in words.
   */
  close(): Promise<readonly string[]> {
    this.#closing ??= new Closing(this.#parts, this.#listeners, this.#bdevChanges).run(() =>
      this.#scheduler.stop(),
    );
    return this.#closing;
  }
}
