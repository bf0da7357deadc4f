import { MallocBdev } from '../create.ts';
import type { BdevKind } from '../kind.ts';
import { geometryOf, MEMORY, memoryParameters, saveMemory } from './memory.ts';

export const MALLOC = {
  name: 'malloc',
  summary: 'Makes a bdev of RAM, which is taken as it is written.',
  parameters: (kit) => {
    const { Type, Text, Bool, Uint, IGNORED, U32_MAX } = kit;
    return Type.Object({
      name: Type.Optional(Text('name of the new bdev; default: Malloc0, Malloc1, …')),
      ...memoryParameters(kit),
      md_interleave: Type.Optional(Bool(IGNORED)),
      optimal_io_boundary: Type.Optional(Uint(IGNORED, U32_MAX)),
    });
  },
  example: { params: { num_blocks: 131072, block_size: 512 }, result: 'Malloc0' },
  kept: MEMORY,
  create: (identity, params) => new MallocBdev(identity, geometryOf(params)),
  save: saveMemory,
} as const satisfies BdevKind;
