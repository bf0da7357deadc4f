/** `doorbell disk create`: a file to serve as a disk, sparse or with all its space taken. */

import { type FileHandle, open, unlink } from 'node:fs/promises';
import { constants } from 'node:os';
import cliProgress from 'cli-progress';
import { refuseDevicePath } from '../../bdev/device-path.ts';
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { describeError, errnoOf, withErrnoDetail } from '../../util/errors.ts';
import { CliError, Exit, print, printJson } from '../output.ts';
import { binarySize } from '../size.ts';

export interface CreateFlags {
  readonly preallocate?: true;
  readonly json?: true;
}

/** Told of every chunk that is written. Bytes. */
export type Progress = (written: number) => void;

/** Bytes a write. */
const CHUNK = 4 * 2 ** 20;

/**
 * Makes the file, for this user only. With `allocate` zeros are written to all of it, and are on the disk when this resolves. Whatever
 * fails, and if `signal` aborts, there is no file afterwards. Rejects with what the system says (EEXIST if there is one of that name).
 */
export async function createDisk(
  path: string,
  bytes: number,
  allocate: boolean,
  progress: Progress = () => {},
  signal?: AbortSignal,
): Promise<void> {
  await refuseDevicePath(new BlockingCalls(), path);
  try {
    const file = await open(path, 'wx', 0o600);
    try {
      if (allocate) {
        await writeZeros(file, bytes, progress, signal);
      } else {
        await file.truncate(bytes);
      }
      await file.sync();
    } catch (error) {
      await unlink(path);
      throw error;
    } finally {
      await file.close();
    }
  } catch (error) {
    throw withErrnoDetail(error, path);
  }
}

async function writeZeros(
  file: FileHandle,
  bytes: number,
  progress: Progress,
  signal: AbortSignal | undefined,
): Promise<void> {
  const zeros = new Uint8Array(Math.min(bytes, CHUNK));
  let written = 0;
  while (written < bytes) {
    signal?.throwIfAborted();
    const length = Math.min(bytes - written, zeros.length);
    written += (await file.write(zeros, 0, length, written)).bytesWritten;
    progress(written);
  }
  signal?.throwIfAborted();
}

/** Runs the command. Rejects with a CliError. */
export async function runCreate(path: string, bytes: number, flags: CreateFlags): Promise<void> {
  const allocate = flags.preallocate ?? false;
  const cancel = new AbortController();
  let signalled: NodeJS.Signals | undefined;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      signalled = signal;
      cancel.abort();
    });
  }
  const bar = allocate ? progressBar(bytes) : undefined;
  try {
    await createDisk(path, bytes, allocate, bar?.update, cancel.signal);
  } catch (error) {
    bar?.stop();
    if (signalled !== undefined) {
      throw new CliError(`stopped; ${path} is removed`, 128 + constants.signals[signalled]);
    }
    throw explain(error, bytes);
  }
  bar?.stop();
  if (flags.json) {
    printJson({ path, bytes, allocated: allocate });
  } else {
    print(`${path}: ${binarySize(bytes)}${allocate ? ', all of it allocated' : ', sparse'}`);
  }
}

function explain(error: unknown, bytes: number): CliError {
  const errno = errnoOf(error);
  const hint =
    errno === constants.errno.EEXIST
      ? ': it is left as it is; choose another name or remove it'
      : errno === constants.errno.ENOSPC
        ? `: ${binarySize(bytes)} do not fit; the file is removed`
        : '';
  return new CliError(`cannot make the disk: ${describeError(error)}${hint}`, Exit.FAILED);
}

/** On a terminal; else nothing is shown. */
function progressBar(bytes: number): { update: Progress; stop: () => void } | undefined {
  if (!process.stderr.isTTY) {
    return undefined;
  }
  const bar = new cliProgress.SingleBar({
    format: '{bar} {percentage}%  {done} of {total_size}  {rate}/s  {eta_formatted} left',
    barCompleteChar: '#',
    barIncompleteChar: '.',
    hideCursor: true,
    clearOnComplete: true,
    stream: process.stderr,
    // Signals are handled here.
    gracefulExit: false,
  });
  const started = performance.now();
  const payload = (written: number) => ({
    done: binarySize(written),
    total_size: binarySize(bytes),
    rate: binarySize(Math.round((written / Math.max(1, performance.now() - started)) * 1000)),
  });
  bar.start(bytes, 0, payload(0));
  return {
    update: (written) => bar.update(written, payload(written)),
    stop: () => bar.stop(),
  };
}
