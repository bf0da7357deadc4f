/**
 * Latencies of commands that complete within their batch: the clock costs as much as some of them, so one batch in many is timed, and its
 * first command stands for those since the last. Hot.
 */
import { Op } from '../bdev/op.ts';
import type { IoNamespace } from './io-view.ts';
import type { RoundClock } from './round-clock.ts';

/** Batches of which one is timed. */
const BATCHES_PER_SAMPLE = 64;

export class BatchSampler {
  readonly #clock: RoundClock;
  #batches = 0;
  #open = false;
  readonly #start = new Float64Array(1);
  /** The first command that a namespace took since the sample began. */
  #namespace: IoNamespace | undefined;
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
  took(namespace: IoNamespace, op: Op): void {
    if (this.#open && this.#namespace === undefined) {
      this.#namespace = namespace;
      this.#op = op;
    }
  }

  /** The completions so far are about to be seen by the host. */
  published(): void {
    if (this.#namespace !== undefined) {
      this.end();
    }
  }

  /** The batch is through. */
  end(): void {
    if (!this.#open) {
      return;
    }
    const namespace = this.#namespace;
    this.#open = false;
    this.#namespace = undefined;
    if (namespace !== undefined) {
      this.#clock.read();
      namespace.counters.sample(this.#op, this.#clock.now, this.#start, 0);
    }
  }
}
