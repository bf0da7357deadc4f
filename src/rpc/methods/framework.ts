/** SPDK's framework_* methods: states, reactors, and the scheduler that there is not. */
import { Type } from 'typebox';
import type { Target } from '../../target/target.ts';
import { FailedError, InvalidError } from '../../util/errors.ts';
import { numaNode, processorTimes } from '../../util/processors.ts';
import { method, type RpcMethod } from '../dispatcher.ts';
import type { Lifecycle } from '../lifecycle.ts';
import { openRpcDocument } from '../openrpc.ts';
import { Bool, Count, DONE, IGNORED, Text, TICK_RATE, U8_MAX, Uint } from '../schema.ts';

const { Optional } = Type;
const Nothing = Type.Object({});
/** Queues stay on the reactor they were created on. */
const SCHEDULER = 'static';

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
): RpcMethod[] {
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
      call: () => {
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
      summary: `There is one scheduler, '${SCHEDULER}': a queue stays on the reactor that it was created on.`,
      phase: 'any',
      relaxed: true,
      params: Type.Object({
        name: Text(`'${SCHEDULER}'`),
        period: Optional(Uint(`µs; ${IGNORED}`)),
        load_limit: Optional(Uint(`of another scheduler; ${IGNORED}`, U8_MAX)),
        core_limit: Optional(Uint(`of another scheduler; ${IGNORED}`, U8_MAX)),
        core_busy: Optional(Uint(`of another scheduler; ${IGNORED}`, U8_MAX)),
        mappings: Optional(Text('not supported: threads stay where they are')),
      }),
      result: DONE,
      call: ({ name, mappings }) => {
        if (name !== SCHEDULER) {
          throw new FailedError(`There is no scheduler '${name}', only '${SCHEDULER}'`);
        }
        if (mappings !== undefined) {
          throw new InvalidError(`key 'mappings' is not supported`);
        }
        return true;
      },
    }),
    method({
      name: 'framework_get_scheduler',
      summary: 'The scheduler, which has no period: nothing is ever moved.',
      phase: 'any',
      params: Nothing,
      result: Type.Object({
        scheduler_name: Type.String(),
        scheduler_period: Type.Integer(),
        isolated_core_mask: Type.String(),
        scheduling_core: Type.Integer(),
      }),
      call: () => ({
        scheduler_name: SCHEDULER,
        scheduler_period: 0,
        isolated_core_mask: '0',
        scheduling_core: target.reactors.cores[0],
      }),
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
