/** A subsystem as it is configured: names, hosts, namespaces and listeners, and what is allowed of them. */
import { createHash } from 'node:crypto';
import { isAbsolute, join } from 'node:path';
import { DEFAULT_NAMESPACES, MAX_NAMESPACES } from '../../limits.ts';
import { FailedError, InvalidError } from '../../util/errors.ts';
import { nqnProblem } from '../nqn.ts';
import type { ListenAddress, NamespacePlan, SubsystemPlan } from './plan.ts';

export const MIN_CNTLID = 1;
export const MAX_CNTLID = 0xffef;
/** As SPDK. */
export const MAX_LISTENERS = 16;
const MAX_HOSTS = 1024;
/** The socket in the folder that a listener's traddr names. */
export const SOCKET_NAME = 'cntrl';
const DEFAULT_MODEL = 'Doorbell Controller';

/** A serial number for a subsystem that was given none: the same for the same name, another for another. 20 characters, as SN has. */
function serialOf(nqn: string): string {
  const digits = createHash('sha256').update(nqn).digest('hex').toUpperCase();
  return `DB${digits.slice(0, 18)}`;
}

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
  /** A guest may reset all controllers at once. Default: true. */
  readonly enableNssr?: boolean | undefined;
}

/** Parameters of nvmf_create_subsystem. */
export interface SubsystemParams {
  readonly nqn: string;
  readonly serial_number?: string | undefined;
  readonly model_number?: string | undefined;
  readonly admin_label?: string | undefined;
  readonly max_namespaces?: number | undefined;
  readonly allow_any_host?: boolean | undefined;
  readonly min_cntlid?: number | undefined;
  readonly max_cntlid?: number | undefined;
  readonly dmrsl?: number | undefined;
  readonly wzsl?: number | undefined;
  readonly enable_nssr?: boolean | undefined;
}

export function subsystemOptions(params: SubsystemParams): SubsystemOptions {
  return {
    nqn: params.nqn,
    serialNumber: params.serial_number,
    modelNumber: params.model_number,
    adminLabel: params.admin_label,
    maxNamespaces: params.max_namespaces,
    allowAnyHost: params.allow_any_host,
    minCntlid: params.min_cntlid,
    maxCntlid: params.max_cntlid,
    dmrsl: params.dmrsl,
    wzsl: params.wzsl,
    enableNssr: params.enable_nssr,
  };
}

export class SubsystemModel {
  readonly nqn: string;
  readonly serialNumber: string;
  readonly modelNumber: string;
  readonly adminLabel: string | undefined;
  readonly maxNamespaces: number;
  readonly minCntlid: number;
  readonly maxCntlid: number;
  readonly dmrsl: number;
  readonly wzsl: number;
  readonly enableNssr: boolean;
  allowAnyHost: boolean;
  /** Host NQNs. */
  readonly hosts = new Set<string>();
  /** By the bdev. */
  readonly namespaces = new Map<string, NamespacePlan>();
  /** By the path of the socket. */
  readonly listeners = new Map<string, ListenAddress>();

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
    this.dmrsl = options.dmrsl ?? 0;
    this.wzsl = options.wzsl ?? 0;
    this.enableNssr = options.enableNssr ?? true;
    this.allowAnyHost = options.allowAnyHost ?? false;
  }

  /** The parameters that make it again, but for `allow_any_host`. */
  get params(): SubsystemPlan['params'] {
    return {
      nqn: this.nqn,
      serial_number: this.serialNumber,
      model_number: this.modelNumber,
      ...(this.adminLabel !== undefined && { admin_label: this.adminLabel }),
      max_namespaces: this.maxNamespaces,
      min_cntlid: this.minCntlid,
      max_cntlid: this.maxCntlid,
      dmrsl: this.dmrsl,
      wzsl: this.wzsl,
      ...(!this.enableNssr && { enable_nssr: false }),
    };
  }

  get plan(): SubsystemPlan {
    const { params, allowAnyHost } = this;
    return {
      params,
      allowAnyHost,
      hosts: new Map([...this.hosts].map((host) => [host, true])),
      namespaces: new Map(this.namespaces),
      listeners: new Map([...this.listeners.values()].map((address) => [address.traddr, address])),
    };
  }

  /** Throws InvalidError. */
  addHost(host: string): void {
    const problem = nqnProblem(host);
    if (problem !== undefined) {
      throw new InvalidError(`'${host}' is no host: ${problem}`, { key: 'host' });
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

  /** `nsid`: undefined if any will do. Throws InvalidError. */
  checkNsid(nsid?: number): void {
    const key = 'namespace.nsid';
    if (nsid !== undefined && nsid > this.maxNamespaces) {
      const reason = `NSID ${nsid} is more than the ${this.maxNamespaces} of ${this.nqn}`;
      throw new InvalidError(reason, { key });
    }
    const twin = nsid === undefined ? undefined : this.#namespaceAt(nsid);
    if (twin !== undefined) {
      const reason = `NSID ${nsid} of ${this.nqn} is that of bdev '${twin.bdev_name}' already`;
      throw new InvalidError(reason, { key });
    }
    if (this.namespaces.size >= this.maxNamespaces) {
      throw new InvalidError(`${this.nqn} has ${this.maxNamespaces} namespaces already`);
    }
  }

  #namespaceAt(nsid: number): NamespacePlan | undefined {
    return [...this.namespaces.values()].find((namespace) => namespace.nsid === nsid);
  }

  /** The smallest that no namespace has. */
  get freeNsid(): number {
    const taken = new Set([...this.namespaces.values()].map(({ nsid }) => nsid));
    let nsid = 1;
    while (taken.has(nsid)) {
      nsid += 1;
    }
    return nsid;
  }

  /** Where it would listen. Throws InvalidError. */
  socketAt(traddr: string): string {
    if (!isAbsolute(traddr)) {
      const reason = `'${traddr}' must be the absolute path of a folder`;
      throw new InvalidError(reason, { key: 'listen_address.traddr' });
    }
    if (this.listeners.size >= MAX_LISTENERS) {
      throw new InvalidError(`${this.nqn} has ${MAX_LISTENERS} listeners`);
    }
    return join(traddr, SOCKET_NAME);
  }
}
