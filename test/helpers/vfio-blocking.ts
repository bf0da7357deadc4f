/** A socket used as clients written in C and Rust use theirs: one call, one wait, no framing. */
import { closeSync } from 'node:fs';
import { native } from '../../src/native/index.ts';
import { closeFds } from '../../src/vfio-user/transport.ts';
import type { Test } from './target.ts';

export class BlockingSocket {
  readonly #fd: number;
  /** Descriptors that came with the last `receive`, this socket's to close. */
  fds: number[] = [];
  #open = true;

  constructor(t: Test, path: string) {
    this.#fd = native.socketConnect(path);
    t.teardown(() => this.close());
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    closeFds(this.fds);
    closeSync(this.#fd);
  }

  /** One sendmsg, which has to take all. */
  send(data: Uint8Array, fds: readonly number[] = []): void {
    const sent = native.socketSend(this.#fd, data, fds);
    if (sent !== data.length) throw new Error(`sent ${sent} of ${data.length} bytes`);
  }

  /** One recvmsg, once something is there: up to `length` bytes. Empty at the end of the stream. */
  async receive(length: number): Promise<Buffer> {
    await new Promise<void>((resolve) => {
      const poll = new native.FdPoll(this.#fd, () => {
        poll.close();
        resolve();
      });
      poll.start(true, false);
    });
    return this.receiveNow(length);
  }

  /** One recvmsg of what is there already. Throws if nothing is. */
  receiveNow(length: number): Buffer {
    const buffer = Buffer.alloc(length);
    const fds = new Int32Array(254);
    const count = native.socketReceive(this.#fd, buffer, fds);
    if (count < 0) throw new Error('nothing to read');
    closeFds(this.fds);
    this.fds = Array.from(fds.subarray(1, 1 + fds[0]));
    return buffer.subarray(0, count);
  }

  /** Exactly `length` bytes, however many calls it takes. */
  async readExact(length: number): Promise<Buffer> {
    const parts: Buffer[] = [];
    for (let left = length; left > 0; ) {
      const part = await this.receive(left);
      if (part.length === 0) throw new Error('the stream ended');
      parts.push(part);
      left -= part.length;
    }
    return Buffer.concat(parts);
  }
}
