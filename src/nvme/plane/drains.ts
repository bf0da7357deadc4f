/** Which commands of a controller are in the way of a request that takes something away, and so are waited for. All others go on. */
import { changesBlocks } from '../../bdev/op.ts';
import type { Scope } from '../../bdev/requests/drain.ts';
import type { Share } from '../../bdev/requests/share.ts';
import type { Slots } from '../../bdev/requests/slots.ts';
import { protocolResult, Result } from '../../bdev/result.ts';
import type { HostRanges } from '../../memory/host-ranges.ts';
import { IoQueue } from './view.ts';

/** All: the controller is reset, or goes. */
export const EVERYTHING: Scope = {
  includes: () => true,
  ends: true,
  detaches: true,
  result: Result.ABORTED,
};

/** Nothing: only the completions that are there already are published. */
export const NOTHING: Scope = {
  includes: () => false,
  ends: false,
  detaches: false,
  result: Result.OK,
};

/** A submission queue is deleted. NVMe Base 2.0 §5.? says that its commands are aborted. */
export function ofQueue(gone: IoQueue): Scope {
  return {
    includes: (queue) => queue.line === gone,
    ends: true,
    detaches: true,
    result: Result.QUEUE_GONE,
  };
}

/** Whether the request of a slot is of a namespace, or copies from it. */
function uses(of: Share, share: Share, slot: number, slots: Slots): boolean {
  return share === of || slots.sources[slot]?.includes(of.channel) === true;
}

/** A namespace is removed, or becomes another bdev: what is copied from it counts, too. */
export function ofNamespace(gone: Share, slots: Slots): Scope {
  return {
    includes: (_queue, share, slot) => uses(gone, share, slot, slots),
    ends: true,
    detaches: true,
    result: Result.ABORTED,
  };
}

/** Memory is taken away: of commands that move data there, or that complete there. */
export function ofMemory(
  memory: HostRanges,
  slots: Slots,
  completesThere: (queue: IoQueue) => boolean,
): Scope {
  return {
    includes: (queue, share, slot) =>
      share.channel.backendOf(slots.op(slot)).touches?.(slot, memory) === true ||
      (queue instanceof IoQueue && completesThere(queue)),
    ends: false,
    detaches: true,
    result: Result.BAD_MEMORY,
  };
}

/** What may not be done to a namespace any more: everything, copies from it too, or what changes blocks. `abort`: the status that it ends with; else it is carried out. */
export function ofAccess(
  slots: Slots,
  to: Share,
  reads: boolean,
  abort: number | undefined,
): Scope {
  return {
    includes: (_queue, share, slot) =>
      reads ? uses(to, share, slot, slots) : share === to && changesBlocks(slots.op(slot)),
    ends: abort !== undefined,
    detaches: abort !== undefined,
    result: abort === undefined ? Result.OK : protocolResult(abort),
  };
}

/** What completes from now on is to be durable. */
export function ofWrites(slots: Slots): Scope {
  return {
    includes: (_queue, _share, slot) => changesBlocks(slots.op(slot)),
    ends: false,
    detaches: false,
    result: Result.OK,
  };
}
