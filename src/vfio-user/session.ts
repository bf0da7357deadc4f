/**
 * One client: agrees on the version, then carries out its commands one after the other, in the order they came.
 *
 * While a handler waits for the device, what else comes is kept, up to a bound; then reading stops. It stops, too, while too many of the
 * client's descriptors are not closed; a client whose closes hang is cut off. When the client goes away, the handler is let finish, what
 * was kept is dropped, and the device is told.
 */
import { MAX_KEPT_DESCRIPTORS } from '../limits.ts';
import type { DescriptorCloser } from '../native/descriptor-closer.ts';
import { RegionAccess, VfioUserCommand } from '../spec/vfio-user.ts';
import { encodeError, encodeReply, type Frame, isReply, wantsReply } from './codec.ts';
import type { Accept, VfioUserDevice } from './device.ts';
import { handlerOf } from './dispatch.ts';
import { type DmaLayout, DmaMessages } from './dma-messages.ts';
import { DmaTable } from './dma-table.ts';
import type { Lingering } from './lingering.ts';
import { MAX_DATA_XFER_SIZE, negotiate, type Terms } from './negotiate.ts';
import { errnoOf, Refusal } from './refusal.ts';
import type { Reply } from './request.ts';
import { Connection } from './transport.ts';

/** What happens to a client, for the log. */
export type SessionEvent =
  | { readonly type: 'connected'; readonly minor: number }
  /** A command was not carried out. `known` is false if the device threw something without an errno: a bug. */
  | {
      readonly type: 'refused';
      readonly command: number;
      readonly errno: number;
      readonly known: boolean;
      readonly error: unknown;
    }
  /** The device threw when it was told that the client is gone. */
  | { readonly type: 'failed'; readonly error: unknown }
  /** The device holds on to a client that has gone; nobody waits for the end any more. */
  | { readonly type: 'lingers'; readonly end: Promise<void> }
  /** `served`: it was `connected` before. */
  | { readonly type: 'disconnected'; readonly reason: string; readonly served: boolean };

export interface SessionOptions {
  readonly accept: Accept;
  /** Closes what the client sends. */
  readonly closer: DescriptorCloser;
  readonly lingering: Lingering;
  /** How long the client may take to agree on a version. ms. */
  readonly patienceMs: number;
  /** Of messages that reach the client's memory; undefined: to be found out. */
  readonly dmaLayout?: DmaLayout | undefined;
  readonly emit: (event: SessionEvent) => void;
}

/** Largest payload: a REGION_WRITE of all the data that may be written at once. */
export const MAX_PAYLOAD = RegionAccess.size + MAX_DATA_XFER_SIZE;
/** Messages, and bytes of them, kept while another is being carried out. */
const MAX_KEPT_MESSAGES = 16;
const MAX_KEPT_BYTES = MAX_PAYLOAD;
/** How long a client's descriptors may take to close before it is cut off. */
const CLOSING_PATIENCE_MS = 10_000;

export class Session {
  /** Resolves when the client is gone and the device has dropped everything of it. */
  readonly ended: Promise<void>;
  readonly #options: SessionOptions;
  readonly #closer: DescriptorCloser;
  readonly #emit: (event: SessionEvent) => void;
  readonly #connection: Connection;
  readonly #socket: number;
  readonly #dma = new DmaTable();
  readonly #deadline: NodeJS.Timeout;
  /** What was agreed on, and the device that was made then. */
  #terms: Terms | undefined;
  #device: VfioUserDevice | undefined;
  #messages: DmaMessages | undefined;
  #resolveEnded!: () => void;
  /** A handler waits for the device. */
  #busy = false;
  /** Frames that came meanwhile, and the bytes of their payloads. */
  #kept: Frame[] = [];
  #keptBytes = 0;
  #keptFds = 0;
  /** Runs while too many descriptors are not closed. */
  #closing: NodeJS.Timeout | undefined;
  #goneReason: string | undefined;

