/**
 * Closes the descriptors that one peer sent. A close may wait for ever and may fail (a file of a file system in user space, a socket that
 * lingers), so it happens on threads of its own (`BlockingCalls`), and nobody waits for it. One for each socket that peers connect to,
 * whoever they are in turn. Owned by main.
 */
import { MAX_CLOSE_BATCH, MAX_OWNER_CALLS, MAX_PENDING_CLOSES } from '../limits.ts';
import { BlockingCalls } from './blocking-calls.ts';

/** The system had no thread to give; it is asked again after this time. */
const RETRY_MS = 100;

export class DescriptorCloser {
  readonly #calls = new BlockingCalls();
  readonly #queue: number[] = [];
  #batches = 0;
  #pending = 0;
  #waiting: (() => void)[] = [];

  /** Closes them, some time. They are the closer's from now on; -1 stands for none. Never throws. */
  close(fds: readonly number[]): void {
    for (const fd of fds) {
      if (fd >= 0) {
        this.#queue.push(fd);
        this.#pending += 1;
      }
    }
    this.#begin();
  }

  /** Not closed yet. */
  get pending(): number {
    return this.#pending;
  }

  /** So many are not closed that no more should be taken from the peer. */
  get full(): boolean {
    return this.#pending >= MAX_PENDING_CLOSES;
  }

  /** Resolves when it is not full, which may be never. */
  space(): Promise<void> {
    return this.full ? new Promise((resolve) => this.#waiting.push(resolve)) : Promise.resolve();
  }

  #begin(): void {
    while (this.#queue.length > 0 && this.#batches < MAX_OWNER_CALLS) {
      const batch = this.#queue.splice(0, MAX_CLOSE_BATCH);
      this.#batches += 1;
      this.#calls.run('closeAll', batch).then(
        () => this.#closed(batch.length),
        () => setTimeout(() => this.#again(batch), RETRY_MS).unref(),
      );
    }
  }

  #closed(count: number): void {
    this.#batches -= 1;
    this.#pending -= count;
    if (!this.full) {
      for (const resolve of this.#waiting.splice(0)) {
        resolve();
      }
    }
    this.#begin();
  }

  #again(batch: readonly number[]): void {
    this.#batches -= 1;
    this.#queue.unshift(...batch);
    this.#begin();
  }
}
