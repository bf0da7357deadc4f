/** Latency histograms of bdevs, in the form that SPDK's histogram.py reads. Ticks are nanoseconds. */
import { Type } from 'typebox';
import { LATENCY_SHIFT } from '../../bdev/counters.ts';
import type { Disk } from '../../bdev/disk.ts';
import { Op } from '../../bdev/op.ts';
import { Tally } from '../../bdev/tally.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError } from '../../util/errors.ts';
import { method, type RpcMethod } from '../dispatcher.ts';
import { Bool, DONE, Text, TICK_RATE } from '../schema.ts';

/** SPDK's histograms have this many ranges of 2^bucket_shift buckets: range 0 counts single ticks, each further one is twice as wide. */
const RANGES = 64 - LATENCY_SHIFT + 1;

export function histogramMethods(target: Target): RpcMethod[] {
  /** What a bdev had done when its histogram was turned on. */
  const enabled = new WeakMap<Disk, Tally>();
  const everything = ({ index }: Disk): Tally => {
    const total = new Tally();
    for (const reactor of target.reactors.cores.keys()) {
      total.merge(target.reactors.bdevTally(index, reactor));
    }
    return total;
  };

  return [
    method({
      name: 'bdev_enable_histogram',
      summary: "Begins a bdev's latency histogram anew, or ends it.",
      params: Type.Object({ name: Text('the bdev; -19 if there is none'), enable: Bool('or end') }),
      result: DONE,
      call: ({ name, enable }) => {
        const bdev = target.bdevs.get(name);
        if (enable) {
          enabled.set(bdev, everything(bdev));
        } else {
          enabled.delete(bdev);
        }
        return true;
      },
    }),
    method({
      name: 'bdev_get_histogram',
      summary: 'The latencies of reads and writes; of bdevs in memory, samples of them.',
      params: Type.Object({ name: Text('the bdev; -19 if there is none, -14 if not enabled') }),
      result: Type.Object({
        histogram: Type.String({ description: 'base64 of 64-bit little-endian counts' }),
        bucket_shift: Type.Integer({ description: 'log2 of the buckets a range' }),
        tsc_rate: Type.Integer({ description: 'ticks a second' }),
      }),
      call: ({ name }) => {
        const bdev = target.bdevs.get(name);
        const before = enabled.get(bdev);
        if (before === undefined) {
          throw new ErrnoError('EFAULT', `the histogram of bdev '${name}' is not enabled`);
        }
        const tally = everything(bdev).merge(before, -1);
        const counts = Buffer.alloc((RANGES << LATENCY_SHIFT) * 8);
        const writes = tally.histogram(Op.WRITE);
        for (const [bucket, reads] of tally.histogram(Op.READ).entries()) {
          counts.writeBigUInt64LE(BigInt(reads + writes[bucket]), bucket * 8);
        }
        return {
          histogram: counts.toString('base64'),
          bucket_shift: LATENCY_SHIFT,
          tsc_rate: TICK_RATE,
        };
      },
    }),
  ];
}
