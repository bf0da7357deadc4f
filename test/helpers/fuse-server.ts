/**
 * A file system of one file, in user space: the file's reads, writes and syncs wait, fail or fall short as the parent process says. What a
 * disk that breaks does to the target, through the real kernel. Speaks FUSE 7.31 on /dev/fuse.
 *
 * Arguments: mount point, bytes of the file. Messages from the parent: `Behaviour`; to the parent: `Notice`.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, openSync, read, writeSync } from 'node:fs';
import { struct, u16, u32, u64 } from '../../src/util/struct.ts';

/** How the file behaves from now on. */
export interface Behaviour {
  /** Requests wait until this is turned off. */
  readonly hold?: boolean;
  /** Errno of what the kind of request fails with, or 0. */
  readonly read?: number;
  readonly write?: number;
  /** Of syncs, and of writes that are to be on stable storage when they are done. */
  readonly fsync?: number;
  /** Reads give at most so many bytes. (Short writes the kernel goes on with by itself, and for FUSE at the wrong place.) */
  readonly most?: number;
}

export type Notice =
  | { readonly kind: 'ready' }
  | { readonly kind: 'failed'; readonly reason: string }
  /** The behaviour that was asked for holds. */
  | { readonly kind: 'set' }
  /** So many requests wait. */
  | { readonly kind: 'held'; readonly count: number };

const [mountPoint, sizeText] = process.argv.slice(2);
const SIZE = Number(sizeText);
const MAX_WRITE = 1024 * 1024;
const ROOT_NODE = 1;
const FILE_NODE = 2;
const ENOENT = 2;
const ENOSYS = 38;
const FOREVER = 1_000_000;

const Op = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  FLUSH: 25,
  INIT: 26,
  INTERRUPT: 36,
  BATCH_FORGET: 42,
} as const;

/** FUSE_ASYNC_READ, FUSE_BIG_WRITES, FUSE_ASYNC_DIO, FUSE_MAX_PAGES. */
const INIT_FLAGS = (1 << 0) | (1 << 5) | (1 << 15) | (1 << 22);
const FOPEN_DIRECT_IO = 1;

const InHeader = struct('InHeader', 40, {
  len: u32(0),
  opcode: u32(4),
  unique: u64(8),
  nodeid: u64(16),
});
const OutHeader = struct('OutHeader', 16, { len: u32(0), error: u32(4), unique: u64(8) });
const InitOut = struct('InitOut', 64, {
  major: u32(0),
  minor: u32(4),
  maxReadahead: u32(8),
  flags: u32(12),
  maxBackground: u16(16),
  congestionThreshold: u16(18),
  maxWrite: u32(20),
  timeGran: u32(24),
  maxPages: u16(28),
});
const Attr = struct('Attr', 88, {
  ino: u64(0),
  size: u64(8),
  blocks: u64(16),
  mode: u32(60),
  nlink: u32(64),
  blksize: u32(80),
});
const EntryOut = struct('EntryOut', 40, {
  nodeid: u64(0),
  entryValid: u64(16),
  attrValid: u64(24),
});
const AttrOut = struct('AttrOut', 16, { attrValid: u64(0) });
const OpenOut = struct('OpenOut', 16, { fh: u64(0), openFlags: u32(8) });
const Transfer = struct('Transfer', 40, {
  fh: u64(0),
  offset: u64(8),
  size: u32(16),
  flags: u32(32),
});
const WriteOut = struct('WriteOut', 8, { size: u32(0) });

const content = new Uint8Array(SIZE);
const device = openSync('/dev/fuse', constants.O_RDWR);
let behaviour: Behaviour = {};
const held: (() => void)[] = [];

const tell = (notice: Notice): void => {
  process.send?.(notice);
};

const NOTHING = new Uint8Array(0);

function reply(unique: number, error: number, payload: Uint8Array = NOTHING): void {
  const len = OutHeader.size + payload.length;
  const header = OutHeader.encode({ len, error: -error >>> 0, unique });
  try {
    writeSync(device, Buffer.concat([header, payload]));
  } catch (cause) {
    // ENOENT: the request was interrupted. ENODEV: unmounted.
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENODEV') {
      throw cause;
    }
  }
}

function attributes(node: number): Uint8Array {
  return node === ROOT_NODE
    ? Attr.encode({ ino: node, mode: 0o040755, nlink: 2, blksize: 4096 })
    : Attr.encode({
        ino: node,
        size: SIZE,
        blocks: SIZE / 512,
        mode: 0o100644,
        nlink: 1,
        blksize: 4096,
      });
}

