/** Methods that create, change and delete bdevs, with SPDK's names. Statistics are in `iostat.ts`. */
import { Type } from 'typebox';
import type { Disk } from '../../bdev/disk.ts';
import { limitParams } from '../../target/model/rate-limits.ts';
import type { Target } from '../../target/target.ts';
import { ErrnoError } from '../../util/errors.ts';
import { Bool, Count, DONE, Text, U32_MAX, Uint } from '../../util/schema.ts';
import { method } from '../dispatcher.ts';
import { kindMethods } from './kinds.ts';

const Name = Type.Object({ name: Text('name or UUID of the bdev') });
const Optional = Type.Optional;

const Force = Optional(Bool('shrink it also while it is in use (not in SPDK)'));

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

const READ_IO_TYPES = ['read', 'flush', 'compare'];
const WRITE_IO_TYPES = ['write', 'write_zeroes', 'unmap'];

function supportedIoTypes(bdev: Disk): Record<string, boolean> {
  const supported = new Set<string>(
    bdev.readonly ? READ_IO_TYPES : [...READ_IO_TYPES, ...WRITE_IO_TYPES],
  );
  return Object.fromEntries(IO_TYPES.map((type) => [type, supported.has(type)]));
}

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
  const rescan = <const M extends 'aio' | 'uring' | 'nbd'>(module: M, what = 'file') =>
    method({
      name: `bdev_${module}_rescan`,
      summary: `Takes over the size that the ${what} has now; guests that use it are told. -16 if it is in use and would shrink.`,
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
    ...kindMethods(target),
    rescan('aio'),
    reopen('aio'),
    rescan('uring'),
    reopen('uring'),
    rescan('nbd', 'export'),
    method({
      name: 'bdev_nbd_reopen',
      summary:
        'Makes all connections of an NBD bdev anew, and has flushes succeed again after a server was lost that may have forgotten what it had acknowledged: what was lost is gone for good. What the server has not answered is sent again, or given up if nobody waits for it.',
      params: Name,
      result: DONE,
      call: async ({ name }) => {
        await target.reopenNbd(name);
        return true;
      },
    }),
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
