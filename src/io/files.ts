/** Files registered with a ring: the kernel looks them up by index, without taking a reference per operation. Owned by one reactor. */
import { MAX_REGISTERED_FILES } from '../limits.ts';
import type { System } from '../native/system.ts';
import type { Ring } from './ring.ts';

const EMPTY = -1;

export class RegisteredFiles {
  readonly #ring: Ring;
  readonly #system: System;
  /** Descriptors by index. */
  readonly #fds = new Int32Array(MAX_REGISTERED_FILES).fill(EMPTY);

  /** Registers an empty table. */
  constructor(ring: Ring, system: System) {
    this.#ring = ring;
    this.#system = system;
    system.uringRegisterFiles(ring.fd, this.#fds);
  }

  /**
   * Registers a descriptor. Gives its index. Throws if the table is full. (The same number may be another file than the one that is
   * registered under it: that one may have been closed since.)
   */
  add(fd: number): number {
    const index = this.#fds.indexOf(EMPTY);
    this.#system.uringUpdateFile(this.#ring.fd, index, fd);
    this.#fds[index] = fd;
    return index;
  }

  /** The ring lets go of the file. Operations under way keep it. */
  release(index: number): void {
    this.#fds[index] = EMPTY;
    this.#system.uringUpdateFile(this.#ring.fd, index, EMPTY);
  }
}
