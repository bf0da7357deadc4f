import { LATENCIES, type Latencies } from '../delay.ts';
import type { BdevKind } from '../kind.ts';
import { DelayBdev, describeDelay } from '../wrapper.ts';

export const DELAY = {
  name: 'delay',
  summary: 'Makes a bdev on top of another, whose reads and writes complete later.',
  deletion: 'The bdev below stays.',
  parameters: ({ Type, Text, Uuid, Uint, U32_MAX }) => {
    const Microseconds = (what: string) => Uint(`µs by which ${what}`, U32_MAX);
    return Type.Object({
      base_bdev_name: Text('the bdev below; -19 if there is none, -1 if it is in use'),
      name: Text('name of the new bdev'),
      uuid: Type.Optional(Uuid('default: made from the UUID of the bdev below, always the same')),
      avg_read_latency: Microseconds('reads are delayed'),
      p99_read_latency: Microseconds('one read in a hundred is delayed, no less than the others'),
      avg_write_latency: Microseconds('writes are delayed'),
      p99_write_latency: Microseconds('one write in a hundred is delayed'),
    });
  },
  kept: {
    base_bdev_name: undefined,
    avg_read_latency: undefined,
    p99_read_latency: undefined,
    avg_write_latency: undefined,
    p99_write_latency: undefined,
    uuid: undefined,
  },
  base: 'base_bdev_name',
  create: (identity, params, { base }) => {
    const entries = LATENCIES.map((name) => [name, Number(params[`${name}_latency`])]);
    return new DelayBdev(identity, base!, Object.fromEntries(entries) as Latencies);
  },
  save: (bdev) => describeDelay(bdev as DelayBdev),
} as const satisfies BdevKind;
