/** What all controllers of a subsystem have in common of a namespace, beside its bdev. Owned by main. */
import { WriteProtectionState } from '../spec/features.ts';
import { Status } from '../spec/nvme.ts';
import { Reservations } from './reservations.ts';

/** The statuses with which commands of a controller end that read, and that change blocks; Success: they are carried out. Reads come first. */
export interface Access {
  readonly read: number;
  readonly write: number;
}

export const FULL_ACCESS: Access = { read: Status.SUCCESS, write: Status.SUCCESS };

export class NamespaceState {
  readonly reservations = new Reservations();
  /** One of WriteProtectionState. */
  writeProtection: number = WriteProtectionState.NONE;
  /** Why no command is carried out at all: a status. */
  busy: number = Status.SUCCESS;

  /** What is left of a format that is under way. Percent. */
  formatLeft = 0;

  get isProtected(): boolean {
    return this.writeProtection !== WriteProtectionState.NONE;
  }

  /** `readonly`: the bdev is. `host`: see `hostKey`; undefined: it is the target itself, which no reservation keeps out. */
  access(readonly: boolean, host: string | undefined): Access {
    const { busy } = this;
    if (busy !== Status.SUCCESS) {
      return { read: busy, write: busy };
    }
    const { read, write } = host === undefined ? FULL_ACCESS : this.reservations.access(host);
    const isProtected = write === Status.SUCCESS && (readonly || this.isProtected);
    return { read, write: isProtected ? Status.NAMESPACE_WRITE_PROTECTED : write };
  }
}
