/** What happens in the target, and how it stands: methods of our own. */
import { Type } from 'typebox';
import { EVENT_TYPES, EVENTS_KEPT } from '../../target/events.ts';
import { snapshot } from '../../target/snapshot.ts';
import type { Listener } from '../../target/subsystem.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError, FailedError, InvalidError } from '../../util/errors.ts';
import { method, type Outlet, type RpcMethod } from '../dispatcher.ts';
import { Count, Path, Text, U16_MAX, Uint } from '../schema.ts';
import { ControllerSchema, EventSchema, SnapshotSchema } from '../state-schemas.ts';
import { Watch } from '../watch.ts';

const { Optional } = Type;
/** Shortest time between two snapshots of a watch. Milliseconds. */
const MIN_SNAPSHOT_MS = 100;
const MAX_SNAPSHOT_MS = 3_600_000;
const Since = Optional(Uint('only events with a larger seq'));

/** The listeners that the parameters name. Throws InvalidError. */
function findListeners(
  target: Target,
  nqn: string | undefined,
  socket: string | undefined,
): Listener[] {
  if ((nqn === undefined) === (socket === undefined)) {
    throw new InvalidError(`either key 'nqn' or key 'socket' says which controller`);
  }
  const subsystems = nqn === undefined ? target.subsystems : [target.subsystem(nqn)];
  const listeners = subsystems.flatMap((subsystem) => [...subsystem.listeners.values()]);
  if (socket === undefined) {
    return listeners;
  }
  const found = listeners.filter(({ endpoint }) => endpoint.socketPath === socket);
  if (found.length === 0) {
    throw new InvalidError(`key 'socket': nobody listens at ${socket}`);
  }
  return found;
}

export function watchMethods(target: Target): RpcMethod[] {
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
      params: Type.Object({
        nqn: Optional(Text('the controllers of this subsystem')),
        socket: Optional(Path('the controller of the client at this socket')),
        cntlid: Optional(Uint('only this one', U16_MAX)),
      }),
      result: Type.Array(ControllerSchema),
      call: async ({ nqn, socket, cntlid }) => {
        const listeners = findListeners(target, nqn, socket);
        await target.reactors.report();
        const found = listeners.flatMap(({ endpoint }) => {
          const { controller, socketPath } = endpoint;
          return controller === undefined || (cntlid !== undefined && controller.cntlid !== cntlid)
            ? []
            : [{ socket: socketPath, ...controller.diagnose() }];
        });
        if (found.length === 0) {
          throw new ErrnoError('ENODEV', 'no such controller: no client is connected');
        }
        return found;
      },
    }),
  ];
}
