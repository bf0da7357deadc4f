/** Latency histograms of bdevs, in the form that SPDK's histogram.py reads. Ticks are nanoseconds. */
import { Type } from 'typebox';
import { LATENCY_SHIFT } from '../../bdev/counters.ts';
import type { Disk } from '../../bdev/disk.ts';
import { Op } from '../../bdev/op.ts';
import { Tally } from '../../bdev/tally.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError } from '../../util/errors.ts';
import { Bool, DONE, IGNORED, Text, TICK_RATE, Uint } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';
import { IO_TYPES } from './bdev.ts';

const { Optional } = Type;

/** The commands that are timed. */
const TIMED = { read: Op.READ, write: Op.WRITE } as const;
type Timed = keyof typeof TIMED;

/** SPDK's histograms have this many ranges of 2^bucket_shift buckets: range 0 counts single ticks, each further one is twice as wide. */
const RANGES = 64 - LATENCY_SHIFT + 1;

export function histogramMethods(target: Target) {
  /** What a bdev had done when its histogram was turned on, and the commands that it is of. */
  const enabled = new WeakMap<Disk, { readonly before: Tally; readonly ops: readonly Timed[] }>();
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
      params: Type.Object({
        name: Text('the bdev; -19 if there is none'),
        enable: Bool('or end'),
        opc: Optional(
          Type.Enum(IO_TYPES, {
            description: 'only these; others than read and write are not timed',
          }),
        ),
        granularity: Optional(Uint(`the buckets are always the same; ${IGNORED}`)),
        min_nsec: Optional(Uint(`the buckets are always the same; ${IGNORED}`)),
        max_nsec: Optional(Uint(`the buckets are always the same; ${IGNORED}`)),
      }),
      result: DONE,
      call: ({ name, enable, opc }) => {
        const bdev = target.bdevs.get(name);
        if (enable) {
          const all = Object.keys(TIMED) as Timed[];
          const ops = opc === undefined ? all : all.filter((op) => op === opc);
          enabled.set(bdev, { before: everything(bdev), ops });
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
        granularity: Type.Integer({ description: 'the same, as newer clients call it' }),
        min_range: Type.Integer({ description: 'the first range that is there' }),
        max_range: Type.Integer({ description: 'the first one that is not there any more' }),
        tsc_rate: Type.Integer({ description: 'ticks a second' }),
      }),
      call: ({ name }) => {
        const bdev = target.bdevs.get(name);
        const state = enabled.get(bdev);
        if (state === undefined) {
          throw new ErrnoError('EFAULT', `the histogram of bdev '${name}' is not enabled`);
        }
        const tally = everything(bdev).merge(state.before, -1);
        const counts = Buffer.alloc((RANGES << LATENCY_SHIFT) * 8);
        const histograms = state.ops.map((op) => tally.histogram(TIMED[op]));
        for (let bucket = 0; bucket < RANGES << LATENCY_SHIFT; bucket += 1) {
          const count = histograms.reduce((sum, histogram) => sum + (histogram[bucket] ?? 0), 0);
          counts.writeBigUInt64LE(BigInt(count), bucket * 8);
        }
        return {
          histogram: counts.toString('base64'),
          bucket_shift: LATENCY_SHIFT,
          granularity: LATENCY_SHIFT,
          min_range: 0,
          max_range: RANGES,
          tsc_rate: TICK_RATE,
        };
      },
    }),
  ];
}
