/**
 * Memory of a client that is reached by messages: DMA_READ and DMA_WRITE, which the server sends. vfio-user: DMA_READ, DMA_WRITE.
 *
 * A client need not answer, or may answer late, wrongly or twice. So what is under way is bounded, everything has a deadline, and the id of a
 * message that was given up is used again only after its late reply has come.
 *
 * QEMU 10 has a layout of its own, with a count of 32 bits. Which one a client speaks is found out before the first write, by one of no bytes:
 * the reply to that tells the layouts apart, and harms neither.
 */
import {
  DMA_MESSAGE_PATIENCE_MS,
  MAX_DMA_BYTES,
  MAX_DMA_MESSAGES,
  MAX_DMA_REPLY_BYTES,
} from '../limits.ts';
import {
  DmaAccess,
  DmaAccessShort,
  HeaderFlag,
  MAX_DMA_MESSAGE_BYTES,
  VfioUserCommand,
} from '../spec/vfio-user.ts';
import { encodeCommand, type Message } from './codec.ts';
import { Refusal } from './refusal.ts';

const MAX_ID = 0xffff;
const NO_BYTES = new Uint8Array(0);

/** What the kernel counts for a message in a socket's buffer, beside its bytes; those of a small message it rounds up to a power of two. */
const SOCKET_OVERHEAD = 768;
const LARGE_BYTES = 32 * 1024;

export type DmaLayout = 'specified' | 'short';

/** A message that is under way, or waits to be sent. */
interface Pending {
  readonly command: number;
  readonly address: number;
  /** Of a write; of a read, where they go. */
  readonly data: Uint8Array;
  readonly resolve: (reply: Message) => void;
  readonly reject: (error: Error) => void;
  deadline?: NodeJS.Timeout;
}

export class DmaMessages {
  readonly #send: (message: Uint8Array) => void;
  /** Most bytes of one message. */
  readonly maxBytes: number;
  readonly #patienceMs: number;
  #layout: DmaLayout | undefined;
  #probe: Promise<void> | undefined;
  /** By id. */
  readonly #pending = new Map<number, Pending>();
  readonly #waiting: Pending[] = [];
  /** Ids of messages that were given up and not answered. */
  readonly #quarantine = new Map<number, Pending>();
  /** Data of writes; and what replies may take of the client's socket buffer, also those that may come late. */
  #bytes = 0;
  #replyBytes = 0;
  /** Runs while messages wait, and nothing is under way but late replies. */
  #stalled: NodeJS.Timeout | undefined;
  #nextId = 0;
  #closed = false;

  /** `clientMaxBytes`: what the client said that it takes in one message. `layout`: what it speaks, if that is known. */
  constructor(
    send: (message: Uint8Array) => void,
    clientMaxBytes: number,
    layout: DmaLayout | undefined,
    patienceMs = DMA_MESSAGE_PATIENCE_MS,
  ) {
    this.#send = send;
    this.#patienceMs = patienceMs;
    this.maxBytes = Math.max(1, Math.min(clientMaxBytes, MAX_DMA_MESSAGE_BYTES));
    this.#layout = layout;
  }

