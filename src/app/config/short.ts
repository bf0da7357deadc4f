/** The short form → method calls, and settings of the process. */
import { basename, join } from 'node:path';
import { describeError } from '../../util/errors.ts';
import { uuidFromName } from '../../util/uuid.ts';
import { parseSize } from '../size.ts';
import { defaultSocketFolder } from '../socket-folder.ts';
import type { PlacedCall } from './fold.ts';
import type { Path, Place, Problem } from './problem.ts';
import type { ShortDisk, ShortForm, ShortVm } from './schema.ts';
import { compileSettings, type Settings } from './settings.ts';
import { resolveFrom, type Source } from './source.ts';
import { soundForm } from './violations.ts';

export const NQN_PREFIX = 'nqn.2026-11.io.doorbell:';
/** The VM whose disks are at the top of the file: what the names of its bdevs begin with. */
export const ONLY_VM = 'disk';

/**
 * The NQN of that VM, by the folder of its (first) socket: that is what two targets of a host cannot share, and what stays when disks come
 * and go. A guest with disks of both takes no two of one name.
 */
export function nqnOfOnly(folder: string): string {
  return `${NQN_PREFIX}disk-${uuidFromName(folder)}`;
}

/** A file that is made or made longer. */
export interface ImageSize {
  readonly bytes: number;
  readonly place: Place;
}

export interface ShortConfig {
  readonly calls: readonly PlacedCall[];
  readonly settings: Settings;
  /** By the bdev. */
  readonly sizes: ReadonlyMap<string, ImageSize>;
}

/** The serial number that a subsystem gets if none is given: always the same. */
export function defaultSerial(nqn: string): string {
  return `DB${uuidFromName(nqn).replaceAll('-', '').slice(0, 16).toUpperCase()}`;
}

/** The UUID of a disk without a file: always the same. */
export function defaultUuid(nqn: string, bdev: string): string {
  return uuidFromName(`${nqn}\0${bdev}`);
}

/** `socketFolder`: of the sockets that are not named. Adds what is wrong to `problems`. */
export function compileShort(
  source: Source,
  problems: Problem[],
  socketFolder = defaultSocketFolder(),
): ShortConfig {
  const { form, faults } = soundForm(writtenOut(source.value));
  problems.push(...faults.map(({ path, message }) => ({ place: source.place(path), message })));
  return new Compiler(source, problems).compile(form, socketFolder);
}

/** What only a disk with `nbd` has, as the parameters of its method with other dashes. */
export const NBD_KEYS = ['timeout', 'reconnect-delay', 'open-timeout', 'on-reconnect'] as const;

/** What a disk is that has no file; also in the name that it gets. */
export function kindWithoutFile({ ram, nbd }: ShortDisk): 'ram' | 'null' | 'nbd' {
  if (nbd !== undefined) {
    return 'nbd';
  }
  return ram === undefined ? 'null' : 'ram';
}

class Compiler {
  readonly #source: Source;
  readonly #problems: Problem[];
  readonly #calls: PlacedCall[] = [];
  readonly #sizes = new Map<string, ImageSize>();

  constructor(source: Source, problems: Problem[]) {
    this.#source = source;
    this.#problems = problems;
  }

  compile(form: ShortForm, socketFolder: string): ShortConfig {
    const { vms = {}, disks, socket, sockets } = form;
    if (disks !== undefined || socket !== undefined || sockets !== undefined) {
      this.#vm(ONLY_VM, form, [], socketFolder);
    }
    for (const [name, vm] of Object.entries(vms)) {
      this.#vm(name, vm, ['vms', name], join(socketFolder, name));
    }
    return {
      calls: this.#calls,
      settings: compileSettings(form, this.#source, this.#problems),
      sizes: this.#sizes,
    };
  }

  #problem(path: Path, message: string): void {
    this.#problems.push({ place: this.#source.place(path), message });
  }

