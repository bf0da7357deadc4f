/** When hosts see completions, and when they are interrupted for them. Owned by one reactor's plane; the only place that decides either. Hot. */
import type { RoundClock } from '../../bdev/requests/clock.ts';
import type { CompletionQueue } from '../queue.ts';

export class Publisher {
  readonly #signal: (cq: CompletionQueue) => void;
  /** Queues that got a completion outside of their own batch. (An array that is emptied by its length is allocated anew.) */
  readonly #touched: CompletionQueue[] = [];
  #touchedCount = 0;
  /** Queues to interrupt for. */
  readonly #signals: CompletionQueue[] = [];
  #signalCount = 0;
  readonly #clock: RoundClock;
  /** When the next interrupt comes that is held back for a time, in ns; Infinity: none is. */
  due = Number.POSITIVE_INFINITY;

  /** `signal` interrupts the host of a queue. */
  constructor(clock: RoundClock, signal: (cq: CompletionQueue) => void) {
    this.#clock = clock;
    this.#signal = signal;
  }

  /** A completion was staged, to be seen after `publishTouched`. */
  touch(cq: CompletionQueue): void {
    if (!cq.touched) {
      cq.touched = true;
      this.#touched[this.#touchedCount++] = cq;
    }
  }

  publishTouched(): void {
    for (let i = 0; i < this.#touchedCount; i++) {
      this.#touched[i].touched = false;
      this.publish(this.#touched[i]);
    }
    this.#touchedCount = 0;
  }

  /** Makes staged completions visible, and remembers to interrupt the host once for all of this round. */
  publish(cq: CompletionQueue): void {
    if (cq.hasStaged) {
      cq.publish();
    }
    if (cq.needsSignal && !cq.signalQueued) {
      cq.signalQueued = true;
      this.#signals[this.#signalCount++] = cq;
    }
  }

  /**
   * Interrupts the hosts that wait; and, if it is `late`, those still busy with the last interrupt. Returns how many of these are held back;
   * those that asked for that (interrupt coalescing) are not among them, and have their time.
   */
  signal(late: boolean): number {
    const held = this.#signalCount;
    this.#signalCount = 0;
    this.due = Number.POSITIVE_INFINITY;
    let busy = 0;
    for (let i = 0; i < held; i++) {
      const cq = this.#signals[i];
      if (cq.coalescedNs !== 0 && cq.needsSignal && this.#coalesces(cq)) {
        this.#signals[this.#signalCount++] = cq;
        continue;
      }
      if (cq.needsSignal && !late && cq.hostBusy) {
        this.#signals[this.#signalCount++] = cq;
        busy += 1;
        continue;
      }
      cq.signalQueued = false;
      if (cq.needsSignal) {
        this.#signal(cq);
      }
    }
    return busy;
  }

  #coalesces(cq: CompletionQueue): boolean {
    this.#clock.need();
    if (!cq.coalesces(this.#clock.now)) {
      return false;
    }
    this.due = Math.min(this.due, cq.coalescedUntil);
    return true;
  }
}
