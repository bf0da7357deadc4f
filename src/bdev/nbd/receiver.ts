/**
 * What comes from a server: replies, taken apart from memory of our own, many at a time; the data of reads goes on to whoever asked, if they still want it.
 * A server may say anything: what does not fit the request that it is about ends the connection. Hot.
 */
import type { CopyBatch } from '../../io/copies.ts';
import type { RingTag } from '../../io/tags.ts';
import { MAX_INFLIGHT } from '../../limits.ts';
import type { System } from '../../native/system.ts';
import {
  CHUNK_DONE,
  CHUNK_MAGIC,
  ChunkError,
  ChunkHole,
  ChunkOffset,
  ChunkType,
  MAX_ERROR_TEXT,
  NbdChunk,
  NbdCommand,
  NbdError,
  NbdSimpleReply,
  SIMPLE_REPLY_MAGIC,
} from '../../spec/nbd.ts';
import type { Transfers } from '../transfers.ts';
import { type NbdSlots, NONE, type SlotList, State } from './slots.ts';

/** Bytes received at a time. */
const BUFFER_BYTES = 256 * 1024;
/** Zeroes, for holes. Bytes. */
const ZERO_BYTES = 64 * 1024;
/** Beside the text of an error: what some types of it have more. */
const MAX_ERROR_BYTES = ChunkError.size + MAX_ERROR_TEXT + 8;
const TWO_32 = 0x1_0000_0000;

/** What comes next. */
const Phase = { HEAD: 0, OFFSET: 1, DATA: 2, HOLE: 3, ERROR: 4, REST: 5 } as const;

/** Who is told of answers. */
export interface Answered {
  /** The answer to the slot's request is complete. `error`: an errno, or 0. */
  answered(slot: number, error: number): void;
}

export class Receiver {
  readonly #slots: NbdSlots;
  readonly #list: SlotList;
  readonly #transfers: Transfers;
  readonly #copies: CopyBatch;
  readonly #answered: Answered;
  readonly #view: DataView;
  /** Host addresses: of the buffer, and of zeroes after it. */
  readonly #base = new Float64Array(2);
  readonly #address = new Float64Array(1);
  #filled = 0;
  #structured = false;
  #phase: number = Phase.HEAD;
  /** The request that comes in, and whether its answer ends with what comes. */
  #slot = NONE;
  #isLast = false;
  /** Bytes that are left of what comes, and where in the request's range its next data belongs. */
  #left = 0;
  #position = 0;

  constructor(
    system: System,
    slots: NbdSlots,
    list: SlotList,
    transfers: Transfers,
    copies: CopyBatch,
    answered: Answered,
  ) {
    this.#slots = slots;
    this.#list = list;
    this.#transfers = transfers;
    this.#copies = copies;
    this.#answered = answered;
    const memory = system.mapAnonymous(BUFFER_BYTES + ZERO_BYTES);
    this.#view = new DataView(memory, 0, BUFFER_BYTES);
    this.#base[0] = system.addressOf(this.#view);
    this.#base[1] = this.#base[0] + BUFFER_BYTES;
  }

  /** A new connection. */
  begin(structured: boolean): void {
    this.#structured = structured;
    this.#filled = 0;
    this.#phase = Phase.HEAD;
    this.#slot = NONE;
  }

  /** Waits for more. */
  receive(tag: RingTag, file: number): void {
    this.#address[0] = this.#base[0] + this.#filled;
    tag.receive(file, this.#address, 0, BUFFER_BYTES - this.#filled);
  }

  /** So much has come. False if it is not what a server may send now: the connection is of no use. */
  received(count: number): boolean {
    this.#filled += count;
    let at = 0;
    for (;;) {
      const taken = this.#take(at, this.#filled - at);
      if (taken < 0) {
        this.#copies.flush();
        return false;
      }
      if (taken === 0) {
        break;
      }
      at += taken;
    }
    // The copies are from the buffer that is filled next.
    this.#copies.flush();
    const rest = this.#filled - at;
    for (let i = 0; i < rest; i++) {
      this.#view.setUint8(i, this.#view.getUint8(at + i));
    }
    this.#filled = rest;
    return true;
  }

  /** Takes one piece of what is there. Its length; 0 if more has to come; −1: it may not come. */
  #take(at: number, available: number): number {
    switch (this.#phase) {
      case Phase.HEAD:
        return available < 4 ? 0 : this.#head(at, available);
      case Phase.OFFSET:
        return available < ChunkOffset.size ? 0 : this.#offset(at);
      case Phase.DATA:
        return this.#data(at, available);
      case Phase.HOLE:
        return available < ChunkHole.size ? 0 : this.#hole(at);
      case Phase.ERROR:
        return available < ChunkError.size ? 0 : this.#error(at);
      default:
        return this.#skip(available);
    }
  }

