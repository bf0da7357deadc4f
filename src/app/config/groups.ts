/** Which calls of a change have to do with each other: those of one VM, mostly. The groups can be carried out at the same time. */
import type { ConfigCall } from '../../target/model/plan.ts';
import { baseOf, type Plan } from '../../target/model/plan.ts';

/** Sets of names, two of which become one when something has both. */
class Families {
  readonly #parents = new Map<string, string>();

  of(name: string): string {
    const parent = this.#parents.get(name);
    if (parent === undefined || parent === name) {
      return name;
    }
    const root = this.of(parent);
    this.#parents.set(name, root);
    return root;
  }

  join(a: string, b: string): void {
    this.#parents.set(this.of(a), this.of(b));
  }
}

const subsystemKey = (nqn: unknown) => `subsystem ${nqn}`;
const bdevKey = (name: unknown) => `bdev ${name}`;

/** Everything that a bdev, a file, a UUID or a socket connects, now or then, belongs together. */
function familiesOf(plans: readonly Plan[]): Families {
  const families = new Families();
  for (const { bdevs, subsystems } of plans) {
    for (const bdev of bdevs.values()) {
      const { filename, uri, uuid } = bdev.params;
      const base = baseOf(bdev);
      const shared = [
        ...(base === undefined ? [] : [bdevKey(base)]),
        ...(filename === undefined ? [] : [`file ${filename}`]),
        ...(uri === undefined ? [] : [`uri ${uri}`]),
        ...(uuid === undefined ? [] : [`uuid ${uuid}`]),
      ];
      for (const key of shared) {
        families.join(bdevKey(bdev.name), key);
      }
    }
    for (const [nqn, { namespaces, listeners }] of subsystems) {
      for (const name of namespaces.keys()) {
        families.join(subsystemKey(nqn), bdevKey(name));
      }
      for (const traddr of listeners.keys()) {
        families.join(subsystemKey(nqn), `socket ${traddr}`);
      }
    }
  }
  return families;
}

export interface GroupedCalls {
  /** Of the whole target: to be made before all others. */
  readonly first: readonly ConfigCall[];
  /** Each in its order. */
  readonly groups: readonly (readonly ConfigCall[])[];
}

/** `calls` make one of the plans of the other. */
export function groupCalls(calls: readonly ConfigCall[], before: Plan, after: Plan): GroupedCalls {
  const families = familiesOf([before, after]);
  const first: ConfigCall[] = [];
  const groups = new Map<string, ConfigCall[]>();
  for (const call of calls) {
    const { nqn, name, base_name } = call.params ?? {};
    const isBdev = call.method.startsWith('bdev_');
    if (nqn === undefined && !isBdev) {
      first.push(call);
      continue;
    }
    const family = families.of(nqn === undefined ? bdevKey(name ?? base_name) : subsystemKey(nqn));
    const group = groups.get(family) ?? [];
    group.push(call);
    groups.set(family, group);
  }
  return { first, groups: [...groups.values()] };
}
