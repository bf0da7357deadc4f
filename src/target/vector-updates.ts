/**
 * Tells the reactors of a controller where its vectors are connected. A guest can mask and unmask as often as it likes: reactors get to know
 * how it stands, one message at a time, and nothing if it stands as it did. Owned by main.
 */
export class VectorUpdates {
  readonly #eventfds: () => number[];
  readonly #tell: (fds: number[]) => Promise<void>;
  /** What reactors signal by vector; the message that tells them so, and the one after it. */
  #connected: readonly number[] = [];
  #connecting: Promise<void> | undefined;
  #connectNext: Promise<void> | undefined;

  /** `eventfds`: by vector, as it stands; -1: nowhere. `tell` resolves when no reactor signals others any more. */
  constructor(eventfds: () => number[], tell: (fds: number[]) => Promise<void>) {
    this.#eventfds = eventfds;
    this.#tell = tell;
  }

  /** Vectors were connected, disconnected, masked or unmasked: resolves when the old eventfds are no longer signalled. */
  changed(): Promise<void> {
    if (this.#connecting === undefined) {
      this.#connecting = this.#connect().finally(() => {
        this.#connecting = undefined;
      });
      return this.#connecting;
    }
    this.#connectNext ??= this.#connecting
      .catch(() => {})
      .then(() => {
        this.#connectNext = undefined;
        return this.changed();
      });
    return this.#connectNext;
  }

  async #connect(): Promise<void> {
    const fds = this.#eventfds();
    if (fds.length !== this.#connected.length || fds.some((fd, i) => fd !== this.#connected[i])) {
      this.#connected = [];
      await this.#tell(fds);
      this.#connected = fds;
    }
  }
}
