/**
 * Clients that have gone, and whose devices are not done with them. The next client waits a while for that, and then is served all the same:
 * what holds on to one client's memory (a disk that hangs) may do so for as long as it likes, and each client has a device of its own.
 */

/** How long the next client waits for the last one's end. Milliseconds. */
const LINGER_MS = 1000;
/** Clients whose end is not over while the next is served; beyond, the next waits. */
const MAX_LINGERING_CLIENTS = 4;

export class Lingering {
  readonly #onLinger: (end: Promise<void>) => void;
  #count = 0;

  /** `onLinger` is told of an end that is no longer waited for. */
  constructor(onLinger: (end: Promise<void>) => void) {
    this.#onLinger = onLinger;
  }

  /** Resolves, or rejects, as a client's end does; or resolves before, if that takes long. */
  leave(end: Promise<void>): Promise<void> {
    return this.#count < MAX_LINGERING_CLIENTS ? Promise.race([end, this.#patience(end)]) : end;
  }

  async #patience(end: Promise<void>): Promise<void> {
    let over = false;
    const ended = end.finally(() => {
      over = true;
    });
    ended.catch(() => {});
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, LINGER_MS);
      void ended
        .catch(() => {})
        .then(() => clearTimeout(timer))
        .then(resolve);
    });
    if (!over) {
      this.#count += 1;
      this.#onLinger(
        ended.finally(() => {
          this.#count -= 1;
        }),
      );
    }
  }
}
