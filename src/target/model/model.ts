/**
 * What a target is configured to be, and the rules of it: names, claims, NSIDs, listeners, limits. Pure: what is true of files and folders is
 * asked elsewhere. A target that runs is a model and its effects; a configuration that is only read is a model without any. Methods throw as
 * those of JSON-RPC do, and have changed nothing then.
 */
import { ErrnoError, FailedError, InvalidError } from '../../util/errors.ts';
import { checkSocketPath } from '../../util/socket-path.ts';
import { DISCOVERY_NQN } from '../nqn.ts';
import { nameOf, planBdev, uuidOf, withBase } from './bdevs.ts';
import { Claims } from './claims.ts';
import { BdevNames } from './names.ts';
import {
  type BdevPlan,
  baseOf,
  type CompleteNamespace,
  type ListenAddress,
  type NamespacePlan,
  type Params,
  type Plan,
} from './plan.ts';
import { type LimitParams, parseLimits, plannedLimits } from './rate-limits.ts';
import { STATIC, schedulerParams } from './scheduler.ts';
import { SubsystemModel, type SubsystemOptions } from './subsystem.ts';
import { type Transport, transportParams } from './transport.ts';

export const DEFAULT_MAX_SUBSYSTEMS = 1024;

export class Model {
  readonly names = new BdevNames();
  readonly claims = new Claims();
  /** By their names, in the order in which they were made. */
  readonly bdevs = new Map<string, BdevPlan>();
  /** By their NQNs. */
  readonly subsystems = new Map<string, SubsystemModel>();
  maxSubsystems = DEFAULT_MAX_SUBSYSTEMS;
  scheduler = STATIC;
  #transport: Transport | undefined;
  /** Bdev → its file: the same for two paths of one, as far as that is known. */
  readonly #files = new Map<string, string>();

  /** As it is now. */
  get plan(): Plan {
    const { maxSubsystems } = this;
    return {
      maxSubsystems: maxSubsystems === DEFAULT_MAX_SUBSYSTEMS ? undefined : maxSubsystems,
      scheduler: schedulerParams(this.scheduler),
      transport: this.#transport && transportParams(this.#transport),
      bdevs: new Map(this.bdevs),
      subsystems: new Map([...this.subsystems].map(([nqn, { plan }]) => [nqn, plan])),
    };
  }

  // --- bdevs ----------------------------------------------------------------------------------------------------

  /** Makes the bdev of a call (`create`: its method), with a name and a UUID if those can be told. Returns its name. */
  createBdev(create: string, given: Params): string {
    const below = baseOf({ params: given });
    const base = below === undefined ? undefined : this.#bdev(below);
    const name = nameOf(create, given, base) ?? this.names.nextMalloc();
    if (base !== undefined) {
      this.checkBase(base, name);
    }
    const bdev = planBdev(create, name, withBase(given, base));
    const { filename, uuid = undefined } = bdev.params;
    const known = uuid ?? uuidOf(bdev.params, name, (wanted) => !this.names.isHeld(wanted));
    const file = typeof filename === 'string' ? filename : undefined;
    // First the name, as where a file is opened in between.
    this.names.hold(name, known);
    try {
      if (file !== undefined) {
        this.checkFile(bdev, file);
      }
    } catch (error) {
      this.names.release(name);
      throw error;
    }
    this.names.made(name);
    const params = { ...bdev.params, ...(known !== undefined && { uuid: known }) };
    this.record({ ...bdev, params }, file);
    if (base !== undefined) {
      this.claims.add(base, { bdev: name });
    }
    return name;
  }

  /** Whether another bdev can be made on one. Throws EPERM if it is in use or has rate limits. */
  checkBase(base: string, wrapper: string): void {
    const problem = this.claims.problem(base);
    // A name that is taken is said first, as SPDK does.
    if (problem !== undefined && !this.names.isHeld(wrapper)) {
      throw new ErrnoError('EPERM', problem);
    }
    if (Object.keys(this.bdevs.get(base)?.limits ?? {}).length > 0) {
      throw new ErrnoError(
        'EPERM',
        `bdev '${base}' has rate limits, which can only be those of the bdev on top`,
      );
    }
  }

