/** `doorbell-nvme/client`: NVMe over vfio-user from scripts. docs/embedding.md shows it. */

export { AdminOpcode, Cns } from '../spec/admin.ts';
export { Fid } from '../spec/features.ts';
export { Lid } from '../spec/logs.ts';
export { NvmOpcode } from '../spec/nvm.ts';
export {
  type ControllerInfo,
  connect,
  type DriveOptions,
  NvmeDrive,
  NvmeNamespace,
  type WriteOptions,
} from './drive.ts';
export { type CommandFields, NvmeClient, type NvmeClientOptions, NvmeError } from './nvme.ts';
export type { Completion } from './queue-pair.ts';
export type { Data, Outcome } from './transfers.ts';
export { VfioClient, VfioUserError } from './vfio.ts';
