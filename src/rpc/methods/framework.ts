/** SPDK's framework_* methods: states, reactors, and the scheduler. */
import { Type } from 'typebox';
import { planScheduler, schedulerParams } from '../../target/model/scheduler.ts';
import type { Target } from '../../target/target.ts';
import { numaNode, processorTimes } from '../../util/processors.ts';
import { Bool, Count, DONE, IGNORED, Text, TICK_RATE, Uint } from '../../util/schema.ts';
import { method, type RpcMethod } from '../dispatcher.ts';
import type { Lifecycle } from '../lifecycle.ts';
import { openRpcDocument } from '../openrpc.ts';

const { Optional } = Type;
const Nothing = Type.Object({});
const PERCENT = 100;
/** An hour. */
const MAX_PERIOD_US = 3_600_000_000;

/** The mask of one processor, as SPDK writes it. */
export function cpumask(core: number): string {
  return (1n << BigInt(core)).toString(16);
}

/** `methods`: all of them. `version`: of the package. */
export function frameworkMethods(
  target: Target,
  lifecycle: Lifecycle,
  methods: () => readonly RpcMethod[],
  version: string,
) {
  const startedAt = process.hrtime.bigint();

  return [
    method({
      name: 'rpc_get_methods',
      summary: 'The names of the methods.',
      phase: 'any',
      params: Type.Object({
        current: Optional(Bool('only those that can be called in the state that the target is in')),
        include_aliases: Optional(Bool(`there are no aliases; ${IGNORED}`)),
      }),
      result: Type.Array(Type.String()),
      call: ({ current = false }) =>
        methods()
          .filter(({ phase }) => !current || lifecycle.allows(phase))
          .map(({ name }) => name),
    }),
    method({
      name: 'rpc.discover',
      summary: 'This very document: an OpenRPC description of all methods.',
      phase: 'any',
      params: Nothing,
      result: Type.Record(Type.String(), Type.Unknown(), {
        description: 'OpenRPC 1.3: https://spec.open-rpc.org',
      }),
      call: () => ({ ...openRpcDocument(methods(), version) }),
    }),
    method({
      name: 'framework_start_init',
      summary:
        'Initialises a target that was started with --wait-for-rpc. Result: true, once it is.',
      phase: 'startup',
      params: Nothing,
      result: DONE,
      call: async () => {
        await lifecycle.start();
        return true;
      },
    }),
    method({
      name: 'framework_wait_init',
      summary: 'Result: true, once the target is initialised.',
      phase: 'any',
      params: Nothing,
      result: DONE,
      call: async () => {
        await lifecycle.initialized;
        return true;
      },
    }),
    method({
      name: 'framework_get_reactors',
      summary:
        'The reactors. busy and idle are ns with and without work; irq, sys and usr what the processor did since the system started, in 10 ms.',
      params: Nothing,
      result: Type.Object({
        tick_rate: Type.Integer(),
        pid: Type.Integer(),
        reactors: Type.Array(
          Type.Object({
            lcore: Count('processor'),
            numa_id: Count('NUMA node; -1: none is told'),
            tid: Count('thread id in the kernel; 0: the reactor is dead'),
            busy: Type.Number({ description: 'ns' }),
            idle: Type.Number({ description: 'ns' }),
            in_interrupt: Type.Boolean(),
            irq: Type.Integer(),
            sys: Type.Integer(),
            usr: Type.Integer(),
            lw_threads: Type.Array(
              Type.Object({
                name: Type.String(),
                id: Type.Integer(),
                cpumask: Type.String(),
                elapsed: Type.Integer(),
              }),
            ),
          }),
        ),
      }),
      call: async () => {
        await target.reactors.report();
        const times = processorTimes();
        return {
          tick_rate: TICK_RATE,
          pid: process.pid,
          reactors: target.reactors.cores.map((core, index) => {
            const { tid, busy, idle } = target.reactors.state(index);
            const { irq = 0, sys = 0, usr = 0 } = times.get(core) ?? {};
            return {
              lcore: core,
              numa_id: numaNode(core),
              tid,
              busy,
              idle,
              in_interrupt: false,
              irq,
              sys,
              usr,
              lw_threads: [
                {
                  name: `reactor_${index}`,
                  id: index + 1,
                  cpumask: cpumask(core),
                  elapsed: Number(process.hrtime.bigint() - startedAt),
                },
              ],
            };
          }),
        };
      },
    }),
    method({
      name: 'framework_set_scheduler',
      summary:
        "'static' (the default): queues stay on the reactor that they were created on. 'dynamic': once a period, each reactor that was busy " +
        'beyond core_busy for two periods, with several queues at work, gives one to the least busy, if that stays within core_limit.',
      phase: 'any',
      relaxed: true,
      params: Type.Object({
        name: Text(`'static' or 'dynamic'`),
        period: Optional(Uint('µs; 0, the default: as it was, at first 1000000', MAX_PERIOD_US)),
        load_limit: Optional(Uint(`percent, of idle threads; ${IGNORED}`, PERCENT)),
        core_limit: Optional(
          Uint('percent of its time up to which a reactor is given work', PERCENT),
        ),
        core_busy: Optional(Uint('percent of its time from which a reactor is too busy', PERCENT)),
        mappings: Optional(Text('not supported: threads stay where they are')),
      }),
      result: DONE,
      examples: [{ params: { name: 'dynamic', period: 1_000_000 }, result: true }],
      call: (params) => {
        target.scheduler = planScheduler(params, target.scheduler);
        return true;
      },
    }),
    method({
      name: 'framework_get_scheduler',
      summary: 'The scheduler; its limits if it has any.',
      phase: 'any',
      params: Nothing,
      result: Type.Object({
        scheduler_name: Type.String(),
        scheduler_period: Count('µs; 0: nothing is ever moved'),
        isolated_core_mask: Type.String(),
        scheduling_core: Type.Integer(),
        load_limit: Optional(Type.Integer()),
        core_limit: Optional(Type.Integer()),
        core_busy: Optional(Type.Integer()),
      }),
      call: () => {
        const {
          name,
          period = 0,
          ...limits
        } = schedulerParams(target.scheduler) ?? { name: 'static' };
        return {
          scheduler_name: String(name),
          scheduler_period: Number(period),
          isolated_core_mask: '0',
          scheduling_core: target.reactors.cores[0],
          ...limits,
        };
      },
    }),
    method({
      name: 'framework_get_pci_devices',
      summary: 'Empty: the target drives no PCI devices of the host.',
      params: Nothing,
      result: Type.Array(Type.Object({})),
      call: () => [],
    }),
    method({
      name: 'framework_get_governor',
      summary: 'Empty: the target leaves the frequencies of the processors alone.',
      params: Nothing,
      result: Type.Object({}),
      call: () => ({}),
    }),
  ];
}
