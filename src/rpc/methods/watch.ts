/** What happens in the target, and how it stands: methods of our own. */
import { Type } from 'typebox';
import { EVENT_TYPES, EVENTS_KEPT } from '../../target/events.ts';
import { snapshot } from '../../target/snapshot.ts';
import type { Target } from '../../target/target.ts';
import { FailedError } from '../../util/errors.ts';
import { Count, Uint } from '../../util/schema.ts';
import { method, type Outlet } from '../dispatcher.ts';
import { CONTROLLER_NAME, findControllers } from '../find-controllers.ts';
import { ControllerSchema, EventSchema, SnapshotSchema } from '../state-schemas.ts';
import { Watch } from '../watch.ts';

const { Optional } = Type;
/** Shortest time between two snapshots of a watch. Milliseconds. */
const MIN_SNAPSHOT_MS = 100;
const MAX_SNAPSHOT_MS = 3_600_000;
const Since = Optional(Uint('only events with a larger seq'));

export function watchMethods(target: Target) {
  const watches = new WeakMap<Outlet, Watch>();
  return [
    method({
      name: 'doorbell_get_snapshot',
      summary:
        'The whole state: reactors, bdevs, subsystems, controllers and their queues. Counters are cumulative.',
      params: Type.Object({}),
      result: SnapshotSchema,
      call: () => snapshot(target),
    }),
    method({
      name: 'doorbell_get_events',
      summary: `What happened last: at most ${EVENTS_KEPT} events, the oldest first.`,
      params: Type.Object({ since: Since }),
      result: Type.Array(EventSchema),
      call: ({ since }) => target.events.since(since),
    }),
    method({
      name: 'doorbell_watch',
      summary:
        'From now on each event comes as a notification doorbell_event on this connection, and each snapshot as doorbell_snapshot. ' +
        'One who reads too slowly loses the oldest events, and doorbell_dropped says how many. Replaces an earlier watch. ' +
        'Result: the seq of the last event before.',
      params: Type.Object({
        types: Optional(
          Type.Array(Type.Enum([...EVENT_TYPES]), {
            maxItems: EVENT_TYPES.length,
            description: 'only these events; an empty list ends the watch for events',
          }),
        ),
        since: Optional(
          Uint('begin with the kept events that have a larger seq; default: with the next one'),
        ),
        snapshot_ms: Optional(
          Uint('ms between two snapshots; default: no snapshots', MAX_SNAPSHOT_MS, MIN_SNAPSHOT_MS),
        ),
      }),
      result: Count('seq of the last event'),
      call: ({ types, since, snapshot_ms }, { outlet }) => {
        if (outlet === undefined) {
          throw new FailedError('Only a connection to the JSON-RPC socket can watch');
        }
        const { last } = target.events;
        watches.get(outlet)?.close();
        watches.set(
          outlet,
          new Watch(target, outlet, {
            types: types && new Set(types),
            since: since ?? last,
            snapshotMs: snapshot_ms,
          }),
        );
        return last;
      },
    }),
    method({
      name: 'doorbell_get_controller',
      summary:
        'All that may tell why a guest is stuck: registers, queues, memory, interrupts, the last admin command, and what looks wrong.',
      params: Type.Object(CONTROLLER_NAME),
      result: Type.Array(ControllerSchema),
      call: async (name) => {
        await target.reactors.report();
        return findControllers(target, name).map(({ socket, controller }) => ({
          socket,
          ...controller.diagnose(),
        }));
      },
    }),
  ];
}
