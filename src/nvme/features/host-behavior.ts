/** The Host Behavior Support feature: what the host can cope with. NVMe Base 2.0 §5.27.1.18. Owned by main. */
import { Fid, HostBehavior } from '../../spec/features.ts';
import { ENABLED_COPY_FORMATS, PLAIN_COPY_FORMATS } from '../copy-formats.ts';
import { type Feature, type FeatureResult, ok, refused } from './feature.ts';

export class HostBehaviorSupport implements Feature {
  readonly fid = Fid.HOST_BEHAVIOR_SUPPORT;
  readonly dataBytes = HostBehavior.size;
  #acre = 0;
  #cdfe = 0;

  /** Formats of source ranges that Copy takes: a bit each. */
  get copyFormats(): number {
    return PLAIN_COPY_FORMATS | this.#cdfe;
  }

  get(which: 'current' | 'default'): FeatureResult {
    const [acre, cdfe] = which === 'current' ? [this.#acre, this.#cdfe] : [0, 0];
    return { ...ok(), data: HostBehavior.encode({ acre, cdfe }) };
  }

  /** Advanced Command Retry, and formats of Copy, are the host's to enable; the others are of capabilities that the controller has not. */
  set(_value: number, _nsid: number, data: Uint8Array): FeatureResult {
    const { acre, cdfe } = HostBehavior.read(new DataView(data.buffer, data.byteOffset));
    const known = HostBehavior.encode({ acre, cdfe });
    if (
      acre > 1 ||
      (cdfe & ~ENABLED_COPY_FORMATS) !== 0 ||
      data.some((byte, at) => byte !== known[at])
    ) {
      return refused();
    }
    this.#acre = acre;
    this.#cdfe = cdfe;
    return ok();
  }

  reset(): void {
    this.#acre = 0;
    this.#cdfe = 0;
  }
}
