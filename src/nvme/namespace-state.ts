/** What all controllers of a subsystem have in common of a namespace, beside its bdev. Owned by main. */
import { WriteProtectionState } from '../spec/features.ts';

export class NamespaceState {
  /** One of WriteProtectionState. */
  writeProtection: number = WriteProtectionState.NONE;

  get isProtected(): boolean {
    return this.writeProtection !== WriteProtectionState.NONE;
  }
}
