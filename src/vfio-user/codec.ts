/**
 * Messages of the vfio-user protocol: encoding, and framing of a byte stream with descriptors. Pure: no sockets, no system calls.
 *
 * Used by both ends. A stream socket delivers descriptors with the first byte of what its peer sent in one call, so a receiver that
 * never reads past the end of a message knows whose descriptors they are. `FrameDecoder.space` is that rule.
 */
import { HEADER_TYPE_MASK, HeaderFlag, HeaderType, VfioUserHeader } from '../spec/vfio-user.ts';
import type { StructValues } from '../util/struct.ts';

export type Header = StructValues<typeof VfioUserHeader.fields>;

/** A whole message. Whoever receives it owns its descriptors. */
export interface Message {
  readonly kind: 'message';
  readonly header: Header;
  /** In a buffer of its own. */
  readonly payload: Uint8Array;
  /** Over the payload. */
  readonly view: DataView;
  /** Takers remove what they take; the rest is closed when the message is done with. */
  readonly fds: number[];
}

/** A message that cannot be accepted, whatever its command. Its descriptors are dropped already, its body will be. */
export interface Malformed {
  readonly kind: 'malformed';
  readonly header: Header;
  readonly reason: string;
  /** Where the next message starts is unknown: the stream is of no use any more. */
  readonly fatal: boolean;
}

export type Frame = Message | Malformed;

/** A command. `flags` may be NO_REPLY. */
export function encodeCommand(
  messageId: number,
  command: number,
  payload: Uint8Array,
  flags = 0,
): Uint8Array {
  return encode(messageId, command, HeaderType.COMMAND | flags, 0, payload);
}

/** The reply to a command. */
export function encodeReply(request: Header, payload: Uint8Array): Uint8Array {
  return encode(request.messageId, request.command, HeaderType.REPLY, 0, payload);
}

/** The error reply to a command: a header alone. `errno` is positive. */
export function encodeError(request: Header, errno: number): Uint8Array {
  const flags = HeaderType.REPLY | HeaderFlag.ERROR;
  return encode(request.messageId, request.command, flags, errno, EMPTY);
}

const EMPTY = new Uint8Array(0);

function encode(
  messageId: number,
  command: number,
  flags: number,
  error: number,
  payload: Uint8Array,
): Uint8Array {
  const size = VfioUserHeader.size + payload.length;
  const bytes = new Uint8Array(size);
  const header = { messageId, command, size, flags, error };
  VfioUserHeader.write(new DataView(bytes.buffer), 0, header);
  bytes.set(payload, VfioUserHeader.size);
  return bytes;
}

export function isReply(header: Header): boolean {
  return (header.flags & HEADER_TYPE_MASK) === HeaderType.REPLY;
}

/** False for a command that is to be answered with nothing, not even an error. */
export function wantsReply(header: Header): boolean {
  return (header.flags & HeaderFlag.NO_REPLY) === 0;
}

/** Most descriptors of one message: what one sendmsg can carry. */
export const MAX_FRAME_FDS = 253;
/** Bytes of a refused body read at a time. */
const DRAIN_BYTES = 64 * 1024;

/** Cuts a byte stream into messages, however it is split. */
export class FrameDecoder {
  readonly #maxPayload: number;
  readonly #drop: (fds: readonly number[]) => void;
  readonly #headerBytes = new Uint8Array(VfioUserHeader.size);
  #header: Header | undefined;
  #payload: Uint8Array = EMPTY;
  /** Bytes there are of the header, or of the payload once the header is known. */
  #filled = 0;
  /** Bytes to come that belong to a refused message. */
  #toDrain = 0;
  #drain: Uint8Array = EMPTY;
  #fds: number[] = [];
  #tooManyFds = false;

  /** `maxPayload` bounds a message, in bytes without the header. `drop` gets descriptors that reach no message: to be closed. */
  constructor(maxPayload: number, drop: (fds: readonly number[]) => void) {
    this.#maxPayload = maxPayload;
    this.#drop = drop;
  }

  /** Where the next bytes of the stream go. Never empty, never longer than the message being received. */
  get space(): Uint8Array {
    if (this.#toDrain > 0) {
      if (this.#drain.length === 0) this.#drain = new Uint8Array(DRAIN_BYTES);
      return this.#drain.subarray(0, Math.min(this.#toDrain, DRAIN_BYTES));
    }
    const target = this.#header === undefined ? this.#headerBytes : this.#payload;
    return target.subarray(this.#filled);
  }

  /** Tells that `count` bytes are in `space`, and which descriptors came with them. Gives the message that they complete. */
  received(count: number, fds: readonly number[]): Frame | undefined {
    if (this.#toDrain > 0) {
      this.#drop(fds);
      this.#toDrain -= count;
      return undefined;
    }
    this.#takeFds(fds);
    this.#filled += count;
    if (this.#header === undefined) {
      if (this.#filled < VfioUserHeader.size) return undefined;
      const header = VfioUserHeader.read(new DataView(this.#headerBytes.buffer));
      const malformed = this.#begin(header);
      if (malformed !== undefined) return malformed;
    }
    return this.#filled === this.#payload.length ? this.#finish() : undefined;
  }

  /** The stream has ended: drops the descriptors of a message that will not be completed. */
  abandon(): void {
    this.#drop(this.#fds.splice(0));
  }

  #takeFds(fds: readonly number[]): void {
    if (this.#fds.length + fds.length > MAX_FRAME_FDS) {
      this.#tooManyFds = true;
      this.#drop(fds);
    } else {
      this.#fds.push(...fds);
    }
  }

  /** The header is complete. */
  #begin(header: Header): Malformed | undefined {
    const type = header.flags & HEADER_TYPE_MASK;
    if (header.size < VfioUserHeader.size) {
      return this.#refuse(header, `size ${header.size} is less than a header`, true);
    }
    if (type !== HeaderType.COMMAND && type !== HeaderType.REPLY) {
      return this.#refuse(header, `message type ${type} does not exist`, true);
    }
    const length = header.size - VfioUserHeader.size;
    if (length > this.#maxPayload) {
      // Refused now and not when the body is drained: a peer may announce a body and wait for the answer to the header.
      this.#toDrain = length;
      return this.#refuse(header, `a payload of ${length} bytes is too large`, false);
    }
    this.#header = header;
    this.#payload = length === 0 ? EMPTY : new Uint8Array(length);
    this.#filled = 0;
    return undefined;
  }

  #finish(): Frame {
    const header = this.#header!;
    if (this.#tooManyFds) return this.#refuse(header, 'too many file descriptors', false);
    const payload = this.#payload;
    const view = new DataView(payload.buffer, 0, payload.length);
    const fds = this.#fds;
    this.#fds = [];
    this.#reset();
    return { kind: 'message', header, payload, view, fds };
  }

  #refuse(header: Header, reason: string, fatal: boolean): Malformed {
    this.abandon();
    this.#reset();
    return { kind: 'malformed', header, reason, fatal };
  }

  #reset(): void {
    this.#header = undefined;
    this.#payload = EMPTY;
    this.#filled = 0;
    this.#tooManyFds = false;
  }
}
