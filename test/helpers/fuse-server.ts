/**
 * A file system of some files, in user space, whose requests wait, fail, take long or fall short as the parent process says. What a disk
 * that breaks does to the target, and what a descriptor of a VMM may do, through the real kernel. Speaks FUSE 7.31 on /dev/fuse.
 *
 * Arguments: mount point, bytes of a file, how many files ('disk', 'disk1', 'disk2', …), 'direct' or 'cached'. Messages from the parent:
 * `Behaviour`; to the parent: `Notice`.
 */
import { spawn, spawnSync } from 'node:child_process';
import { constants, openSync, read, writeSync } from 'node:fs';
import {
  attrOut,
  entryOut,
  InHeader,
  initOut,
  MAX_WRITE,
  Op,
  OutHeader,
  openOut,
  ROOT_NODE,
  Transfer,
  WriteOut,
} from './fuse-protocol.ts';

/** Requests that can wait or fail. `close` is what a close(2) of a descriptor waits for, `stat` what an fstat(2) does. */
export type Kind = 'lookup' | 'stat' | 'open' | 'read' | 'write' | 'fsync' | 'close';

/** How files behave from now on; what is not said is as it should be. */
export interface Behaviour {
  /** Which files, by number; all of them if not given. */
  readonly files?: readonly number[];
  /** Requests of these kinds wait until that is turned off; true: reads, writes and syncs. */
  readonly hold?: boolean | readonly Kind[];
  /** A thread whose requests are answered as ever. */
  readonly spare?: number;
  /** Reads, writes and syncs take so much longer. Milliseconds. */
  readonly delay?: number;
  /** Errno of what the kind of request fails with, or 0. */
  readonly lookup?: number;
  readonly stat?: number;
  readonly open?: number;
  readonly read?: number;
  readonly write?: number;
  /** Of syncs, and of writes that are to be on stable storage when they are done. */
  readonly fsync?: number;
  readonly close?: number;
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

const [mountPoint, sizeText, countText, mode] = process.argv.slice(2);
const SIZE = Number(sizeText);
const COUNT = Number(countText);
/** Files have the nodes from here on. */
const FIRST_NODE = 2;
const ENOENT = 2;
const ENOSYS = 38;
const DEFAULT_HELD: readonly Kind[] = ['read', 'write', 'fsync'];
const TRANSFERS: readonly Kind[] = DEFAULT_HELD;

const device = openSync('/dev/fuse', constants.O_RDWR);

interface File {
  /** Made when it is first needed. */
  content: Uint8Array | undefined;
  behaviour: Behaviour;
}

const files: readonly File[] = Array.from({ length: COUNT }, () => ({
  content: undefined,
  behaviour: {},
}));

interface Held {
  readonly file: File;
  readonly kind: Kind;
  readonly go: () => void;
}
let held: Held[] = [];

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

/** Reads and writes: their own errors are not told here. */
function transfer(file: File, opcode: number, unique: number, body: Uint8Array): void {
  const { most, fsync = 0 } = file.behaviour;
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const { offset, size, flags } = Transfer.read(view);
  file.content ??= new Uint8Array(SIZE);
  const end = Math.min(offset + size, SIZE);
  if (opcode === Op.READ) {
    reply(unique, 0, file.content.subarray(offset, Math.min(end, offset + (most ?? size))));
  } else if ((flags & constants.O_DSYNC) !== 0 && fsync !== 0) {
    reply(unique, fsync);
  } else {
    file.content.set(body.subarray(Transfer.size, Transfer.size + end - offset), offset);
    reply(unique, 0, WriteOut.encode({ size: end - offset }));
  }
}

function holds({ hold }: Behaviour, kind: Kind): boolean {
  const kinds = hold === true ? DEFAULT_HELD : hold || [];
  return kinds.includes(kind);
}

/** Answers now, later, or with an error. */
function answer(file: File, kind: Kind, pid: number, unique: number, succeed: () => void): void {
  const go = (): void => {
    const { behaviour } = file;
    const error = pid === behaviour.spare ? 0 : (behaviour[kind] ?? 0);
    if (error !== 0) {
      reply(unique, error);
    } else if (behaviour.delay !== undefined && TRANSFERS.includes(kind)) {
      setTimeout(succeed, behaviour.delay);
    } else {
      succeed();
    }
  };
  if (holds(file.behaviour, kind) && pid !== file.behaviour.spare) {
    held.push({ file, kind, go });
    tell({ kind: 'held', count: held.length });
  } else {
    go();
  }
}

const fileName = (index: number): string => (index === 0 ? 'disk' : `disk${index}`);

function serve(request: Uint8Array): void {
  const { opcode, unique, nodeid, pid } = InHeader.read(
    new DataView(request.buffer, request.byteOffset, request.length),
  );
  // A copy: the answer may come later, and `slice` of a Buffer is none.
  const body = new Uint8Array(request.subarray(InHeader.size));
  const file = files[nodeid - FIRST_NODE];
  switch (opcode) {
    case Op.INIT:
      reply(unique, 0, initOut());
      break;
    case Op.LOOKUP: {
      const name = Buffer.from(body).toString().split('\0')[0];
      const index = files.findIndex((_, i) => fileName(i) === name);
      if (nodeid !== ROOT_NODE || index < 0) {
        reply(unique, ENOENT);
        break;
      }
      answer(files[index], 'lookup', pid, unique, () =>
        reply(unique, 0, entryOut(FIRST_NODE + index, SIZE)),
      );
      break;
    }
    case Op.GETATTR:
    case Op.SETATTR: {
      const succeed = (): void => reply(unique, 0, attrOut(nodeid, SIZE));
      if (nodeid === ROOT_NODE) {
        succeed();
      } else {
        answer(file, 'stat', pid, unique, succeed);
      }
      break;
    }
    case Op.OPEN:
      answer(file, 'open', pid, unique, () => reply(unique, 0, openOut(mode === 'direct')));
      break;
    case Op.STATFS:
      reply(unique, 0, new Uint8Array(80));
      break;
    case Op.RELEASE:
      reply(unique, 0);
      break;
    case Op.FLUSH:
      answer(file, 'close', pid, unique, () => reply(unique, 0));
      break;
    case Op.FSYNC:
      answer(file, 'fsync', pid, unique, () => reply(unique, 0));
      break;
    case Op.READ:
    case Op.WRITE:
      answer(file, opcode === Op.READ ? 'read' : 'write', pid, unique, () =>
        transfer(file, opcode, unique, body),
      );
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
  for (const file of wanted.files?.map((index) => files[index]) ?? files) {
    file.behaviour = wanted;
  }
  const waiting = held;
  held = waiting.filter(({ file, kind }) => holds(file.behaviour, kind));
  for (const request of waiting) {
    if (!held.includes(request)) {
      request.go();
    }
  }
  tell({ kind: 'held', count: held.length });
  tell({ kind: 'set' });
});
/**
 * The parent is gone, or wants no more: what waits fails. `umount` may have a question that only our end answers, and `exit` would wait
 * for the thread that reads.
 */
function end(): void {
  spawn('umount', ['-l', mountPoint], { detached: true, stdio: 'ignore' });
  process.kill(process.pid, 'SIGKILL');
}
process.on('disconnect', end);
// A parent that was killed while one of its own threads waits for us keeps its end of the channel open until we answer.
const parent = process.ppid;
setInterval(() => process.ppid === parent || end(), 500).unref();

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
