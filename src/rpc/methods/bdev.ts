/** Methods that create, change and delete bdevs, with SPDK's names. Statistics are in `iostat.ts`. */
import { type Static, Type } from 'typebox';
import { BLOCK_SIZES, type Disk } from '../../bdev/disk.ts';
import { limitParams } from '../../target/model/rate-limits.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError } from '../../util/errors.ts';
import { method } from '../dispatcher.ts';
import {
  Bool,
  Count,
  DONE,
  IGNORED,
  Path,
  Text,
  U32_MAX,
  Uint,
  Unsupported,
  Uuid,
} from '../schema.ts';

const Name = Type.Object({ name: Text('name or UUID of the bdev') });
const BLOCK_SIZE = Type.Enum(BLOCK_SIZES, { description: 'logical block size in bytes' });
const Optional = Type.Optional;

const Force = Optional(Bool('shrink it also while it is in use (not in SPDK)'));

/** Parameters that bdev_aio_create and bdev_uring_create share; `direct` is our own. */
const FILE = {
  name: Text('name of the new bdev'),
  filename: Path('regular file or block device'),
  block_size: Optional(
    Type.Enum(BLOCK_SIZES, {
      description: 'logical block size in bytes; default: 512, or what the device has',
    }),
  ),
  uuid: Optional(Uuid('default: made from the path, always the same')),
  readonly: Optional(Bool('the namespace is write protected')),
  direct: Optional(Bool('O_DIRECT: past the page cache (not in SPDK)')),
};
const AioCreate = Type.Object({
  ...FILE,
  fallocate: Optional(Bool(`there is no unmap to pass on; ${IGNORED}`)),
  nowait: Optional(Bool(IGNORED)),
});
const UringCreate = Type.Object(FILE);

/** Geometry of a bdev without a file, and the metadata it cannot have. */
const MEMORY = {
  block_size: BLOCK_SIZE,
  num_blocks: Uint('size in blocks', Number.MAX_SAFE_INTEGER, 1),
  uuid: Optional(Uuid('default: random')),
  md_size: Optional(Unsupported(0)),
  dif_type: Optional(Unsupported(0)),
  dif_is_head_of_md: Optional(Bool(IGNORED)),
  dif_pi_format: Optional(Uint(IGNORED, U32_MAX)),
  physical_block_size: Optional(Uint(IGNORED, U32_MAX)),
  numa_id: Optional(Type.Integer({ description: IGNORED })),
};
const MallocCreate = Type.Object({
  name: Optional(Text('name of the new bdev; default: Malloc0, Malloc1, …')),
  ...MEMORY,
  md_interleave: Optional(Bool(IGNORED)),
  optimal_io_boundary: Optional(Uint(IGNORED, U32_MAX)),
});
const NullCreate = Type.Object({
  name: Text('name of the new bdev'),
  ...MEMORY,
  preferred_write_granularity: Optional(Uint(IGNORED, U32_MAX)),
  preferred_write_alignment: Optional(Uint(IGNORED, U32_MAX)),
  optimal_write_size: Optional(Uint(IGNORED, U32_MAX)),
  preferred_unmap_granularity: Optional(Uint(IGNORED, U32_MAX)),
  preferred_unmap_alignment: Optional(Uint(IGNORED, U32_MAX)),
});

/** What spdk_bdev_io_type_supported would say. */
export const IO_TYPES = [
  'read',
  'write',
  'unmap',
  'flush',
  'reset',
  'nvme_admin',
  'nvme_io',
  'nvme_io_md',
  'write_zeroes',
  'zcopy',
  'get_zone_info',
  'zone_management',
  'zone_append',
  'compare',
  'compare_and_write',
  'abort',
  'seek_hole',
  'seek_data',
  'copy',
  'nvme_iov_md',
] as const;

function supportedIoTypes(bdev: Disk): Record<string, boolean> {
  const supported = new Set<string>(bdev.readonly ? ['read', 'flush'] : ['read', 'write', 'flush']);
  return Object.fromEntries(IO_TYPES.map((type) => [type, supported.has(type)]));
}

const NewName = Type.String({ description: 'name of the new bdev' });

const BdevInfo = Type.Object({
  name: Type.String(),
  aliases: Type.Array(Type.String()),
  product_name: Type.String(),
  block_size: Count('bytes'),
  num_blocks: Count('size in blocks'),
  uuid: Type.String(),
  assigned_rate_limits: Type.Object({
    rw_ios_per_sec: Count('0: no limit'),
    rw_mbytes_per_sec: Count('0: no limit'),
    r_mbytes_per_sec: Count('0: no limit'),
    w_mbytes_per_sec: Count('0: no limit'),
  }),
  claimed: Type.Boolean({ description: 'it is a namespace, or another bdev is on top of it' }),
  claim_type: Optional(Type.String()),
  zoned: Type.Boolean(),
  supported_io_types: Type.Record(Type.String(), Type.Boolean()),
  driver_specific: Type.Record(Type.String(), Type.Unknown()),
});

