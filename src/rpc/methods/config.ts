/** The configuration of the running target: what rpc.py's save_config reads, and taking over what changed in the files. */
import { Type } from 'typebox';
import { planSection, SECTIONS } from '../../target/model/plan.ts';
import type { Target } from '../../target/target.ts';
import { FailedError, InvalidError } from '../../util/errors.ts';
import { Bool, IGNORED, Text } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';

const { Optional } = Type;

const Calls = Type.Array(
  Type.Object({
    method: Type.String(),
    params: Optional(Type.Record(Type.String(), Type.Unknown())),
  }),
  { description: 'method calls that make the part again, in this order' },
);

/** Reads the configuration files again. */
export interface Reloader {
  reload(options: { readonly overwrite: boolean }): Promise<{
    readonly changes: readonly string[];
    readonly kept: readonly string[];
    readonly needsRestart: readonly string[];
  }>;
}

const Words = (description: string) => Type.Array(Type.String(), { description });

export function configMethods(target: Target, reloader?: Reloader) {
  return [
    method({
      name: 'framework_get_subsystems',
      summary: 'The parts of the target that have a configuration, in the order of their start.',
      params: Type.Object({}),
      result: Type.Array(
        Type.Object({ subsystem: Type.String(), depends_on: Type.Array(Type.String()) }),
      ),
      call: () => SECTIONS,
    }),
    method({
      name: 'framework_get_config',
      summary: 'The configuration of a part of the target, as the method calls that make it again.',
      params: Type.Object({
        name: Text('one of framework_get_subsystems'),
        with_batches: Optional(Bool(`there are no batches in it; ${IGNORED}`)),
      }),
      result: Type.Union([Calls, Type.Null({ description: 'the part has nothing to configure' })]),
      call: ({ name }) => {
        if (!SECTIONS.some(({ subsystem }) => subsystem === name)) {
          throw new InvalidError(`Subsystem '${name}' not found`);
        }
        return planSection(target.model.plan, name);
      },
    }),
    method({
      name: 'doorbell_reload',
      summary:
        'Reads the configuration files again, and takes over what changed in them; the rest is left alone. With an error nothing was changed, unless it says so.',
      params: Type.Object({
        overwrite: Optional(
          Bool('what JSON-RPC changed becomes as the files say, too; default: false'),
        ),
      }),
      result: Type.Object({
        changes: Words('calls that were made'),
        kept: Words('calls that would undo what JSON-RPC made otherwise than the files say'),
        needs_restart: Words('settings that changed, and are used from the next start on'),
      }),
      call: async ({ overwrite = false }) => {
        if (reloader === undefined) {
          throw new FailedError('There is no configuration file to read again (--config)');
        }
        const { changes, kept, needsRestart } = await reloader.reload({ overwrite });
        return { changes, kept, needs_restart: needsRestart };
      },
    }),
  ];
}