  #head(at: number, available: number): number {
    const magic = this.#view.getUint32(at + NbdSimpleReply.offset.magic);
    if (magic === SIMPLE_REPLY_MAGIC) {
      return available < NbdSimpleReply.size ? 0 : this.#simple(at);
    }
    if (magic === CHUNK_MAGIC && this.#structured) {
      return available < NbdChunk.size ? 0 : this.#chunk(at);
    }
    return -1;
  }

  /** The slot that a reply is about, or NONE if there is no such request. */
  #find(cookieHigh: number, cookieLow: number): number {
    const { state, list, cookie } = this.#slots;
    return cookieLow >= 0 &&
      cookieLow < MAX_INFLIGHT &&
      state[cookieLow] === State.SENT &&
      list[cookieLow] === this.#list &&
      cookie[cookieLow] === cookieHigh
      ? cookieLow
      : NONE;
  }

  #simple(at: number): number {
    const { offset, size } = NbdSimpleReply;
    const error = this.#view.getUint32(at + offset.error);
    const slot = this.#find(
      this.#view.getInt32(at + offset.cookieHigh),
      this.#view.getInt32(at + offset.cookieLow),
    );
    if (slot === NONE) {
      return -1;
    }
    const isRead = this.#slots.command[slot] === NbdCommand.READ;
    if (isRead && this.#structured) {
      return -1;
    }
    if (error !== 0 || !isRead) {
      this.#answered.answered(slot, errnoOf(error));
      return size;
    }
    this.#slot = slot;
    this.#isLast = true;
    this.#position = 0;
    this.#left = this.#slots.length[slot];
    this.#phase = Phase.DATA;
    return size;
  }

  #chunk(at: number): number {
    const { offset, size } = NbdChunk;
    const flags = this.#view.getUint16(at + offset.flags);
    const type = this.#view.getUint16(at + offset.type);
    const length = this.#view.getUint32(at + offset.length);
    const slot = this.#find(
      this.#view.getInt32(at + offset.cookieHigh),
      this.#view.getInt32(at + offset.cookieLow),
    );
    if (slot === NONE) {
      return -1;
    }
    this.#slot = slot;
    this.#isLast = (flags & CHUNK_DONE) !== 0;
    this.#left = length;
    const isRead = this.#slots.command[slot] === NbdCommand.READ;
    if (type === ChunkType.NONE) {
      return length === 0 && this.#isLast ? size + this.#end() : -1;
    }
    if ((type & ChunkType.ERRORS) !== 0) {
      this.#phase = Phase.ERROR;
      return length >= ChunkError.size && length <= MAX_ERROR_BYTES ? size : -1;
    }
    if (type === ChunkType.OFFSET_DATA && isRead) {
      this.#phase = Phase.OFFSET;
      return length > ChunkOffset.size ? size : -1;
    }
    if (type === ChunkType.OFFSET_HOLE && isRead) {
      this.#phase = Phase.HOLE;
      return length === ChunkHole.size ? size : -1;
    }
    return -1;
  }

  /** Where in the request's range the offset of a chunk is that has so many bytes; −1 if not all of it is there, or some of it has come before. */
  #within(at: number, length: number): number {
    const slot = this.#slot;
    const offset = this.#view.getUint32(at) * TWO_32 + this.#view.getUint32(at + 4);
    const position = offset - this.#transfers.offset[slot];
    const end = position + length;
    return position >= 0 &&
      end <= this.#slots.length[slot] &&
      this.#slots.pieces.add(slot, position, end)
      ? position
      : -1;
  }

  #offset(at: number): number {
    const length = this.#left - ChunkOffset.size;
    const position = this.#within(at, length);
    if (position < 0) {
      return -1;
    }
    this.#position = position;
    this.#left = length;
    this.#phase = Phase.DATA;
    return ChunkOffset.size;
  }

  #data(at: number, available: number): number {
    const slot = this.#slot;
    const length = Math.min(available, this.#left);
    if (length > 0) {
      if (this.#slots.alone[slot] === 0) {
        this.#transfers.copyAt(
          slot,
          this.#position,
          length,
          this.#copies,
          this.#base,
          0,
          at,
          false,
        );
      }
      this.#slots.received[slot] += length;
      this.#position += length;
      this.#left -= length;
    }
    if (this.#left === 0) {
      this.#end();
    }
    return length;
  }

  #hole(at: number): number {
    const slot = this.#slot;
    const length = this.#view.getUint32(at + ChunkHole.offset.length);
    const position = this.#within(at, length);
    if (position < 0) {
      return -1;
    }
    for (let done = 0; done < length && this.#slots.alone[slot] === 0; done += ZERO_BYTES) {
      const bytes = Math.min(ZERO_BYTES, length - done);
      this.#transfers.copyAt(slot, position + done, bytes, this.#copies, this.#base, 1, 0, false);
    }
    this.#slots.received[slot] += length;
    return ChunkHole.size + this.#end();
  }

  #error(at: number): number {
    const error = this.#view.getUint32(at + ChunkError.offset.error);
    const { error: errors } = this.#slots;
    if (errors[this.#slot] === 0) {
      errors[this.#slot] = error === 0 ? NbdError.EINVAL : errnoOf(error);
    }
    this.#left -= ChunkError.size;
    this.#phase = Phase.REST;
    return ChunkError.size + (this.#left === 0 ? this.#end() : 0);
  }

  /** A text that nobody reads. */
  #skip(available: number): number {
    const length = Math.min(available, this.#left);
    this.#left -= length;
    if (this.#left === 0) {
      this.#end();
    }
    return length;
  }

  /** What came is complete, and perhaps the answer with it. 0. */
  #end(): number {
    const slot = this.#slot;
    this.#phase = Phase.HEAD;
    this.#slot = NONE;
    if (this.#isLast) {
      const { error, command, received, length } = this.#slots;
      const isShort = command[slot] === NbdCommand.READ && received[slot] !== length[slot];
      const missing = isShort && error[slot] === 0;
      this.#answered.answered(slot, missing ? NbdError.EIO : error[slot]);
    }
    return 0;
  }
}

/** What a server calls an error, which may be anything. */
function errnoOf(error: number): number {
  return error < 4096 ? error : NbdError.EINVAL;
}
