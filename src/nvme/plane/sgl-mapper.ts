/** Scatter Gather Lists → segments. Each descriptor is copied from guest memory once, and the copy is looked at. See `nvme/sgl.ts`. */
import type { BackendContext } from '../../bdev/context.ts';
import { MAX_SEGMENTS, MAX_TRANSFER_BYTES, PAGE_SIZE } from '../../limits.ts';
import type { GuestMemory } from '../../memory/guest.ts';
import { Segments } from '../../memory/segments.ts';
import { SglDescriptor, Status } from '../../spec/nvme.ts';
import { SglWalk } from '../sgl.ts';
import { GuestFetch } from './guest-fetch.ts';

const WORDS = SglDescriptor.size / 4;
/** Descriptors that are fetched at a time. */
const FETCHED = PAGE_SIZE / SglDescriptor.size;
const TWO_32 = 0x1_0000_0000;

export class SglMapper {
  readonly #walk = new SglWalk();
  readonly #fetched: GuestFetch;
  readonly #list = new Segments();
  /** Takes what bit buckets discard; and its host address. */
  readonly #bucket: SharedArrayBuffer;
  readonly #bucketAddress: number;

  constructor(context: BackendContext) {
    const { system } = context;
    this.#fetched = new GuestFetch(context, PAGE_SIZE);
    this.#bucket = system.mapAnonymous(MAX_TRANSFER_BYTES);
    this.#bucketAddress = system.addressOf(new Uint8Array(this.#bucket, 0, 1));
  }

  /** As `mapPrps`; SGL1 begins at `words[at]`. A list that falls into more pieces than a transfer may has too many descriptors. */
  map(
    memory: GuestMemory,
    words: Int32Array,
    at: number,
    length: number,
    write: boolean,
    segments: Segments,
  ): number {
    const walk = this.#walk;
    segments.count = 0;
    walk.begin(length, write);
    let status = this.#take(memory, words, at, write, segments);
    while (status === Status.SUCCESS && walk.left > 0) {
      status = this.#takeSegment(memory, write, segments);
    }
    return status === Status.SUCCESS ? walk.end() : status;
  }

  /** Takes the descriptors of the segment under way. */
  #takeSegment(memory: GuestMemory, write: boolean, segments: Segments): number {
    const walk = this.#walk;
    const { segmentLo, segmentHi, segments: segment } = walk;
    const start = (segmentHi >>> 0) * TWO_32 + (segmentLo >>> 0);
    let offset = 0;
    while (walk.left > 0 && walk.segments === segment) {
      const count = Math.min(walk.left, FETCHED);
      const from = start + offset;
      const list = this.#list;
      list.count = 0;
      if (!append(memory, from, count * SglDescriptor.size, false, list)) {
        return Status.DATA_TRANSFER_ERROR;
      }
      this.#fetched.fetch(list);
      for (let i = 0; i < count; i++) {
        const status = this.#take(memory, this.#fetched.words, i * WORDS, write, segments);
        if (status !== Status.SUCCESS) {
          return status;
        }
      }
      offset += count * SglDescriptor.size;
    }
    return Status.SUCCESS;
  }

  #take(
    memory: GuestMemory,
    words: Int32Array,
    at: number,
    write: boolean,
    segments: Segments,
  ): number {
    const walk = this.#walk;
    const lo = words[at];
    const hi = words[at + 1];
    const status = walk.take(lo, hi, words[at + 2], words[at + 3]);
    if (status !== Status.SUCCESS || walk.bytes === 0) {
      return status;
    }
    if (walk.isDiscarded) {
      segments.address[segments.count] = this.#bucketAddress;
      segments.length[segments.count] = walk.bytes;
      segments.count += 1;
    } else if (!append(memory, (hi >>> 0) * TWO_32 + (lo >>> 0), walk.bytes, write, segments)) {
      return Status.DATA_TRANSFER_ERROR;
    }
    return segments.count > MAX_SEGMENTS ? Status.INVALID_SGL_DESCRIPTOR_COUNT : Status.SUCCESS;
  }
}

/** Bytes that do not lie in one region may lie in several: page by page then. No more than a transfer has. */
function append(
  memory: GuestMemory,
  iova: number,
  length: number,
  write: boolean,
  segments: Segments,
): boolean {
  if (memory.append(iova | 0, (iova / TWO_32) | 0, length, write, segments)) {
    return true;
  }
  for (let done = 0; done < length; ) {
    const at = iova + done;
    const bytes = Math.min(length - done, PAGE_SIZE - (at % PAGE_SIZE));
    if (!memory.append(at | 0, (at / TWO_32) | 0, bytes, write, segments)) {
      return false;
    }
    done += bytes;
  }
  return true;
}
