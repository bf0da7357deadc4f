/**
 * Latencies of commands that complete within their batch: the clock costs as much as some of them, so one batch in many is timed, and its
 * first command stands for those since the last. Hot.
 */
import { Op } from '../op.ts';
import type { RoundClock } from './clock.ts';
import type { Share } from './share.ts';

/** Batches of which one is timed. */
const BATCHES_PER_SAMPLE = 64;

export class BatchSampler {
  readonly #clock: RoundClock;
  #batches = 0;
  #open = false;
  readonly #start = new Float64Array(1);
  /** The first command that a share took since the sample began. */
  #share: Share | undefined;
  #op: Op = Op.READ;

  constructor(clock: RoundClock) {
    this.#clock = clock;
  }

  /** A batch begins. */
  begin(): void {
    this.#batches += 1;
    if (this.#batches === BATCHES_PER_SAMPLE) {
      this.#batches = 0;
      this.#open = true;
      this.#clock.read();
      this.#start[0] = this.#clock.now[0];
    }
  }

  /** A command of the batch has been carried out. */
  took(share: Share, op: Op): void {
    if (this.#open && this.#share === undefined) {
      this.#share = share;
      this.#op = op;
    }
  }

  /** The completions so far are about to be seen by the host. */
  published(): void {
    if (this.#share !== undefined) {
      this.end();
    }
  }

  /** The batch is through. */
  end(): void {
    if (!this.#open) {
      return;
    }
    const share = this.#share;
    this.#open = false;
    this.#share = undefined;
    if (share !== undefined) {
      this.#clock.read();
      share.counters.sample(this.#op, this.#clock.now, this.#start, 0);
    }
  }
}
