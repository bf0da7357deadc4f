/** Requests that wait for a controller's commands in flight, and which of these have to end. Used by `controllers.ts`. */
import { native } from '../native/index.ts';
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

const NO_MEMORY = { from: 0, to: 0 };

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
    case 'unmap': {
      const region = memory.regions.find(({ iova }) => iova === request.iova);
      if (region !== undefined) {
        const from = native.addressOf(new Uint8Array(region.buffer, 0, 1));
        return {
          memory: { from, to: from + region.size },
          // While it can still be said that they have ended.
          ends: ({ sq }) => queues.completesIn(sq, region),
        };
      }
    }
  }
  return { memory: NO_MEMORY, ends: () => false };
}
