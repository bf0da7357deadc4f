/** Files registered with a ring: the kernel looks them up by index, without taking a reference per operation. Owned by one reactor. */
import { native } from '../native/index.ts';
import type { Ring } from './ring.ts';

const EMPTY = -1;

export class RegisteredFiles {
  readonly #ring: Ring;
  /** Descriptors by index. */
  readonly #fds: number[] = [];
  readonly #uses: number[] = [];

  constructor(ring: Ring) {
    this.#ring = ring;
  }

  /** Registers a descriptor, or counts one more use of it. Gives its index. */
  add(fd: number): number {
    let index = this.#fds.indexOf(fd);
    if (index < 0) {
      index = this.#fds.indexOf(EMPTY);
      index = index < 0 ? this.#fds.length : index;
      this.#fds[index] = fd;
      this.#uses[index] = 0;
      this.#register();
    }
    this.#uses[index] += 1;
    return index;
  }

  /** The ring holds on to the file until its last use is released. */
  release(index: number): void {
    this.#uses[index] -= 1;
    if (this.#uses[index] === 0) {
      this.#fds[index] = EMPTY;
      this.#register();
    }
  }

  #register(): void {
    native.uringRegisterFiles(this.#ring.fd, Int32Array.from(this.#fds));
  }
}
