/** The Error Recovery feature: a time limit of a namespace's commands, which is a hint. NVM Command Set 1.0 §4.1.3.2. Owned by main. */
import { ErrorRecovery, Fid } from '../../spec/features.ts';
import { NSID_ALL } from '../../spec/nvme.ts';
import { type Feature, type FeatureResult, ok, refused } from './feature.ts';

export class ErrorRecoveries implements Feature {
  readonly fid = Fid.ERROR_RECOVERY;
  readonly perNamespace = true;
  /** By NSID; all others have `#rest`. */
  readonly #values = new Map<number, number>();
  #rest = 0;

  get(which: 'current' | 'default', _value: number, nsid: number): FeatureResult {
    return ok(which === 'current' ? (this.#values.get(nsid) ?? this.#rest) : 0);
  }

  /** Errors for deallocated blocks are refused: NSFEAT does not offer them. */
  set(value: number, nsid: number): FeatureResult {
    if ((value & ~ErrorRecovery.mask.tler) !== 0) {
      return refused();
    }
    if (nsid === NSID_ALL) {
      this.#values.clear();
      this.#rest = value;
    } else {
      this.#values.set(nsid, value);
    }
    return ok();
  }

  reset(): void {
    this.#values.clear();
    this.#rest = 0;
  }
}
