/**
 * Fills in what a plan leaves open, so that it says of everything what it will be: as it is in the target that runs, or else as the
 * target would choose it.
 */
import { blockDevicePath, statPath } from '../../native/paths.ts';
import {
  type BdevPlan,
  baseOf,
  type NamespacePlan,
  type Plan,
  type SubsystemPlan,
} from '../../target/model/plan.ts';
import { randomUuid, uuidFromName } from '../../util/uuid.ts';
import { askPath } from './host-files.ts';

/** Logical block sizes of devices, by their paths. */
export type BlockSizes = ReadonlyMap<string, number>;

/**
 * `current`: what runs. NSIDs that a namespace has are kept, so that disks that come and go leave the others alone. `blockSizes`: of the
 * files that are devices, see `askBlockSizes`.
 */
export function completePlan(plan: Plan, current: Plan, blockSizes: BlockSizes = new Map()): Plan {
  const bdevs = new Map<string, BdevPlan>();
  for (const [name, bdev] of plan.bdevs) {
    bdevs.set(name, completeBdev(bdev, bdevs, current.bdevs.get(name), blockSizes));
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
  blockSizes: BlockSizes,
): BdevPlan {
  const { filename, uri, block_size, uuid, ...rest } = bdev.params;
  const base = below.get(baseOf(bdev) ?? '');
  const defaultUuid = () =>
    base === undefined
      ? (current?.params.uuid ?? randomUuid())
      : uuidFromName(`${base.params.uuid}\0${bdev.name}`);
  const params = {
    ...rest,
    ...(filename !== undefined && { filename }),
    ...(uri !== undefined && { uri, ...blockSizeOfServer(bdev, current) }),
    ...(base === undefined &&
      uri === undefined && {
        block_size: block_size ?? blockSizes.get(String(filename)) ?? 512,
      }),
    uuid: uuid ?? defaultUuid(),
  };
  return { ...bdev, params };
}

/** What is not said is what the server wants, which is known of a bdev that runs. */
function blockSizeOfServer({ params }: BdevPlan, current: BdevPlan | undefined) {
  const known = current?.params.uri === params.uri ? current?.params.block_size : undefined;
  const block_size = params.block_size ?? known;
  return block_size === undefined ? {} : { block_size };
}

/**
 * What the bdevs of a plan have if nobody says otherwise. A file that is missing will be a regular one. One that does not answer is as it
 * is in the target that runs.
 */
export async function askBlockSizes({ bdevs }: Plan, current: Plan): Promise<BlockSizes> {
  const unknown = [...bdevs.values()].filter(
    ({ params }) => typeof params.filename === 'string' && params.block_size === undefined,
  );
  const found = await Promise.all(
    unknown.map(async ({ name, params }): Promise<[string, number]> => {
      const filename = String(params.filename);
      const before = current.bdevs.get(name)?.params;
      const known = before?.filename === filename ? Number(before.block_size) : 512;
      const size = await askPath(filename, async (calls) => {
        const isDevice = (await statPath(calls, filename))?.kind === 'block-device';
        return isDevice ? (await blockDevicePath(calls, filename)).logicalBlockSize : 512;
      }).catch(() => known);
      return [filename, size];
    }),
  );
  return new Map(found);
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