/** Reads, writes and syncs: what the behaviour is about. */
function transfer(opcode: number, unique: number, body: Uint8Array): void {
  const { read: readError = 0, write: writeError = 0, fsync: fsyncError = 0, most } = behaviour;
  if (opcode === Op.FSYNC) {
    reply(unique, fsyncError);
    return;
  }
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const { offset, size, flags } = Transfer.read(view);
  const durable = opcode === Op.WRITE && (flags & constants.O_DSYNC) !== 0;
  const error = opcode === Op.READ ? readError : writeError || (durable ? fsyncError : 0);
  if (error !== 0) {
    reply(unique, error);
    return;
  }
  const end = Math.min(offset + size, SIZE);
  if (opcode === Op.READ) {
    reply(unique, 0, content.subarray(offset, Math.min(end, offset + (most ?? size))));
  } else {
    content.set(body.subarray(Transfer.size, Transfer.size + end - offset), offset);
    reply(unique, 0, WriteOut.encode({ size: end - offset }));
  }
}

function serve(request: Uint8Array): void {
  const { opcode, unique, nodeid } = InHeader.read(
    new DataView(request.buffer, request.byteOffset, request.length),
  );
  const body = request.subarray(InHeader.size);
  switch (opcode) {
    case Op.INIT: {
      const init = { major: 7, minor: 31, maxWrite: MAX_WRITE, maxPages: 256, timeGran: 1 };
      const limits = {
        maxReadahead: 0,
        flags: INIT_FLAGS,
        maxBackground: 64,
        congestionThreshold: 64,
      };
      reply(unique, 0, InitOut.encode({ ...init, ...limits }));
      break;
    }
    case Op.LOOKUP: {
      const found = nodeid === ROOT_NODE && Buffer.from(body).toString().startsWith('disk\0');
      const entry = { nodeid: FILE_NODE, entryValid: FOREVER, attrValid: FOREVER };
      const payload = Buffer.concat([EntryOut.encode(entry), attributes(FILE_NODE)]);
      reply(unique, found ? 0 : ENOENT, found ? payload : NOTHING);
      break;
    }
    case Op.GETATTR:
    case Op.SETATTR:
      reply(unique, 0, Buffer.concat([AttrOut.encode({ attrValid: FOREVER }), attributes(nodeid)]));
      break;
    case Op.OPEN:
      reply(unique, 0, OpenOut.encode({ fh: 1, openFlags: FOPEN_DIRECT_IO }));
      break;
    case Op.STATFS:
      reply(unique, 0, new Uint8Array(80));
      break;
    case Op.RELEASE:
    case Op.FLUSH:
      reply(unique, 0);
      break;
    case Op.READ:
    case Op.WRITE:
    case Op.FSYNC:
      if (behaviour.hold === true) {
        const copy = body.slice();
        held.push(() => transfer(opcode, unique, copy));
        tell({ kind: 'held', count: held.length });
      } else {
        transfer(opcode, unique, body);
      }
      break;
    case Op.FORGET:
    case Op.BATCH_FORGET:
    case Op.INTERRUPT:
      // No reply is expected; a request that waits goes on waiting, as one at a disk would.
      break;
    default:
      reply(unique, ENOSYS);
  }
}

/** The next request. Ends when the file system is unmounted. */
function next(buffer: Buffer): void {
  read(device, buffer, 0, buffer.length, null, (error, length) => {
    if (error === null) {
      serve(buffer.subarray(0, length));
    } else if (error.code === 'ENODEV') {
      process.exit(0);
    } else if (error.code !== 'EINTR' && error.code !== 'EAGAIN' && error.code !== 'ENOENT') {
      throw error;
    }
    next(buffer);
  });
}

process.on('message', (wanted: Behaviour) => {
  behaviour = wanted;
  if (wanted.hold !== true) {
    for (const go of held.splice(0)) {
      go();
    }
  }
  tell({ kind: 'set' });
});
// The parent is gone: so is what it tested.
process.on('disconnect', () => {
  closeSync(device);
  spawnSync('umount', ['-l', mountPoint]);
  process.exit(0);
});

const options = 'fd=3,rootmode=40000,user_id=0,group_id=0';
const mounted = spawnSync(
  'mount',
  ['-i', '-t', 'fuse', '-o', options, 'doorbell-test', mountPoint],
  {
    stdio: ['ignore', 'ignore', 'pipe', device],
  },
);
if (mounted.status === 0) {
  next(Buffer.alloc(MAX_WRITE + 65536));
  tell({ kind: 'ready' });
} else {
  tell({ kind: 'failed', reason: mounted.stderr?.toString().trim() ?? String(mounted.error) });
  process.disconnect();
}
