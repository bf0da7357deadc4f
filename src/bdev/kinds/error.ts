import type { BdevKind } from '../kind.ts';
import { ErrorBdev } from '../wrapper.ts';

export const ERROR = {
  name: 'error',
  summary: 'Makes a bdev on top of another, into which errors can be injected: EE_ and its name.',
  deletion: 'The bdev below stays.',
  parameters: ({ Type, Text, Uuid }) =>
    Type.Object({
      base_name: Text('the bdev below; -19 if there is none, -1 if it is in use'),
      uuid: Type.Optional(Uuid('default: made from the UUID of the bdev below, always the same')),
    }),
  answersTrue: true,
  kept: { base_name: undefined, uuid: undefined },
  base: 'base_name',
  nameOf: (base) => `EE_${base}`,
  create: (identity, _params, { base }) => new ErrorBdev(identity, base!),
  save: (bdev) => ({ base_name: (bdev as ErrorBdev).base.name }),
} as const satisfies BdevKind;
