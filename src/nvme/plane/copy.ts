/** Copy as a request: its ranges are fetched once, checked, and taken over. NVM Command Set 1.0 §3.2.2, 1.1 §3.3.2. */
import type { Request } from '../../bdev/backend.ts';
import type { BdevChannel } from '../../bdev/requests/channel.ts';
import { CopyDword12, CopySourceRange } from '../../spec/nvm.ts';
import { Sqe, Status } from '../../spec/nvme.ts';
import { COPY_FORMATS, mostBlocksOfCopy, mostBlocksOfRange } from '../copy-formats.ts';
import { statusOfMissing } from './access.ts';
import type { GuestFetch } from './guest-fetch.ts';
import { isInRange } from './ranges.ts';
import type { IoController, IoNamespace } from './view.ts';

const CDW10 = Sqe.word('cdw10');
const CDW11 = Sqe.word('cdw11');
const CDW12 = Sqe.word('cdw12');
const SNSID = CopySourceRange.word('snsid');
const SLBA = CopySourceRange.word('slba');
const NLB_WORD = CopySourceRange.offset.nlbZ >> 2;
const SOPT_WORD = CopySourceRange.offset.sopt >> 2;
/** The upper half of its word: Fast Copy Only is the last bit. */
const FAST_ONLY = 1 << 31;
const { nrZ: NR, descriptorFormat: FORMAT, fua: FUA } = CopyDword12.mask;
const TWO_32 = 0x1_0000_0000;

/** The number of the format of a command's entries. */
export function copyFormat(words: Int32Array, base: number): number {
  return (words[base + CDW12] & FORMAT) >>> CopyDword12.fields.descriptorFormat.shift;
}

/** Bytes of all entries of a command, whose format there is. */
export function copyEntryBytes(words: Int32Array, base: number): number {
  return ((words[base + CDW12] & NR) + 1) * COPY_FORMATS[copyFormat(words, base)].bytes;
}

/**
 * The command whose words begin at `words[base]`, and whose entries are in `fetched`, becomes the request under way. An NVMe status.
 * What is copied is never larger than what the limits say.
 */
export function prepareCopy(
  request: Request,
  fetched: GuestFetch,
  controller: IoController,
  namespace: IoNamespace,
  words: Int32Array,
  base: number,
): number {
  const nrZ = words[base + CDW12] & NR;
  const { bytes, hasNamespace } = COPY_FORMATS[copyFormat(words, base)];
  const { ranges } = request;
  const blockSize = 1 << namespace.blockShift;
  const lbaLo = words[base + CDW10];
  const lbaHi = words[base + CDW11];
  const target = (lbaHi >>> 0) * TWO_32 + (lbaLo >>> 0);
  const sources: BdevChannel[] = [];
  let total = 0;
  ranges.count = nrZ + 1;
  for (let i = 0; i <= nrZ; i++) {
    const at = (i * bytes) / 4;
    const blocks = (fetched.words[at + NLB_WORD] & 0xffff) + 1;
    total += blocks;
    if (blocks > mostBlocksOfRange(blockSize) || total > mostBlocksOfCopy(blockSize)) {
      return Status.COPY_SIZE_LIMIT_EXCEEDED;
    }
  }
  if (!isInRange(lbaLo, lbaHi, total, namespace.numBlocks)) {
    return Status.LBA_OUT_OF_RANGE;
  }
  for (let i = 0; i <= nrZ; i++) {
    const at = (i * bytes) / 4;
    const source = hasNamespace ? controller.namespaces[fetched.words[at + SNSID] - 1] : namespace;
    if (source === undefined) {
      return statusOfMissing(controller, fetched.words[at + SNSID]);
    }
    if (source.held) {
      return Status.NAMESPACE_NOT_READY;
    }
    if (source.blockShift !== namespace.blockShift) {
      return Status.INCOMPATIBLE_NAMESPACE;
    }
    const blocks = (fetched.words[at + NLB_WORD] & 0xffff) + 1;
    const slbaLo = fetched.words[at + SLBA];
    const slbaHi = fetched.words[at + SLBA + 1];
    if (!isInRange(slbaLo, slbaHi, blocks, source.numBlocks)) {
      return Status.LBA_OUT_OF_RANGE;
    }
    const slba = (slbaHi >>> 0) * TWO_32 + (slbaLo >>> 0);
    if (hasNamespace) {
      // It is all read and written here: nothing is faster than if the host did it.
      if ((fetched.words[at + SOPT_WORD] & FAST_ONLY) !== 0) {
        return Status.FAST_COPY_NOT_POSSIBLE;
      }
      if (source === namespace && slba < target + total && target < slba + blocks) {
        return Status.OVERLAPPING_IO_RANGE;
      }
      sources.push(source.channel);
    }
    ranges.offset[i] = slba * blockSize;
    ranges.length[i] = blocks * blockSize;
  }
  request.offset[0] = target * blockSize;
  request.length = total * blockSize;
  request.span[0] = request.length;
  request.sources = hasNamespace ? sources : undefined;
  request.fua = (words[base + CDW12] & FUA) !== 0 || controller.writeThrough;
  return Status.SUCCESS;
}
