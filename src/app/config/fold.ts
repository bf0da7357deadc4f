/**
 * Method calls → plan, with what a target would find wrong in them. Parameters are as the methods' schemas have them; here they get
 * their defaults, so that plans can be compared.
 */
import { join, resolve } from 'node:path';
import { fileIdentity } from '../../bdev/file.ts';
import { isVfioUser, planTransport } from '../../rpc/methods/transport.ts';
import {
  type ConfigCall,
  saveConfig,
  saveSubsystemParams,
  saveTransport,
} from '../../rpc/save-config.ts';
import { DISCOVERY_NQN, nqnProblem } from '../../target/nqn.ts';
import { SCHEDULERS, STATIC } from '../../target/scheduler.ts';
import { MAX_LISTENERS, Subsystem } from '../../target/subsystem.ts';
import type { Target } from '../../target/target.ts';
import { describeError } from '../../util/errors.ts';
import { MAX_SOCKET_PATH_BYTES } from '../../util/socket-path.ts';
import { uuidFromName } from '../../util/uuid.ts';
import {
  type BdevPlan,
  baseOf,
  type NamespacePlan,
  type Params,
  type Plan,
  type SubsystemPlan,
} from './plan.ts';
import { type Place, type Problem, refuse } from './problem.ts';

/** A call, and where it is written. */
export interface PlacedCall extends ConfigCall {
  readonly place: Place;
}

const IOS_GRANULARITY = 1000;

/** Keys that make a bdev what it is, and their defaults. Others are accepted and have no effect. */
const FILE_KEYS = {
  filename: undefined,
  block_size: undefined,
  readonly: false,
  direct: false,
  uuid: undefined,
};
const MEMORY_KEYS = { num_blocks: undefined, block_size: undefined, uuid: undefined };
const BDEV_KEYS: Readonly<Record<string, Params>> = {
  bdev_aio_create: { ...FILE_KEYS, nowait: false },
  bdev_uring_create: FILE_KEYS,
  bdev_malloc_create: MEMORY_KEYS,
  bdev_null_create: MEMORY_KEYS,
  bdev_delay_create: {
    base_bdev_name: undefined,
    avg_read_latency: undefined,
    p99_read_latency: undefined,
    avg_write_latency: undefined,
    p99_write_latency: undefined,
    uuid: undefined,
  },
  bdev_error_create: { base_name: undefined, uuid: undefined },
};

interface MutableSubsystem extends SubsystemPlan {
  allowAnyHost: boolean;
  readonly hosts: Map<string, true>;
  readonly namespaces: Map<string, NamespacePlan>;
  readonly listeners: Map<string, Params & { readonly traddr: string }>;
}

/** Whether a call says what a target should have. */
export function isFoldable(method: string): boolean {
  return method in BDEV_KEYS || method in Fold.calls;
}

export interface Folded {
  readonly plan: Plan;
  /** Where bdevs, subsystems and listeners are written: by `placeKey`. */
  readonly places: ReadonlyMap<string, Place>;
}

export type Part = 'bdev' | 'subsystem' | 'listener';

/** `name`: of a bdev, NQN, or traddr. */
export function placeKey(part: Part, name: string): string {
  return `${part} ${name}`;
}

/** Adds what is wrong to `problems`. */
export function foldCalls(calls: readonly PlacedCall[], problems: Problem[]): Folded {
  const fold = new Fold(problems);
  for (const call of calls) {
    fold.add(call);
  }
  return fold;
}

/** What a target has. */
export function planOf(target: Target): Plan {
  const place = { file: 'the target', path: [] };
  const calls = saveConfig(target)
    .subsystems.flatMap(({ config }) => config ?? [])
    .filter(({ method }) => isFoldable(method))
    .map((call) => ({ ...call, place }));
  const problems: Problem[] = [];
  const { plan } = foldCalls(calls, problems);
  refuse(problems);
  return plan;
}

