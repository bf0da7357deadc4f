/** Files and block devices, under SPDK's two names for them. */
import type { SchemaKit } from '../../util/schema.ts';
import { type BdevIdentity, BLOCK_SIZES, type Disk } from '../disk.ts';
import { FileBdev } from '../file.ts';
import type { BdevHost, BdevKind, BdevParams } from '../kind.ts';

/** `direct` is our own. */
function fileParameters({ Type, Text, Path, Uuid, Bool }: SchemaKit) {
  return {
    name: Text('name of the new bdev'),
    filename: Path('regular file or block device'),
    block_size: Type.Optional(
      Type.Enum(BLOCK_SIZES, {
        description: 'logical block size in bytes; default: 512, or what the device has',
      }),
    ),
    uuid: Type.Optional(Uuid('default: made from the path, always the same')),
    readonly: Type.Optional(Bool('the namespace is write protected')),
    direct: Type.Optional(Bool('O_DIRECT: past the page cache (not in SPDK)')),
  };
}

const FILE = {
  filename: undefined,
  block_size: undefined,
  readonly: false,
  direct: false,
  uuid: undefined,
};

const createFile =
  (module: 'aio' | 'uring') =>
  (identity: BdevIdentity, params: BdevParams, { files }: BdevHost): Promise<Disk> => {
    const { filename, block_size, readonly, direct, nowait } = params as {
      filename: string;
      block_size?: number;
      readonly?: boolean;
      direct?: boolean;
      nowait?: boolean;
    };
    const options = { module, filename, blockSize: block_size, readonly, direct, nowait };
    return FileBdev.open(identity, options, files);
  };

function saveFile(bdev: Disk): BdevParams {
  const { filename, blockSize: block_size, readonly, direct, nowait } = bdev as FileBdev;
  return { filename, block_size, readonly, direct, nowait };
}

export const AIO = {
  name: 'aio',
  summary: 'Makes a bdev of a file or a block device (through io_uring).',
  parameters: (kit) => {
    const { Type, Bool, IGNORED } = kit;
    return Type.Object({
      ...fileParameters(kit),
      fallocate: Type.Optional(Bool(`unmaps are passed on in any case; ${IGNORED}`)),
      nowait: Type.Optional(Bool(IGNORED)),
    });
  },
  example: {
    params: { name: 'disk', filename: '/srv/disk.img', block_size: 512 },
    result: 'disk',
  },
  kept: { ...FILE, nowait: false },
  create: createFile('aio'),
  save: saveFile,
} as const satisfies BdevKind;

export const URING = {
  name: 'uring',
  summary: 'The same as bdev_aio_create, under another name.',
  parameters: (kit) => kit.Type.Object(fileParameters(kit)),
  kept: FILE,
  create: createFile('uring'),
  save: saveFile,
} as const satisfies BdevKind;
