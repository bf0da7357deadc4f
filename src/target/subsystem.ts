/**
 * An NVMe subsystem: names, namespaces, hosts, controller ids, listeners. Owned by main; the target makes sure that one change
 * of it is over before the next begins.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { Disk } from '../bdev/disk.ts';
import { DEFAULT_NAMESPACES, MAX_NAMESPACES } from '../limits.ts';
import { BlockingCalls } from '../native/blocking-calls.ts';
import { ErrnoError, FailedError, InvalidError } from '../util/errors.ts';
import { nqnProblem } from './nqn.ts';
import type { EndpointView, Namespace, SubsystemView } from './types.ts';

export const MIN_CNTLID = 1;
export const MAX_CNTLID = 0xffef;
/** As SPDK. */
export const MAX_LISTENERS = 16;
const MAX_HOSTS = 1024;
/** The socket in the folder that a listener's traddr names. */
export const SOCKET_NAME = 'cntrl';

/** A serial number for a subsystem that was given none: the same for the same name, another for another. 20 characters, as SN has. */
function serialOf(nqn: string): string {
  const digits = createHash('sha256').update(nqn).digest('hex').toUpperCase();
  return `DB${digits.slice(0, 18)}`;
}
const DEFAULT_MODEL = 'Doorbell Controller';

export interface SubsystemOptions {
  readonly nqn: string;
  /** At most 20 printable ASCII characters. */
  readonly serialNumber?: string | undefined;
  /** At most 40 printable ASCII characters. */
  readonly modelNumber?: string | undefined;
  readonly adminLabel?: string | undefined;
  /** 0: the default. */
  readonly maxNamespaces?: number | undefined;
  readonly allowAnyHost?: boolean | undefined;
  readonly minCntlid?: number | undefined;
  readonly maxCntlid?: number | undefined;
  /** Limits of commands that no namespace has; kept to be shown. */
  readonly dmrsl?: number | undefined;
  readonly wzsl?: number | undefined;
}

export interface ListenAddress {
  /** The folder of the socket. */
  readonly traddr: string;
  readonly trsvcid: string;
  readonly adrfam: string;
}

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

export interface NamespaceOptions {
  /** 0 or undefined: the smallest free one. */
  readonly nsid?: number | undefined;
  readonly uuid?: string | undefined;
  /** 32 hex digits. */
  readonly nguid?: string | undefined;
  /** 16 hex digits. */
  readonly eui64?: string | undefined;
}

export class Subsystem implements SubsystemView {
  readonly nqn: string;
  readonly serialNumber: string;
  readonly modelNumber: string;
  readonly adminLabel: string | undefined;
  readonly maxNamespaces: number;
  readonly minCntlid: number;
  readonly maxCntlid: number;
  readonly dmrsl: number;
  readonly wzsl: number;
  allowAnyHost: boolean;
  /** Host NQNs. */
  readonly hosts = new Set<string>();
  readonly namespaces = new Map<number, TargetNamespace>();
  /** By the path of the socket. */
  readonly listeners = new Map<string, Listener>();
  /** For the folders of its sockets, which may be on a file system that does not answer. */
  readonly calls = new BlockingCalls();
  #isLeaving = false;
  #onLeaving: () => void = () => {};
  #left = this.#nextLeaving();
  readonly #cntlids = new Set<number>();
  #nextCntlid: number;

