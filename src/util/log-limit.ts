/** A bound on what one source may write into the log. Owned by the logger that asks it. */

/** So many lines in a window of time; then nothing but one line, at its end, that says how many there would have been. */
export class RateLimit {
  readonly #lines: number;
  readonly #windowMs: number;
  readonly #report: (suppressed: number, windowMs: number) => void;
  #windowEnds = 0;
  #taken = 0;
  #suppressed = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(
    lines: number,
    windowMs: number,
    report: (suppressed: number, windowMs: number) => void,
  ) {
    this.#lines = lines;
    this.#windowMs = windowMs;
    this.#report = report;
  }

  /** True if a line may be written now. `now`: monotonic, ms. */
  take(now = performance.now()): boolean {
    if (now >= this.#windowEnds) {
      this.#summarize();
      this.#windowEnds = now + this.#windowMs;
      this.#taken = 0;
    }
    if (this.#taken < this.#lines) {
      this.#taken += 1;
      return true;
    }
    this.#suppressed += 1;
    if (this.#timer === undefined) {
      this.#timer = setTimeout(() => this.#summarize(), this.#windowEnds - now);
      // The log keeps no process alive.
      this.#timer.unref();
    }
    return false;
  }

  #summarize(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const suppressed = this.#suppressed;
    this.#suppressed = 0;
    if (suppressed > 0) {
      this.#report(suppressed, this.#windowMs);
    }
  }
}
