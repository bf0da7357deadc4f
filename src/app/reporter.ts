/**
 * When a report about the target is written: if it crashes, if a reactor dies, and if somebody asks with SIGQUIT; and when an operator is told
 * of those that an earlier run left. Owned by main.
 */
import { closeSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Asked, reportsIn, saveReport, writeReport } from '../target/report.ts';
import type { Target } from '../target/target.ts';
import { describeError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';

/** Between two reports about dead reactors: a guest that kills them must not fill the disk. Milliseconds. */
const REACTOR_REPORT_MS = 60_000;
/** The file with the name of the newest report that an operator was told of. */
const TOLD = 'doorbell-reports-told';
/** Of a report, for its reason. Bytes. */
const HEAD_BYTES = 1024;

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
    if (target.reportFolder !== undefined) {
      this.#tellOfEarlier(target.reportFolder);
    }
    target.events.subscribe((event) => {
      const now = performance.now();
      if (event.type === 'reactor-lost' && now - this.#lastReactorReport >= REACTOR_REPORT_MS) {
        this.#lastReactorReport = now;
        void this.save(`reactor ${event.reactor} died`, event.message);
      }
    });
  }

  /** At once, for a process that will not go on. Never throws. */
  write(reason: string, error?: unknown): void {
    if (this.#target !== undefined) {
      try {
        const { reportFolder } = this.#target;
        this.#tellWritten(reason, writeReport(this.#target, reportFolder, reason, error));
      } catch (failure) {
        this.#tellFailed(failure);
      }
    }
  }

  /** While everything goes on. Never rejects, and ends in a bounded time. */
  async save(reason: string, error?: unknown): Promise<void> {
    if (this.#target !== undefined) {
      try {
        const { reportFolder } = this.#target;
        this.#tellWritten(reason, await saveReport(this.#target, reportFolder, reason, error));
      } catch (failure) {
        this.#tellFailed(failure);
      }
    }
  }

  #tellWritten(reason: string, path: string): void {
    this.#log.warn({ path, reason }, 'report written');
  }

  #tellFailed(failure: unknown): void {
    const fields = { folder: this.#target?.reportFolder, reason: describeError(failure) };
    this.#log.error(fields, 'no report could be written');
  }

  /** Each report once, but for those that somebody asked for. Never throws. */
  #tellOfEarlier(folder: string): void {
    const marker = join(folder, TOLD);
    try {
      const told = readIfThere(marker);
      const reports = reportsIn(folder).filter((name) => name > told);
      for (const name of reports) {
        const path = join(folder, name);
        const reason = reasonOf(path);
        if (!Object.values<string | undefined>(Asked).includes(reason)) {
          this.#log.warn({ path, reason }, 'an earlier run left a report');
        }
      }
      const last = reports.at(-1);
      if (last !== undefined) {
        writeFileSync(marker, last, { mode: 0o600 });
      }
    } catch (error) {
      this.#log.warn({ folder, reason: describeError(error) }, 'earlier reports cannot be read');
    }
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
      return '';
    }
    throw error;
  }
}

/** Why a report was written: it begins with that. */
function reasonOf(path: string): string | undefined {
  const fd = openSync(path, 'r');
  try {
    const head = Buffer.alloc(HEAD_BYTES);
    const text = head.toString('utf8', 0, readSync(fd, head));
    return /"reason": ?"([^"\\]*)"/.exec(text)?.[1];
  } finally {
    closeSync(fd);
  }
}
