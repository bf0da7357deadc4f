/** The Host Behavior Support feature: what the host can cope with. NVMe Base 2.0 §5.27.1.18. Owned by main. */
import { Fid, HostBehavior } from '../../spec/features.ts';
import { type Feature, type FeatureResult, ok, refused } from './feature.ts';

export class HostBehaviorSupport implements Feature {
  readonly fid = Fid.HOST_BEHAVIOR_SUPPORT;
  readonly dataBytes = HostBehavior.size;
  #acre = 0;

  get(which: 'current' | 'default'): FeatureResult {
    const acre = which === 'current' ? this.#acre : 0;
    return { ...ok(), data: HostBehavior.encode({ acre }) };
  }

  /** Advanced Command Retry is the host's to enable; the others are of capabilities that the controller has not. */
  set(_value: number, _nsid: number, data: Uint8Array): FeatureResult {
    const { acre } = HostBehavior.read(new DataView(data.buffer, data.byteOffset));
    if (acre > 1 || data.some((byte, at) => at !== HostBehavior.offset.acre && byte !== 0)) {
      return refused();
    }
    this.#acre = acre;
    return ok();
  }

  reset(): void {
    this.#acre = 0;
  }
}
