/**
 * A plan in the short form, as far as it can say it: compiled, the result is the plan again. What is lost is told, each with its place.
 * What means nothing here is lost in silence: calls without effect, which method made a file's disk (bdev_aio_create or bdev_uring_create),
 * and `trsvcid` and `adrfam` of a listener.
 */
import { basename } from 'node:path';
import { fileIdentity } from '../../bdev/file.ts';
import { withoutDefaults } from '../../target/model/bdevs.ts';
import { DEFAULT_MAX_SUBSYSTEMS } from '../../target/model/model.ts';
import {
  type BdevPlan,
  type NamespacePlan,
  type Params,
  type SubsystemPlan,
  same,
} from '../../target/model/plan.ts';
import { SubsystemModel } from '../../target/model/subsystem.ts';
import {
  largestTransport,
  type TransportChoices,
  transportParams,
} from '../../target/model/transport.ts';
import { uuidFromName } from '../../util/uuid.ts';
import { type Part, placeKey } from './fold.ts';
import type { LoadedConfig } from './load.ts';
import type { Place, Problem } from './problem.ts';
import type { ShortDisk, ShortForm, ShortVm } from './schema.ts';
import {
  defaultSerial,
  defaultUuid,
  kindWithoutFile,
  NBD_KEYS,
  NQN_PREFIX,
  nqnOfOnly,
  ONLY_VM,
} from './short.ts';

/** What keeps its data where. */
const KINDS: Readonly<Record<string, 'file' | 'ram' | 'null' | 'nbd'>> = {
  bdev_aio_create: 'file',
  bdev_uring_create: 'file',
  bdev_malloc_create: 'ram',
  bdev_null_create: 'null',
  bdev_nbd_connect: 'nbd',
};

const LIMITS = {
  iops: 'rw_ios_per_sec',
  mbps: 'rw_mbytes_per_sec',
  'read-mbps': 'r_mbytes_per_sec',
  'write-mbps': 'w_mbytes_per_sec',
} as const;

const UNITS = { T: 2 ** 40, G: 2 ** 30, M: 2 ** 20, K: 2 ** 10 } as const;
/** Of a size in the short form. */
const MIN_BYTES = 4096;

/** Adds what is lost to `losses`. */
export function shorten(file: string, loaded: LoadedConfig, losses: Problem[]): ShortForm {
  return new Shortener(file, loaded, losses).form();
}

class Shortener {
  /** Of what no place is known. */
  readonly #anywhere: Place;
  readonly #loaded: LoadedConfig;
  readonly #losses: Problem[];
  /** Of the VMs so far. */
  readonly #names = new Set<string>();
  readonly #used = new Set<string>();

  constructor(file: string, loaded: LoadedConfig, losses: Problem[]) {
    this.#anywhere = { file, path: [] };
    this.#loaded = loaded;
    this.#losses = losses;
  }

  form(): ShortForm {
    const { plan, calls } = this.#loaded;
    const { trapDoorbells, mapFileMemory, requireSharedMemory } = this.#transport(plan.transport);
    const vms = [...plan.subsystems].map(
      ([nqn, subsystem]) => [this.#name(nqn), subsystem] as const,
    );
    const only = vms.length === 1 && isOnly(vms[0][1]) ? ONLY_VM : undefined;
    const entries = vms.map(
      ([name, subsystem]) => [name, this.#vm(only ?? name, subsystem)] as const,
    );
    for (const name of plan.bdevs.keys()) {
      if (!this.#used.has(name)) {
        this.#lose('bdev', name, `bdev '${name}' is no namespace of a subsystem`);
      }
    }
    if ((plan.maxSubsystems ?? DEFAULT_MAX_SUBSYSTEMS) !== DEFAULT_MAX_SUBSYSTEMS) {
      this.#loseAt(this.#anywhere, `nvmf_set_max_subsystems ${plan.maxSubsystems}`);
    }
    if (plan.scheduler !== undefined) {
      this.#loseAt(this.#anywhere, `framework_set_scheduler ${plan.scheduler.name}`);
    }
    for (const { method, place } of calls) {
      this.#loseAt(place, method);
    }
    return {
      ...(trapDoorbells && { 'trap-doorbells': true }),
      ...(mapFileMemory && { 'map-file-memory': true }),
      ...(requireSharedMemory && { 'require-shared-memory': true }),
      ...(only !== undefined ? entries[0][1] : { vms: Object.fromEntries(entries) }),
    };
  }

  #lose(part: Part, name: string, what: string): void {
    this.#loseAt(this.#loaded.places.get(placeKey(part, name)) ?? this.#anywhere, what);
  }

  #loseAt(place: Place, what: string): void {
    this.#losses.push({ place, message: `left out: ${what}` });
  }

