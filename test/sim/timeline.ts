/** Virtual time, and what is due in it. */

interface Due {
  readonly time: number;
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

export class Timeline {
  /** Nanoseconds. */
  now = 1e9;
  #order = 0;
  /** The earliest is last. */
  readonly #due: Due[] = [];

  /** Calls `run` at that time. What it returns takes that back. */
  at(time: number, run: () => void): () => void {
    const due: Due = { time, order: this.#order++, run, cancelled: false };
    let index = this.#due.length;
    while (index > 0 && this.#due[index - 1].time <= time) {
      index -= 1;
    }
    this.#due.splice(index, 0, due);
    return () => {
      due.cancelled = true;
    };
  }

  after(ns: number, run: () => void): () => void {
    return this.at(this.now + ns, run);
  }

  /** When something is due next, or Infinity. */
  get next(): number {
    while (this.#due.at(-1)?.cancelled) {
      this.#due.pop();
    }
    return this.#due.at(-1)?.time ?? Number.POSITIVE_INFINITY;
  }

  /** Goes on to that time. */
  advanceTo(time: number): void {
    while (this.next <= time) {
      const due = this.#due.pop()!;
      this.now = Math.max(this.now, due.time);
      due.run();
    }
    this.now = Math.max(this.now, time);
  }
}
