/**
 * Options of the command line that have no effect beside others: none is left out in silence, for an operator may rely on it
 * (`--readonly`). Each applies, or the start is refused.
 */
import { resolve } from 'node:path';
import type { Plan } from '../../target/model/plan.ts';
import { InvalidError } from '../../util/errors.ts';
import type { DiskOptions } from '../disks.ts';
import type { ConfigOptions } from './open.ts';

type Options = ConfigOptions & DiskOptions;

/** Options about the disks of the command line, and how a configuration file says the same. */
const OF_DISKS: readonly {
  readonly flag: string;
  readonly given: (options: Options) => boolean;
  readonly inFile: string;
}[] = [
  { flag: '--readonly', given: ({ readonly }) => readonly, inFile: 'readonly: true' },
  { flag: '--direct', given: ({ direct }) => direct, inFile: 'direct: true' },
  {
    flag: '--block-size',
    given: ({ blockSize }) => blockSize !== undefined,
    inFile: 'block-size: BYTES',
  },
];

/** Options about the transport, which is made once, and the key of `nvmf_create_transport` that says the same. */
const OF_TRANSPORT: readonly (readonly [string, (options: Options) => boolean, string])[] = [
  ['--trap-doorbells', ({ trapDoorbells }) => trapDoorbells === true, 'disable_mappable_bar0'],
  ['--map-file-memory', ({ mapFileMemory }) => mapFileMemory === true, 'map_file_memory'],
  [
    '--require-shared-memory',
    ({ requireSharedMemory }) => requireSharedMemory === true,
    'require_shared_memory',
  ],
];

/** Of those alone. Throws InvalidError. */
export function refuseUnusable(options: Options): void {
  const { config = [], disks, stateDir } = options;
  if (config.length > 0) {
    if (disks.length > 0) {
      throw new InvalidError(
        "disks of the command line (--disk) do not go with --config: write 'disks: [PATH]' into the file",
      );
    }
    for (const { flag, given, inFile } of OF_DISKS) {
      if (given(options)) {
        throw new InvalidError(
          `${flag} is about disks of the command line, and does not go with --config: write '${inFile}' into the file`,
        );
      }
    }
  } else if (stateDir === undefined) {
    refuseWithoutDisk(options);
  }
}

/** There is neither a configuration nor a kept one. */
function refuseWithoutDisk(options: Options): void {
  const { disks, defaultDisk } = options;
  if (disks.length === 0 && defaultDisk === undefined) {
    const flag =
      OF_DISKS.find((each) => each.given(options))?.flag ??
      OF_TRANSPORT.find(([, given]) => given(options))?.[0];
    if (flag !== undefined) {
      throw new InvalidError(
        `${flag} has no effect without a disk (--disk): what JSON-RPC makes has parameters of its own`,
      );
    }
  }
}

/** Of those beside what is going to be made of files and the state folder. `kept`: it comes from the state folder. Throws InvalidError. */
export function refuseBeside(options: Options, plan: Plan, kept: boolean): void {
  if (!kept && (options.config ?? []).length === 0) {
    refuseWithoutDisk(options);
  }
  const { disks, readonly, direct, blockSize, stateDir = '' } = options;
  const where = `the configuration kept in ${resolve(stateDir)}`;
  if (kept) {
    const files = [...plan.bdevs.values()].filter(({ params }) => params.filename !== undefined);
    const missing = disks.find(
      (path) => !files.some(({ params }) => params.filename === resolve(path)),
    );
    if (missing !== undefined) {
      throw new InvalidError(
        `--disk ${missing} has no effect: ${where} does not have it (add it through JSON-RPC, or take another --state-dir)`,
      );
    }
    const must: readonly (readonly [string, string, unknown])[] = [
      ['--readonly', 'readonly', readonly || undefined],
      ['--direct', 'direct', direct || undefined],
      [`--block-size ${blockSize}`, 'block_size', blockSize],
    ];
    for (const [flag, key, wanted] of must) {
      if (wanted === undefined) {
        continue;
      }
      const other = files.find(({ params }) => params[key] !== wanted);
      if (other !== undefined || files.length === 0) {
        const what = other === undefined ? 'there is no file' : `bdev '${other.name}' is otherwise`;
        throw new InvalidError(
          `${flag} has no effect: in ${where} ${what} (change it through JSON-RPC, or take another --state-dir)`,
        );
      }
    }
  }
  const { transport } = plan;
  for (const [flag, wanted, key] of OF_TRANSPORT) {
    if (wanted(options) && transport !== undefined && transport[key] !== true) {
      throw new InvalidError(
        `${flag} has no effect: ${kept ? where : 'the configuration file'} says otherwise (nvmf_create_transport, ${key})`,
      );
    }
  }
}
