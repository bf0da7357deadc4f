/** Which notices about reservations a host does not want, and whether a reservation persists. NVMe Base 2.0 §5.27.1.26, §5.27.1.27. Owned by main. */
import { Fid, ReservationMask, ReservationPersistence } from '../../spec/features.ts';
import { NSID_ALL } from '../../spec/nvme.ts';
import { ReservationNotice } from '../../spec/reservations.ts';
import type { ControllerHost } from '../host.ts';
import { type Feature, type FeatureResult, ok, refused } from './feature.ts';

const { regpre, resrel, respre } = ReservationMask.mask;
const BITS: Readonly<Record<number, number>> = {
  [ReservationNotice.REGISTRATION_PREEMPTED]: regpre,
  [ReservationNotice.RESERVATION_RELEASED]: resrel,
  [ReservationNotice.RESERVATION_PREEMPTED]: respre,
};

export class NotificationMask implements Feature {
  readonly fid = Fid.RESERVATION_NOTIFICATION_MASK;
  readonly perNamespace = true;
  readonly ofActive = true;
  readonly #masks = new Map<number, number>();

  /** The host wants to be told. `notice`: one of ReservationNotice. */
  lets(nsid: number, notice: number): boolean {
    return ((this.#masks.get(nsid) ?? 0) & BITS[notice]) === 0;
  }

  get(which: 'current' | 'default', _value: number, nsid: number): FeatureResult {
    return ok(which === 'current' ? this.#masks.get(nsid) : 0);
  }

  set(value: number, nsid: number, _data: Uint8Array, host: ControllerHost): FeatureResult {
    if ((value & ~(regpre | resrel | respre)) !== 0) {
      return refused();
    }
    for (const each of nsid === NSID_ALL ? host.namespaces.keys() : [nsid]) {
      this.#masks.set(each, value);
    }
    return ok();
  }

  reset(): void {
    this.#masks.clear();
  }
}

export class PersistenceFeature implements Feature {
  readonly fid = Fid.RESERVATION_PERSISTENCE;
  readonly perNamespace = true;
  readonly ofActive = true;

  get(
    which: 'current' | 'default',
    _value: number,
    nsid: number,
    host: ControllerHost,
  ): FeatureResult {
    const ptpl = which === 'current' && host.namespaceState(nsid)?.reservations.ptpl === true;
    return ok(ReservationPersistence.encode({ ptpl }));
  }

  set(
    value: number,
    nsid: number,
    _data: Uint8Array,
    host: ControllerHost,
  ): FeatureResult | Promise<FeatureResult> {
    const { ptpl } = ReservationPersistence.decode(value);
    const isKnown = (value & ~ReservationPersistence.mask.ptpl) === 0;
    if (!isKnown || (ptpl && !host.keepsReservations)) {
      return refused();
    }
    const nsids = nsid === NSID_ALL ? [...host.namespaces.keys()] : [nsid];
    for (const each of nsids) {
      const state = host.namespaceState(each);
      if (state !== undefined) {
        state.reservations.ptpl = ptpl;
      }
    }
    return host.keepReservations(nsids).then(() => ok());
  }

  /** It is the namespace's. */
  reset(): void {}
}
