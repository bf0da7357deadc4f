/**
 * Namespace Write Protection: a state of each namespace, the same for all controllers that have it, and no reset changes it. NVMe Base 2.0
 * §5.27.1.29, §8.12. Owned by main; the commands are refused by reactors.
 */
import { Fid, WriteProtection, WriteProtectionState } from '../../spec/features.ts';
import { Nwpc } from '../../spec/identify.ts';
import { NSID_ALL, Status } from '../../spec/nvme.ts';
import type { ControllerHost } from '../host.ts';
import { type Feature, type FeatureResult, ok, refused } from './feature.ts';

/** States that end with the namespace, or with the target, which is what a power cycle is here. */
const { NONE, WRITE_PROTECT, UNTIL_POWER_CYCLE } = WriteProtectionState;
const STATES: readonly number[] = [NONE, WRITE_PROTECT, UNTIL_POWER_CYCLE];

const isSettled = (nsid: number, { namespaces }: ControllerHost): boolean =>
  namespaces.get(nsid)?.writeProtection === UNTIL_POWER_CYCLE;

export class NamespaceWriteProtection implements Feature {
  readonly fid = Fid.NAMESPACE_WRITE_PROTECTION;
  readonly perNamespace = true;
  readonly ofActive = true;
  readonly identify = { nwpc: Nwpc.encode({ writeProtect: true, untilPowerCycle: true }) };

  changeable(nsid: number, host: ControllerHost): boolean {
    return !isSettled(nsid, host);
  }

  get(
    which: 'current' | 'default',
    _value: number,
    nsid: number,
    { namespaces }: ControllerHost,
  ): FeatureResult {
    return ok(which === 'current' ? namespaces.get(nsid)?.writeProtection : NONE);
  }

  /** Resolves when no write that was sent before is under way any more, and their data is on stable storage. */
  set(
    value: number,
    nsid: number,
    _data: Uint8Array,
    host: ControllerHost,
  ): FeatureResult | Promise<FeatureResult> {
    const { wps } = WriteProtection.decode(value);
    if (!STATES.includes(wps) || (value & ~WriteProtection.mask.wps) !== 0) {
      return refused();
    }
    const nsids = nsid === NSID_ALL ? [...host.namespaces.keys()] : [nsid];
    if (nsids.some((each) => host.namespaces.get(each)?.conflicts)) {
      return refused(Status.RESERVATION_CONFLICT);
    }
    if (nsids.some((each) => isSettled(each, host))) {
      return refused(Status.FEATURE_NOT_CHANGEABLE);
    }
    return host.protectNamespaces(nsids, wps).then(() => ok());
  }

  /** It is the namespace's, not the controller's. */
  reset(): void {}
}
