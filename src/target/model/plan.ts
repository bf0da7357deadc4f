/**
 * What a target should have, or has: bdevs, transport, subsystems. Plain data, made of the method calls of a configuration, and turned
 * into them again. Two plans that are equal make targets that are equal.
 */
import { isDeepStrictEqual } from 'node:util';
import { withoutDefaults } from './bdevs.ts';

export type Params = Readonly<Record<string, unknown>>;

/** A method call of a configuration. */
export interface ConfigCall {
  readonly method: string;
  readonly params?: Params;
}

/** What SPDK calls a subsystem here is a part of the target. */
export interface ConfigSection {
  readonly subsystem: string;
  readonly config: readonly ConfigCall[] | null;
}

/** SPDK's JSON configuration format. */
export interface ConfigDocument {
  readonly subsystems: readonly ConfigSection[];
}

export interface BdevPlan {
  readonly name: string;
  /** The method that makes it. */
  readonly create: string;
  readonly params: Params & { readonly uuid?: string };
  /** Of bdev_set_qos_limit; empty: none. */
  readonly limits: Params;
}

export interface NamespacePlan {
  readonly bdev_name: string;
  /** Absent: the smallest free one. */
  readonly nsid?: number;
  /** Absent: the bdev's. */
  readonly uuid?: string;
  /** Absent: the UUID. */
  readonly nguid?: string;
  readonly eui64?: string;
}

/** A namespace of which nothing is left open. */
export type CompleteNamespace = NamespacePlan &
  Required<Pick<NamespacePlan, 'nsid' | 'uuid' | 'nguid'>>;

/** Where a subsystem listens. */
export interface ListenAddress {
  /** The folder of the socket. */
  readonly traddr: string;
  /** These two are shown, and have no effect. */
  readonly trsvcid: string;
  readonly adrfam: string;
}

export interface SubsystemPlan {
  readonly params: Params & { readonly nqn: string; readonly max_namespaces: number };
  readonly allowAnyHost: boolean;
  /** By their NQN. */
  readonly hosts: ReadonlyMap<string, true>;
  /** By the bdev. */
  readonly namespaces: ReadonlyMap<string, NamespacePlan>;
  /** By traddr. */
  readonly listeners: ReadonlyMap<string, ListenAddress>;
}

export interface Plan {
  readonly maxSubsystems: number | undefined;
  /** Parameters of framework_set_scheduler; undefined: static. */
  readonly scheduler: Params | undefined;
  readonly transport: Params | undefined;
  /** By their names, in the order in which they are made. */
  readonly bdevs: ReadonlyMap<string, BdevPlan>;
  /** By their NQNs. */
  readonly subsystems: ReadonlyMap<string, SubsystemPlan>;
}

export const EMPTY_PLAN: Plan = {
  maxSubsystems: undefined,
  scheduler: undefined,
  transport: undefined,
  bdevs: new Map(),
  subsystems: new Map(),
};

export function same(a: unknown, b: unknown): boolean {
  return isDeepStrictEqual(a, b);
}

/** The bdev that another is built on. */
export function baseOf({ params }: { readonly params: Params }): string | undefined {
  const base = params.base_bdev_name ?? params.base_name;
  return typeof base === 'string' ? base : undefined;
}

/** The calls that make a bdev. */
export function bdevCalls(bdev: BdevPlan): ConfigCall[] {
  const { name, create, limits } = bdev;
  return [{ method: create, params: withoutDefaults(bdev) }, ...limitCalls(name, limits)];
}

function limitCalls(name: string, limits: Params): ConfigCall[] {
  return Object.keys(limits).length === 0
    ? []
    : [{ method: 'bdev_set_qos_limit', params: { name, ...limits } }];
}

/** The calls that make a subsystem and all that is in it. */
export function subsystemCalls(subsystem: SubsystemPlan): ConfigCall[] {
  const { params, allowAnyHost, hosts, namespaces, listeners } = subsystem;
  const { nqn } = params;
  return [
    { method: 'nvmf_create_subsystem', params: { ...params, allow_any_host: allowAnyHost } },
    ...[...hosts.keys()].map((host) => hostCall('add', nqn, host)),
    ...[...namespaces.values()]
      .sort((a, b) => (a.nsid ?? Infinity) - (b.nsid ?? Infinity))
      .map((namespace) => addNamespaceCall(nqn, namespace)),
    ...[...listeners.values()].map((address) => listenerCall('add', nqn, address)),
  ];
}

