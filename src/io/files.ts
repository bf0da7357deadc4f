/** Files registered with a ring: the kernel looks them up by index, without taking a reference per operation. Owned by one reactor. */
import { MAX_REGISTERED_FILES } from '../limits.ts';
import { native } from '../native/index.ts';
import type { Ring } from './ring.ts';

const EMPTY = -1;

export class RegisteredFiles {
  readonly #ring: Ring;
  /** Descriptors by index. */
  readonly #fds = new Int32Array(MAX_REGISTERED_FILES).fill(EMPTY);
  readonly #uses = new Int32Array(MAX_REGISTERED_FILES);

  /** Registers an empty table. */
  constructor(ring: Ring) {
    this.#ring = ring;
    native.uringRegisterFiles(ring.fd, this.#fds);
  }

  /** Registers a descriptor, or counts one more use of it. Gives its index. Throws if the table is full. */
  add(fd: number): number {
    let index = this.#fds.indexOf(fd);
    if (index < 0) {
      index = this.#fds.indexOf(EMPTY);
      native.uringUpdateFile(this.#ring.fd, index, fd);
      this.#fds[index] = fd;
    }
    this.#uses[index] += 1;
    return index;
  }

  /** The ring holds on to the file until its last use is released. */
  release(index: number): void {
    this.#uses[index] -= 1;
    if (this.#uses[index] === 0) {
      this.#fds[index] = EMPTY;
      native.uringUpdateFile(this.#ring.fd, index, EMPTY);
    }
  }
}
