/**
 * Physical Region Page entries and lists → segments. NVMe Base 2.0 §4.1.1. Hot.
 *
 * PRP1 ── the first piece, at any dword of its page
 * PRP2 ── the second page, or the list: up to 512 entries a page, the last one leading to the next list page
 *
 * Each entry is read once from guest memory, checked, then used. A list cannot loop: a chained list page gives at least 511 entries,
 * and the transfer is bounded.
 */
import { PAGE_SIZE } from '../limits.ts';
import type { GuestMemory } from '../memory/guest.ts';
import type { Segments } from '../memory/segments.ts';
import { Status } from '../spec/nvme.ts';

const PAGE_MASK = PAGE_SIZE - 1;

/**
 * Maps `length` bytes (1 to MAX_TRANSFER_BYTES) into `segments`. `write`: the device will write to the buffer.
 * Returns an NVMe status: 0, Invalid PRP Offset, or Data Transfer Error for memory that is not mapped.
 */
export function mapPrps(
  memory: GuestMemory,
  prp1Lo: number,
  prp1Hi: number,
  prp2Lo: number,
  prp2Hi: number,
  length: number,
  write: boolean,
  segments: Segments,
): number {
  segments.count = 0;
  if ((prp1Lo & 3) !== 0) {
    return Status.INVALID_PRP_OFFSET;
  }
  const first = Math.min(length, PAGE_SIZE - (prp1Lo & PAGE_MASK));
  if (!memory.append(prp1Lo, prp1Hi, first, write, segments)) {
    return Status.DATA_TRANSFER_ERROR;
  }
  const rest = length - first;
  if (rest === 0) {
    return Status.SUCCESS;
  }
  if (rest <= PAGE_SIZE) {
    if ((prp2Lo & PAGE_MASK) !== 0) {
      return Status.INVALID_PRP_OFFSET;
    }
    return memory.append(prp2Lo, prp2Hi, rest, write, segments)
      ? Status.SUCCESS
      : Status.DATA_TRANSFER_ERROR;
  }
  if ((prp2Lo & 7) !== 0) {
    return Status.INVALID_PRP_OFFSET;
  }
  return mapList(memory, prp2Lo, prp2Hi, rest, write, segments);
}

function mapList(
  memory: GuestMemory,
  listLo: number,
  listHi: number,
  length: number,
  write: boolean,
  segments: Segments,
): number {
  if (!memory.locate(listLo, listHi)) {
    return Status.DATA_TRANSFER_ERROR;
  }
  let words = memory.words;
  let index = memory.index;
  let entries = (PAGE_SIZE - (listLo & PAGE_MASK)) >> 3;
  let rest = length;
  let lo = words[index];
  let hi = words[index + 1];
  while (rest > 0) {
    if ((lo & PAGE_MASK) !== 0) {
      return Status.INVALID_PRP_OFFSET;
    }
    if (entries === 1 && rest > PAGE_SIZE) {
      if (!memory.locate(lo, hi)) {
        return Status.DATA_TRANSFER_ERROR;
      }
      words = memory.words;
      index = memory.index;
      entries = PAGE_SIZE >> 3;
      lo = words[index];
      hi = words[index + 1];
      continue;
    }
    // Most buffers lie in one piece: as long as an entry names the page after the one before, it only makes the piece longer.
    let run = PAGE_SIZE;
    let next = (lo + PAGE_SIZE) | 0;
    let nextLo = 0;
    let nextHi = 0;
    index += 2;
    entries -= 1;
    while (run < rest) {
      nextLo = words[index];
      nextHi = words[index + 1];
      const chains = entries === 1 && rest - run > PAGE_SIZE;
      if (nextLo !== next || nextHi !== hi || next === 0 || chains) {
        break;
      }
      run += PAGE_SIZE;
      next = (next + PAGE_SIZE) | 0;
      index += 2;
      entries -= 1;
    }
    const piece = Math.min(rest, run);
    if (
      !memory.append(lo, hi, piece, write, segments) &&
      !appendPages(memory, lo, hi, piece, write, segments)
    ) {
      return Status.DATA_TRANSFER_ERROR;
    }
    rest -= piece;
    lo = nextLo;
    hi = nextHi;
  }
  return Status.SUCCESS;
}

/** A piece that does not lie in one region may lie in several: page by page then. It does not cross a multiple of 4 GiB. */
function appendPages(
  memory: GuestMemory,
  lo: number,
  hi: number,
  length: number,
  write: boolean,
  segments: Segments,
): boolean {
  for (let done = 0; done < length; done += PAGE_SIZE) {
    const bytes = Math.min(length - done, PAGE_SIZE);
    if (!memory.append((lo + done) | 0, hi, bytes, write, segments)) {
      return false;
    }
  }
  return true;
}