export const hostCall = (verb: 'add' | 'remove', nqn: string, host: string): ConfigCall => ({
  method: `nvmf_subsystem_${verb}_host`,
  params: { nqn, host },
});

export const addNamespaceCall = (nqn: string, namespace: NamespacePlan): ConfigCall => ({
  method: 'nvmf_subsystem_add_ns',
  params: { nqn, namespace },
});

/** Without an address family that is not known: SPDK's methods do not take that. */
export const listenerCall = (
  verb: 'add' | 'remove',
  nqn: string,
  { traddr, trsvcid, adrfam }: ListenAddress,
): ConfigCall => ({
  method: `nvmf_subsystem_${verb}_listener`,
  params: {
    nqn,
    listen_address: {
      trtype: 'VFIOUSER',
      ...(adrfam !== 'unknown' && { adrfam }),
      traddr,
      ...(trsvcid !== '' && { trsvcid }),
    },
  },
});

export const schedulerCall = (scheduler: Params | undefined): ConfigCall => ({
  method: 'framework_set_scheduler',
  params: scheduler ?? { name: 'static' },
});

/** The parts of a target, in the order in which SPDK starts them, and what each of them builds on. */
export const SECTIONS: readonly {
  readonly subsystem: string;
  readonly depends_on: readonly string[];
}[] = [
  { subsystem: 'iobuf', depends_on: [] },
  { subsystem: 'accel', depends_on: ['iobuf'] },
  { subsystem: 'bdev', depends_on: ['accel', 'iobuf'] },
  { subsystem: 'scheduler', depends_on: [] },
  { subsystem: 'nvmf', depends_on: ['bdev'] },
];

/** SPDK waits here until nothing more is built on the bdevs by itself. */
const EXAMINE: ConfigCall = { method: 'bdev_wait_for_examine' };

/** The calls of one part; null if it has nothing to configure. */
export function planSection(plan: Plan, subsystem: string): readonly ConfigCall[] | null {
  switch (subsystem) {
    case 'bdev':
      return [...[...plan.bdevs.values()].flatMap(bdevCalls), EXAMINE];
    case 'scheduler':
      return [schedulerCall(plan.scheduler)];
    case 'nvmf':
      return [
        ...(plan.maxSubsystems === undefined ? [] : [maxSubsystemsCall(plan.maxSubsystems)]),
        ...(plan.transport === undefined
          ? []
          : [{ method: 'nvmf_create_transport', params: plan.transport }]),
        ...[...plan.subsystems.values()].flatMap(subsystemCalls),
      ];
    default:
      return null;
  }
}

export const maxSubsystemsCall = (max_subsystems: number): ConfigCall => ({
  method: 'nvmf_set_max_subsystems',
  params: { max_subsystems },
});

/** What makes a target that has nothing yet. */
export function planCalls(plan: Plan): readonly ConfigCall[] {
  return SECTIONS.flatMap(({ subsystem }) => planSection(plan, subsystem) ?? []).filter(
    (call) => call !== EXAMINE,
  );
}

/** The whole plan. */
export function planDocument(plan: Plan): ConfigDocument {
  return {
    subsystems: SECTIONS.map(({ subsystem }) => ({
      subsystem,
      config: planSection(plan, subsystem),
    })),
  };
}

/** A call in a few words. */
export function describeCall({ method, params = {} }: ConfigCall): string {
  const { nqn, host, namespace, listen_address, nsid, name, base_name } = params as {
    nqn?: string;
    host?: string;
    namespace?: { bdev_name: string };
    listen_address?: { traddr: string };
    nsid?: number;
    name?: string;
    base_name?: string;
  };
  const what = [nqn ?? name ?? base_name, host, namespace?.bdev_name, listen_address?.traddr, nsid];
  return [method, ...what.filter((word) => word !== undefined)].join(' ');
}
