/**
 * Commands that are not read, write or flush, as requests: their fields are checked and taken over into the shared request. What a guest has in
 * its memory, the ranges of Dataset Management, is copied once, and the copy is looked at.
 */
import type { Request } from '../../bdev/backend.ts';
import type { BackendContext } from '../../bdev/context.ts';
import { changesBlocks, hasData, Op } from '../../bdev/op.ts';
import { MAX_RANGES } from '../../limits.ts';
import { DatasetDword10, DatasetDword11, DsmRange, WriteZeroesDword12 } from '../../spec/nvm.ts';
import { Cdw0, Sqe, Status } from '../../spec/nvme.ts';
import { LARGEST_COPY_ENTRY } from '../copy-formats.ts';
import { mapPrps } from '../prp.ts';
import { copyEntryBytes, copyFormat, prepareCopy } from './copy.ts';
import { GuestFetch } from './guest-fetch.ts';
import { isInRange } from './ranges.ts';
import { SglMapper } from './sgl-mapper.ts';
import type { IoController, IoNamespace } from './view.ts';

const PRP1 = Sqe.word('prp1');
const PRP2 = Sqe.word('prp2');
const PSDT = Cdw0.mask.psdt;
const CDW10 = Sqe.word('cdw10');
const CDW11 = Sqe.word('cdw11');
const CDW12 = Sqe.word('cdw12');
/** Write Zeroes has all that the others have, and DEAC. */
const { nlbZ: NLB, fua: FUA, deac: DEAC } = WriteZeroesDword12.mask;
const NR = DatasetDword10.mask.nrZ;
const AD = DatasetDword11.mask.ad;
const RANGE_WORDS = DsmRange.size / 4;
const LENGTH = DsmRange.word('length');
const SLBA = DsmRange.word('slba');
const TWO_32 = 0x1_0000_0000;

export class RareCommands {
  readonly #request: Request;
  /** A guest's ranges. */
  readonly #fetched: GuestFetch;
  readonly #sgls: SglMapper;

  constructor(context: BackendContext) {
    this.#request = context.request;
    this.#fetched = new GuestFetch(context, MAX_RANGES * LARGEST_COPY_ENTRY);
    this.#sgls = new SglMapper(context);
  }

  /** The command whose words begin at `words[base]` becomes the request under way. An NVMe status; `request.span` is 0 if there is nothing to do. */
  prepare(
    op: Op,
    controller: IoController,
    namespace: IoNamespace,
    words: Int32Array,
    base: number,
    cdw0: number,
  ): number {
    const request = this.#request;
    request.segments.count = 0;
    request.deallocate = false;
    if (op === Op.DISCARD) {
      return this.#prepareDataset(controller, namespace, words, base, cdw0);
    }
    if (op === Op.COPY) {
      return this.#prepareCopy(controller, namespace, words, base, cdw0);
    }
    const lbaLo = words[base + CDW10];
    const lbaHi = words[base + CDW11];
    const cdw12 = words[base + CDW12];
    const blocks = (cdw12 & NLB) + 1;
    if (!isInRange(lbaLo, lbaHi, blocks, namespace.numBlocks)) {
      return Status.LBA_OUT_OF_RANGE;
    }
    const length = blocks << namespace.blockShift;
    if (hasData(op) && length > controller.maxTransferBytes) {
      return Status.INVALID_FIELD;
    }
    if (changesBlocks(op) && namespace.readonly) {
      return namespace.writeStatus;
    }
    request.offset[0] = ((lbaHi >>> 0) * TWO_32 + (lbaLo >>> 0)) * (1 << namespace.blockShift);
    request.length = length;
    request.span[0] = length;
    request.fua = changesBlocks(op) && ((cdw12 & FUA) !== 0 || controller.writeThrough);
    request.deallocate = op === Op.WRITE_ZEROES && (cdw12 & DEAC) !== 0;
    return hasData(op)
      ? this.#map(controller, words, base, cdw0, length, op === Op.READ)
      : Status.SUCCESS;
  }

  /** The command's buffer, which the device reads, or writes if it is to `write`. */
  #map(
    controller: IoController,
    words: Int32Array,
    base: number,
    cdw0: number,
    length: number,
    write: boolean,
  ): number {
    const { segments } = this.#request;
    if ((cdw0 & PSDT) !== 0) {
      return this.#sgls.map(controller.memory, words, base + PRP1, length, write, segments);
    }
    return mapPrps(
      controller.memory,
      words[base + PRP1],
      words[base + PRP1 + 1],
      words[base + PRP2],
      words[base + PRP2 + 1],
      length,
      write,
      segments,
    );
  }

  #prepareCopy(
    controller: IoController,
    namespace: IoNamespace,
    words: Int32Array,
    base: number,
    cdw0: number,
  ): number {
    if (((controller.copyFormats >>> copyFormat(words, base)) & 1) === 0) {
      return Status.INVALID_FIELD;
    }
    if (namespace.readonly) {
      return namespace.writeStatus;
    }
    const mapped = this.#map(controller, words, base, cdw0, copyEntryBytes(words, base), false);
    if (mapped !== Status.SUCCESS) {
      return mapped;
    }
    const fetched = this.#fetched;
    fetched.fetch(this.#request.segments);
    return prepareCopy(this.#request, fetched, controller, namespace, words, base);
  }

  /** Dataset Management. What does not deallocate is a hint, and none that is used. NVM Command Set 1.0 §3.2.3. */
  #prepareDataset(
    controller: IoController,
    namespace: IoNamespace,
    words: Int32Array,
    base: number,
    cdw0: number,
  ): number {
    const count = (words[base + CDW10] & NR) + 1;
    const deallocates = (words[base + CDW11] & AD) !== 0;
    if (deallocates && namespace.readonly) {
      return namespace.writeStatus;
    }
    const mapped = this.#map(controller, words, base, cdw0, count * DsmRange.size, false);
    if (mapped !== Status.SUCCESS) {
      return mapped;
    }
    this.#fetched.fetch(this.#request.segments);
    const fetched = this.#fetched.words;
    const request = this.#request;
    const { ranges } = request;
    ranges.count = 0;
    const blockSize = 1 << namespace.blockShift;
    let first = Number.POSITIVE_INFINITY;
    let end = 0;
    for (let i = 0; i < count; i++) {
      const at = i * RANGE_WORDS;
      const blocks = fetched[at + LENGTH] >>> 0;
      const lbaLo = fetched[at + SLBA];
      const lbaHi = fetched[at + SLBA + 1];
      if (!isInRange(lbaLo, lbaHi, blocks, namespace.numBlocks)) {
        return Status.LBA_OUT_OF_RANGE;
      }
      if (blocks > 0) {
        const offset = ((lbaHi >>> 0) * TWO_32 + (lbaLo >>> 0)) * blockSize;
        ranges.offset[ranges.count] = offset;
        ranges.length[ranges.count] = blocks * blockSize;
        ranges.count += 1;
        first = Math.min(first, offset);
        end = Math.max(end, offset + blocks * blockSize);
      }
    }
    request.length = 0;
    request.fua = controller.writeThrough;
    request.offset[0] = ranges.count === 0 ? 0 : first;
    request.span[0] = deallocates && ranges.count > 0 ? end - first : 0;
    return Status.SUCCESS;
  }
}
