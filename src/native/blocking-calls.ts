/**
 * Calls on file systems and descriptors that may never answer, each on a native thread of its own. An owner (a bdev, a client, a folder)
 * has a share of threads; its other calls wait, in order. So what hangs holds up its owner, and nobody else.
 *
 * An owner without a thread gets its first one while the process has any left. The further ones of all owners together are bounded, so
 * owners whose calls hang take one thread each in the end, and leave one to everyone else. Used on main only: the bounds are this thread's.
 */
import { MAX_BLOCKING_CALLS, MAX_FURTHER_CALLS, MAX_OWNER_CALLS } from '../limits.ts';
import { native } from './index.ts';
import type { BlockingFunctions } from './types.ts';

export interface BlockingOptions {
  /** Calls under way at the same time. */
  readonly limit?: number;
}

interface Bounds {
  readonly calls: number;
  readonly further: number;
}

/** The threads of a process, and the owners that wait for one. */
export class BlockingThreads {
  readonly #bounds: Bounds;
  readonly #waiting = new Set<BlockingCalls>();
  #calls = 0;
  /** Calls of owners beyond their first. */
  #further = 0;

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  /** Takes a thread for an owner that has `underWay` already. False if there is none. */
  take(underWay: number): boolean {
    if (this.#calls >= this.#bounds.calls) {
      return false;
    }
    if (underWay > 0) {
      if (this.#further >= this.#bounds.further) {
        return false;
      }
      this.#further += 1;
    }
    this.#calls += 1;
    return true;
  }

  /** Gives one back: `underWay` are left to its owner. */
  give(underWay: number): void {
    this.#calls -= 1;
    if (underWay > 0) {
      this.#further -= 1;
    }
    this.#serve();
  }

  /** The owner has calls that no thread could be taken for. */
  await(owner: BlockingCalls): void {
    this.#waiting.add(owner);
  }

  /** In the order they came; but first everyone who has no call under way gets one. */
  #serve(): void {
    for (const owner of this.#waiting) {
      if (owner.underWay === 0) {
        owner.proceed(1);
      }
    }
    for (const owner of this.#waiting) {
      if (owner.proceed()) {
        this.#waiting.delete(owner);
      }
    }
  }
}

const THREADS = new BlockingThreads({ calls: MAX_BLOCKING_CALLS, further: MAX_FURTHER_CALLS });

/** One owner's calls. */
export class BlockingCalls {
  readonly #limit: number;
  readonly #threads: BlockingThreads;
  readonly #queue: (() => void)[] = [];
  #underWay = 0;

  constructor({ limit = MAX_OWNER_CALLS }: BlockingOptions = {}, threads = THREADS) {
    this.#limit = limit;
    this.#threads = threads;
  }

  /** Calls that have a thread. */
  get underWay(): number {
    return this.#underWay;
  }

  /** Calls that wait for one. */
  get waiting(): number {
    return this.#queue.length;
  }

  /**
   * Carries out a call of `native.blocking`, when it is its turn: `await calls.run('fstat', fd)`. Settles as that does, or never. Calls may
   * overtake each other: await what must come first.
   */
  run<K extends keyof BlockingFunctions>(
    name: K,
    ...args: Parameters<BlockingFunctions[K]>
  ): ReturnType<BlockingFunctions[K]> {
    const call = native.blocking[name] as (...args: unknown[]) => Promise<unknown>;
    return this.#inTurn(() => call(...args)) as ReturnType<BlockingFunctions[K]>;
  }

  #inTurn(call: () => Promise<unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#queue.push(() => {
        // Arguments that do not fit throw, here into the promise.
        const begin = async () => call();
        begin()
          .finally(() => this.#ended())
          .then(resolve, reject);
      });
      this.proceed();
    });
  }

  #ended(): void {
    this.#underWay -= 1;
    this.#threads.give(this.#underWay);
    this.proceed();
  }

  /** Begins what may begin, at most so many. False if calls wait for a thread of the process. For `BlockingThreads`. */
  proceed(most = this.#limit): boolean {
    for (let i = 0; i < most && this.#queue.length > 0 && this.#underWay < this.#limit; i++) {
      if (!this.#threads.take(this.#underWay)) {
        this.#threads.await(this);
        return false;
      }
      this.#underWay += 1;
      this.#queue.shift()?.();
    }
    return true;
  }
}
