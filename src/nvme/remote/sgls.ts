/** Scatter Gather Lists → pieces of a host's memory, where the lists themselves are read by messages. The mapped twin is `plane/sgl-mapper.ts`. */
import { MAX_IOVA, MAX_SEGMENTS } from '../../limits.ts';
import { SglDescriptor, Sqe, Status } from '../../spec/nvme.ts';
import { SglWalk } from '../sgl.ts';
import { DISCARDED, type Piece, type RemoteMemory } from './memory.ts';

const WORDS = SglDescriptor.size / 4;
const SGL1 = Sqe.word('prp1');
const TWO_32 = 0x1_0000_0000;

const addressOf = (lo: number, hi: number): number => (hi >>> 0) * TWO_32 + (lo >>> 0);

/** As `findPieces`, of the command whose words these are. */
export async function findSglPieces(
  memory: RemoteMemory,
  command: Int32Array,
  length: number,
  write: boolean,
): Promise<Piece[] | number> {
  const walk = new SglWalk();
  const pieces: Piece[] = [];
  walk.begin(length, write);
  let words = command.slice(SGL1, SGL1 + WORDS);
  for (;;) {
    for (let at = 0; at < words.length; at += WORDS) {
      const [lo, hi, size, last] = words.subarray(at, at + WORDS);
      const status = walk.take(lo, hi, size, last);
      if (status !== Status.SUCCESS) {
        return status;
      }
      if (walk.bytes > 0) {
        const iova = walk.isDiscarded ? DISCARDED : addressOf(lo, hi);
        if (!walk.isDiscarded && !isReachable(memory, iova, walk.bytes, write)) {
          return Status.DATA_TRANSFER_ERROR;
        }
        pieces.push({ iova, length: walk.bytes });
      }
      if (pieces.length > MAX_SEGMENTS) {
        return Status.INVALID_SGL_DESCRIPTOR_COUNT;
      }
    }
    if (walk.left === 0) {
      const status = walk.end();
      return status === Status.SUCCESS ? pieces : status;
    }
    const bytes = new Uint8Array(walk.left * SglDescriptor.size);
    const iova = addressOf(walk.segmentLo, walk.segmentHi);
    if (!isReachable(memory, iova, bytes.length, false)) {
      return Status.DATA_TRANSFER_ERROR;
    }
    await memory.readPieces([{ iova, length: bytes.length }], bytes);
    words = new Int32Array(bytes.buffer);
  }
}

function isReachable(memory: RemoteMemory, iova: number, length: number, write: boolean): boolean {
  return iova + length <= MAX_IOVA && memory.holds(iova, length, write);
}
