/**
 * The Host Identifier: which host this is to the others of the subsystem. Zero: none that another controller is of, too. NVMe Base 2.0
 * §5.27.1.25. Owned by main.
 */
import { EXTENDED_HOST_ID_BYTES, Fid, HOST_ID_BYTES, HostIdentifier } from '../../spec/features.ts';
import type { ControllerHost } from '../host.ts';
import { type Feature, type FeatureResult, ok, refused } from './feature.ts';

const isExtended = (value: number): boolean => HostIdentifier.decode(value).exhid;

export class HostIdentity implements Feature {
  readonly fid = Fid.HOST_IDENTIFIER;
  readonly dataBytes = (value: number): number =>
    isExtended(value) ? EXTENDED_HOST_ID_BYTES : HOST_ID_BYTES;
  /** As the host gave it: of 8 bytes or of 16. */
  #id = new Uint8Array(HOST_ID_BYTES);

  /** Of 8 or 16 bytes. */
  get id(): Uint8Array {
    return this.#id;
  }

  /** In the length that the host asks for; one that is longer cannot be given in 8 bytes. */
  get(which: 'current' | 'default', value: number): FeatureResult {
    if ((value & ~HostIdentifier.mask.exhid) !== 0) {
      return refused();
    }
    const data = new Uint8Array(this.dataBytes(value));
    if (which === 'current') {
      if (this.#id.length > data.length && this.#id.some((byte) => byte !== 0)) {
        return refused();
      }
      data.set(this.#id.subarray(0, data.length));
    }
    return { ...ok(), data };
  }

  set(
    value: number,
    _nsid: number,
    data: Uint8Array,
    host: ControllerHost,
  ): FeatureResult | Promise<FeatureResult> {
    if ((value & ~HostIdentifier.mask.exhid) !== 0) {
      return refused();
    }
    this.#id = Uint8Array.from(data);
    // What the host may do goes by its name.
    return host.nameHost(this.#id).then(() => ok());
  }

  reset(): void {
    this.#id = new Uint8Array(HOST_ID_BYTES);
  }
}
