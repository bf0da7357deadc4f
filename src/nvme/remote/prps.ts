/**
 * Physical Region Page entries and lists → pieces of a host's memory, where the lists themselves are read by messages. NVMe Base 2.0 §4.1.1.
 * The mapped twin, with the same statuses, is `nvme/prp.ts`.
 */
import { MAX_IOVA, PAGE_SIZE } from '../../limits.ts';
import { Status } from '../../spec/nvme.ts';
import type { Piece, RemoteMemory } from './memory.ts';

const ENTRY = 8;
const TWO_32 = 0x1_0000_0000;

/**
 * The pieces of `length` bytes (1 to MAX_TRANSFER_BYTES). `write`: the device will write to them. Resolves with a status if there are none:
 * Invalid PRP Offset, or Data Transfer Error for memory that the host does not have, or that cannot be read. Addresses above 2^53 may be rounded.
 */
export async function findPieces(
  memory: RemoteMemory,
  prp1: number,
  prp2: number,
  length: number,
  write: boolean,
): Promise<Piece[] | number> {
  if (prp1 % 4 !== 0) {
    return Status.INVALID_PRP_OFFSET;
  }
  const first = Math.min(length, PAGE_SIZE - (prp1 % PAGE_SIZE));
  const pieces: { iova: number; length: number }[] = [{ iova: prp1, length: first }];
  const rest = length - first;
  if (rest > PAGE_SIZE) {
    const status = await walkList(memory, prp2, rest, pieces);
    if (status !== Status.SUCCESS) {
      return status;
    }
  } else if (rest > 0) {
    if (prp2 % PAGE_SIZE !== 0) {
      return Status.INVALID_PRP_OFFSET;
    }
    append(pieces, prp2, rest);
  }
  const reachable = pieces.every(
    ({ iova, length }) => iova + length <= MAX_IOVA && memory.holds(iova, length, write),
  );
  return reachable ? pieces : Status.DATA_TRANSFER_ERROR;
}

/** A list cannot loop: each page of it gives at least 511 entries, and the transfer is bounded. */
async function walkList(
  memory: RemoteMemory,
  list: number,
  length: number,
  pieces: { iova: number; length: number }[],
): Promise<number> {
  if (list % ENTRY !== 0) {
    return Status.INVALID_PRP_OFFSET;
  }
  let at = list;
  let rest = length;
  while (rest > 0) {
    const room = (PAGE_SIZE - (at % PAGE_SIZE)) / ENTRY;
    const wanted = Math.ceil(rest / PAGE_SIZE);
    const count = Math.min(room, wanted);
    if (at > MAX_IOVA - PAGE_SIZE || !memory.holds(at, count * ENTRY, false)) {
      return Status.DATA_TRANSFER_ERROR;
    }
    const bytes = new Uint8Array(count * ENTRY);
    try {
      await memory.read(at, bytes);
    } catch {
      return Status.DATA_TRANSFER_ERROR;
    }
    const view = new DataView(bytes.buffer);
    // The last entry of a page that does not end the list leads to the next page.
    const data = wanted > room ? count - 1 : count;
    for (let i = 0; i < count; i++) {
      const lo = view.getUint32(i * ENTRY, true);
      const entry = view.getUint32(i * ENTRY + 4, true) * TWO_32 + lo;
      if (lo % PAGE_SIZE !== 0) {
        return Status.INVALID_PRP_OFFSET;
      }
      if (i === data) {
        at = entry;
        break;
      }
      const piece = Math.min(rest, PAGE_SIZE);
      append(pieces, entry, piece);
      rest -= piece;
    }
  }
  return Status.SUCCESS;
}

/** Neighbours become one piece, and so one message. */
function append(pieces: { iova: number; length: number }[], iova: number, length: number): void {
  const last = pieces[pieces.length - 1];
  if (last.iova + last.length === iova) {
    last.length += length;
  } else {
    pieces.push({ iova, length });
  }
}
