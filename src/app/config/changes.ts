/** The method calls that make one plan of another. What is the same in both is not touched. */
import { isDeepStrictEqual } from 'node:util';
import { deletionOf } from '../../bdev/kind-rules.ts';
import type { ConfigCall } from '../../target/model/plan.ts';
import {
  addNamespaceCall,
  type BdevPlan,
  baseOf,
  bdevCalls,
  hostCall,
  listenerCall,
  type Plan,
  type SubsystemPlan,
  same,
  schedulerCall,
  subsystemCalls,
} from '../../target/model/plan.ts';

const MIB = 1024 * 1024;
const NO_LIMITS = {
  rw_ios_per_sec: 0,
  rw_mbytes_per_sec: 0,
  r_mbytes_per_sec: 0,
  w_mbytes_per_sec: 0,
};

/**
 * In the order in which they are to be made: first what goes, then what comes. Both plans are complete. `resized`: bdevs whose file has
 * another size than they have.
 */
export function planChanges(
  current: Plan,
  wanted: Plan,
  resized: ReadonlySet<string> = new Set(),
): ConfigCall[] {
  const kept = (bdev: string): boolean => {
    const [before, after] = [current.bdevs.get(bdev), wanted.bdevs.get(bdev)];
    if (before === undefined || after === undefined || bdevChange(before, after) === 'anew') {
      return false;
    }
    const base = baseOf(after);
    return base === undefined || kept(base);
  };
  const going: ConfigCall[] = [];
  const coming: ConfigCall[] = [];
  for (const [nqn, before] of current.subsystems) {
    const after = wanted.subsystems.get(nqn);
    if (after === undefined || !same(before.params, after.params)) {
      going.push({ method: 'nvmf_delete_subsystem', params: { nqn } });
    } else {
      going.push(...shrink(before, after, kept));
    }
  }
  for (const { name, create } of [...current.bdevs.values()].reverse()) {
    if (!kept(name)) {
      going.push({ method: deletionOf(create), params: { name } });
    }
  }
  if (wanted.maxSubsystems !== undefined && wanted.maxSubsystems !== current.maxSubsystems) {
    const max_subsystems = wanted.maxSubsystems;
    coming.push({ method: 'nvmf_set_max_subsystems', params: { max_subsystems } });
  }
  if (!same(wanted.scheduler, current.scheduler)) {
    coming.push(schedulerCall(wanted.scheduler));
  }
  if (current.transport === undefined && wanted.transport !== undefined) {
    coming.push({ method: 'nvmf_create_transport', params: wanted.transport });
  }
  for (const [name, after] of wanted.bdevs) {
    const before = current.bdevs.get(name);
    if (before === undefined || !kept(name)) {
      coming.push(...bdevCalls(after));
      continue;
    }
    if (bdevChange(before, after) === 'size') {
      const new_size = bytesOf(after) / MIB;
      coming.push({ method: 'bdev_null_resize', params: { name, new_size } });
    }
    if (resized.has(name)) {
      coming.push({ method: after.create.replace(/_create$/, '_rescan'), params: { name } });
    }
    if (!same(before.limits, after.limits)) {
      const params = { name, ...NO_LIMITS, ...after.limits };
      coming.push({ method: 'bdev_set_qos_limit', params });
    }
  }
  for (const [nqn, after] of wanted.subsystems) {
    const before = current.subsystems.get(nqn);
    if (before === undefined || !same(before.params, after.params)) {
      coming.push(...subsystemCalls(after));
    } else {
      coming.push(...grow(before, after, kept));
    }
  }
  return [...going, ...coming];
}

/** What has to be done to a bdev. */
function bdevChange(before: BdevPlan, after: BdevPlan): 'nothing' | 'size' | 'anew' {
  if (before.create === after.create && same(before.params, after.params)) {
    return 'nothing';
  }
  const { num_blocks: _, ...others } = before.params;
  const { num_blocks: __, ...wanted } = after.params;
  const sizeOnly = before.create === after.create && isDeepStrictEqual(others, wanted);
  return sizeOnly && after.create === 'bdev_null_create' && bytesOf(after) % MIB === 0
    ? 'size'
    : 'anew';
}

function bytesOf({ params }: BdevPlan): number {
  return Number(params.num_blocks) * Number(params.block_size);
}

/** RAM disks that would lose what is in them, though they stay. */
export function emptiedDisks(current: Plan, wanted: Plan): BdevPlan[] {
  return [...wanted.bdevs.values()].filter((after) => {
    const before = current.bdevs.get(after.name);
    return before?.create === 'bdev_malloc_create' && bdevChange(before, after) === 'anew';
  });
}

/** What a subsystem that stays has to lose. */
function shrink(
  before: SubsystemPlan,
  after: SubsystemPlan,
  kept: (bdev: string) => boolean,
): ConfigCall[] {
  const { nqn } = before.params;
  return [
    ...[...before.listeners.values()]
      .filter(({ traddr }) => !same(before.listeners.get(traddr), after.listeners.get(traddr)))
      .map((address) => listenerCall('remove', nqn, address)),
    ...[...before.namespaces.values()]
      .filter((old) => !kept(old.bdev_name) || !same(old, after.namespaces.get(old.bdev_name)))
      .map(({ nsid }) => ({ method: 'nvmf_subsystem_remove_ns', params: { nqn, nsid } })),
    ...[...before.hosts.keys()]
      .filter((host) => !after.hosts.has(host))
      .map((host) => hostCall('remove', nqn, host)),
  ];
}

/** What it has to get. */
function grow(
  before: SubsystemPlan,
  after: SubsystemPlan,
  kept: (bdev: string) => boolean,
): ConfigCall[] {
  const { nqn } = after.params;
  const { allowAnyHost: allow_any_host } = after;
  return [
    ...(before.allowAnyHost === allow_any_host
      ? []
      : [{ method: 'nvmf_subsystem_allow_any_host', params: { nqn, allow_any_host } }]),
    ...[...after.hosts.keys()]
      .filter((host) => !before.hosts.has(host))
      .map((host) => hostCall('add', nqn, host)),
    ...[...after.namespaces.values()]
      .filter(
        ({ bdev_name }) =>
          !kept(bdev_name) ||
          !same(before.namespaces.get(bdev_name), after.namespaces.get(bdev_name)),
      )
      .map((namespace) => addNamespaceCall(nqn, namespace)),
    ...[...after.listeners.values()]
      .filter(({ traddr }) => !same(before.listeners.get(traddr), after.listeners.get(traddr)))
      .map((address) => listenerCall('add', nqn, address)),
  ];
}
