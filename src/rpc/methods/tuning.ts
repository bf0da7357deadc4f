/**
 * Methods that only tune parts of SPDK that are not here. A configuration that SPDK saved calls them, and rpc.py's load_config refuses a
 * configuration with a method that the target has not: so they are there, take any parameters, and do nothing.
 */
import { Type } from 'typebox';
import { DONE } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';
import type { Phase } from '../lifecycle.ts';

/** When SPDK takes them, and why they are of no use here. */
const TUNING = [
  ['accel_assign_opc', 'startup', 'there are no accelerators'],
  ['accel_set_options', 'startup', 'there are no accelerators'],
  ['bdev_iscsi_set_options', 'any', 'there are no iSCSI bdevs'],
  ['bdev_nvme_set_hotplug', 'runtime', 'there are no NVMe bdevs'],
  ['bdev_nvme_set_options', 'startup', 'there are no NVMe bdevs'],
  ['bdev_raid_set_options', 'any', 'there are no RAID bdevs'],
  ['framework_disable_cpumask_locks', 'any', 'processors are not locked'],
  ['framework_enable_cpumask_locks', 'any', 'processors are not locked'],
  ['fsdev_set_opts', 'startup', 'there are no file system devices'],
  ['iscsi_set_options', 'startup', 'there is no iSCSI target'],
  ['scheduler_set_options', 'startup', 'there is no scheduler'],
  ['sock_impl_set_options', 'startup', 'there are no network sockets'],
  ['sock_set_default_impl', 'startup', 'there are no network sockets'],
  ['virtio_blk_create_transport', 'startup', 'there is no vhost target'],
  ['vmd_enable', 'startup', 'there are no PCI devices'],
] as const satisfies readonly (readonly [name: string, phase: Phase, why: string])[];

export function tuningMethods() {
  return TUNING.map(([name, phase, why]) =>
    method({
      name,
      summary: `Accepted with any parameters, and has no effect: ${why}.`,
      phase,
      params: Type.Object({}),
      relaxed: true,
      result: DONE,
      call: () => true,
    }),
  );
}
