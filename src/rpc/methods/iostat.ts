/**
 * I/O statistics of bdevs, as SPDK reports them. Ticks are nanoseconds. Of bdevs in memory only samples are timed; their sums of latency are
 * what those let expect.
 */
import { Type } from 'typebox';
import type { Disk } from '../../bdev/disk.ts';
import { Op } from '../../bdev/op.ts';
import { Tally } from '../../bdev/tally.ts';
import { MAX_BDEVS } from '../../limits.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError } from '../../util/errors.ts';
import { Bool, DONE, Text } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';

const TICK_RATE = 1_000_000_000;
const RESET_MODE = Type.Enum(['all', 'maxmin', 'error', 'none'], {
  description: 'what to reset: all, the shortest and longest latencies, or the errors',
});

const { Optional } = Type;

function sum(parts: readonly Tally[]): Tally {
  const total = new Tally();
  for (const part of parts) {
    total.merge(part);
  }
  return total;
}

function report(tally: Tally) {
  const [read, written] = [tally.of(Op.READ), tally.of(Op.WRITE)];
  return {
    bytes_read: read.bytes,
    num_read_ops: read.ops,
    bytes_written: written.bytes,
    num_write_ops: written.ops,
    bytes_unmapped: tally.discards.bytes,
    num_unmap_ops: tally.discards.ops,
    bytes_copied: 0,
    num_copy_ops: 0,
    read_latency_ticks: read.latency,
    max_read_latency_ticks: read.maxLatency,
    min_read_latency_ticks: read.minLatency,
    write_latency_ticks: written.latency,
    max_write_latency_ticks: written.maxLatency,
    min_write_latency_ticks: written.minLatency,
    unmap_latency_ticks: 0,
    max_unmap_latency_ticks: 0,
    min_unmap_latency_ticks: 0,
    copy_latency_ticks: 0,
    max_copy_latency_ticks: 0,
    min_copy_latency_ticks: 0,
    io_error: tally.backendErrors === 0 ? {} : { failed: tally.backendErrors },
  };
}

export function iostatMethods(target: Target) {
  const { reactors } = target;
  const channels = (bdev: Disk): Tally[] =>
    Array.from({ length: reactors.count }, (_, reactor) => reactors.iostat(bdev.index, reactor));

  return [
    method({
      name: 'bdev_get_iostat',
      summary: 'I/O counters of all bdevs, or of some.',
      params: Type.Object({
        name: Optional(Text('one bdev; not together with names')),
        names: Optional(
          Type.Array(Type.String(), { maxItems: MAX_BDEVS, description: 'some bdevs' }),
        ),
        per_channel: Optional(Bool('each reactor on its own; asks for exactly one bdev')),
        reset_mode: Optional(RESET_MODE),
      }),
      result: Type.Object({ tick_rate: Type.Integer(), ticks: Type.Integer() }),
      call: ({ name, names, per_channel = false, reset_mode = 'none' }) => {
        if (name !== undefined && names !== undefined) {
          throw new ErrnoError('EINVAL', `keys 'name' and 'names' exclude each other`);
        }
        const wanted = name === undefined ? names : [name];
        if (per_channel && wanted?.length !== 1) {
          throw new ErrnoError('EINVAL', `key 'per_channel' asks for exactly one bdev`);
        }
        const bdevs = wanted?.map((each) => target.bdevs.get(each)) ?? target.bdevs.list();
        const now = { tick_rate: TICK_RATE, ticks: Number(process.hrtime.bigint()) };
        const result = per_channel
          ? {
              ...now,
              name: bdevs[0].name,
              channels: channels(bdevs[0]).map((counters, reactor) => ({
                thread_id: reactor + 1,
                ...report(counters),
              })),
            }
          : {
              ...now,
              bdevs: bdevs.map((bdev) => ({ name: bdev.name, ...report(sum(channels(bdev))) })),
            };
        if (reset_mode !== 'none') {
          for (const bdev of bdevs) {
            reactors.resetIostat(bdev.index, reset_mode);
          }
        }
        return result;
      },
    }),
    method({
      name: 'bdev_reset_iostat',
      summary: 'Resets the I/O counters of all bdevs, or of one.',
      params: Type.Object({
        name: Optional(Text('one bdev; -19 if there is none')),
        mode: Optional(RESET_MODE),
      }),
      result: DONE,
      call: ({ name, mode = 'all' }) => {
        const bdevs = name === undefined ? target.bdevs.list() : [target.bdevs.get(name)];
        if (mode !== 'none') {
          for (const bdev of bdevs) {
            reactors.resetIostat(bdev.index, mode);
          }
        }
        return true;
      },
    }),
  ];
}
