/**
 * A bdev whose file is being opened, which lasts as long as the file system likes: its name, UUID and index are taken meanwhile, and it can
 * be given up. Owned by main.
 */
import type { BdevIdentity, Disk } from '../bdev/disk.ts';

export class Making {
  readonly identity: BdevIdentity;
  readonly module: Disk['module'];
  /** Resolves when it is there, or will never be. */
  readonly over: Promise<void>;
  /** Tells of that. */
  end: () => void = () => {};
  readonly #cancelled: Promise<void>;
  #cancel: () => void = () => {};
  #reason: Error | undefined;

  constructor(identity: BdevIdentity, module: Disk['module']) {
    this.identity = identity;
    this.module = module;
    this.over = new Promise((resolve) => {
      this.end = resolve;
    });
    this.#cancelled = new Promise((resolve) => {
      this.#cancel = resolve;
    });
  }

  /** Has `opened` reject with `reason`. */
  cancel(reason: Error): void {
    this.#reason ??= reason;
    this.#cancel();
  }

  /** What is opened, unless that was given up; then it is closed again. */
  async opened<T extends Disk>(opening: Promise<T>): Promise<T> {
    const bdev = await Promise.race([opening, this.#cancelled]);
    if (this.#reason === undefined && bdev !== undefined) {
      return bdev;
    }
    opening.then(
      (late) => late.close(),
      () => {},
    );
    throw this.#reason;
  }
}