  /** What `parse` gives, or its complaint as a problem. */
  #parse<T>(path: Path, parse: () => T): T | undefined {
    try {
      return parse();
    } catch (error) {
      this.#problem(path, describeError(error));
      return undefined;
    }
  }

  #call(path: Path, method: string, params: Record<string, unknown>): void {
    this.#calls.push({ method, params, place: this.#source.place(path) });
  }

  #vm(name: string, vm: ShortVm, path: Path, folder: string): void {
    const { disks = [], socket, sockets } = vm;
    // People may name the socket itself.
    const folders = (sockets ?? [socket ?? folder]).map((chosen) =>
      resolveFrom(this.#source.file, chosen).replace(/\/cntrl$/, ''),
    );
    const nqn = vm.nqn ?? (path.length === 0 ? nqnOfOnly(folders[0]) : NQN_PREFIX + name);
    if (socket !== undefined && sockets !== undefined) {
      this.#problem([...path, 'socket'], "give either 'socket' or 'sockets'");
    }
    const bdevs = this.#names(name, disks, path);
    for (const [i, disk] of disks.entries()) {
      this.#bdev(nqn, bdevs[i], disk, [...path, 'disks', i]);
    }
    this.#call(path, 'nvmf_create_subsystem', {
      nqn,
      serial_number: vm.serial ?? defaultSerial(nqn),
      ...(vm.model !== undefined && { model_number: vm.model }),
      max_namespaces: vm['max-disks'] ?? Math.max(disks.length, 32),
      allow_any_host: true,
    });
    for (const [i, { nsid, uuid, nguid, eui64 }] of disks.entries()) {
      this.#call([...path, 'disks', i], 'nvmf_subsystem_add_ns', {
        nqn,
        namespace: {
          bdev_name: bdevs[i],
          ...(nsid !== undefined && { nsid }),
          ...(uuid !== undefined && { uuid }),
          ...(nguid !== undefined && { nguid }),
          ...(eui64 !== undefined && { eui64 }),
        },
      });
    }
    for (const [i, traddr] of folders.entries()) {
      const at = sockets === undefined ? ['socket'] : ['sockets', i];
      this.#call([...path, ...at], 'nvmf_subsystem_add_listener', {
        nqn,
        listen_address: { trtype: 'VFIOUSER', traddr },
      });
    }
  }

  /** Names for the bdevs of a VM: stable when others come and go. */
  #names(vm: string, disks: readonly ShortDisk[], path: Path): string[] {
    const counts = { ram: 0, null: 0, nbd: 0 };
    const names: string[] = [];
    for (const [i, disk] of disks.entries()) {
      const { name, file } = disk;
      const kind = kindWithoutFile(disk);
      const chosen =
        name ?? `${vm}/${file === undefined ? `${kind}${++counts[kind]}` : basename(file)}`;
      if (names.includes(chosen)) {
        const message = `bdev '${chosen}' is there twice: give one of them another 'name'`;
        this.#problem([...path, 'disks', i], message);
        // A name that nobody else has: it makes no further trouble.
        names.push(`${chosen} ${i}`);
        continue;
      }
      names.push(chosen);
    }
    return names;
  }

  #bdev(nqn: string, name: string, disk: ShortDisk, path: Path): void {
    const { file, size, ram, null: discarding, nbd, uuid, qos } = disk;
    const kinds = [file, ram, discarding, nbd].filter((kind) => kind !== undefined);
    const place = this.#source.place(path);
    if (kinds.length !== 1) {
      this.#problem(path, "a disk has exactly one of 'file', 'ram', 'null' and 'nbd'");
      this.#calls.push({ method: '', params: { name }, place, isBroken: true });
      return;
    }
    this.#misplaced(disk, path);
    const block_size = disk['block-size'];
    if (file !== undefined) {
      this.#call(path, 'bdev_uring_create', {
        name,
        filename: resolveFrom(this.#source.file, file),
        ...(block_size !== undefined && { block_size }),
        readonly: disk.readonly ?? false,
        direct: disk.direct ?? false,
        ...(uuid !== undefined && { uuid }),
      });
      if (size !== undefined) {
        const bytes = this.#size(size, block_size ?? 512, [...path, 'size']);
        this.#sizes.set(name, { bytes, place: this.#source.place([...path, 'size']) });
      }
    } else if (nbd !== undefined) {
      this.#call(path, 'bdev_nbd_connect', {
        name,
        uri: nbd,
        ...(block_size !== undefined && { block_size }),
        readonly: disk.readonly ?? false,
        ...Object.fromEntries(
          NBD_KEYS.filter((key) => disk[key] !== undefined).map((key) => [
            key.replace('-', '_'),
            disk[key],
          ]),
        ),
        ...(uuid !== undefined && { uuid }),
      });
    } else {
      const kind = ram === undefined ? 'null' : 'ram';
      const bytes = this.#size(ram ?? discarding ?? 0, block_size ?? 512, [...path, kind]);
      this.#call(path, `bdev_${kind === 'ram' ? 'malloc' : 'null'}_create`, {
        name,
        num_blocks: bytes / (block_size ?? 512),
        block_size: block_size ?? 512,
        uuid: uuid ?? defaultUuid(nqn, name),
      });
    }
    if (qos !== undefined) {
      this.#call([...path, 'qos'], 'bdev_set_qos_limit', {
        name,
        rw_ios_per_sec: qos.iops ?? 0,
        rw_mbytes_per_sec: qos.mbps ?? 0,
        r_mbytes_per_sec: qos['read-mbps'] ?? 0,
        w_mbytes_per_sec: qos['write-mbps'] ?? 0,
      });
    }
  }

  /** Keys that have a meaning only beside others. */
  #misplaced(disk: ShortDisk, path: Path): void {
    const allowed = {
      file: ['size', 'direct', 'readonly'],
      nbd: ['readonly', ...NBD_KEYS],
      ram: [],
      null: [],
    }[disk.file === undefined ? kindWithoutFile(disk) : 'file'] as readonly string[];
    for (const key of ['size', 'direct', 'readonly', ...NBD_KEYS] as const) {
      if (disk[key] !== undefined && !allowed.includes(key)) {
        const where = key === 'size' || key === 'direct' ? "a 'file'" : "'nbd'";
        const also = key === 'readonly' ? "a 'file' or 'nbd'" : where;
        this.#problem([...path, key], `only a disk with ${also} has '${key}'`);
      }
    }
  }

  #size(size: string | number, blockSize: number, path: Path): number {
    const bytes = this.#parse(path, () => parseSize(String(size))) ?? blockSize;
    if (bytes % blockSize !== 0) {
      this.#problem(path, `${size} is not a multiple of the ${blockSize} bytes of a block`);
    }
    return bytes;
  }
}

type Tree = Readonly<Record<string, unknown>>;
const isTree = (value: unknown): value is Tree =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** With disks that are just a path, and `http` that is just an address, written out. */
function writtenOut(value: unknown): unknown {
  if (!isTree(value)) {
    return value;
  }
  const disk = (entry: unknown) => (typeof entry === 'string' ? { file: entry } : entry);
  const vm = (entry: unknown): unknown =>
    isTree(entry) && Array.isArray(entry.disks)
      ? { ...entry, disks: entry.disks.map(disk) }
      : entry;
  const { vms, http } = value;
  return {
    ...(vm(value) as Tree),
    ...(isTree(vms) && {
      vms: Object.fromEntries(Object.entries(vms).map(([name, entry]) => [name, vm(entry)])),
    }),
    ...(http !== undefined && { http: isTree(http) ? http : { address: http } }),
  };
}
