/** A plan and the host that it is for: whether disks and folders are there or can be made, and making them. */
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  type Stats,
  statSync,
  truncateSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { checkKind } from '../../bdev/file.ts';
import { createDiskImage } from '../../bdev/image.ts';
import { native } from '../../native/index.ts';
import { describeError, withErrnoDetail } from '../../util/errors.ts';
import type { Logger } from '../../util/log.ts';
import type { Part } from './fold.ts';
import { type BdevPlan, EMPTY_PLAN, type Plan, same } from './plan.ts';
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
export function checkHost(
  { plan, sizes, placeOf, current = EMPTY_PLAN }: HostCheck,
  problems: Problem[],
): void {
  const attempt = (place: Place, check: () => void) => {
    try {
      check();
    } catch (error) {
      problems.push({ place, message: describeError(error) });
    }
  };
  const files = new Map<string, BdevPlan>();
  for (const [name, bdev] of plan.bdevs) {
    const { filename } = bdev.params;
    if (typeof filename !== 'string') {
      continue;
    }
    const place = placeOf('bdev', name);
    const size = sizes.get(name);
    const anew = !same(bdev.params, current.bdevs.get(name)?.params);
    if (anew || size !== undefined) {
      attempt(place, () => checkFile(bdev, filename, size?.bytes));
    }
    const twin = files.get(identity(filename));
    if (twin === undefined) {
      files.set(identity(filename), bdev);
    } else if (anew && !(twin.params.readonly && bdev.params.readonly) && !isSpdk(place)) {
      const message = `${filename} is disk '${twin.name}', too: two disks that write the same file destroy it`;
      problems.push({ place, message });
    }
  }
  for (const [nqn, { listeners }] of plan.subsystems) {
    for (const traddr of listeners.keys()) {
      if (current.subsystems.get(nqn)?.listeners.has(traddr) !== true) {
        attempt(placeOf('listener', traddr), () => checkFolder(traddr));
      }
    }
  }
}

/** SPDK lets several bdevs have one file. */
const isSpdk = ({ path }: Place): boolean => path[0] === 'subsystems';

function identity(filename: string): string {
  const stats = statSync(filename, { throwIfNoEntry: false });
  return stats === undefined ? filename : `${stats.dev}:${stats.ino}`;
}

function stat(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    throw withErrnoDetail(error, path);
  }
}

function access(path: string, mode: number): void {
  try {
    accessSync(path, mode);
  } catch (error) {
    throw withErrnoDetail(error, path);
  }
}

function checkFile({ params }: BdevPlan, filename: string, size: number | undefined): void {
  const stats = stat(filename);
  if (stats === undefined) {
    if (size === undefined) {
      throw new Error(
        `${filename} does not exist: bring it back, give a size to have it made, or take the entry out`,
      );
    }
    const folder = dirname(filename);
    if (stat(folder)?.isDirectory() !== true) {
      throw new Error(`${filename} cannot be made: there is no folder ${folder}`);
    }
    access(folder, constants.W_OK | constants.X_OK);
    return;
  }
  checkKind(stats, filename);
  access(filename, params.readonly === true ? constants.R_OK : constants.R_OK | constants.W_OK);
  const blockSize = Number(params.block_size ?? 512);
  if (stats.isFile()) {
    checkLength(filename, stats.size, blockSize, size, params.readonly === true);
    return;
  }
  const { bytes, logical } = device(filename);
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

function device(filename: string): { bytes: number; logical: number } {
  const fd = openSync(filename, 'r');
  try {
    const { size, logicalBlockSize } = native.blockDeviceInfo(fd);
    return { bytes: size, logical: logicalBlockSize };
  } finally {
    closeSync(fd);
  }
}

/** The folder is there, or can be made. */
function checkFolder(folder: string): void {
  let existing = folder;
  while (!existsSync(existing)) {
    existing = dirname(existing);
  }
  if (!statSync(existing).isDirectory()) {
    throw new Error(`${folder} cannot be made: ${existing} is not a folder`);
  }
  access(existing, constants.W_OK | constants.X_OK);
  const socket = join(folder, 'cntrl');
  if (stat(socket)?.isSocket() === false) {
    throw new Error(`${socket} is in the way: it is not a socket`);
  }
}

/** Makes files and folders that are missing, and files longer that are too short. Throws what the system says. */
export function prepareHost({ bdevs, subsystems }: Plan, sizes: Sizes, log: Logger): void {
  for (const [name, { bytes }] of sizes) {
    const path = bdevs.get(name)?.params.filename;
    if (typeof path !== 'string') {
      continue;
    }
    if (createDiskImage(path, bytes)) {
      log.info({ path, bytes }, 'sparse disk image created');
      continue;
    }
    const stats = statSync(path);
    if (stats.isFile() && stats.size < bytes) {
      truncateSync(path, bytes);
      log.info({ path, bytes, before: stats.size }, 'disk image made longer');
    } else if (stats.isFile() && stats.size > bytes) {
      log.warn({ path, bytes: stats.size, size: bytes }, 'longer than its size: all is served');
    }
  }
  for (const { listeners } of subsystems.values()) {
    for (const folder of listeners.keys()) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    }
  }
}
