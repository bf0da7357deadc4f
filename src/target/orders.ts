/**
 * Orders of changes: those of one thing (a subsystem, a bdev) run one after the other, those of different things at the same time. So a
 * change that a guest or a disk holds up keeps only the next changes of the same thing waiting. Owned by main.
 *
 * Who runs in one order may wait for another only in this direction: bdev → the bdev on top of it → the subsystem that uses that. So no
 * two wait for each other.
 */
import { Serial } from '../util/serial.ts';

export class Orders {
  readonly #byOwner = new WeakMap<object, Serial>();

  /** Starts `change` once all earlier ones of `owner` have ended, however they ended. Resolves or rejects as it does. */
  run<T>(owner: object, change: () => Promise<T> | T): Promise<T> {
    let order = this.#byOwner.get(owner);
    if (order === undefined) {
      order = new Serial();
      this.#byOwner.set(owner, order);
    }
    return order.run(change);
  }

  /** Resolves when all changes of `owner` that were asked for so far have ended. */
  settled(owner: object): Promise<void> {
    return this.run(owner, () => {});
  }
}