  /** What can be chosen: all else that a short form's transport has is given. */
  #transport(transport: Params | undefined): TransportChoices {
    if (transport === undefined) {
      return {};
    }
    const choices = {
      trapDoorbells: transport.disable_mappable_bar0 === true,
      mapFileMemory: transport.map_file_memory === true,
      requireSharedMemory: transport.require_shared_memory === true,
    };
    const ours = transportParams(largestTransport(choices));
    const others = Object.keys(transport).filter((key) => !same(transport[key], ours[key]));
    if (others.length > 0) {
      const list = others.map((key) => `${key} ${transport[key]} (it will be ${ours[key]})`);
      this.#loseAt(this.#anywhere, `of nvmf_create_transport: ${list.join(', ')}`);
    }
    return choices;
  }

  /** A name for the VM: what the NQN ends with, if that can be one. */
  #name(nqn: string): string {
    const end = nqn.slice(nqn.lastIndexOf(':') + 1);
    const wish = end.replaceAll(/[^A-Za-z0-9._-]/g, '-').replace(/^[._-]+/, '');
    const stem = wish.slice(0, 58) || 'vm';
    let name = stem;
    for (let n = 2; this.#names.has(name); n += 1) {
      name = `${stem}-${n}`;
    }
    this.#names.add(name);
    return name;
  }

  #vm(name: string, subsystem: SubsystemPlan): ShortVm {
    const { params, allowAnyHost, hosts, namespaces, listeners } = subsystem;
    const { nqn, max_namespaces, serial_number, model_number } = params;
    const usual = new SubsystemModel({ nqn }).params;
    for (const key of ['admin_label', 'min_cntlid', 'max_cntlid', 'dmrsl', 'wzsl'] as const) {
      if (!same(params[key], usual[key])) {
        this.#lose('subsystem', nqn, `${key} ${params[key]} of ${nqn}`);
      }
    }
    if (!allowAnyHost || hosts.size > 0) {
      const who = hosts.size === 0 ? 'nobody' : [...hosts.keys()].join(', ');
      const instead = 'who can open the socket may connect';
      this.#lose('subsystem', nqn, `the hosts that ${nqn} lets in, ${who}: ${instead}`);
    }
    if (listeners.size === 0) {
      this.#lose('subsystem', nqn, `that ${nqn} has no listener: it gets one`);
    }
    const folders = [...listeners.keys()];
    const named = [...namespaces.values()]
      .map((namespace) => this.#disk(nqn, namespace))
      .filter((disk) => disk !== undefined);
    const disks = withoutUsualNames(name, withoutUsualNsids(named));
    return {
      ...(nqn !== NQN_PREFIX + name && !isOnly(subsystem) && { nqn }),
      ...(serial_number !== defaultSerial(nqn) && this.#text(nqn, 'serial', serial_number)),
      ...(model_number !== usual.model_number && this.#text(nqn, 'model', model_number)),
      ...(max_namespaces !== Math.max(disks.length, 32) && { 'max-disks': max_namespaces }),
      ...(folders.length === 1 && { socket: folders[0] }),
      ...(folders.length > 1 && { sockets: folders }),
      ...(disks.length > 0 && { disks }),
    };
  }

  /** A string that the short form wants to be something. */
  #text(nqn: string, key: 'serial' | 'model', value: unknown): Partial<ShortVm> {
    if (value === '') {
      this.#lose('subsystem', nqn, `the empty ${key} number of ${nqn}`);
      return {};
    }
    return { [key]: String(value) };
  }

  #disk(nqn: string, namespace: NamespacePlan): ShortDisk | undefined {
    const bdev = this.#loaded.plan.bdevs.get(namespace.bdev_name);
    if (bdev === undefined) {
      return undefined;
    }
    this.#used.add(bdev.name);
    const { filename, block_size, num_blocks, readonly, direct, nowait } = bdev.params;
    const kind = KINDS[bdev.create];
    const bytes = Number(num_blocks) * Number(block_size);
    if (kind === undefined || bytes < MIN_BYTES) {
      const why = kind === undefined ? ` (${bdev.create})` : `, which has only ${bytes} bytes`;
      this.#lose('bdev', bdev.name, `bdev '${bdev.name}'${why}, and its namespace`);
      return undefined;
    }
    if (nowait === true) {
      this.#lose('bdev', bdev.name, `nowait of bdev '${bdev.name}' (it has no effect here)`);
    }
    const common = {
      name: bdev.name,
      ...(namespace.nsid !== undefined && { nsid: namespace.nsid }),
      // 512 is what a disk has if nobody says otherwise, or else is an error.
      ...(block_size === 4096 && { 'block-size': 4096 as const }),
      ...this.#identifiers(nqn, bdev, namespace),
      ...limitsOf(bdev),
    };
    if (kind === 'nbd') {
      return {
        nbd: String(bdev.params.uri),
        ...(readonly === true && { readonly }),
        ...this.#nbdKeys(bdev),
        ...common,
        ...(block_size !== undefined && { 'block-size': block_size as 512 | 4096 }),
      };
    }
    return kind === 'file'
      ? {
          file: String(filename),
          ...(readonly === true && { readonly }),
          ...(direct === true && { direct }),
          ...common,
        }
      : { [kind]: sizeText(bytes), ...common };
  }

  #nbdKeys(bdev: BdevPlan): Partial<ShortDisk> {
    const given = withoutDefaults(bdev);
    return Object.fromEntries(
      NBD_KEYS.map((key) => [key, given[key.replace('-', '_')]] as const).filter(
        ([, value]) => value !== undefined,
      ),
    );
  }

  #identifiers(nqn: string, bdev: BdevPlan, namespace: NamespacePlan): Partial<ShortDisk> {
    const { uuid: bdevUuid, filename, uri } = bdev.params;
    const { uuid = bdevUuid, nguid, eui64 } = namespace;
    const usual =
      typeof filename === 'string'
        ? uuidFromName(fileIdentity(filename))
        : typeof uri === 'string'
          ? uuidFromName(uri)
          : defaultUuid(nqn, bdev.name);
    if (bdevUuid !== undefined && uuid !== bdevUuid) {
      const what = `the UUID ${bdevUuid} of bdev '${bdev.name}': it gets that of its namespace`;
      this.#lose('bdev', bdev.name, what);
    }
    const known = uuid ?? usual;
    return {
      ...(known !== usual && { uuid }),
      ...(nguid !== undefined && nguid !== known.replaceAll('-', '').toUpperCase() && { nguid }),
      ...(eui64 !== undefined && { eui64 }),
    };
  }
}