  /** Throws InvalidError, and FailedError for a bad NQN (as SPDK does). */
  constructor(options: SubsystemOptions) {
    const problem = nqnProblem(options.nqn);
    if (problem !== undefined) {
      throw new FailedError(`Unable to create subsystem ${options.nqn}: ${problem}`);
    }
    const { minCntlid = MIN_CNTLID, maxCntlid = MAX_CNTLID, maxNamespaces = 0 } = options;
    if (minCntlid < MIN_CNTLID || maxCntlid > MAX_CNTLID || minCntlid > maxCntlid) {
      throw new InvalidError(
        `keys 'min_cntlid' and 'max_cntlid': invalid cntlid range [${minCntlid}-${maxCntlid}]`,
      );
    }
    if (maxNamespaces > MAX_NAMESPACES) {
      throw new InvalidError(`key 'max_namespaces' must be at most ${MAX_NAMESPACES}`);
    }
    this.nqn = options.nqn;
    this.serialNumber = options.serialNumber ?? serialOf(options.nqn);
    this.modelNumber = options.modelNumber ?? DEFAULT_MODEL;
    this.adminLabel = options.adminLabel;
    this.maxNamespaces = maxNamespaces === 0 ? DEFAULT_NAMESPACES : maxNamespaces;
    this.minCntlid = minCntlid;
    this.maxCntlid = maxCntlid;
    this.#nextCntlid = minCntlid;
    this.dmrsl = options.dmrsl ?? 0;
    this.wzsl = options.wzsl ?? 0;
    this.allowAnyHost = options.allowAnyHost ?? false;
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

  /**
   * Ids go round, so that one is not soon used again for another guest. Throws EACCES if no host may come in (a vfio-user client
   * has no NQN that could be in the list), and ENOSPC if all ids are in use; the client is told.
   */
  allocateCntlid(): number {
    if (!this.allowAnyHost) {
      throw new ErrnoError('EACCES', `allow_any_host of ${this.nqn} is false`);
    }
    const count = this.maxCntlid - this.minCntlid + 1;
    for (let tried = 0; tried < count; tried++) {
      const cntlid = this.#nextCntlid;
      this.#nextCntlid = cntlid === this.maxCntlid ? this.minCntlid : cntlid + 1;
      if (!this.#cntlids.has(cntlid)) {
        this.#cntlids.add(cntlid);
        return cntlid;
      }
    }
    throw new ErrnoError('ENOSPC', `all ${count} controller ids of ${this.nqn} are in use`);
  }

  releaseCntlid(cntlid: number): void {
    this.#cntlids.delete(cntlid);
  }

  /** The namespace that `options` ask for; it is not added. Throws InvalidError. */
  planNamespace(bdev: Disk, options: NamespaceOptions): TargetNamespace {
    const uuid = options.uuid?.toLowerCase() ?? bdev.uuid;
    const nguid = options.nguid ?? uuid.replaceAll('-', '');
    return {
      nsid: this.#planNsid(options.nsid ?? 0),
      bdev,
      uuid,
      nguid: nguid.toUpperCase(),
      ...(options.eui64 !== undefined && { eui64: options.eui64.toUpperCase() }),
    };
  }

  #planNsid(wanted: number): number {
    if (wanted > this.maxNamespaces) {
      throw new InvalidError(`key 'namespace.nsid' must be at most ${this.maxNamespaces}`);
    }
    if (this.namespaces.has(wanted)) {
      throw new InvalidError(`key 'namespace.nsid': NSID ${wanted} is in use`);
    }
    if (wanted > 0) {
      return wanted;
    }
    for (let nsid = 1; nsid <= this.maxNamespaces; nsid++) {
      if (!this.namespaces.has(nsid)) {
        return nsid;
      }
    }
    throw new InvalidError(`all ${this.maxNamespaces} namespaces of ${this.nqn} are in use`);
  }

  /** Throws InvalidError. */
  addHost(host: string): void {
    const problem = nqnProblem(host);
    if (problem !== undefined) {
      throw new InvalidError(`key 'host': ${problem}`);
    }
    if (this.hosts.size >= MAX_HOSTS) {
      throw new InvalidError(`${this.nqn} has ${MAX_HOSTS} hosts`);
    }
    this.hosts.add(host);
  }

  /** Throws FailedError if it is not in the list (as SPDK does). */
  removeHost(host: string): void {
    if (!this.hosts.delete(host)) {
      throw new FailedError(`${this.nqn} has no host ${host}`);
    }
  }
}