  /** Serves a connected socket and owns it. */
  constructor(fd: number, options: SessionOptions) {
    this.#options = options;
    this.#closer = options.closer;
    this.#socket = fd;
    this.#emit = options.emit;
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.#connection = new Connection(
      fd,
      MAX_PAYLOAD,
      {
        message: (message) => this.#receive(message),
        malformed: (frame) => this.#receive(frame),
        closed: (reason) => this.#onClosed(reason),
      },
      (fds) => this.#close(fds),
    );
    // By way of the loop's poll phase: what came in time is looked at before, even if this thread was late.
    this.#deadline = setTimeout(() => setImmediate(() => this.#expire()), options.patienceMs);
  }

  #expire(): void {
    if (this.#terms === undefined) this.close('no version was agreed on in time');
  }

  /** Disconnects the client. See `ended`. */
  close(reason: string): void {
    this.#connection.close(reason);
  }

  #receive(frame: Frame): void {
    if (frame.kind === 'message' && isReply(frame.header) && this.#messages?.answer(frame)) {
      // At once: a handler may wait for it.
      this.#release(frame);
      return;
    }
    if (!this.#busy) {
      this.#carryOut(frame);
      return;
    }
    this.#kept.push(frame);
    this.#count(frame, 1);
    if (this.#isFull) this.#connection.pause();
  }

  #count(frame: Frame, sign: 1 | -1): void {
    if (frame.kind === 'message') {
      this.#keptBytes += sign * frame.payload.length;
      this.#keptFds += sign * frame.fds.length;
    }
  }

  get #isFull(): boolean {
    return (
      this.#closer.full ||
      this.#kept.length >= MAX_KEPT_MESSAGES ||
      this.#keptBytes >= MAX_KEPT_BYTES ||
      this.#keptFds >= MAX_KEPT_DESCRIPTORS
    );
  }

  /** Closes descriptors of the client. If it has too many that do not close, nothing more is read until they have. */
  #close(fds: readonly number[]): void {
    this.#closer.close(fds);
    if (this.#closer.full && this.#closing === undefined && this.#goneReason === undefined) {
      this.#connection.pause();
      this.#closing = setTimeout(
        () => this.close('descriptors that it sent do not close'),
        CLOSING_PATIENCE_MS,
      );
      void this.#closer.space().then(() => this.#goOn());
    }
  }

  #goOn(): void {
    clearTimeout(this.#closing);
    this.#closing = undefined;
    if (!this.#isFull) this.#connection.resume();
  }

  #carryOut(frame: Frame): void {
    let reply: Reply | Promise<Reply>;
    try {
      reply = this.#handle(frame);
    } catch (error) {
      this.#refuse(frame, error);
      return;
    }
    if (!(reply instanceof Promise)) {
      this.#finish(frame, reply);
      return;
    }
    this.#busy = true;
    reply
      .then(
        (value) => this.#finish(frame, value),
        (error: unknown) => this.#refuse(frame, error),
      )
      .then(() => this.#resume());
  }

  /** A handler that waited is done: goes on with what was kept. */
  #resume(): void {
    this.#busy = false;
    if (this.#goneReason !== undefined) {
      this.#leave(this.#goneReason);
      return;
    }
    while (!this.#busy && this.#kept.length > 0) {
      const frame = this.#kept.shift()!;
      this.#count(frame, -1);
      this.#carryOut(frame);
    }
    if (!this.#isFull) this.#connection.resume();
  }

  #handle(frame: Frame): Reply | Promise<Reply> {
    if (frame.kind === 'malformed') throw new Refusal('EINVAL', frame.reason);
    const { command } = frame.header;
    if (isReply(frame.header)) throw new Refusal('EINVAL', 'a reply to nothing');
    if (this.#terms !== undefined && this.#device !== undefined) {
      const context = { device: this.#device, terms: this.#terms, dma: this.#dma };
      return handlerOf(command)(context, frame);
    }
    if (command !== VfioUserCommand.VERSION) {
      throw new Refusal('EINVAL', `command ${command} before VERSION`);
    }
    const { terms, payload } = negotiate(frame);
    clearTimeout(this.#deadline);
    this.#messages = new DmaMessages(
      (message) => this.#connection.sendSoon(message),
      terms.clientMaxData,
      this.#options.dmaLayout,
    );
    this.#device = this.#options.accept({
      messages: this.#messages,
      answersDma: terms.answersDma,
      socket: this.#socket,
      close: (fds) => this.#closer.close(fds),
    });
    this.#terms = terms;
    this.#emit({ type: 'connected', minor: terms.minor });
    return { payload };
  }

  #finish(frame: Frame, reply: Reply): void {
    this.#release(frame);
    if (wantsReply(frame.header)) {
      this.#connection.send(encodeReply(frame.header, reply.payload), reply.fds);
    }
  }

  /** Answers with an error; without common terms, or a common idea of where messages start, that is the last word. */
  #refuse(frame: Frame, error: unknown): void {
    this.#release(frame);
    const { command } = frame.header;
    const { errno, known } = errnoOf(error);
    this.#emit({ type: 'refused', command, errno, known, error });
    if (wantsReply(frame.header)) this.#connection.send(encodeError(frame.header, errno));
    if (this.#terms === undefined || (frame.kind === 'malformed' && frame.fatal)) {
      this.close((error as Error).message);
    }
  }

  /** Closes the descriptors that no one took. */
  #release(frame: Frame): void {
    if (frame.kind === 'message') this.#close(frame.fds.splice(0));
  }

  #onClosed(reason: string): void {
    clearTimeout(this.#deadline);
    clearTimeout(this.#closing);
    this.#goneReason = reason;
    this.#messages?.close();
    for (const frame of this.#kept.splice(0)) this.#release(frame);
    if (!this.#busy) this.#leave(reason);
  }

  async #leave(reason: string): Promise<void> {
    if (this.#device !== undefined) {
      try {
        await this.#options.lingering.leave(Promise.resolve(this.#device.clientGone()));
      } catch (error) {
        this.#emit({ type: 'failed', error });
      }
    }
    this.#emit({ type: 'disconnected', reason, served: this.#terms !== undefined });
    this.#resolveEnded();
  }
}
