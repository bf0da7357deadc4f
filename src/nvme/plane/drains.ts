/** Which commands of a controller are in the way of a request that takes something away, and so are waited for. All others go on. */
import { Op } from '../../bdev/op.ts';
import type { Scope } from '../../bdev/requests/drain.ts';
import type { Share } from '../../bdev/requests/share.ts';
import type { Slots } from '../../bdev/requests/slots.ts';
import type { HostRanges } from '../../memory/host-ranges.ts';
import { Status } from '../../spec/nvme.ts';
import type { IoQueue } from './view.ts';

/** All: the controller is reset, or goes. */
export const EVERYTHING: Scope = {
  includes: () => true,
  ends: true,
  detaches: true,
  status: Status.ABORTED_BY_REQUEST,
};

/** A submission queue is deleted. NVMe Base 2.0 §5.? says that its commands are aborted. */
export function ofQueue(gone: IoQueue): Scope {
  return {
    includes: (queue) => queue === gone,
    ends: true,
    detaches: true,
    status: Status.ABORTED_SQ_DELETION,
  };
}

/** A namespace is removed, or becomes another bdev. */
export function ofNamespace(gone: Share): Scope {
  return {
    includes: (_queue, share) => share === gone,
    ends: true,
    detaches: true,
    status: Status.ABORTED_BY_REQUEST,
  };
}

/** Memory is taken away: of commands that move data there, or that complete there. */
export function ofMemory(memory: HostRanges, completesThere: (queue: IoQueue) => boolean): Scope {
  return {
    includes: (queue, share, slot) =>
      share.channel.backend.touches?.(slot, memory) === true || completesThere(queue as IoQueue),
    ends: false,
    detaches: true,
    status: Status.DATA_TRANSFER_ERROR,
  };
}

/** What completes from now on is to be durable. */
export function ofWrites(slots: Slots): Scope {
  return {
    includes: (_queue, _share, slot) => slots.op(slot) === Op.WRITE,
    ends: false,
    detaches: false,
    status: Status.SUCCESS,
  };
}
