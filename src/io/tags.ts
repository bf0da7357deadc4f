/**
 * Operations in a reactor's ring that belong to no slot: a backend that talks to somebody over descriptors of its own has a connection's
 * worth of reads, writes and polls under way, whatever requests there are. Each has a tag, whose user data is above all slots. Owned by one
 * reactor.
 */
import { MAX_INFLIGHT, MAX_RING_TAGS } from '../limits.ts';
import { MSG_NOSIGNAL, MSG_WAITALL, UringOp } from '../spec/uring.ts';
import { type Ring, UNHEARD } from './ring.ts';

/** Told when an operation of one of its tags has ended: a count or -errno; of a poll, the events. */
export type TagHandler = (result: number) => void;

/** One operation at a time, as often as one likes. What it uses stays referenced until it has ended. */
export class RingTag {
  readonly userData: number;
  readonly #tags: RingTags;
  readonly #ring: Ring;
  readonly #handler: TagHandler;
  #busy = false;
  #retired = false;

  constructor(tags: RingTags, ring: Ring, userData: number, handler: TagHandler) {
    this.#tags = tags;
    this.#ring = ring;
    this.userData = userData;
    this.#handler = handler;
  }

  /** An operation is under way. */
  get busy(): boolean {
    return this.#busy;
  }

  /** Hot. Reads up to `length` bytes of a registered file that has no offsets (a socket, a pipe) into the memory at `addresses[index]`. */
  read(file: number, addresses: Float64Array, index: number, length: number): void {
    this.#begin();
    this.#ring.prepareTransfer(
      UringOp.READ,
      file,
      addresses,
      index,
      length,
      0,
      0,
      0,
      this.userData,
    );
  }

  /** Hot. Writes up to `length` bytes. */
  write(file: number, addresses: Float64Array, index: number, length: number): void {
    this.#begin();
    this.#ring.prepareTransfer(
      UringOp.WRITE,
      file,
      addresses,
      index,
      length,
      0,
      0,
      0,
      this.userData,
    );
  }

  /** Hot. The same of a socket, blocking or not: it ends when something has come, 0 at the end of the stream. */
  receive(socket: number, addresses: Float64Array, index: number, length: number): void {
    this.#begin();
    this.#ring.prepareTransfer(
      UringOp.RECV,
      socket,
      addresses,
      index,
      length,
      0,
      0,
      0,
      this.userData,
    );
  }

  /** Hot. Writes to a socket, blocking or not: it ends when all is written, or the connection has failed. */
  send(socket: number, addresses: Float64Array, index: number, length: number): void {
    this.#begin();
    this.#ring.prepareTransfer(
      UringOp.SEND,
      socket,
      addresses,
      index,
      length,
      0,
      0,
      MSG_NOSIGNAL | MSG_WAITALL,
      this.userData,
    );
  }

  /** Ends after the time in the struct timespec at `addresses[index]`, with -ETIME. */
  timeout(addresses: Float64Array, index: number): void {
    this.#begin();
    this.#ring.prepareTimeout(addresses, this.userData, index);
  }

  /** Waits until a descriptor is ready: POLLIN, POLLOUT. */
  poll(fd: number, events: number): void {
    this.#begin();
    this.#ring.preparePollOnce(fd, this.userData, events);
    this.#ring.inflight += 1;
  }

  #begin(): void {
    if (this.#busy || this.#retired) {
      throw new Error(`ring tag ${this.userData} has an operation under way, or is retired`);
    }
    this.#ring.makeRoom();
    this.#busy = true;
  }

  /** Nobody wants to hear of it any more. What is under way is called back, and until that has ended the tag is nobody else's. */
  retire(): void {
    if (this.#retired) {
      return;
    }
    this.#retired = true;
    this.cancel();
    if (!this.#busy) {
      this.#tags.give(this);
    }
  }

  /** What is under way is called back: it ends with -ECANCELED, or with what it has done already. */
  cancel(): void {
    if (this.#busy) {
      this.#ring.cancel(this.userData, UNHEARD);
    }
  }

  /** For `RingTags`. */
  completed(result: number): void {
    this.#busy = false;
    this.#ring.inflight -= 1;
    if (this.#retired) {
      this.#tags.give(this);
    } else {
      this.#handler(result);
    }
  }
}

export class RingTags {
  readonly #ring: Ring;
  readonly #tags: (RingTag | undefined)[] = [];
  readonly #free: number[] = [];

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** Some are taken: a completion of theirs may end several requests. */
  get any(): boolean {
    return this.#free.length < this.#tags.length;
  }

  /** Throws if there are too many: backends then cannot be opened. */
  take(handler: TagHandler): RingTag {
    const index = this.#free.pop() ?? this.#tags.length;
    if (index >= MAX_RING_TAGS) {
      throw new Error(`there are ${MAX_RING_TAGS} ring tags`);
    }
    const tag = new RingTag(this, this.#ring, MAX_INFLIGHT + index, handler);
    this.#tags[index] = tag;
    return tag;
  }

  /** For `RingTag`: nothing of it is under way. */
  give(tag: RingTag): void {
    const index = tag.userData - MAX_INFLIGHT;
    this.#tags[index] = undefined;
    this.#free.push(index);
  }

  /** The ring reported the end of an operation, by its user data, which is MAX_INFLIGHT or above. */
  completed(userData: number, result: number): void {
    this.#tags[userData - MAX_INFLIGHT]?.completed(result);
  }

  /** The reactor ends: nothing is waited for that would last, and nobody told. */
  retireAll(): void {
    for (const tag of this.#tags) {
      tag?.retire();
    }
  }
}
