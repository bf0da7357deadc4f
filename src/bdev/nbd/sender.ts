/**
 * What goes to a server: requests, in one stream, from memory of our own. A request is copied whole before any of it is sent: a message that was begun
 * must be ended, whatever becomes of whoever asked for it. One buffer is filled while the other is sent. Hot.
 */
import type { CopyBatch } from '../../io/copies.ts';
import type { RingTag } from '../../io/tags.ts';
import { MAX_TRANSFER_BYTES } from '../../limits.ts';
import type { System } from '../../native/system.ts';
import { NbdRequest, REQUEST_MAGIC } from '../../spec/nbd.ts';
import type { Transfers } from '../transfers.ts';

/** Of each of the two buffers: a request of the greatest length, and some small ones. Bytes. */
const BUFFER_BYTES = MAX_TRANSFER_BYTES + 64 * 1024;
const TWO_32 = 0x1_0000_0000;

const MAGIC = NbdRequest.offset.magic;
const FLAGS = NbdRequest.offset.flags;
const TYPE = NbdRequest.offset.type;
const COOKIE_HIGH = NbdRequest.offset.cookieHigh;
const COOKIE_LOW = NbdRequest.offset.cookieLow;
const OFFSET = NbdRequest.offset.offset;
const LENGTH = NbdRequest.offset.length;

export class Sender {
  readonly #transfers: Transfers;
  readonly #copies: CopyBatch;
  readonly #views: readonly DataView[];
  /** Host addresses of the two. */
  readonly #base = new Float64Array(2);
  /** The one that is filled, and how far; what is left of the other. */
  #filling = 0;
  #filled = 0;
  #left = 0;
  /** Host address of what is sent next, at index 0. */
  readonly #address = new Float64Array(1);

  constructor(system: System, transfers: Transfers, copies: CopyBatch) {
    this.#transfers = transfers;
    this.#copies = copies;
    const memory = system.mapAnonymous(2 * BUFFER_BYTES);
    this.#views = [
      new DataView(memory, 0, BUFFER_BYTES),
      new DataView(memory, BUFFER_BYTES, BUFFER_BYTES),
    ];
    this.#base[0] = system.addressOf(this.#views[0]);
    this.#base[1] = this.#base[0] + BUFFER_BYTES;
  }

  /** Nothing waits to be sent. */
  get empty(): boolean {
    return this.#filled === 0 && this.#left === 0;
  }

  /** Forgets all: the connection is gone, and nothing of it is under way. */
  clear(): void {
    this.#filled = 0;
    this.#left = 0;
  }

  /** Adds a request. `data`: that many bytes of the slot's memory follow it. False if there is no room now. */
  add(
    slot: number,
    cookie: number,
    command: number,
    flags: number,
    offset: number,
    length: number,
    data: number,
  ): boolean {
    const at = this.#filled;
    if (at + NbdRequest.size + data > BUFFER_BYTES) {
      return false;
    }
    const view = this.#views[this.#filling];
    view.setUint32(at + MAGIC, REQUEST_MAGIC);
    view.setUint16(at + FLAGS, flags);
    view.setUint16(at + TYPE, command);
    view.setInt32(at + COOKIE_HIGH, cookie);
    view.setInt32(at + COOKIE_LOW, slot);
    view.setUint32(at + OFFSET, offset / TWO_32);
    view.setUint32(at + OFFSET + 4, offset % TWO_32);
    view.setUint32(at + LENGTH, length);
    if (data > 0) {
      this.#transfers.copyAt(
        slot,
        0,
        data,
        this.#copies,
        this.#base,
        this.#filling,
        at + NbdRequest.size,
        true,
      );
    }
    this.#filled = at + NbdRequest.size + data;
    return true;
  }

  /** Sends what there is, if nothing is being sent. */
  kick(tag: RingTag, file: number): void {
    if (tag.busy || (this.#left === 0 && this.#filled === 0)) {
      return;
    }
    if (this.#left === 0) {
      this.#copies.flush();
      this.#address[0] = this.#base[this.#filling];
      this.#left = this.#filled;
      this.#filled = 0;
      this.#filling = 1 - this.#filling;
    }
    tag.send(file, this.#address, 0, this.#left);
  }

  /** So much was sent. */
  sent(count: number): void {
    this.#address[0] += count;
    this.#left -= count;
  }
}