export function bdevMethods(target: Target) {
  const createFile = async (module: 'aio' | 'uring', params: Static<typeof AioCreate>) => {
    const bdev = await target.createFile(params, {
      module,
      filename: params.filename,
      blockSize: params.block_size,
      readonly: params.readonly,
      direct: params.direct,
      nowait: params.nowait,
    });
    return bdev.name;
  };

  const deletion = <const M extends Disk['module']>(module: M) =>
    method({
      name: `bdev_${module}_delete`,
      summary: 'Deletes the bdev, after its namespace if it is one.',
      params: Name,
      result: DONE,
      call: async ({ name }) => {
        await target.deleteBdev(name, module);
        return true;
      },
    });

  const rescan = <const M extends 'aio' | 'uring'>(module: M) =>
    method({
      name: `bdev_${module}_rescan`,
      summary:
        'Takes over the size that the file has now; guests that use it are told. -16 if it is in use and would shrink.',
      params: Type.Object({ name: Text('name or UUID of the bdev'), force: Force }),
      result: DONE,
      call: async ({ name, force }) => {
        await target.rescan(name, module, force);
        return true;
      },
    });

  const reopen = <const M extends 'aio' | 'uring'>(module: M) =>
    method({
      name: `bdev_${module}_reopen`,
      summary:
        'Opens the file again after its write-back has failed, for all bdevs on it: flushes may succeed again. What the page cache has is written first, and must be; then the cache is dropped, so that reads give what is on the disk: what was lost before is gone for good. Not in SPDK.',
      params: Name,
      result: DONE,
      call: async ({ name }) => {
        await target.reopen(name, module);
        return true;
      },
    });

  const describe = (bdev: Disk) => ({
    name: bdev.name,
    aliases: bdev.aliases,
    product_name: bdev.productName,
    block_size: bdev.blockSize,
    num_blocks: bdev.numBlocks,
    uuid: bdev.uuid,
    assigned_rate_limits: { ...limitParams(bdev.rateLimits) },
    ...(target.bdevs.ownerOf(bdev) === undefined
      ? { claimed: false }
      : { claimed: true, claim_type: 'exclusive_write' }),
    zoned: false,
    supported_io_types: supportedIoTypes(bdev),
    driver_specific: bdev.driverSpecific,
  });

  return [
    method({
      name: 'bdev_aio_create',
      summary: 'Makes a bdev of a file or a block device (through io_uring).',
      params: AioCreate,
      result: NewName,
      examples: [
        { params: { name: 'disk', filename: '/srv/disk.img', block_size: 512 }, result: 'disk' },
      ],
      call: (params) => createFile('aio', params),
    }),
    deletion('aio'),
    rescan('aio'),
    reopen('aio'),
    method({
      name: 'bdev_uring_create',
      summary: 'The same as bdev_aio_create, under another name.',
      params: UringCreate,
      result: NewName,
      call: (params) => createFile('uring', params),
    }),
    deletion('uring'),
    rescan('uring'),
    reopen('uring'),
    method({
      name: 'bdev_malloc_create',
      summary: 'Makes a bdev of RAM, which is taken as it is written.',
      params: MallocCreate,
      result: NewName,
      examples: [{ params: { num_blocks: 131072, block_size: 512 }, result: 'Malloc0' }],
      call: async ({ name, uuid, block_size, num_blocks }) => {
        const naming = { ...(name !== undefined && { name }), uuid };
        const geometry = { blockSize: block_size, numBlocks: num_blocks };
        return (await target.createMalloc(naming, geometry)).name;
      },
    }),
    deletion('malloc'),
    method({
      name: 'bdev_null_create',
      summary: 'Makes a bdev that discards writes and reads nothing.',
      params: NullCreate,
      result: NewName,
      call: async (params) => {
        const geometry = { blockSize: params.block_size, numBlocks: params.num_blocks };
        return (await target.createNull(params, geometry)).name;
      },
    }),
    deletion('null'),
    method({
      name: 'bdev_null_resize',
      summary:
        'Changes the size; guests that use it are told. -16 if it is in use and would shrink.',
      params: Type.Object({
        name: Text('name or UUID of the bdev'),
        new_size: Uint('MiB', U32_MAX, 1),
        force: Force,
      }),
      result: DONE,
      call: async ({ name, new_size, force }) => {
        await target.resizeNull(name, new_size, force);
        return true;
      },
    }),
    method({
      name: 'bdev_wait_for_examine',
      summary: 'Always true: nothing is built on top of bdevs by itself.',
      params: Type.Object({}),
      result: DONE,
      call: () => true,
    }),
    method({
      name: 'bdev_examine',
      summary: 'Always true: nothing is built on top of bdevs by itself.',
      params: Name,
      result: DONE,
      call: () => true,
    }),
    method({
      name: 'bdev_get_bdevs',
      summary: 'All bdevs, or one.',
      params: Type.Object({
        name: Optional(Text('name or UUID; -19 if there is none')),
        timeout: Optional(
          Uint('ms to wait for a bdev of that name; -110 if none came', 2 ** 31 - 1),
        ),
      }),
      result: Type.Array(BdevInfo),
      call: async ({ name, timeout = 0 }) => {
        if (name === undefined) {
          return target.bdevs.list().map(describe);
        }
        const bdev = await target.bdevs.waitFor(name, timeout);
        if (bdev === undefined) {
          throw timeout === 0
            ? new ErrnoError('ENODEV', `there is no bdev '${name}'`)
            : new ErrnoError('ETIMEDOUT', `no bdev '${name}' within ${timeout} ms`);
        }
        return [describe(bdev)];
      },
    }),
  ];
}
