/** Rate limits of bdevs, with SPDK's method. */
import { Type } from 'typebox';
import type { RateLimits } from '../../bdev/limiter.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError } from '../../util/errors.ts';
import { method } from '../dispatcher.ts';
import { DONE, Text, Uint } from '../schema.ts';

/** SPDK rounds up to multiples of these: a token a millisecond, and a MiB. */
const IOS_GRANULARITY = 1000;
const MIB = 1024 * 1024;
const MAX_IOS = 2 ** 31;
const MAX_MIB = 2 ** 20;

const { Optional } = Type;
const Mib = (what: string) => Optional(Uint(`MiB of ${what} a second; 0: no limit`, MAX_MIB));

/** `assigned_rate_limits` of bdev_get_bdevs, and what sets them again. */
export function describeLimits({ rwIos, rwBytes, readBytes, writtenBytes }: RateLimits) {
  return {
    rw_ios_per_sec: rwIos,
    rw_mbytes_per_sec: rwBytes / MIB,
    r_mbytes_per_sec: readBytes / MIB,
    w_mbytes_per_sec: writtenBytes / MIB,
  };
}

export function qosMethods(target: Target) {
  return [
    method({
      name: 'bdev_set_qos_limit',
      summary: 'Limits the rate of reads and writes of a bdev, however many guests use it.',
      params: Type.Object({
        name: Text('the bdev; -19 if there is none'),
        rw_ios_per_sec: Optional(
          Uint('reads and writes a second, rounded up to thousands; 0: no limit', MAX_IOS),
        ),
        rw_mbytes_per_sec: Mib('reads and writes'),
        r_mbytes_per_sec: Mib('reads'),
        w_mbytes_per_sec: Mib('writes'),
      }),
      result: DONE,
      call: async ({ name, rw_ios_per_sec, ...mib }) => {
        const limits: { -readonly [key in keyof RateLimits]?: number } = {};
        if (rw_ios_per_sec !== undefined) {
          limits.rwIos = Math.ceil(rw_ios_per_sec / IOS_GRANULARITY) * IOS_GRANULARITY;
        }
        if (mib.rw_mbytes_per_sec !== undefined) {
          limits.rwBytes = mib.rw_mbytes_per_sec * MIB;
        }
        if (mib.r_mbytes_per_sec !== undefined) {
          limits.readBytes = mib.r_mbytes_per_sec * MIB;
        }
        if (mib.w_mbytes_per_sec !== undefined) {
          limits.writtenBytes = mib.w_mbytes_per_sec * MIB;
        }
        if (Object.keys(limits).length === 0) {
          throw new ErrnoError('EINVAL', 'no rate limits specified');
        }
        await target.limit(name, limits);
        return true;
      },
    }),
  ];
}