  /**
   * Fills `into` with the client's memory at an address. Rejects with a Refusal: what the client says (ENODEV of QEMU: the function is no bus
   * master), EIO (its reply is wrong), ETIMEDOUT, ENOBUFS (too much is under way), ECANCELED (taken away meanwhile, or the client is gone).
   */
  async read(address: number, into: Uint8Array): Promise<void> {
    await this.#pieces(into, async (offset, piece) => {
      const reply = await this.#ask(VfioUserCommand.DMA_READ, address + offset, piece);
      piece.set(this.#dataOf(reply, address + offset, piece.length));
    });
  }

  /** Writes to the client's memory. Rejects as `read` does; pieces may have been written then. */
  async write(address: number, data: Uint8Array): Promise<void> {
    await this.#findLayout();
    await this.#pieces(data, async (offset, piece) => {
      const reply = await this.#ask(VfioUserCommand.DMA_WRITE, address + offset, piece);
      this.#checkWrite(reply, address + offset, piece.length);
    });
  }

  /** Gives up what is under way in [start, end), and rejects it. Nobody waits for the client. */
  abandon(start: number, end: number): void {
    // A message of no bytes counts as one of one.
    const isInside = ({ address, data }: Pending) =>
      address < end && address + Math.max(data.length, 1) > start;
    // Those that wait first: none of them is to be sent in place of one that is given up.
    for (const pending of this.#waiting.filter(isInside)) {
      this.#waiting.splice(this.#waiting.indexOf(pending), 1);
      pending.reject(new Refusal('ECANCELED', 'memory was taken away'));
    }
    for (const [id, pending] of this.#pending) {
      if (isInside(pending)) this.#giveUp(id, new Refusal('ECANCELED', 'memory was taken away'));
    }
    this.#sendNext();
  }

  /** The client is gone. */
  close(): void {
    this.#closed = true;
    this.abandon(0, Number.POSITIVE_INFINITY);
  }

  /** Takes a reply. False if it answers nothing that was asked. */
  answer(reply: Message): boolean {
    const { messageId: id, command, flags, error } = reply.header;
    const pending = this.#pending.get(id);
    if (pending === undefined) {
      const late = this.#quarantine.get(id);
      if (late === undefined) return false;
      this.#quarantine.delete(id);
      this.#replyBytes -= replyCost(late);
      this.#sendNext();
      return true;
    }
    this.#remove(id);
    this.#replyBytes -= replyCost(pending);
    if (command !== pending.command) {
      pending.reject(new Refusal('EIO', `command ${command} answers command ${pending.command}`));
    } else if ((flags & HeaderFlag.ERROR) !== 0) {
      pending.reject(Refusal.of(error, 'the client refuses a DMA message'));
    } else {
      pending.resolve(reply);
    }
    this.#sendNext();
    return true;
  }

  /** All pieces at once; settles when all have, so that nobody fills what the caller has given up. */
  async #pieces(
    whole: Uint8Array,
    move: (offset: number, piece: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const moves: Promise<void>[] = [];
    for (let at = 0; at < whole.length; at += this.maxBytes) {
      moves.push(move(at, whole.subarray(at, Math.min(at + this.maxBytes, whole.length))));
    }
    const results = await Promise.allSettled(moves);
    const failed = results.find(({ status }) => status === 'rejected');
    if (failed !== undefined) throw (failed as PromiseRejectedResult).reason;
  }

  #findLayout(): Promise<void> | undefined {
    if (this.#layout !== undefined) return undefined;
    this.#probe ??= this.#ask(VfioUserCommand.DMA_WRITE, 0, NO_BYTES)
      .then((reply) => {
        this.#layout ??= reply.payload.length === 0 ? 'short' : 'specified';
      })
      .finally(() => {
        this.#probe = undefined;
      });
    return this.#probe;
  }

  #ask(command: number, address: number, data: Uint8Array): Promise<Message> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(new Refusal('ECANCELED', 'the client is gone'));
      } else if (this.#waiting.length >= MAX_DMA_MESSAGES) {
        reject(new Refusal('ENOBUFS', 'too many DMA messages wait for the client'));
      } else {
        this.#waiting.push({ command, address, data, resolve, reject });
        this.#sendNext();
      }
    });
  }

  /** Sends what there is room for. Ids in quarantine take their share: a client that answers nothing gets no more questions. */
  #sendNext(): void {
    while (
      this.#waiting.length > 0 &&
      this.#pending.size + this.#quarantine.size < MAX_DMA_MESSAGES &&
      this.#hasRoom(this.#waiting[0])
    ) {
      const pending = this.#waiting.shift()!;
      const id = this.#allocateId();
      this.#pending.set(id, pending);
      this.#bytes += bytesOf(pending);
      this.#replyBytes += replyCost(pending);
      pending.deadline = setTimeout(
        () => this.#giveUp(id, new Refusal('ETIMEDOUT', 'the client answers no DMA message')),
        this.#patienceMs,
      );
      pending.deadline.unref();
      this.#send(encodeCommand(id, pending.command, this.#encode(pending)));
    }
    if (this.#quarantine.size >= MAX_DMA_MESSAGES) this.#giveUpWaiting();
    this.#watchStall();
  }

  #hasRoom(next: Pending): boolean {
    return (
      (this.#bytes === 0 || this.#bytes + bytesOf(next) <= MAX_DMA_BYTES) &&
      (this.#replyBytes === 0 || this.#replyBytes + replyCost(next) <= MAX_DMA_REPLY_BYTES)
    );
  }

  /** Only late replies can make room for what waits: they have as long as any reply. */
  #watchStall(): void {
    const stalled = this.#waiting.length > 0 && this.#pending.size === 0;
    if (!stalled) {
      clearTimeout(this.#stalled);
      this.#stalled = undefined;
    } else if (this.#stalled === undefined) {
      this.#stalled = setTimeout(() => {
        this.#stalled = undefined;
        this.#giveUpWaiting();
      }, this.#patienceMs);
      this.#stalled.unref();
    }
  }

  #giveUpWaiting(): void {
    for (const { reject } of this.#waiting.splice(0)) {
      reject(new Refusal('ETIMEDOUT', 'the client answers no DMA message'));
    }
  }

  #encode({ command, address, data }: Pending): Uint8Array {
    const struct = this.#layout === 'short' ? DmaAccessShort : DmaAccess;
    const head = struct.encode({ address, count: data.length });
    return command === VfioUserCommand.DMA_READ ? head : Buffer.concat([head, data]);
  }

  #remove(id: number): void {
    const pending = this.#pending.get(id)!;
    clearTimeout(pending.deadline);
    this.#pending.delete(id);
    this.#bytes -= bytesOf(pending);
  }

  #giveUp(id: number, error: Error): void {
    const pending = this.#pending.get(id)!;
    this.#remove(id);
    this.#quarantine.set(id, pending);
    pending.reject(error);
    this.#sendNext();
  }

  #allocateId(): number {
    while (this.#pending.has(this.#nextId) || this.#quarantine.has(this.#nextId)) {
      this.#nextId = (this.#nextId + 1) & MAX_ID;
    }
    const id = this.#nextId;
    this.#nextId = (id + 1) & MAX_ID;
    return id;
  }

  /** The data of a reply to a read, which tells the layout by its length. */
  #dataOf({ payload, view }: Message, address: number, count: number): Uint8Array {
    const struct = payload.length === DmaAccessShort.size + count ? DmaAccessShort : DmaAccess;
    if (payload.length !== struct.size + count) {
      throw new Refusal('EIO', `DMA_READ of ${count} bytes got a reply of ${payload.length}`);
    }
    const got = struct.read(view);
    if (got.address !== address || got.count !== count) {
      throw new Refusal('EIO', 'the reply to a DMA_READ is that of another');
    }
    this.#layout ??= struct === DmaAccess ? 'specified' : 'short';
    return payload.subarray(struct.size);
  }

  #checkWrite({ payload, view }: Message, address: number, count: number): void {
    if (this.#layout === 'short' && payload.length === 0) return;
    if (payload.length !== DmaAccess.size) {
      throw new Refusal('EIO', `DMA_WRITE got a reply of ${payload.length} bytes`);
    }
    const got = DmaAccess.read(view);
    if (got.address !== address || got.count !== count) {
      throw new Refusal('EIO', 'the reply to a DMA_WRITE is that of another');
    }
  }
}

/** Data that is sent. */
function bytesOf({ command, data }: Pending): number {
  return command === VfioUserCommand.DMA_WRITE ? data.length : 0;
}

/** What the reply to a message takes of the client's socket buffer. */
function replyCost({ command, data }: Pending): number {
  const bytes = command === VfioUserCommand.DMA_READ ? data.length : 0;
  return SOCKET_OVERHEAD + (bytes > LARGE_BYTES ? 1.25 * bytes : 2 * bytes);
}
