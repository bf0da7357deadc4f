/** Methods about the process itself, with SPDK's names. */
import { Type } from 'typebox';
import type { Target } from '../../target/target.ts';
import { method, type RpcMethod } from '../dispatcher.ts';
import { Bool, IGNORED } from '../schema.ts';

/** SIGUSR1 is left out: it would open Node's debugger. */
const SIGNALS = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGQUIT: 3,
  SIGKILL: 9,
  SIGTERM: 15,
} as const;
type Signal = keyof typeof SIGNALS;
const SIGNAL_NAMES = Object.keys(SIGNALS) as Signal[];

export interface ProcessOptions {
  /** As in package.json. */
  readonly version: string;
  /** The names of all methods. */
  readonly methods: () => readonly string[];
  readonly target: Target;
}

const { Optional } = Type;
const Nothing = Type.Object({});

export function spdkMethods({ version, methods, target }: ProcessOptions): RpcMethod[] {
  const [major, minor, patch] = version.split(/[.-]/).map(Number);
  const startedAt = process.hrtime.bigint();
  const always = (name: string, summary: string): RpcMethod =>
    method({ name, summary, params: Nothing, call: () => true });

  return [
    method({
      name: 'rpc_get_methods',
      summary: 'The names of all methods.',
      params: Type.Object({
        current: Optional(Bool(`all methods can be called at any time; ${IGNORED}`)),
        include_aliases: Optional(Bool(`there are no aliases; ${IGNORED}`)),
      }),
      call: () => methods(),
    }),
    method({
      name: 'spdk_get_version',
      summary: 'The version of Doorbell, in the form of SPDK.',
      params: Nothing,
      call: () => ({
        version: `Doorbell v${version}`,
        fields: { major, minor, patch, suffix: version.replace(/^[^-]*/, '') },
      }),
    }),
    method({
      name: 'spdk_kill_instance',
      summary: 'Sends a signal to the target. All but SIGKILL stop it cleanly.',
      params: Type.Object({
        sig_name: Type.Enum([...SIGNAL_NAMES, ...SIGNAL_NAMES.map((name) => `${SIGNALS[name]}`)], {
          description: 'name or number of the signal',
        }),
      }),
      call: ({ sig_name }) => {
        process.kill(process.pid, sig_name in SIGNALS ? (sig_name as Signal) : Number(sig_name));
        return true;
      },
    }),
    method({
      name: 'framework_get_reactors',
      summary: 'The reactors: the processor of each, and the ns it had work and had none.',
      params: Nothing,
      call: () => ({
        tick_rate: 1_000_000_000,
        pid: process.pid,
        reactors: target.reactors.cores.map((core, index) => ({
          lcore: core,
          busy: target.reactors.state(index).busy,
          idle: target.reactors.state(index).idle,
          in_interrupt: false,
          lw_threads: [
            {
              name: `reactor_${index}`,
              id: index + 1,
              cpumask: (1n << BigInt(core)).toString(16),
              elapsed: Number(process.hrtime.bigint() - startedAt),
            },
          ],
        })),
      }),
    }),
    always('framework_start_init', 'Always true: there is no state before initialisation.'),
    always('framework_wait_init', 'Always true: the socket is there once the target is.'),
  ];
}
