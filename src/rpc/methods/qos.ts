/** Rate limits of bdevs, with SPDK's method. */
import { Type } from 'typebox';
import { parseLimits } from '../../target/model/rate-limits.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError } from '../../util/errors.ts';
import { DONE, Text, Uint } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';

const MAX_IOS = 2 ** 31;
const MAX_MIB = 2 ** 20;

const { Optional } = Type;
const Mib = (what: string) => Optional(Uint(`MiB of ${what} a second; 0: no limit`, MAX_MIB));

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
      call: async ({ name, ...params }) => {
        const limits = parseLimits(params);
        if (Object.keys(limits).length === 0) {
          throw new ErrnoError('EINVAL', 'no rate limits specified');
        }
        await target.limit(name, limits);
        return true;
      },
    }),
  ];
}
