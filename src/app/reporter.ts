/** When a report about the target is written: if it crashes, if a reactor dies, and if somebody asks with SIGQUIT. Owned by main. */
import { reportFolder, writeReport } from '../target/report.ts';
import type { Target } from '../target/target.ts';
import { describeError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';

/** Between two reports about dead reactors: a guest that kills them must not fill the disk. Milliseconds. */
const REACTOR_REPORT_MS = 60_000;

export class Reporter {
  readonly #log: Logger;
  #target: Target | undefined;
  #lastReactorReport = Number.NEGATIVE_INFINITY;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** From now on there is something to report about. */
  watch(target: Target): void {
    this.#target = target;
    target.events.subscribe((event) => {
      const now = performance.now();
      if (event.type === 'reactor-lost' && now - this.#lastReactorReport >= REACTOR_REPORT_MS) {
        this.#lastReactorReport = now;
        this.write(`reactor ${event.reactor} died`, event.message);
      }
    });
  }

  /** Never throws. */
  write(reason: string, error?: unknown): void {
    if (this.#target === undefined) {
      return;
    }
    const folder = reportFolder();
    try {
      const path = writeReport(this.#target, folder, reason, error);
      this.#log.warn({ path, reason }, 'report written');
    } catch (failure) {
      this.#log.error({ folder, reason: describeError(failure) }, 'no report could be written');
    }
  }
}
