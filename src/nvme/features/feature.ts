/** What a feature is: its value, what Get and Set Features do with it, what a reset makes of it. NVMe Base 2.0 §5.15, §5.27. Owned by main. */
import type { IdentifyController, Oncs } from '../../spec/identify.ts';
import { Status } from '../../spec/nvme.ts';
import type { Word } from '../../util/bits.ts';
import type { StructValues } from '../../util/struct.ts';
import type { ControllerHost } from '../host.ts';

/** A result of Get or Set Features: a status, dword 0 of the completion, and data for the host. */
export interface FeatureResult {
  readonly status: number;
  readonly dw0: number;
  readonly data?: Uint8Array;
}

export const ok = (dw0 = 0): FeatureResult => ({ status: Status.SUCCESS, dw0 });
export const refused = (status: number = Status.INVALID_FIELD): FeatureResult => ({
  status,
  dw0: 0,
});

export interface Feature {
  readonly fid: number;
  /** Each namespace has a value of its own. */
  readonly perNamespace?: boolean;
  /** The bit of ONCS that says that the feature is there. */
  readonly oncs?: keyof (typeof Oncs)['fields'];
  /** What Identify Controller says of it otherwise. */
  readonly identify?: Partial<StructValues<(typeof IdentifyController)['fields']>>;
  /** Only namespaces that are there have it; else any that can be. */
  readonly ofActive?: boolean;
  /** Bytes that Set Features moves beside dword 0; or what they are by dword 11. */
  readonly dataBytes?: number | ((value: number) => number);
  /** Whether the value of this namespace can be changed at the moment. Without this method it can. */
  changeable?(nsid: number, host: ControllerHost): boolean;
  /** `value`: dword 11, which says which part of the feature is meant. `nsid`: a namespace, where there is one value for each. */
  get(
    which: 'current' | 'default',
    value: number,
    nsid: number,
    host: ControllerHost,
  ): FeatureResult;
  /** `data`: of `dataBytes`. `nsid` may be all namespaces. */
  set(
    value: number,
    nsid: number,
    data: Uint8Array,
    host: ControllerHost,
  ): FeatureResult | Promise<FeatureResult>;
  /** As after a controller level reset. */
  reset(): void;
}

/** Bytes that Set Features takes with this dword 11. */
export function dataBytes({ dataBytes: bytes = 0 }: Feature, value: number): number {
  return typeof bytes === 'number' ? bytes : bytes(value);
}

/** A feature that is dword 11 and nothing else. */
export class DwordFeature implements Feature {
  readonly fid: number;
  readonly initial: number;
  readonly #mask: number;
  #value: number;

  /** `fields`: the bits that mean something; a value with others is refused. */
  // biome-ignore lint/suspicious/noExplicitAny: the masks of any fields.
  constructor(fid: number, fields: Word<any>, initial = 0) {
    this.fid = fid;
    this.initial = initial;
    this.#mask = Object.values<number>(fields.mask).reduce((all, mask) => all | mask, 0);
    this.#value = initial;
  }

  get value(): number {
    return this.#value;
  }

  get(which: 'current' | 'default'): FeatureResult {
    return ok(which === 'current' ? this.#value : this.initial);
  }

  set(value: number, _nsid: number, _data: Uint8Array): FeatureResult {
    if ((value & ~this.#mask) !== 0) {
      return refused();
    }
    this.#value = value >>> 0;
    return ok();
  }

  reset(): void {
    this.#value = this.initial;
  }
}