/** It is the VM that stands at the top of a file. */
function isOnly({ params, listeners }: SubsystemPlan): boolean {
  const [folder] = listeners.keys();
  return folder !== undefined && params.nqn === nqnOfOnly(folder);
}

function limitsOf({ limits }: BdevPlan): Partial<ShortDisk> {
  const qos = Object.entries(LIMITS)
    .map(([key, name]) => [key, Number(limits[name] ?? 0)] as const)
    .filter(([, limit]) => limit > 0);
  return qos.length === 0 ? {} : { qos: Object.fromEntries(qos) };
}

/** The largest unit that divides it. */
function sizeText(bytes: number): string | number {
  const [unit, factor] = Object.entries(UNITS).find(([, factor]) => bytes % factor === 0) ?? [];
  return factor === undefined ? bytes : `${bytes / factor}${unit}`;
}

/** Without the numbers that the disks have if none is given. */
function withoutUsualNsids(disks: readonly ShortDisk[]): readonly ShortDisk[] {
  return disks.every(({ nsid }, i) => nsid === i + 1)
    ? disks.map(({ nsid: _, ...disk }) => disk)
    : disks;
}

/** Without the names that the disks have if none is given. */
function withoutUsualNames(vm: string, disks: readonly ShortDisk[]): ShortDisk[] {
  const counts = { ram: 0, null: 0, nbd: 0 };
  return disks.map(({ name, ...disk }) => {
    const kind = kindWithoutFile(disk);
    const usual = disk.file === undefined ? `${kind}${counts[kind] + 1}` : basename(disk.file);
    if (name !== undefined && name !== `${vm}/${usual}`) {
      return { ...disk, name };
    }
    if (disk.file === undefined) {
      counts[kind] += 1;
    }
    return disk;
  });
}
