import { NullBdev } from '../create.ts';
import type { BdevKind } from '../kind.ts';
import { geometryOf, MEMORY, memoryParameters, saveMemory } from './memory.ts';

export const NULL = {
  name: 'null',
  summary: 'Makes a bdev that discards writes and reads nothing.',
  parameters: (kit) => {
    const { Type, Text, Uint, IGNORED, U32_MAX } = kit;
    return Type.Object({
      name: Text('name of the new bdev'),
      ...memoryParameters(kit),
      preferred_write_granularity: Type.Optional(Uint(IGNORED, U32_MAX)),
      preferred_write_alignment: Type.Optional(Uint(IGNORED, U32_MAX)),
      optimal_write_size: Type.Optional(Uint(IGNORED, U32_MAX)),
      preferred_unmap_granularity: Type.Optional(Uint(IGNORED, U32_MAX)),
      preferred_unmap_alignment: Type.Optional(Uint(IGNORED, U32_MAX)),
    });
  },
  kept: MEMORY,
  create: (identity, params) => new NullBdev(identity, geometryOf(params)),
  save: saveMemory,
} as const satisfies BdevKind;
