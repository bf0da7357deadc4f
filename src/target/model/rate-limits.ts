/** Rate limits in the spelling of bdev_set_qos_limit. */
import type { RateLimits } from '../../bdev/limiter.ts';
import type { Params } from './plan.ts';

/** SPDK rounds up to multiples of this: a token a millisecond. */
const IOS_GRANULARITY = 1000;
const MIB = 1024 * 1024;

/** MiB and I/Os a second; 0: no limit. */
export interface LimitParams {
  readonly rw_ios_per_sec: number;
  readonly rw_mbytes_per_sec: number;
  readonly r_mbytes_per_sec: number;
  readonly w_mbytes_per_sec: number;
}

const SPELLING = {
  rwIos: 'rw_ios_per_sec',
  rwBytes: 'rw_mbytes_per_sec',
  readBytes: 'r_mbytes_per_sec',
  writtenBytes: 'w_mbytes_per_sec',
} as const;

type Given = { readonly [key in keyof LimitParams]?: number | undefined };

/** The limits that are given. */
export function parseLimits(params: Given): Partial<RateLimits> {
  return Object.fromEntries(
    Object.entries(SPELLING).flatMap(([limit, key]) => {
      const value = params[key];
      if (value === undefined) {
        return [];
      }
      return [
        [
          limit,
          limit === 'rwIos' ? Math.ceil(value / IOS_GRANULARITY) * IOS_GRANULARITY : value * MIB,
        ],
      ];
    }),
  );
}

export function limitParams(limits: RateLimits): LimitParams {
  const { rwIos, rwBytes, readBytes, writtenBytes } = limits;
  return {
    rw_ios_per_sec: rwIos,
    rw_mbytes_per_sec: rwBytes / MIB,
    r_mbytes_per_sec: readBytes / MIB,
    w_mbytes_per_sec: writtenBytes / MIB,
  };
}

/** The same for a plan: nothing if nothing is limited. */
export function plannedLimits(limits: Partial<RateLimits>): Params {
  const params = limitParams({ rwIos: 0, rwBytes: 0, readBytes: 0, writtenBytes: 0, ...limits });
  return Object.values(params).every((limit) => limit === 0) ? {} : { ...params };
}
