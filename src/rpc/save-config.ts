/**
 * The configuration of a running target as the method calls that would make it again: SPDK's JSON configuration format. Every
 * identifier is written out, so that a target made of it is the same to its guests.
 */
import { resolve } from 'node:path';
import type { Disk } from '../bdev/disk.ts';
import { FileBdev } from '../bdev/file.ts';
import { DelayBdev, describeDelay, ErrorBdev } from '../bdev/wrapper.ts';
import type { Subsystem } from '../target/subsystem.ts';
import { DEFAULT_MAX_SUBSYSTEMS, type Target, type Transport } from '../target/target.ts';
import { describeAddress } from './methods/listeners.ts';
import { describeLimits } from './methods/qos.ts';

/** A method call of a configuration. */
export interface ConfigCall {
  readonly method: string;
  readonly params?: Readonly<Record<string, unknown>>;
}

/** What SPDK calls a subsystem here is a part of the target. */
export interface ConfigSection {
  readonly subsystem: string;
  readonly config: readonly ConfigCall[] | null;
}

export interface ConfigDocument {
  readonly subsystems: readonly ConfigSection[];
}

/** The parts of a target, in the order in which SPDK starts them, and what each of them builds on. */
export const SECTIONS: readonly {
  readonly subsystem: string;
  readonly depends_on: readonly string[];
}[] = [
  { subsystem: 'iobuf', depends_on: [] },
  { subsystem: 'accel', depends_on: ['iobuf'] },
  { subsystem: 'bdev', depends_on: ['accel', 'iobuf'] },
  { subsystem: 'scheduler', depends_on: [] },
  { subsystem: 'nvmf', depends_on: ['bdev'] },
];

/** The whole configuration. */
export function saveConfig(target: Target): ConfigDocument {
  return {
    subsystems: SECTIONS.map(({ subsystem }) => ({
      subsystem,
      config: saveSection(target, subsystem),
    })),
  };
}

/** The calls of one part; null if it has nothing to configure. */
export function saveSection(target: Target, subsystem: string): readonly ConfigCall[] | null {
  switch (subsystem) {
    case 'bdev':
      return [
        ...target.bdevs.list().flatMap((bdev) => [saveBdev(bdev), ...saveRateLimits(bdev)]),
        { method: 'bdev_wait_for_examine' },
      ];
    case 'scheduler':
      return [{ method: 'framework_set_scheduler', params: saveScheduler(target) }];
    case 'nvmf':
      return [
        ...saveLimits(target),
        ...(target.transport === undefined ? [] : [saveTransport(target.transport)]),
        ...target.subsystems.flatMap(saveSubsystem),
      ];
    default:
      return null;
  }
}

function saveBdev(bdev: Disk): ConfigCall {
  const method = `bdev_${bdev.module}_create`;
  const { name, uuid, blockSize: block_size, numBlocks: num_blocks } = bdev;
  if (bdev instanceof DelayBdev) {
    return { method, params: { ...describeDelay(bdev), uuid } };
  }
  if (bdev instanceof ErrorBdev) {
    return { method, params: { base_name: bdev.base.name, uuid } };
  }
  if (!(bdev instanceof FileBdev)) {
    return { method, params: { name, num_blocks, block_size, uuid } };
  }
  const { filename, readonly, direct, nowait } = bdev;
  return {
    method,
    params: {
      name,
      // Another process may have another working folder.
      filename: resolve(filename),
      block_size,
      readonly,
      direct,
      ...(nowait && { nowait }),
      uuid,
    },
  };
}

function saveRateLimits({ name, rateLimits }: Disk): ConfigCall[] {
  const limits = describeLimits(rateLimits);
  return Object.values(limits).every((limit) => limit === 0)
    ? []
    : [{ method: 'bdev_set_qos_limit', params: { name, ...limits } }];
}

/** The parameters that set the scheduler. */
export function saveScheduler({ scheduler }: Target): Required<ConfigCall>['params'] {
  const { name, period, loadLimit, coreLimit, coreBusy } = scheduler;
  return name === 'static'
    ? { name }
    : { name, period, load_limit: loadLimit, core_limit: coreLimit, core_busy: coreBusy };
}

function saveLimits({ maxSubsystems }: Target): ConfigCall[] {
  return maxSubsystems === DEFAULT_MAX_SUBSYSTEMS
    ? []
    : [{ method: 'nvmf_set_max_subsystems', params: { max_subsystems: maxSubsystems } }];
}

/** The call that makes a transport. */
export function saveTransport({ options, report }: Transport): Required<ConfigCall> {
  return {
    method: 'nvmf_create_transport',
    params: {
      ...report,
      disable_mappable_bar0: options.disableMappableBar0,
      ...(options.mapFileMemory && { map_file_memory: true }),
      disable_adaptive_irq: !options.adaptiveInterrupts,
      disable_shadow_doorbells: options.disableMappableBar0 && !options.shadowDoorbells,
    },
  };
}

/** The parameters that make a subsystem. */
export function saveSubsystemParams(subsystem: Subsystem) {
  return {
    nqn: subsystem.nqn,
    allow_any_host: subsystem.allowAnyHost,
    serial_number: subsystem.serialNumber,
    model_number: subsystem.modelNumber,
    ...(subsystem.adminLabel !== undefined && { admin_label: subsystem.adminLabel }),
    max_namespaces: subsystem.maxNamespaces,
    min_cntlid: subsystem.minCntlid,
    max_cntlid: subsystem.maxCntlid,
    dmrsl: subsystem.dmrsl,
    wzsl: subsystem.wzsl,
  };
}

function saveSubsystem(subsystem: Subsystem): ConfigCall[] {
  const { nqn } = subsystem;
  return [
    {
      method: 'nvmf_create_subsystem',
      params: saveSubsystemParams(subsystem),
    },
    ...[...subsystem.hosts].map((host) => ({
      method: 'nvmf_subsystem_add_host',
      params: { nqn, host },
    })),
    ...[...subsystem.namespaces.values()]
      .sort((a, b) => a.nsid - b.nsid)
      .map(({ nsid, bdev, uuid, nguid, eui64 }) => ({
        method: 'nvmf_subsystem_add_ns',
        params: {
          nqn,
          namespace: {
            nsid,
            bdev_name: bdev.name,
            nguid,
            ...(eui64 !== undefined && { eui64 }),
            uuid,
          },
        },
      })),
    ...[...subsystem.listeners.values()].map((listener) => ({
      method: 'nvmf_subsystem_add_listener',
      params: { nqn, listen_address: describeAddress(listener) },
    })),
  ];
}
