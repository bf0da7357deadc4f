/**
 * Three-way merge of plans: what changed in the files since they were last read is taken over; what was changed through JSON-RPC, and
 * what was made through it, stays.
 */
import {
  type BdevPlan,
  baseOf,
  type NamespacePlan,
  type Plan,
  type SubsystemPlan,
  same,
} from '../../target/model/plan.ts';

/**
 * `base`: what the files said when they were last read. `wanted`: what they say now. `current`: what there is. With `overwrite`
 * everything that the files name becomes as they say.
 */
export function mergePlans(base: Plan, wanted: Plan, current: Plan, overwrite = false): Plan {
  const merge = new Merge(overwrite);
  const disks = merge.maps(withoutLimits(base), withoutLimits(wanted), withoutLimits(current));
  const bdevs = new Map<string, BdevPlan>();
  const add = (name: string): void => {
    const disk = disks.get(name);
    if (disk === undefined || bdevs.has(name)) {
      return;
    }
    const limits = merge.value(
      base.bdevs.get(name)?.limits,
      wanted.bdevs.get(name)?.limits,
      current.bdevs.get(name)?.limits,
    );
    const bdev = { ...disk, limits: limits ?? {} };
    const below = baseOf(bdev);
    if (below !== undefined) {
      // Files and JSON-RPC together may build two bdevs on each other.
      disks.delete(name);
      add(below);
    }
    // What is built on a bdev that goes, goes too.
    if (below === undefined || bdevs.has(below)) {
      bdevs.set(name, bdev);
    }
  };
  for (const name of [...disks.keys()]) {
    add(name);
  }
  const subsystems = new Map<string, SubsystemPlan>();
  const nqns = new Set([...current.subsystems.keys(), ...wanted.subsystems.keys()]);
  for (const nqn of nqns) {
    const subsystem = merge.subsystem(
      base.subsystems.get(nqn),
      wanted.subsystems.get(nqn),
      current.subsystems.get(nqn),
    );
    if (subsystem !== undefined) {
      const namespaces = [...subsystem.namespaces]
        // A namespace goes with its bdev.
        .filter(([bdev]) => bdevs.has(bdev))
        // Of another disk it has other identifiers, unless the files say which.
        .map(([bdev, namespace]): [string, NamespacePlan] => {
          const anew = !same(bdevs.get(bdev)?.params, current.bdevs.get(bdev)?.params);
          const wish = wanted.subsystems.get(nqn)?.namespaces.get(bdev);
          return [bdev, anew && wish !== undefined ? wish : namespace];
        });
      subsystems.set(nqn, { ...subsystem, namespaces: new Map(namespaces) });
    }
  }
  return {
    maxSubsystems: merge.value(base.maxSubsystems, wanted.maxSubsystems, current.maxSubsystems),
    scheduler: merge.value(base.scheduler, wanted.scheduler, current.scheduler),
    transport:
      merge.value(base.transport, wanted.transport, current.transport) ?? current.transport,
    bdevs,
    subsystems,
  };
}

/** The bdevs without their limits, which are a thing of their own. */
function withoutLimits(plan: Plan) {
  return new Map(
    [...plan.bdevs].map(([key, { name, create, params }]) => [key, { name, create, params }]),
  );
}

class Merge {
  readonly #overwrite: boolean;

  constructor(overwrite: boolean) {
    this.#overwrite = overwrite;
  }

  /** What there shall be of a thing, or undefined. */
  value<T>(base: T | undefined, wanted: T | undefined, current: T | undefined): T | undefined {
    if (this.#overwrite && wanted !== undefined) {
      return wanted;
    }
    return same(base, wanted) ? current : wanted;
  }

  /** In the order that there is, then in that of the files. */
  maps<T>(
    base: ReadonlyMap<string, T> = new Map(),
    wanted: ReadonlyMap<string, T> = new Map(),
    current: ReadonlyMap<string, T> = new Map(),
  ): Map<string, T> {
    const merged = new Map<string, T>();
    for (const key of new Set([...current.keys(), ...wanted.keys()])) {
      const value = this.value(base.get(key), wanted.get(key), current.get(key));
      if (value !== undefined) {
        merged.set(key, value);
      }
    }
    return merged;
  }

  subsystem(
    base: SubsystemPlan | undefined,
    wanted: SubsystemPlan | undefined,
    current: SubsystemPlan | undefined,
  ): SubsystemPlan | undefined {
    const params = this.value(base?.params, wanted?.params, current?.params);
    if (params === undefined || current === undefined) {
      // What is gone and comes back for a change in the files comes back whole.
      return params && wanted;
    }
    const allowed = this.value(base?.allowAnyHost, wanted?.allowAnyHost, current.allowAnyHost);
    return {
      params,
      allowAnyHost: allowed ?? false,
      hosts: this.maps(base?.hosts, wanted?.hosts, current.hosts),
      namespaces: this.maps(base?.namespaces, wanted?.namespaces, current.namespaces),
      listeners: this.maps(base?.listeners, wanted?.listeners, current.listeners),
    };
  }
}
