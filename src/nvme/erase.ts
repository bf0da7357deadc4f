/** Erasing a namespace: in steps through a reactor, none of which keeps others waiting for long. Owned by main. */
import { Op } from '../bdev/op.ts';
import { Status } from '../spec/nvme.ts';
import type { ControllerHost, Operate } from './host.ts';
import { MAX_PATTERN_BYTES } from './plane/main-operations.ts';

/** Zeroed at a time, most of it by one call of the system. Bytes. */
const ZERO_BYTES = 16 * 1024 * 1024;

/** How a namespace is erased: with zeroes, and whether blocks are given back; or by writing a pattern. */
export type Eraser =
  | { readonly pattern?: undefined; readonly deallocate: boolean }
  | { readonly pattern: number };

/** Resolves with a status when the namespace is erased, on stable storage. `progress` is told how much is done, from 0 to 1. */
export async function eraseNamespace(
  host: ControllerHost,
  operate: Operate,
  nsid: number,
  eraser: Eraser,
  progress: (done: number) => void,
): Promise<number> {
  const { blockSize = 0, numBlocks = 0 } = host.namespaces.get(nsid) ?? {};
  const bytes = blockSize * numBlocks;
  const { pattern } = eraser;
  const step = pattern === undefined ? ZERO_BYTES : MAX_PATTERN_BYTES;
  for (let offset = 0; offset < bytes; offset += step) {
    const length = Math.min(step, bytes - offset);
    const status = await operate(
      nsid,
      pattern === undefined
        ? { op: Op.WRITE_ZEROES, offset, length, deallocate: eraser.deallocate }
        : { op: Op.WRITE, offset, length, pattern },
    );
    if (status !== Status.SUCCESS) {
      return status;
    }
    progress((offset + length) / bytes);
  }
  try {
    await host.syncNamespace(nsid);
  } catch {
    return Status.WRITE_FAULT;
  }
  return Status.SUCCESS;
}
