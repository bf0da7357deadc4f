/**
 * Firmware Image Download and Firmware Commit. There is one slot, which cannot be written: what it has is this program, which an operator
 * replaces. NVMe Base 2.0 §5.12, §5.13. Owned by main.
 */
import { PAGE_SIZE } from '../../limits.ts';
import { CommitAction, FirmwareCommit, FirmwareImageDownload } from '../../spec/admin.ts';
import { Status } from '../../spec/nvme.ts';
import { type AdminCommand, adminCommand, done, refuse, SUCCESS } from './command.ts';

/** The slot that there is. */
const SLOT = 1;

export const FIRMWARE_COMMANDS: readonly AdminCommand[] = [
  // Read as the specification has it, and forgotten: there is no slot for it.
  adminCommand(
    FirmwareImageDownload,
    ({ numdZ }, { data, config }, command) => {
      const bytes = 4 * (numdZ + 1);
      if (bytes > PAGE_SIZE << config.mdts) {
        return refuse(FirmwareImageDownload, 'numdZ');
      }
      const image = data.receive(command, bytes);
      return typeof image === 'number' ? done(image) : SUCCESS;
    },
    { oacs: 'firmware' },
  ),

  adminCommand(
    FirmwareCommit,
    ({ ca, fs }) => {
      if (ca === CommitAction.REPLACE || ca === CommitAction.REPLACE_AND_ACTIVATE) {
        // The controller is to choose a slot (0), and has none for an image that it does not know.
        return fs === 0
          ? done(Status.INVALID_FIRMWARE_IMAGE)
          : refuse(FirmwareCommit, 'fs', Status.INVALID_FIRMWARE_SLOT);
      }
      if (ca !== CommitAction.ACTIVATE && ca !== CommitAction.ACTIVATE_NOW) {
        return refuse(FirmwareCommit, 'ca');
      }
      // What is active stays so.
      return fs === SLOT ? SUCCESS : refuse(FirmwareCommit, 'fs', Status.INVALID_FIRMWARE_SLOT);
    },
    { oacs: 'firmware', effects: { ccc: true } },
  ),
];
