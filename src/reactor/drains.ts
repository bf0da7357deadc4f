/** Requests that wait for a controller's commands in flight, and which of these have to end. Used by `controllers.ts`. */
import { HostRanges } from '../memory/host-ranges.ts';
import type { Drain, IoController } from '../nvme/io-view.ts';
import type { ControllerRequest } from './control.ts';
import type { ControllerQueues } from './controller-queues.ts';

export const DRAINS: ReadonlySet<ControllerRequest['kind']> = new Set([
  'detach',
  'unmap',
  'delete-sq',
  'reset',
  'remove-namespace',
  // What completes after it is to be durable.
  'write-through',
  // Replacing a namespace (its size changed) is a removal, too.
  'add-namespace',
]);

const NO_MEMORY = new HostRanges([]);

/** What such a request takes away. */
export function drainFor(
  request: ControllerRequest,
  { memory }: IoController,
  queues: ControllerQueues,
): Drain {
  switch (request.kind) {
    case 'detach':
    case 'reset':
      return { memory: NO_MEMORY, ends: () => true };
    case 'delete-sq':
      return { memory: NO_MEMORY, ends: ({ sq }) => sq.qid === request.qid };
    case 'remove-namespace':
      return { memory: NO_MEMORY, ends: (_, { nsid }) => nsid === request.nsid };
    case 'add-namespace':
      return { memory: NO_MEMORY, ends: (_, { nsid }) => nsid === request.namespace.nsid };
    case 'unmap':
      return {
        memory: memory.hostRanges(request.iova, request.iova + request.size),
        // While it can still be said that they have ended.
        ends: ({ sq }) => queues.completesIn(sq, request),
      };
  }
  return { memory: NO_MEMORY, ends: () => false };
}
