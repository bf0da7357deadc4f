/**
 * Scatter Gather Lists: the rules that descriptors follow, one descriptor after the other, whoever reads them. NVMe Base 2.0 §4.1.2.
 *
 * SGL1 ── the data, in one block; or the first segment of the list
 * segment ── data blocks and bit buckets; its last descriptor leads to the next segment, unless it is the last one
 *
 * A list cannot loop for ever: its descriptors are counted, whatever they describe.
 */
import { MAX_SGL_DESCRIPTORS } from '../limits.ts';
import { SglDescriptor, SglIdentifier, SglType, Status } from '../spec/nvme.ts';

const TYPE = SglIdentifier.fields.type.shift;
const SUBTYPE = SglIdentifier.mask.subtype;

export class SglWalk {
  /** Bytes of the command that no descriptor has described yet. */
  rest = 0;
  /** Descriptors of the segment that were not taken. */
  left = 0;
  /** The segment under way: its address, and how many there were before. */
  segmentLo = 0;
  segmentHi = 0;
  segments = 0;
  /** Bytes of data of the descriptor that was taken last, and whether they are discarded. */
  bytes = 0;
  isDiscarded = false;
  #write = false;
  #descriptors = 0;
  /** The segment may end without leading to another; and may lead to one. */
  #mayEnd = true;
  #mayLead = true;

  /** `length`: bytes of the command. `write`: the device writes them. SGL1 is to be taken next. */
  begin(length: number, write: boolean): void {
    this.rest = length;
    this.left = 1;
    this.segments = 0;
    this.#write = write;
    this.#descriptors = 0;
    this.#mayEnd = true;
    this.#mayLead = true;
  }

  /** Takes the next descriptor: the halves of its address, its length as the word has it, and its last word. An NVMe status. */
  take(lo: number, hi: number, lengthWord: number, lastWord: number): number {
    const length = lengthWord >>> 0;
    const id = lastWord >>> 24;
    this.left -= 1;
    this.bytes = 0;
    if ((id & SUBTYPE) !== 0) {
      return Status.SGL_DESCRIPTOR_TYPE_INVALID;
    }
    switch (id >>> TYPE) {
      case SglType.DATA_BLOCK:
        return this.#describe(length, false);
      case SglType.BIT_BUCKET:
        // There is nothing to discard of what the host sends.
        return this.#describe(this.#write ? length : 0, true);
      case SglType.SEGMENT:
        return this.#lead(lo, hi, length, false);
      case SglType.LAST_SEGMENT:
        return this.#lead(lo, hi, length, true);
      default:
        return Status.SGL_DESCRIPTOR_TYPE_INVALID;
    }
  }

  #describe(length: number, isDiscarded: boolean): number {
    if (this.left === 0 && !this.#mayEnd) {
      return Status.INVALID_SGL_SEGMENT;
    }
    if (length > this.rest) {
      return Status.DATA_SGL_LENGTH_INVALID;
    }
    this.bytes = length;
    this.isDiscarded = isDiscarded;
    this.rest -= length;
    return Status.SUCCESS;
  }

  #lead(lo: number, hi: number, length: number, isLast: boolean): number {
    if (!this.#mayLead || length === 0 || length % SglDescriptor.size !== 0) {
      return Status.INVALID_SGL_SEGMENT;
    }
    if (this.left !== 0) {
      return Status.INVALID_SGL_DESCRIPTOR_COUNT;
    }
    this.left = length / SglDescriptor.size;
    this.#descriptors += this.left;
    if (this.#descriptors > MAX_SGL_DESCRIPTORS) {
      return Status.INVALID_SGL_DESCRIPTOR_COUNT;
    }
    this.segmentLo = lo;
    this.segmentHi = hi;
    this.segments += 1;
    this.#mayEnd = isLast;
    this.#mayLead = !isLast;
    return Status.SUCCESS;
  }

  /** What the list as a whole comes to, when no descriptor is left. */
  end(): number {
    return this.rest === 0 ? Status.SUCCESS : Status.DATA_SGL_LENGTH_INVALID;
  }
}
