/** A plan and the host that it is for: whether disks and folders are there or can be made, and making them. */
import { constants } from 'node:fs';
import { dirname, join } from 'node:path';
import { refuseDevicePath } from '../../bdev/device-path.ts';
import { createDiskImage, growDiskImage } from '../../bdev/image.ts';
import { checkKind } from '../../bdev/open-file.ts';
import type { BlockingCalls } from '../../native/blocking-calls.ts';
import { accessPath, blockDevicePath, makeFolder, statPath } from '../../native/paths.ts';
import { type BdevPlan, EMPTY_PLAN, type Plan, same } from '../../target/model/plan.ts';
import { describeError } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import type { Part } from './fold.ts';
import { askPath, NoAnswer } from './host-files.ts';
import type { Place, Problem } from './problem.ts';
import type { ImageSize } from './short.ts';

export type Sizes = ReadonlyMap<string, ImageSize>;

export interface HostCheck {
  readonly plan: Plan;
  readonly sizes: Sizes;
  readonly placeOf: (part: Part, name: string) => Place;
  /** What runs already: it is not looked at. */
  readonly current?: Plan;
}

/** Adds what is wrong to `problems`. */
export async function checkHost(check: HostCheck, problems: Problem[]): Promise<void> {
  const { plan, placeOf, current = EMPTY_PLAN } = check;
  const disks = await Promise.all([...plan.bdevs.values()].map((bdev) => lookAtDisk(check, bdev)));
  const files = new Map<string, BdevPlan>();
  for (const { bdev, filename, identity, anew, problem } of disks.flat()) {
    const place = placeOf('bdev', bdev.name);
    if (problem !== undefined) {
      problems.push({ place, message: problem });
    }
    const twin = files.get(identity);
    if (twin === undefined) {
      files.set(identity, bdev);
    } else if (anew && !(twin.params.readonly && bdev.params.readonly) && !isSpdk(place)) {
      const message = `${filename} is disk '${twin.name}', too: two disks that write the same file destroy it`;
      problems.push({ place, message });
    }
  }
  const folders = [...plan.subsystems].flatMap(([nqn, { listeners }]) =>
    [...listeners.keys()].filter(
      (traddr) => current.subsystems.get(nqn)?.listeners.has(traddr) !== true,
    ),
  );
  const found = await Promise.all(
    folders.map(async (traddr) => ({
      place: placeOf('listener', traddr),
      message: await problemOf(askPath(traddr, (calls) => checkFolder(calls, traddr))),
    })),
  );
  for (const { place, message } of found) {
    if (message !== undefined) {
      problems.push({ place, message });
    }
  }
}

interface DiskLook {
  readonly bdev: BdevPlan;
  readonly filename: string;
  /** The same for two paths of one file. */
  readonly identity: string;
  /** It is not there yet as it is wanted. */
  readonly anew: boolean;
  readonly problem: string | undefined;
}

/** Nothing if it has no file. */
async function lookAtDisk(
  { sizes, current = EMPTY_PLAN }: HostCheck,
  bdev: BdevPlan,
): Promise<DiskLook[]> {
  const { filename } = bdev.params;
  if (typeof filename !== 'string') {
    return [];
  }
  const size = sizes.get(bdev.name);
  const anew = !same(bdev.params, current.bdevs.get(bdev.name)?.params);
  let problem: string | undefined;
  if (anew || size !== undefined) {
    const check = askPath(filename, (calls) => checkFile(calls, bdev, filename, size?.bytes));
    problem = await problemOf(anew ? check : check.catch(unlessSilent));
  }
  const identity = await askPath(filename, (calls) => identify(calls, filename)).catch(
    () => filename,
  );
  return [{ bdev, filename, identity, anew, problem }];
}

/** A disk that runs is not changed because its file system is dead; neither are others kept from being changed. */
function unlessSilent(error: unknown): void {
  if (!(error instanceof NoAnswer)) {
    throw error;
  }
}

async function problemOf(check: Promise<void>): Promise<string | undefined> {
  try {
    await check;
    return undefined;
  } catch (error) {
    return describeError(error);
  }
}

/** SPDK lets several bdevs have one file. */
const isSpdk = ({ path }: Place): boolean => path[0] === 'subsystems';

async function identify(calls: BlockingCalls, filename: string): Promise<string> {
  const stats = await statPath(calls, filename);
  if (stats === undefined) {
    return filename;
  }
  // Two nodes of one device are one disk.
  return stats.kind === 'block-device' ? `device ${stats.rdev}` : `${stats.dev}:${stats.ino}`;
}