/** With all defaults, as they are saved. */
function schedulerParams(params: Params): Params | undefined {
  const { name, period, load_limit, core_limit, core_busy, mappings } = params;
  check(
    SCHEDULERS.some((scheduler) => scheduler === name),
    `there is no scheduler '${name}', only ${SCHEDULERS.join(' and ')}`,
  );
  check(mappings === undefined, `key 'mappings' is not supported`);
  return name === STATIC.name
    ? undefined
    : {
        name,
        period: period || STATIC.period,
        load_limit: load_limit ?? STATIC.loadLimit,
        core_limit: core_limit ?? STATIC.coreLimit,
        core_busy: core_busy ?? STATIC.coreBusy,
      };
}

class Fold implements Folded {
  readonly plan: {
    maxSubsystems: number | undefined;
    scheduler: Params | undefined;
    transport: Params | undefined;
    readonly bdevs: Map<string, BdevPlan>;
    readonly subsystems: Map<string, MutableSubsystem>;
  } = {
    maxSubsystems: undefined,
    scheduler: undefined,
    transport: undefined,
    bdevs: new Map(),
    subsystems: new Map(),
  };
  readonly places = new Map<string, Place>();
  readonly #problems: Problem[];
  /** UUID → name of a bdev. */
  readonly #uuids = new Map<string, string>();
  /** Bdev → NQN of the subsystem, or the bdev on top of it. */
  readonly #claims = new Map<string, string>();
  /** traddr → NQN. */
  readonly #listeners = new Map<string, string>();
  /** Names of what could not be made. */
  readonly #failed = new Set<unknown>();
  #mallocs = 0;

  constructor(problems: Problem[]) {
    this.#problems = problems;
  }

  /** What is known of the calls but those that make bdevs. */
  static readonly calls: Readonly<
    Record<string, (fold: Fold, params: Params, place: Place) => void>
  > = {
    bdev_set_qos_limit: (fold, params) => fold.#limit(params),
    nvmf_set_max_subsystems: ({ plan }, { max_subsystems }) => {
      plan.maxSubsystems = Number(max_subsystems ?? 0) || undefined;
    },
    framework_set_scheduler: ({ plan }, params) => {
      plan.scheduler = schedulerParams(params);
    },
    nvmf_create_transport: (fold, params) => fold.#transport(params),
    nvmf_create_subsystem: (fold, params, place) => fold.#subsystem(params, place),
    nvmf_subsystem_add_host: (fold, { nqn, host }) => {
      const problem = nqnProblem(String(host));
      check(problem === undefined, `host: ${problem}`);
      fold.#find(nqn).hosts.set(String(host), true);
    },
    nvmf_subsystem_allow_any_host: (fold, { nqn, allow_any_host }) => {
      fold.#find(nqn).allowAnyHost = allow_any_host === true;
    },
    nvmf_subsystem_add_ns: (fold, { nqn, namespace }) =>
      fold.#namespace(fold.#find(nqn), namespace as Params),
    nvmf_subsystem_add_listener: (fold, { nqn, listen_address }, place) =>
      fold.#listener(fold.#find(nqn), listen_address as Params, place),
  };

  add({ method, params = {}, place }: PlacedCall): void {
    try {
      const handle = Fold.calls[method];
      if (handle !== undefined) {
        handle(this, params, place);
      } else {
        this.#bdev(method, params, place);
      }
    } catch (error) {
      const { nqn, name } = params;
      this.#failed.add(nqn ?? name);
      if (!(error instanceof FollowUp)) {
        this.#problems.push({ place, message: describeError(error) });
      }
    }
  }

