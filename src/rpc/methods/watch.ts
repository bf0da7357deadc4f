/** What happens in the target, and how it stands: methods of our own. */
import { Type } from 'typebox';
import { snapshot } from '../../target/snapshot.ts';
import type { Target } from '../../target/target.ts';
import { method, type RpcMethod } from '../dispatcher.ts';
import { Uint } from '../schema.ts';

export function watchMethods(target: Target): RpcMethod[] {
  return [
    method({
      name: 'doorbell_get_snapshot',
      summary:
        'The whole state: reactors, bdevs, subsystems, controllers and their queues. Counters are cumulative.',
      params: Type.Object({}),
      call: () => snapshot(target),
    }),
    method({
      name: 'doorbell_get_events',
      summary: 'What happened last: at most 256 events, the oldest first.',
      params: Type.Object({
        since: Type.Optional(Uint('only events with a larger seq; default: 0')),
      }),
      call: ({ since }) => target.events.since(since),
    }),
  ];
}
