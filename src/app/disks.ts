/** The disks of the command line: one subsystem at one socket. */
import { resolve } from 'node:path';
import { fileIdentity } from '../bdev/file.ts';
import { createDiskImage } from '../bdev/image.ts';
import { BlockingCalls } from '../native/blocking-calls.ts';
import type { PassedSocket } from '../native/index.ts';
import { statPath } from '../native/paths.ts';
import { largestTransport } from '../target/model/transport.ts';
import type { Target } from '../target/target.ts';
import { InvalidError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { uuidFromName } from '../util/uuid.ts';
import type { Listening } from './banner.ts';
import { prepareSocketFolder } from './socket-folder.ts';

/** The subsystem that serves them: the same for the same disk, another for another, so that a guest can have disks of several targets. */
export function nqnOfDisks(paths: readonly string[]): string {
  return `nqn.2026-11.io.doorbell:disk-${uuidFromName(fileIdentity(paths[0]))}`;
}

export interface DiskOptions {
  /** Files and block devices: namespaces 1, 2, … */
  readonly disks: readonly string[];
  /** Served if there are no others; made if it is not there. */
  readonly defaultDisk?: string | undefined;
  /** Bytes of a default disk that is made. */
  readonly diskSize: number;
  readonly socketDir?: string | undefined;
  /** Guests ring instead of being polled when idle. */
  readonly trapDoorbells?: boolean | undefined;
  /** Guest memory is mapped whatever file is behind it. */
  readonly mapFileMemory?: boolean | undefined;
  /** A guest whose memory is not shared is refused. */
  readonly requireSharedMemory?: boolean | undefined;
  readonly direct: boolean;
  readonly readonly: boolean;
  readonly blockSize?: number | undefined;
}

function diskName(nsid: number): string {
  return `disk${nsid}`;
}

export type Served = Pick<Listening, 'disks' | 'vfioUserSocket'>;

/** All disks, or none: what fails can be tried again. */
export async function serveDisks(
  target: Target,
  options: DiskOptions,
  passed: PassedSocket | undefined,
  log: Logger,
): Promise<Served> {
  const paths = await chooseDisks(options, log);
  if (paths.length === 0) {
    return { disks: [] };
  }
  const nqn = nqnOfDisks(paths);
  try {
    return await servePaths(target, nqn, paths, options, passed);
  } catch (error) {
    if (target.findSubsystem(nqn) !== undefined) {
      await target.deleteSubsystem(nqn);
    }
    for (const name of paths.map((_, index) => diskName(index + 1))) {
      if (target.bdevs.find(name) !== undefined) {
        await target.deleteBdev(name, 'uring');
      }
    }
    throw error;
  }
}

async function servePaths(
  target: Target,
  nqn: string,
  paths: readonly string[],
  options: DiskOptions,
  passed: PassedSocket | undefined,
): Promise<Served> {
  const disks: { nsid: number; path: string; bytes: number; uuid: string }[] = [];
  for (const [index, path] of paths.entries()) {
    const bdev = await target.createFile(
      { name: diskName(index + 1) },
      {
        module: 'uring',
        filename: path,
        blockSize: options.blockSize,
        readonly: options.readonly,
        direct: options.direct,
      },
    );
    disks.push({ nsid: index + 1, path, bytes: bdev.blockSize * bdev.numBlocks, uuid: bdev.uuid });
  }
  if (target.transport === undefined) {
    await target.createTransport(largestTransport(options));
  }
  await target.createSubsystem({
    nqn,
    // As the name: the same for the same disk, and another for another.
    serialNumber: `DB${disks[0].uuid.replaceAll('-', '').slice(0, 16).toUpperCase()}`,
    maxNamespaces: Math.max(disks.length, 32),
    allowAnyHost: true,
  });
  for (const { nsid } of disks) {
    await target.addNamespace(nqn, diskName(nsid), { nsid });
  }
  // A socket that is at its usual place in a folder needs no special treatment: the listener there finds it.
  const traddr =
    passed?.address.replace(/\/cntrl$/, '') ?? (await prepareSocketFolder(options.socketDir));
  const passedAt = passed?.address.endsWith('/cntrl') === false ? passed.address : undefined;
  const address = { traddr, trsvcid: '', adrfam: 'unknown' };
  return { disks, vfioUserSocket: await target.addListener(nqn, address, passedAt) };
}

async function chooseDisks(options: DiskOptions, log: Logger): Promise<readonly string[]> {
  const { disks, defaultDisk, diskSize, readonly } = options;
  if (disks.length > 0 || defaultDisk === undefined) {
    const paths = disks.map((path) => resolve(path));
    if (!readonly) {
      await refuseTwins(paths);
    }
    return paths;
  }
  const path = resolve(defaultDisk);
  if (await createDiskImage(new BlockingCalls(), path, diskSize)) {
    log.info({ path, bytes: diskSize }, 'sparse disk image created');
  }
  return [path];
}

/** Rejects with InvalidError if two paths are one file, by symbolic or hard links, too. What is not there is told of when it is opened. */
async function refuseTwins(paths: readonly string[]): Promise<void> {
  const known = new Map<string, string>();
  for (const path of paths) {
    const stats = await statPath(new BlockingCalls({ limit: 1 }), path).catch(() => undefined);
    const identity =
      stats?.kind === 'block-device'
        ? `device ${stats.rdev}`
        : stats && `file ${stats.dev}:${stats.ino}`;
    const twin = known.get(identity ?? path);
    if (twin !== undefined) {
      throw new InvalidError(
        `--disk ${path} is --disk ${twin}, too: two disks that write the same file destroy it`,
      );
    }
    known.set(identity ?? path, path);
  }
}
