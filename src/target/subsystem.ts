/**
 * A subsystem that is served: its model, the bdevs of its namespaces, the endpoints of its listeners, controller ids. Owned by main; the
 * target makes sure that one change of it is over before the next begins.
 */
import { join } from 'node:path';
import type { Disk } from '../bdev/disk.ts';
import { BlockingCalls } from '../native/blocking-calls.ts';
import type { SubsystemEvent } from '../nvme/host.ts';
import { SanitizeState } from '../nvme/sanitize.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import { ErrnoError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { KeptReservations } from './kept-reservations.ts';
import { Maintenance } from './maintenance.ts';
import type { ListenAddress } from './model/plan.ts';
import { SOCKET_NAME, type SubsystemModel } from './model/subsystem.ts';
import type {
  AccessChange,
  EndpointView,
  Namespace,
  NamespaceUser,
  SubsystemView,
} from './types.ts';

export interface Listener {
  readonly address: ListenAddress;
  readonly endpoint: EndpointView;
}

/** A namespace as the target keeps it. */
export interface TargetNamespace extends Namespace {
  readonly bdev: Disk;
  /** 32 upper-case hex digits. */
  readonly nguid: string;
}

export class Subsystem implements SubsystemView {
  readonly model: SubsystemModel;
  readonly nqn: string;
  readonly serialNumber: string;
  readonly modelNumber: string;
  readonly maxNamespaces: number;
  readonly enableNssr: boolean;
  /** By the NSID. */
  readonly namespaces = new Map<number, TargetNamespace>();
  /** By the path of the socket. */
  readonly listeners = new Map<string, Listener>();
  /** For the folders of its sockets, which may be on a file system that does not answer. */
  readonly calls = new BlockingCalls();
  #isLeaving = false;
  #onLeaving: () => void = () => {};
  #left = this.#nextLeaving();
  readonly #cntlids = new Set<number>();
  readonly sanitize = new SanitizeState();
  readonly hostNames = new Map<number, string>();
  readonly #kept: KeptReservations;
  #maintenance: Maintenance | undefined;
  #nextCntlid: number;

  constructor(model: SubsystemModel, kept: KeptReservations) {
    this.#kept = kept;
    this.model = model;
    this.nqn = model.nqn;
    this.serialNumber = model.serialNumber;
    this.modelNumber = model.modelNumber;
    this.maxNamespaces = model.maxNamespaces;
    this.enableNssr = model.enableNssr;
    this.#nextCntlid = model.minCntlid;
  }

  #nextLeaving(): Promise<void> {
    return new Promise((resolve) => {
      this.#onLeaving = resolve;
    });
  }

  /** It is being deleted: nothing comes to it any more. */
  get leaving(): boolean {
    return this.#isLeaving;
  }

  leave(): void {
    this.#isLeaving = true;
    this.#onLeaving();
  }

  /** It could not be deleted. */
  stay(): void {
    this.#isLeaving = false;
    this.#left = this.#nextLeaving();
  }

  /** What `promise` gives; undefined as soon as the subsystem is being deleted. */
  async unlessLeaving<T>(promise: Promise<T>): Promise<T | undefined> {
    return (await Promise.race([promise, this.#left])) ?? undefined;
  }

  get shared(): boolean {
    return this.listeners.size > 1;
  }

  /** The namespace that a bdev is. */
  namespaceOf(bdev: Disk): TargetNamespace | undefined {
    return [...this.namespaces.values()].find((namespace) => namespace.bdev === bdev);
  }

  /** The listener at a folder; or at the path of its socket, if that was passed to the process. */
  listenerAt(traddr: string): Listener | undefined {
    return this.listeners.get(join(traddr, SOCKET_NAME)) ?? this.listeners.get(traddr);
  }

  get keepsReservations(): boolean {
    return this.#kept.isDurable;
  }

  keepReservations(nsids: readonly number[]): Promise<void> {
    const namespaces = nsids.flatMap((nsid) => this.namespaces.get(nsid) ?? []);
    return this.#kept.keep(namespaces.map(({ uuid, state }) => [uuid, state.reservations]));
  }

  tellHosts(event: SubsystemEvent): void {
    for (const { endpoint } of this.listeners.values()) {
      endpoint.subsystemEvent(event);
    }
  }

  reset(): void {
    for (const { endpoint } of this.listeners.values()) {
      endpoint.resetController();
    }
  }

  changeAccess(change: AccessChange): Promise<void> {
    return this.everyUser((user) => user.changeAccess(change));
  }

  maintenance(reactors: ReactorPool, log: Logger): Maintenance {
    this.#maintenance ??= new Maintenance(this, reactors, log);
    return this.#maintenance;
  }

  /** What is done to its namespaces in the background ends, and is not counted as done. See `Maintenance.end`. */
  async endMaintenance(): Promise<void> {
    this.sanitize.abandon();
    await this.#maintenance?.end();
  }

  /** Calls all endpoints at once. Rejects with the first failure, after all have ended. */
  everyEndpoint(operation: (endpoint: EndpointView) => Promise<void>): Promise<void> {
    return callAll(this.#endpoints, operation);
  }

  get #endpoints(): EndpointView[] {
    return [...this.listeners.values()].map(({ endpoint }) => endpoint);
  }

  /** The same, and whoever else has namespaces open. */
  everyUser(operation: (user: NamespaceUser) => Promise<void>): Promise<void> {
    const others = this.#maintenance === undefined ? [] : [this.#maintenance];
    return callAll<NamespaceUser>([...this.#endpoints, ...others], operation);
  }

  /**
   * Ids go round, so that one is not soon used again for another guest. Throws EACCES if no host may come in (a vfio-user client
   * has no NQN that could be in the list), and ENOSPC if all ids are in use; the client is told.
   */
  allocateCntlid(): number {
    const { allowAnyHost, minCntlid, maxCntlid } = this.model;
    if (!allowAnyHost) {
      throw new ErrnoError('EACCES', `allow_any_host of ${this.nqn} is false`);
    }
    const count = maxCntlid - minCntlid + 1;
    for (let tried = 0; tried < count; tried++) {
      const cntlid = this.#nextCntlid;
      this.#nextCntlid = cntlid === maxCntlid ? minCntlid : cntlid + 1;
      if (!this.#cntlids.has(cntlid)) {
        this.#cntlids.add(cntlid);
        return cntlid;
      }
    }
    throw new ErrnoError('ENOSPC', `all ${count} controller ids of ${this.nqn} are in use`);
  }

  get cntlids(): readonly number[] {
    return [...this.#cntlids];
  }

  releaseCntlid(cntlid: number): void {
    this.#cntlids.delete(cntlid);
  }
}

/** Resolves when all have ended. Rejects with the first failure. */
async function callAll<T>(
  users: readonly T[],
  operation: (user: T) => Promise<void>,
): Promise<void> {
  const outcomes = await Promise.allSettled(users.map(async (user) => operation(user)));
  for (const outcome of outcomes) {
    if (outcome.status === 'rejected') {
      throw outcome.reason;
    }
  }
}
