/** The eventfd by which a client says that INTx may fire again. Owned by main. */
import { MAX_UNMASKS, UNMASK_PERIOD_MS } from '../limits.ts';
import { type FdPoll, native } from '../native/index.ts';

/**
 * Listens to an eventfd of the client, which decides how often that is heard: it may signal without end, or pass a semaphore
 * (EFD_SEMAPHORE), which stays readable for as many reads as its count. So there is an end to what is heard in a period; the rest of it
 * counts as one signal.
 */
export class Resample {
  readonly fd: number;
  readonly #poll: FdPoll;
  readonly #onSignal: () => void;
  #heard = 0;
  #period: NodeJS.Timeout | undefined;

  constructor(fd: number, onSignal: () => void) {
    this.fd = fd;
    this.#onSignal = onSignal;
    this.#poll = new native.FdPoll(fd, () => this.#hear());
    this.#poll.start(true, false);
  }

  #hear(): void {
    this.#period ??= setTimeout(() => this.#nextPeriod(), UNMASK_PERIOD_MS);
    this.#heard += 1;
    if (this.#heard === MAX_UNMASKS) {
      this.#poll.stop();
    }
    native.eventfdRead(this.fd);
    this.#onSignal();
  }

  #nextPeriod(): void {
    this.#period = undefined;
    if (this.#heard >= MAX_UNMASKS) {
      this.#poll.start(true, false);
    }
    this.#heard = 0;
  }

  /** The descriptor is the caller's again. */
  close(): void {
    clearTimeout(this.#period);
    this.#poll.close();
  }
}
