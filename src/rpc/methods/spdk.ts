/** Methods about the process itself, with SPDK's names. */
import { Type } from 'typebox';
import { DONE } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';

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

/** `version`: as in package.json. */
export function spdkMethods(version: string) {
  const [major, minor, patch] = version.split(/[.-]/).map(Number);
  return [
    method({
      name: 'spdk_get_version',
      summary: 'The version of Doorbell, in the form of SPDK.',
      phase: 'any',
      params: Type.Object({}),
      result: Type.Object({
        version: Type.String(),
        fields: Type.Object({
          major: Type.Integer(),
          minor: Type.Integer(),
          patch: Type.Integer(),
          suffix: Type.String(),
        }),
      }),
      call: () => ({
        version: `Doorbell v${version}`,
        fields: { major, minor, patch, suffix: version.replace(/^[^-]*/, '') },
      }),
    }),
    method({
      name: 'spdk_kill_instance',
      summary:
        'Sends a signal to the target. SIGQUIT has it write a report, SIGKILL ends it at once, the others cleanly.',
      phase: 'any',
      params: Type.Object({
        sig_name: Type.Enum([...SIGNAL_NAMES, ...SIGNAL_NAMES.map((name) => `${SIGNALS[name]}`)], {
          description: 'name or number of the signal',
        }),
      }),
      result: DONE,
      call: ({ sig_name }) => {
        process.kill(process.pid, sig_name in SIGNALS ? (sig_name as Signal) : Number(sig_name));
        return true;
      },
    }),
  ];
}
