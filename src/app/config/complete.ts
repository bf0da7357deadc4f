/**
 * Fills in what a plan leaves open, so that it says of everything what it will be: as it is in the target that runs, or else as the
 * target would choose it.
 */
import { closeSync, openSync, statSync } from 'node:fs';
import { native } from '../../native/index.ts';
import { randomUuid, uuidFromName } from '../../util/uuid.ts';
import {
  type BdevPlan,
  baseOf,
  type NamespacePlan,
  type Plan,
  type SubsystemPlan,
} from './plan.ts';

/** `current`: what runs. NSIDs that a namespace has are kept, so that disks that come and go leave the others alone. */
export function completePlan(plan: Plan, current: Plan): Plan {
  const bdevs = new Map<string, BdevPlan>();
  for (const [name, bdev] of plan.bdevs) {
    bdevs.set(name, completeBdev(bdev, bdevs, current.bdevs.get(name)));
  }
  const subsystems = new Map(
    [...plan.subsystems].map(([nqn, subsystem]) => [
      nqn,
      completeSubsystem(subsystem, bdevs, current.subsystems.get(nqn)),
    ]),
  );
  return { ...plan, bdevs, subsystems };
}

function completeBdev(
  bdev: BdevPlan,
  below: ReadonlyMap<string, BdevPlan>,
  current: BdevPlan | undefined,
): BdevPlan {
  const { filename, block_size, uuid, ...rest } = bdev.params;
  const base = below.get(baseOf(bdev) ?? '');
  const defaultUuid = () =>
    base === undefined
      ? (current?.params.uuid ?? randomUuid())
      : uuidFromName(`${base.params.uuid}\0${bdev.name}`);
  const params = {
    ...rest,
    ...(filename !== undefined && { filename }),
    ...(base === undefined && { block_size: block_size ?? logicalBlockSize(String(filename)) }),
    uuid: uuid ?? defaultUuid(),
  };
  return { ...bdev, params };
}

/** What a bdev has if nobody says otherwise. A file that is missing will be a regular one. */
function logicalBlockSize(filename: string): number {
  if (statSync(filename, { throwIfNoEntry: false })?.isBlockDevice() !== true) {
    return 512;
  }
  const fd = openSync(filename, 'r');
  try {
    return native.blockDeviceInfo(fd).logicalBlockSize;
  } finally {
    closeSync(fd);
  }
}

function completeSubsystem(
  subsystem: SubsystemPlan,
  bdevs: ReadonlyMap<string, BdevPlan>,
  current: SubsystemPlan | undefined,
): SubsystemPlan {
  const planned = [...subsystem.namespaces.values()];
  const taken = new Set(planned.map(({ nsid }) => nsid));
  const kept = planned.map(({ nsid, bdev_name }) => {
    const old = current?.namespaces.get(bdev_name)?.nsid;
    if (nsid !== undefined || old === undefined || taken.has(old)) {
      return nsid;
    }
    taken.add(old);
    return old;
  });
  let next = 1;
  const nextFree = () => {
    while (taken.has(next)) {
      next += 1;
    }
    taken.add(next);
    return next;
  };
  const namespaces = planned.map((namespace, i): [string, NamespacePlan] => {
    const bdev = bdevs.get(namespace.bdev_name);
    const uuid = namespace.uuid ?? bdev?.params.uuid ?? '';
    const { bdev_name, eui64 } = namespace;
    return [
      bdev_name,
      {
        nsid: kept[i] ?? nextFree(),
        bdev_name,
        nguid: namespace.nguid ?? uuid.replaceAll('-', '').toUpperCase(),
        ...(eui64 !== undefined && { eui64 }),
        uuid,
      },
    ];
  });
  return { ...subsystem, namespaces: new Map(namespaces) };
}
