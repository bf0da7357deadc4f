/**
 * The changes of a target: those of one thing run in its order, each is counted, and there is an end to them. Owned by main.
 */
import { FailedError } from '../util/errors.ts';
import { Orders } from './orders.ts';

export class Changes {
  readonly orders = new Orders();
  #revision = 0;
  #closed = false;

  /** Counts what may have changed the configuration: the same number, the same configuration. */
  get revision(): number {
    return this.#revision;
  }

  /** Nothing is changed any more. */
  get closed(): boolean {
    return this.#closed;
  }

  close(): void {
    this.#closed = true;
  }

  /** Throws FailedError if nothing is changed any more. */
  check(): void {
    if (this.#closed) {
      throw new FailedError('The target is shutting down');
    }
  }

  /** Runs a change, and counts it: also one that failed may have done a part. */
  async run<T>(operation: () => Promise<T> | T): Promise<T> {
    this.check();
    try {
      return await operation();
    } finally {
      this.#revision += 1;
    }
  }

  /** The same in the order of what it changes. */
  runFor<T>(owner: object, operation: () => Promise<T> | T): Promise<T> {
    return this.orders.run(owner, () => this.run(operation));
  }

  /** Something was changed at once. */
  count(): void {
    this.#revision += 1;
  }
}
