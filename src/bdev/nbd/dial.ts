/** A new connection to an export: a descriptor that is ready for requests, and what the server says of the export. Runs on main. */
import { BlockingCalls } from '../../native/blocking-calls.ts';
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
      this.close(fd);
      throw errnoOf(error) === undefined || error instanceof ErrnoError
        ? error
        : withErrnoDetail(error, this.where);
    }
  }

  /** The connection is of no use any more. Never waits. */
  close(fd: number): void {
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
        connecting.then((fd) => this.close(fd)).catch(() => {});
      }
      throw withErrnoDetail(error, this.where);
    }
  }
}