  #bdev(nameOrUuid: string): string {
    const name = this.names.find(nameOrUuid);
    if (name === undefined) {
      throw new ErrnoError('ENODEV', `there is no bdev '${nameOrUuid}'`);
    }
    return name;
  }

  /**
   * Throws EBUSY if another bdev writes the same file through the page cache while this one goes past it, or the other way: data would be
   * lost.
   */
  checkFile({ params: { filename, direct, readonly } }: BdevPlan, file: string): void {
    for (const [name, { params: other }] of this.bdevs) {
      const bothWrite = other.readonly !== true && readonly !== true;
      if (this.#files.get(name) === file && other.direct !== direct && bothWrite) {
        throw new ErrnoError(
          'EBUSY',
          `${filename} is the file of bdev '${name}', too: both must have the same 'direct'`,
        );
      }
    }
  }

  /** A bdev is there, or is otherwise than it was. `file`: which it is on, if it is on one. */
  record(bdev: BdevPlan, file?: string): void {
    this.bdevs.set(bdev.name, bdev);
    if (file !== undefined) {
      this.#files.set(bdev.name, file);
    }
  }

  /** A bdev is gone. */
  forgetBdev(name: string): void {
    this.bdevs.delete(name);
    this.#files.delete(name);
    this.names.release(name);
    this.claims.forget(name);
  }

  /** The name of a bdev that can have rate limits. Throws ENODEV, and EPERM if another bdev is on top. */
  checkLimited(nameOrUuid: string): string {
    const name = this.#bdev(nameOrUuid);
    const wrapper = this.claims.wrapperOf(name);
    if (wrapper !== undefined) {
      throw new ErrnoError('EPERM', `bdev '${wrapper}' is on top of it, and can have rate limits`);
    }
    return name;
  }

  limit(nameOrUuid: string, params: Params): void {
    const name = this.checkLimited(nameOrUuid);
    const bdev = this.bdevs.get(name);
    if (bdev !== undefined) {
      const limits = {
        ...parseLimits(bdev.limits),
        ...parseLimits(params as Partial<LimitParams>),
      };
      this.record({ ...bdev, limits: plannedLimits(limits) });
    }
  }

  // --- transport and subsystems -----------------------------------------------------------------------------------

  get transport(): Transport | undefined {
    return this.#transport;
  }

  createTransport(transport: Transport): void {
    if (this.#transport !== undefined) {
      throw new FailedError("Transport type 'VFIOUSER' already exists");
    }
    this.#transport = transport;
  }

  createSubsystem(options: SubsystemOptions): SubsystemModel {
    const { nqn } = options;
    if (this.subsystems.has(nqn) || nqn === DISCOVERY_NQN) {
      throw new FailedError(`Unable to create subsystem ${nqn}: it exists`);
    }
    if (this.subsystems.size >= this.maxSubsystems) {
      throw new FailedError(`Unable to create subsystem ${nqn}: there are ${this.maxSubsystems}`);
    }
    const subsystem = new SubsystemModel(options);
    this.subsystems.set(nqn, subsystem);
    return subsystem;
  }

  /** Its bdevs are free again. */
  deleteSubsystem(nqn: string): void {
    for (const bdev of this.subsystems.get(nqn)?.namespaces.keys() ?? []) {
      this.claims.release(bdev);
    }
    this.subsystems.delete(nqn);
  }

  /** Throws InvalidError, as all methods of SPDK but one do. */
  subsystem(nqn: string): SubsystemModel {
    return found(this.subsystems, nqn);
  }

  // --- namespaces -------------------------------------------------------------------------------------------------

  /** A namespace as it is asked for, with all that was left open: the smallest free NSID, and the bdev's identifiers. */
  complete(nqn: string, asked: NamespacePlan): CompleteNamespace {
    const bdev_name = this.#namespaceBdev(asked.bdev_name);
    const uuid = asked.uuid ?? this.bdevs.get(bdev_name)?.params.uuid ?? '';
    return {
      nsid: this.subsystem(nqn).freeNsid,
      nguid: uuid.replaceAll('-', '').toUpperCase(),
      ...asked,
      bdev_name,
      uuid,
    };
  }

  /** Makes a bdev a namespace, which claims it. */
  addNamespace<N extends NamespacePlan>(nqn: string, asked: N): N {
    const subsystem = this.subsystem(nqn);
    const bdev_name = this.#namespaceBdev(asked.bdev_name);
    subsystem.checkNsid(asked.nsid);
    const problem = this.claims.problem(bdev_name);
    if (problem !== undefined) {
      throw new InvalidError(problem);
    }
    const namespace = { ...asked, bdev_name };
    subsystem.namespaces.set(bdev_name, namespace);
    this.claims.add(bdev_name, { nqn });
    return namespace;
  }

  #namespaceBdev(nameOrUuid: string): string {
    const name = this.names.find(nameOrUuid);
    if (name === undefined) {
      const key = 'namespace.bdev_name';
      throw new InvalidError(`there is no bdev '${nameOrUuid}'`, { key });
    }
    return name;
  }

  // --- listeners --------------------------------------------------------------------------------------------------

  /** The socket of a listener that can be added. `passedAt`: where one is that was passed to the process. */
  checkListener(nqn: string, { traddr }: ListenAddress, passedAt?: string): string {
    const key = 'listen_address.traddr';
    const socket = passedAt ?? this.subsystem(nqn).socketAt(traddr);
    try {
      checkSocketPath(socket);
    } catch (error) {
      throw new InvalidError((error as Error).message, { key, cause: error });
    }
    for (const other of this.subsystems.values()) {
      if (other.listeners.has(socket)) {
        throw new InvalidError(`${other.nqn} listens at ${socket} already`, { key });
      }
    }
    this.checkTransport();
    return socket;
  }

  /** There is something to listen with. */
  checkTransport(): Transport {
    if (this.#transport === undefined) {
      throw new InvalidError('there is no VFIOUSER transport (nvmf_create_transport)', {
        key: 'listen_address.trtype',
      });
    }
    return this.#transport;
  }

  addListener(nqn: string, address: ListenAddress, socket: string): void {
    this.subsystem(nqn).listeners.set(socket, address);
  }
}

/** The subsystem of that name. Throws InvalidError, as all methods of SPDK but one do. */
export function found<T>(subsystems: ReadonlyMap<string, T>, nqn: string): T {
  const subsystem = subsystems.get(nqn);
  if (subsystem === undefined) {
    const reason =
      nqn === DISCOVERY_NQN
        ? 'the discovery subsystem has nothing to configure'
        : `there is no subsystem ${nqn}`;
    throw new InvalidError(reason, { key: 'nqn' });
  }
  return subsystem;
}
