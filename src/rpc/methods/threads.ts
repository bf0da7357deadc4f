/** SPDK's view of threads and what runs on them. Each reactor is a thread; the main thread is the last, `app_thread`. */

import { performance } from 'node:perf_hooks';
import { type TProperties, Type } from 'typebox';
import type { Target } from '../../target/target.ts';
import { TARGET_NAME, TICK_RATE } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';
import { cpumask } from './framework.ts';

const Nothing = Type.Object({});
const NS_PER_MS = 1e6;

const Pollers = Type.Array(
  Type.Object({ name: Type.String(), id: Type.Integer(), state: Type.String() }),
);
const perThread = <P extends TProperties>(thread: P) =>
  Type.Object({ tick_rate: Type.Integer(), threads: Type.Array(Type.Object(thread)) });

/** A queue pair of a guest, as a reactor polls it. */
interface Polled {
  readonly reactor: number;
  readonly name: string;
}

/** The guests' queue pairs. */
function polled(target: Target): Polled[] {
  return target.subsystems.flatMap(({ nqn, listeners }) =>
    [...listeners.values()].flatMap(({ endpoint: { controller } }) =>
      (controller?.qpairs ?? []).map(({ qid, reactor }) => ({
        reactor,
        name: `${nqn}/${controller?.cntlid}/${qid}`,
      })),
    ),
  );
}

/** Bdevs that a reactor has open, and for how many controllers. */
function channels(target: Target, reactor: number): { name: string; ref: number }[] {
  return target.subsystems.flatMap(({ namespaces, listeners }) => {
    const ref = [...listeners.values()].filter(({ endpoint: { controller } }) =>
      controller?.reactors.includes(reactor),
    ).length;
    return ref === 0 ? [] : [...namespaces.values()].map(({ bdev }) => ({ name: bdev.name, ref }));
  });
}

export function threadMethods(target: Target) {
  const { reactors } = target;
  const names = (): string[] => [...reactors.cores.map((_, i) => `reactor_${i}`), 'app_thread'];

  return [
    method({
      name: 'thread_get_stats',
      summary:
        'The threads: ns with and without work, and how many queues each polls. The cpumask of app_thread is empty: it runs anywhere.',
      params: Nothing,
      result: perThread({
        name: Type.String(),
        id: Type.Integer(),
        cpumask: Type.String(),
        busy: Type.Number({ description: 'ns' }),
        idle: Type.Number({ description: 'ns' }),
        active_pollers_count: Type.Integer(),
        timed_pollers_count: Type.Integer(),
        paused_pollers_count: Type.Integer(),
      }),
      call: async () => {
        await reactors.report();
        const queues = polled(target);
        const { active, idle } = performance.eventLoopUtilization();
        return {
          tick_rate: TICK_RATE,
          threads: names().map((name, index) => {
            const core = reactors.cores[index];
            const times =
              core === undefined
                ? { busy: Math.round(active * NS_PER_MS), idle: Math.round(idle * NS_PER_MS) }
                : reactors.state(index);
            return {
              name,
              id: index + 1,
              cpumask: core === undefined ? '' : cpumask(core),
              busy: times.busy,
              idle: times.idle,
              active_pollers_count: queues.filter(({ reactor }) => reactor === index).length,
              timed_pollers_count: 0,
              paused_pollers_count: 0,
            };
          }),
        };
      },
    }),
    method({
      name: 'thread_get_pollers',
      summary:
        'What each thread polls: the submission queues of guests, named NQN/CNTLID/QID. How often is not counted.',
      params: Nothing,
      result: perThread({
        name: Type.String(),
        id: Type.Integer(),
        active_pollers: Pollers,
        timed_pollers: Pollers,
        paused_pollers: Pollers,
      }),
      call: () => {
        const queues = polled(target);
        return {
          tick_rate: TICK_RATE,
          threads: names().map((name, index) => ({
            name,
            id: index + 1,
            active_pollers: queues
              .filter(({ reactor }) => reactor === index)
              .map((queue, i) => ({ name: queue.name, id: i + 1, state: 'waiting' })),
            timed_pollers: [],
            paused_pollers: [],
          })),
        };
      },
    }),
    method({
      name: 'thread_get_io_channels',
      summary: 'The bdevs that each thread has open, and for how many controllers.',
      params: Nothing,
      result: perThread({
        name: Type.String(),
        io_channels: Type.Array(Type.Object({ name: Type.String(), ref: Type.Integer() })),
      }),
      call: () => ({
        tick_rate: TICK_RATE,
        threads: names().map((name, index) => ({ name, io_channels: channels(target, index) })),
      }),
    }),
    method({
      name: 'iobuf_get_stats',
      summary: 'Empty: data goes between guest memory and the disk without buffers of the target.',
      params: Nothing,
      result: Type.Array(Type.Object({})),
      call: () => [],
    }),
    method({
      name: 'nvmf_get_stats',
      summary:
        'What each thread has to do with guests: queue pairs ever made and there now, and commands that wait for a disk. Admin queues are on app_thread.',
      params: Type.Object(TARGET_NAME),
      result: Type.Object({
        tick_rate: Type.Integer(),
        poll_groups: Type.Array(
          Type.Object({
            name: Type.String(),
            admin_qpairs: Type.Integer(),
            io_qpairs: Type.Integer(),
            current_admin_qpairs: Type.Integer(),
            current_io_qpairs: Type.Integer(),
            current_unassociated_qpairs: Type.Integer(),
            pending_bdev_io: Type.Integer(),
            completed_nvme_io: Type.Integer(),
            transports: Type.Array(Type.Object({ trtype: Type.String() })),
          }),
        ),
      }),
      call: async () => {
        await reactors.report();
        const controllers = target.subsystems.flatMap(({ listeners }) =>
          [...listeners.values()].flatMap(({ endpoint }) => endpoint.controller ?? []),
        );
        const queues = controllers.flatMap((controller) => controller.queues());
        const transports = target.transport === undefined ? [] : [{ trtype: 'VFIOUSER' }];
        const group = (index: number) => {
          const here = queues.filter(({ reactor }) => reactor === index);
          const counters = target.bdevs
            .list()
            .map((bdev) => reactors.bdevTally(bdev.index, index))
            .map((tally) => tally.commands);
          return {
            io_qpairs: reactors.state(index).queuePairs,
            current_io_qpairs: here.length,
            pending_bdev_io: here.reduce((sum, { inFlight }) => sum + inFlight, 0),
            completed_nvme_io: counters.reduce((sum, count) => sum + count, 0),
          };
        };
        const none = {
          io_qpairs: 0,
          current_io_qpairs: 0,
          pending_bdev_io: 0,
          completed_nvme_io: 0,
        };
        return {
          tick_rate: TICK_RATE,
          poll_groups: names().map((name, index) => {
            const isApp = index === reactors.count;
            const { io_qpairs, current_io_qpairs, ...io } = isApp ? none : group(index);
            return {
              name,
              admin_qpairs: isApp ? reactors.controllersSeen : 0,
              io_qpairs,
              current_admin_qpairs: isApp ? controllers.length : 0,
              current_io_qpairs,
              current_unassociated_qpairs: 0,
              ...io,
              transports,
            };
          }),
        };
      },
    }),
  ];
}
