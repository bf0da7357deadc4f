/** Runs asynchronous operations one after the other, in the order in which they were asked for. */
export class Serial {
  #last: Promise<unknown> = Promise.resolve();

  /** Starts `operation` once all earlier ones have ended, however they ended. Resolves or rejects as it does. */
  run<T>(operation: () => Promise<T> | T): Promise<T> {
    const result = this.#last.then(operation);
    this.#last = result.catch(() => {});
    return result;
  }
}
