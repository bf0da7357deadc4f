/** What kinds without a file have in common: a geometry, and metadata that they cannot have. */
import type { SchemaKit } from '../../util/schema.ts';
import { BLOCK_SIZES, type Disk, type Geometry } from '../disk.ts';
import type { BdevParams } from '../kind.ts';

export const MEMORY = { num_blocks: undefined, block_size: undefined, uuid: undefined };

export function memoryParameters({ Type, Bool, Uint, Uuid, Unsupported, ...kit }: SchemaKit) {
  const { IGNORED, U32_MAX } = kit;
  return {
    block_size: Type.Enum(BLOCK_SIZES, { description: 'logical block size in bytes' }),
    num_blocks: Uint('size in blocks', Number.MAX_SAFE_INTEGER, 1),
    uuid: Type.Optional(Uuid('default: random')),
    md_size: Type.Optional(Unsupported(0)),
    dif_type: Type.Optional(Unsupported(0)),
    dif_is_head_of_md: Type.Optional(Bool(IGNORED)),
    dif_pi_format: Type.Optional(Uint(IGNORED, U32_MAX)),
    physical_block_size: Type.Optional(Uint(IGNORED, U32_MAX)),
    numa_id: Type.Optional(Type.Integer({ description: IGNORED })),
  };
}

export function geometryOf({ block_size, num_blocks }: BdevParams): Geometry {
  return { blockSize: Number(block_size), numBlocks: Number(num_blocks) };
}

export function saveMemory({ blockSize, numBlocks }: Disk): BdevParams {
  return { num_blocks: numBlocks, block_size: blockSize };
}
