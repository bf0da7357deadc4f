/** I/O statistics of bdevs, as SPDK reports them. Ticks are nanoseconds. */
import { Type } from 'typebox';
import type { Disk } from '../../bdev/disk.ts';
import { MAX_BDEVS } from '../../limits.ts';
import type { Target } from '../../target/target.ts';
import type { IoCounters } from '../../target/types.ts';
import { ErrnoError } from '../../util/errors.ts';
import { method, type RpcMethod } from '../dispatcher.ts';
import { Bool, DONE, Text } from '../schema.ts';

const TICK_RATE = 1_000_000_000;
/** SPDK also knows maxmin and error; the reactors can reset all or nothing. */
const RESET_MODE = Type.Enum(['all', 'none'], { description: 'what to reset' });

const { Optional } = Type;

/** What all reactors counted. The minimum of no commands is 0. */
function sum(parts: readonly IoCounters[]): IoCounters {
  const total: IoCounters = {
    bytesRead: 0,
    numReadOps: 0,
    bytesWritten: 0,
    numWriteOps: 0,
    readLatencyTicks: 0,
    maxReadLatencyTicks: 0,
    minReadLatencyTicks: 0,
    writeLatencyTicks: 0,
    maxWriteLatencyTicks: 0,
    minWriteLatencyTicks: 0,
    errors: 0,
  };
  for (const part of parts) {
    total.maxReadLatencyTicks = Math.max(total.maxReadLatencyTicks, part.maxReadLatencyTicks);
    total.maxWriteLatencyTicks = Math.max(total.maxWriteLatencyTicks, part.maxWriteLatencyTicks);
    total.minReadLatencyTicks = minimum(total.minReadLatencyTicks, part.minReadLatencyTicks);
    total.minWriteLatencyTicks = minimum(total.minWriteLatencyTicks, part.minWriteLatencyTicks);
    total.bytesRead += part.bytesRead;
    total.numReadOps += part.numReadOps;
    total.bytesWritten += part.bytesWritten;
    total.numWriteOps += part.numWriteOps;
    total.readLatencyTicks += part.readLatencyTicks;
    total.writeLatencyTicks += part.writeLatencyTicks;
    total.errors += part.errors;
  }
  return total;
}

/** 0 stands for "none yet". */
function minimum(a: number, b: number): number {
  return a === 0 ? b : b === 0 ? a : Math.min(a, b);
}

function report(counters: IoCounters) {
  return {
    bytes_read: counters.bytesRead,
    num_read_ops: counters.numReadOps,
    bytes_written: counters.bytesWritten,
    num_write_ops: counters.numWriteOps,
    bytes_unmapped: 0,
    num_unmap_ops: 0,
    bytes_copied: 0,
    num_copy_ops: 0,
    read_latency_ticks: counters.readLatencyTicks,
    max_read_latency_ticks: counters.maxReadLatencyTicks,
    min_read_latency_ticks: counters.minReadLatencyTicks,
    write_latency_ticks: counters.writeLatencyTicks,
    max_write_latency_ticks: counters.maxWriteLatencyTicks,
    min_write_latency_ticks: counters.minWriteLatencyTicks,
    unmap_latency_ticks: 0,
    max_unmap_latency_ticks: 0,
    min_unmap_latency_ticks: 0,
    copy_latency_ticks: 0,
    max_copy_latency_ticks: 0,
    min_copy_latency_ticks: 0,
    io_error: counters.errors === 0 ? {} : { failed: counters.errors },
  };
}

export function iostatMethods(target: Target): RpcMethod[] {
  const { reactors } = target;
  const channels = (bdev: Disk): IoCounters[] =>
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
        if (reset_mode === 'all') {
          for (const bdev of bdevs) {
            reactors.resetIostat(bdev.index);
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
        if (mode === 'all') {
          for (const bdev of bdevs) {
            reactors.resetIostat(bdev.index);
          }
        }
        return true;
      },
    }),
  ];
}