  /** Something that calls speak of is not there. */
  #missing(name: string, message: string): Error {
    return this.#failed.has(name) ? new FollowUp() : new Error(message);
  }

  #bdev(create: string, given: Params, place: Place): void {
    const { bdevs } = this.plan;
    const name =
      create === 'bdev_error_create'
        ? `EE_${given.base_name}`
        : String(given.name ?? this.#mallocName());
    check(!bdevs.has(name), `there is a bdev '${name}' already`);
    const params: Record<string, unknown> = create === 'bdev_error_create' ? {} : { name };
    for (const [key, otherwise] of Object.entries(BDEV_KEYS[create])) {
      const value = given[key] ?? otherwise;
      if (value !== undefined) {
        params[key] = value;
      }
    }
    if (typeof params.filename === 'string') {
      const filename = resolve(params.filename);
      params.filename = filename;
      params.uuid ??= this.#fileUuid(filename, name);
    }
    const uuid = typeof params.uuid === 'string' ? params.uuid.toLowerCase() : undefined;
    if (uuid !== undefined) {
      const other = this.#uuids.get(uuid);
      check(other === undefined, `bdev '${other}' has the same UUID ${uuid}`);
      this.#uuids.set(uuid, name);
      params.uuid = uuid;
    }
    const bdev = { name, create, params, limits: {} };
    const base = baseOf(bdev);
    if (base !== undefined) {
      check(bdevs.has(base), `there is no bdev '${base}'`);
      const owner = this.#claims.get(base);
      check(owner === undefined, `bdev '${base}' is in use by ${owner} already`);
      this.#claims.set(base, `bdev '${name}'`);
    }
    bdevs.set(name, bdev);
    this.places.set(placeKey('bdev', name), place);
  }

  #mallocName(): string {
    let name: string;
    do {
      name = `Malloc${this.#mallocs++}`;
    } while (this.plan.bdevs.has(name));
    return name;
  }

  /** What the target would make of the path. */
  #fileUuid(filename: string, name: string): string {
    const path = fileIdentity(filename);
    const uuid = uuidFromName(path);
    return this.#uuids.has(uuid) ? uuidFromName(`${path}\0${name}`) : uuid;
  }

  #limit({ name, ...given }: Params): void {
    const bdev = this.plan.bdevs.get(String(name));
    if (bdev === undefined) {
      throw this.#missing(String(name), `there is no bdev '${name}' to limit`);
    }
    const limits: Record<string, number> = {
      rw_ios_per_sec: 0,
      rw_mbytes_per_sec: 0,
      r_mbytes_per_sec: 0,
      w_mbytes_per_sec: 0,
      ...bdev.limits,
      ...(given as Record<string, number>),
    };
    limits.rw_ios_per_sec = Math.ceil(limits.rw_ios_per_sec / IOS_GRANULARITY) * IOS_GRANULARITY;
    const none = Object.values(limits).every((limit) => limit === 0);
    this.plan.bdevs.set(bdev.name, { ...bdev, limits: none ? {} : limits });
  }

  #transport(params: Params): void {
    const trtype = String(params.trtype);
    check(isVfioUser(trtype), `transport '${trtype}' is not there, only VFIOUSER`);
    check(this.plan.transport === undefined, 'there is a VFIOUSER transport already');
    this.plan.transport = saveTransport(
      planTransport({ ...params, trtype: 'VFIOUSER' } as Parameters<typeof planTransport>[0]),
    ).params;
  }

  #subsystem(params: Params, place: Place): void {
    const { subsystems, maxSubsystems = 1024 } = this.plan;
    const nqn = String(params.nqn);
    check(!subsystems.has(nqn), `there is a subsystem ${nqn} already`);
    check(nqn !== DISCOVERY_NQN, 'the discovery subsystem is always there');
    check(subsystems.size < maxSubsystems, `there are ${maxSubsystems} subsystems already`);
    const { allow_any_host, ...rest } = saveSubsystemParams(
      // Checks it, and knows the defaults.
      new Subsystem({
        nqn,
        serialNumber: params.serial_number as string | undefined,
        modelNumber: params.model_number as string | undefined,
        adminLabel: params.admin_label as string | undefined,
        maxNamespaces: params.max_namespaces as number | undefined,
        allowAnyHost: params.allow_any_host as boolean | undefined,
        minCntlid: params.min_cntlid as number | undefined,
        maxCntlid: params.max_cntlid as number | undefined,
        dmrsl: params.dmrsl as number | undefined,
        wzsl: params.wzsl as number | undefined,
      }),
    );
    const subsystem = {
      params: rest,
      allowAnyHost: allow_any_host,
      hosts: new Map(),
      namespaces: new Map(),
      listeners: new Map(),
    };
    subsystems.set(nqn, subsystem);
    this.places.set(placeKey('subsystem', nqn), place);
  }

  #find(nqn: unknown): MutableSubsystem {
    const subsystem = this.plan.subsystems.get(String(nqn));
    if (subsystem === undefined) {
      throw this.#missing(String(nqn), `there is no subsystem ${nqn}`);
    }
    return subsystem;
  }

  #namespace(subsystem: MutableSubsystem, given: Params): void {
    const { nqn, max_namespaces } = subsystem.params;
    const asked = String(given.bdev_name);
    const { bdevs } = this.plan;
    const bdev_name = bdevs.has(asked) ? asked : this.#uuids.get(asked.toLowerCase());
    if (bdev_name === undefined) {
      throw this.#missing(asked, `there is no bdev '${asked}'`);
    }
    const owner = this.#claims.get(bdev_name);
    check(owner === undefined, `bdev '${bdev_name}' is in use by ${owner} already`);
    const nsid = Number(given.nsid ?? 0);
    check(nsid <= max_namespaces, `NSID ${nsid} is more than the ${max_namespaces} of ${nqn}`);
    const { namespaces } = subsystem;
    check(namespaces.size < max_namespaces, `${nqn} has ${max_namespaces} namespaces already`);
    const twin = [...namespaces.values()].find((other) => nsid > 0 && other.nsid === nsid);
    check(
      twin === undefined,
      `NSID ${nsid} of ${nqn} is that of bdev '${twin?.bdev_name}' already`,
    );
    const { uuid, nguid, eui64 } = given as { uuid?: string; nguid?: string; eui64?: string };
    const namespace: NamespacePlan = {
      ...(nsid > 0 && { nsid }),
      bdev_name,
      ...(nguid !== undefined && { nguid: nguid.toUpperCase() }),
      ...(eui64 !== undefined && { eui64: eui64.toUpperCase() }),
      ...(uuid !== undefined && { uuid: uuid.toLowerCase() }),
    };
    this.#claims.set(bdev_name, nqn);
    namespaces.set(bdev_name, namespace);
  }

  #listener(subsystem: MutableSubsystem, given: Params, place: Place): void {
    const { nqn } = subsystem.params;
    const trtype = String(given.trtype);
    check(isVfioUser(trtype), `transport '${trtype}' is not there, only VFIOUSER`);
    check(this.plan.transport !== undefined, 'there is no VFIOUSER transport to listen with');
    const traddr = String(given.traddr);
    check(traddr.startsWith('/'), `'${traddr}' must be the absolute path of a folder`);
    const socket = join(traddr, 'cntrl');
    check(
      Buffer.byteLength(socket) <= MAX_SOCKET_PATH_BYTES,
      `the path of the socket, ${socket}, has more than ${MAX_SOCKET_PATH_BYTES} bytes`,
    );
    const other = this.#listeners.get(join(traddr, '.'));
    check(other === undefined, `${other} listens at ${socket} already`);
    check(subsystem.listeners.size < MAX_LISTENERS, `${nqn} has ${MAX_LISTENERS} listeners`);
    const { adrfam = 'unknown', trsvcid = '' } = given;
    const listener = { trtype: 'VFIOUSER', adrfam, traddr, trsvcid };
    this.#listeners.set(join(traddr, '.'), nqn);
    subsystem.listeners.set(traddr, listener);
    this.places.set(placeKey('listener', traddr), place);
  }
}

/** What is wrong follows from something else that was told of. */
class FollowUp extends Error {}

function check(good: boolean, message: string): asserts good {
  if (!good) {
    throw new Error(message);
  }
}
