/**
 * The target's side of the manager's watchdog: it says "alive" only after every reactor has answered. If main or a reactor hangs, in
 * the kernel or in a loop, nothing is said, and the manager ends the process. Owned by main.
 */
import type { Logger } from '../util/log.ts';

export interface WatchdogOptions {
  /** The process is killed if nothing is said for this long. Milliseconds. */
  readonly timeoutMs: number;
  /** Resolves when the reactor has answered, or is dead: then its queues are taken care of. */
  readonly pulse: (reactor: number) => Promise<void>;
  readonly reactors: number;
  /** Says so. */
  readonly alive: () => void;
  readonly log: Logger;
}

export class Watchdog {
  readonly #options: WatchdogOptions;
  /** Between two rounds of questions, and how long an answer may take without a word about it. Milliseconds. */
  readonly #halfMs: number;
  #next: NodeJS.Timeout | undefined;
  #complaint: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#halfMs = options.timeoutMs / 2;
    this.#ask();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#next);
    clearTimeout(this.#complaint);
  }

  #ask(): void {
    const { pulse, reactors, alive, log } = this.#options;
    const waiting = new Set(Array.from({ length: reactors }, (_, reactor) => reactor));
    const complain = (): void => {
      const stuck = [...waiting];
      if (stuck.length > 0 && !this.#stopped) {
        log.error({ reactors: stuck, ms: this.#halfMs }, 'reactors hang: the watchdog will end us');
      }
    };
    // If it was this thread that got no processor, the answers are there, and read first.
    this.#complaint = setTimeout(() => setImmediate(complain), this.#halfMs);
    const answers = [...waiting].map(async (reactor) => {
      await pulse(reactor);
      waiting.delete(reactor);
    });
    void Promise.all(answers).then(() => {
      clearTimeout(this.#complaint);
      if (!this.#stopped) {
        alive();
        this.#next = setTimeout(() => this.#ask(), this.#halfMs);
      }
    });
  }
}
