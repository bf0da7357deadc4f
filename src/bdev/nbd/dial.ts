/** A new connection to an export: a descriptor that is ready for requests, and what the server says of the export. Runs on main. */
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { native } from '../../native/index.ts';
import {
  CHUNK_DONE,
  CHUNK_MAGIC,
  ChunkType,
  NbdCommand,
  NbdRequest,
  NbdSimpleReply,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
} from '../../spec/nbd.ts';
import { ErrnoError, errnoOf, withErrnoDetail } from '../../util/errors.ts';
import { patiently } from '../../util/patience.ts';
import { type NbdExport, negotiate } from './handshake.ts';
import type { NbdUri } from './uri.ts';
import { Wire } from './wire.ts';

export interface NbdConnection {
  /** Non-blocking, and the receiver's to close. */
  readonly fd: number;
  readonly told: NbdExport;
}

/** One bdev's way to its server: a name that is not found out, or a server that does not answer, holds up nobody else. */
export class NbdDialer {
  readonly #uri: NbdUri;
  /** One at a time: a name server that never answers takes one thread. */
  readonly #calls = new BlockingCalls({ limit: 1 });
  readonly #closes = new BlockingCalls({ limit: 1 });

  constructor(uri: NbdUri) {
    this.#uri = uri;
  }

  /**
   * Connects and agrees on everything, each within `timeoutMs`. Rejects with what the system says of the address, ETIMEDOUT, or what
   * `negotiate` does.
   */
  async dial(timeoutMs: number): Promise<NbdConnection> {
    const fd = await this.#connect(timeoutMs);
    const wire = new Wire(fd, timeoutMs);
    try {
      const told = await negotiate(wire, this.#uri.exportName);
      wire.release();
      return { fd, told };
    } catch (error) {
      wire.release();
      this.close(fd, false);
      throw errnoOf(error) === undefined || error instanceof ErrnoError
        ? error
        : withErrnoDetail(error, this.where);
    }
  }

  /**
   * Has the server make durable what was completed on any of its connections, on one of its own. Rejects as `dial` does, with what `check` throws, or the
   * server's errno.
   */
  async flush(timeoutMs: number, check: (told: NbdExport) => void): Promise<void> {
    const { fd, told } = await this.dial(timeoutMs);
    const wire = new Wire(fd, timeoutMs);
    try {
      check(told);
      wire.send(NbdRequest.encode({ magic: REQUEST_MAGIC, type: NbdCommand.FLUSH }));
      const head = await wire.receive(NbdSimpleReply.size);
      const { magic, error } = NbdSimpleReply.read(new DataView(head.buffer, head.byteOffset));
      const isChunk = magic === CHUNK_MAGIC && told.structured;
      if (magic !== SIMPLE_REPLY_MAGIC && !isChunk) {
        throw new ErrnoError('EPROTO', 'an answer that is none');
      }
      // The flags and the type of a chunk are where a simple reply has its error: one that says "done", and nothing else.
      if (error !== (isChunk ? CHUNK_DONE * 2 ** 16 + ChunkType.NONE : 0)) {
        throw new ErrnoError('EIO', 'the server cannot make it durable');
      }
    } finally {
      wire.release();
      this.close(fd, true);
    }
  }

  /** The connection is of no use any more. `politely`: the server is told, as no request is under way. Never waits. */
  close(fd: number, politely: boolean): void {
    if (politely) {
      try {
        native.socketSend(
          fd,
          NbdRequest.encode({ magic: REQUEST_MAGIC, type: NbdCommand.DISCONNECT }),
          [],
        );
      } catch {
        // It has gone itself.
      }
    }
    this.#closes.run('close', fd).catch(() => {
      // The descriptor is gone whatever the system says.
    });
  }

  /** The server, in words. */
  get where(): string {
    const { address } = this.#uri;
    return address.kind === 'unix' ? address.path : `${address.host}:${address.port}`;
  }

  async #connect(timeoutMs: number): Promise<number> {
    const { address } = this.#uri;
    const connecting =
      address.kind === 'unix'
        ? this.#calls.run('connectUnix', address.path, timeoutMs)
        : this.#calls.run('connectTcp', address.host, address.port, timeoutMs);
    const late = new ErrnoError('ETIMEDOUT', `${this.where} does not answer`);
    try {
      // The name server has no time of its own.
      return await patiently(connecting, timeoutMs + 1000, late);
    } catch (error) {
      if (error === late) {
        connecting.then((fd) => this.close(fd, false)).catch(() => {});
      }
      throw withErrnoDetail(error, this.where);
    }
  }
}