async function checkFile(
  calls: BlockingCalls,
  { params }: BdevPlan,
  filename: string,
  size: number | undefined,
): Promise<void> {
  const stats = await statPath(calls, filename);
  if (stats === undefined) {
    if (size === undefined) {
      throw new Error(
        `${filename} does not exist: bring it back, give a size to have it made, or take the entry out`,
      );
    }
    await refuseDevicePath(calls, filename);
    const folder = dirname(filename);
    if ((await statPath(calls, folder))?.kind !== 'folder') {
      throw new Error(`${filename} cannot be made: there is no folder ${folder}`);
    }
    await accessPath(calls, folder, constants.W_OK | constants.X_OK);
    return;
  }
  checkKind(stats, filename);
  const readonly = params.readonly === true;
  await accessPath(calls, filename, readonly ? constants.R_OK : constants.R_OK | constants.W_OK);
  const blockSize = Number(params.block_size ?? 512);
  if (stats.kind === 'file') {
    checkLength(filename, stats.size, blockSize, size, readonly);
    return;
  }
  const { size: bytes, logicalBlockSize: logical } = await blockDevicePath(calls, filename);
  if (blockSize < logical) {
    throw new Error(`the blocks of ${filename} have ${logical} bytes, ${blockSize} are not enough`);
  }
  if (bytes < (size ?? blockSize)) {
    throw new Error(`${filename} has ${bytes} bytes, less than the ${size ?? blockSize} asked for`);
  }
}

function checkLength(
  filename: string,
  bytes: number,
  blockSize: number,
  size: number | undefined,
  readonly: boolean,
): void {
  if (size !== undefined && bytes < size) {
    if (readonly) {
      throw new Error(`${filename} is readonly: it cannot be made longer`);
    }
  } else if (bytes < blockSize) {
    throw new Error(`${filename} is shorter than one block of ${blockSize} bytes`);
  }
}

/** The folder is there, or can be made. */
async function checkFolder(calls: BlockingCalls, folder: string): Promise<void> {
  let existing = folder;
  let stats = await statPath(calls, existing);
  while (stats === undefined) {
    existing = dirname(existing);
    stats = await statPath(calls, existing);
  }
  if (stats.kind !== 'folder') {
    throw new Error(`${folder} cannot be made: ${existing} is not a folder`);
  }
  await accessPath(calls, existing, constants.W_OK | constants.X_OK);
  const socket = join(folder, 'cntrl');
  const there = await statPath(calls, socket);
  if (there !== undefined && there.kind !== 'socket') {
    throw new Error(`${socket} is in the way: it is not a socket`);
  }
}

/**
 * Makes files and folders that are missing, and files longer that are too short; `current` is what runs. Rejects with what the system says
 * of those that are not in use yet.
 */
export async function prepareHost(
  { bdevs, subsystems }: Plan,
  sizes: Sizes,
  log: Logger,
  current: Plan = EMPTY_PLAN,
): Promise<void> {
  const images = [...sizes].map(async ([name, { bytes }]) => {
    const params = bdevs.get(name)?.params;
    const path = params?.filename;
    if (typeof path === 'string') {
      const prepared = askPath(path, (calls) => prepareImage(calls, path, bytes, log));
      const runs = same(params, current.bdevs.get(name)?.params);
      await (runs ? prepared.catch(unlessSilent) : prepared);
    }
  });
  const folders = [...subsystems].flatMap(([nqn, { listeners }]) =>
    [...listeners.keys()]
      .filter((folder) => current.subsystems.get(nqn)?.listeners.has(folder) !== true)
      .map((folder) => askPath(folder, (calls) => makeFolder(calls, folder, 0o700))),
  );
  await Promise.all([...images, ...folders]);
}

async function prepareImage(
  calls: BlockingCalls,
  path: string,
  bytes: number,
  log: Logger,
): Promise<void> {
  if (await createDiskImage(calls, path, bytes)) {
    log.info({ path, bytes }, 'sparse disk image created');
    return;
  }
  const grown = await growDiskImage(calls, path, bytes);
  if (grown === undefined) {
    return;
  }
  const { before } = grown;
  if (before < bytes) {
    log.info({ path, bytes, before }, 'disk image made longer');
  } else if (before > bytes) {
    log.warn({ path, bytes: before, size: bytes }, 'longer than its size: all is served');
  }
}
