/** `doorbell perf`: runs a load and reports. The process is the load generator. */
import { writeFileSync } from 'node:fs';
import { PerformanceObserver } from 'node:perf_hooks';
import { SingleBar } from 'cli-progress';
import { type Progress, Workload } from '../../client/workload.ts';
import type { WorkloadOptions } from '../../client/workload-options.ts';
import { ConnectError } from '../../client/workload-target.ts';
import { native } from '../../native/index.ts';
import { describeError } from '../../util/errors.ts';
import { refuseIfConnected } from '../identify/read.ts';
import { CliError, Exit, print } from '../output.ts';
import { targetThreads } from './cores.ts';
import { histogramLog, makeReport, perfTable } from './report.ts';

export interface PerfOptions {
  readonly load: WorkloadOptions;
  /** The user accepts that data is overwritten. */
  readonly allowWrite: boolean;
  /** The processor to run on; by default one that the target does not poll on. */
  readonly cpu: number | undefined;
  readonly warmup: number;
  readonly seconds: number;
  readonly commands: number;
  readonly json: boolean;
  /** File for the latencies. */
  readonly histogram: string | undefined;
}

/** What a shell calls the exit by SIGINT. */
const EXIT_INTERRUPTED = 130;

/** Resolves with the exit code: 0, or 130 after Ctrl-C with what was measured until then. Rejects with a CliError, also after it has printed that where a target is lost. */
export async function runPerf(options: PerfOptions): Promise<number> {
  try {
    return await measure(options);
  } catch (error) {
    if (error instanceof CliError) {
      throw error;
    }
    const unreachable = error instanceof ConnectError;
    throw new CliError(describeError(error), unreachable ? Exit.UNREACHABLE : Exit.FAILED);
  }
}

async function measure(options: PerfOptions): Promise<number> {
  const { load, allowWrite, warmup, seconds, commands } = options;
  if (load.reads < 1 && !allowWrite) {
    const where = load.sockets.join(', ');
    throw new CliError(
      `this load overwrites data on ${where}: say --allow-write if it may`,
      Exit.USAGE,
    );
  }
  if (load.verify && load.reads === 1) {
    throw new CliError(
      'only what was written can be verified: choose a load with writes',
      Exit.USAGE,
    );
  }
  for (const socket of load.sockets) {
    refuseIfConnected(socket);
  }
  const cpu = choosePlace(options.cpu, load.sockets);
  const workload = await Workload.open(load);
  const interrupt = new AbortController();
  const onSignal = (): void => interrupt.abort();
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  const bar = new ProgressBar();
  let begun = 0;
  let collections = 0;
  const observer = new PerformanceObserver((list) => {
    collections += list.getEntries().filter(({ startTime }) => startTime >= begun).length;
  });
  try {
    observer.observe({ entryTypes: ['gc'] });
    const result = await workload.run({
      ...{ warmup, seconds, commands, signal: interrupt.signal },
      onStart: () => {
        begun = performance.now();
      },
      onProgress: (progress) => bar.show(progress),
    });
    await new Promise(setImmediate);
    bar.stop();
    const interrupted = interrupt.signal.aborted;
    const report = makeReport(load, workload.controllers, result, {
      ...{ cpu, collections, interrupted },
      wantedSeconds: seconds,
    });
    const lines = options.json ? [JSON.stringify(report, null, 2)] : perfTable(report);
    if (load.verify && !options.json && result.lost === undefined) {
      lines.push(`${result.verified} reads compared with what was written: no difference`);
    }
    if (options.histogram !== undefined) {
      writeFileSync(options.histogram, histogramLog(result));
    }
    print(lines.join('\n'));
    if (result.lost !== undefined) {
      throw new CliError(result.lost);
    }
    return interrupted ? EXIT_INTERRUPTED : 0;
  } finally {
    bar.stop();
    observer.disconnect();
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
    workload.close();
  }
}

/** Binds this thread, and warns if it shares its processor with a polling thread of the target. */
function choosePlace(wanted: number | undefined, sockets: readonly string[]): number | null {
  const allowed = native.getAffinity();
  if (wanted !== undefined && !allowed.includes(wanted)) {
    throw new CliError(`CPU ${wanted} is not one of those this process may use`, Exit.USAGE);
  }
  const threads = targetThreads(sockets);
  // The last that is free: the first has most of the system's interrupts.
  const free = allowed.filter((cpu) => !threads.some((thread) => thread.cpu === cpu));
  const cpu = wanted ?? free.at(-1) ?? allowed.at(-1);
  if (cpu === undefined) {
    return null;
  }
  native.setAffinity([cpu]);
  const beside = threads.find((thread) => thread.cpu === cpu);
  if (beside !== undefined) {
    const { pid, name } = beside;
    process.stderr.write(
      `doorbell: warning: '${name}' of the target (process ${pid}) is bound to CPU ${cpu}, too\n`,
    );
  }
  return cpu;
}

/** On stderr, if that is a terminal. */
class ProgressBar {
  #bar: SingleBar | undefined;
  #phase = '';

  show({ phase, done, iops }: Progress): void {
    if (!process.stderr.isTTY) {
      return;
    }
    if (phase !== this.#phase) {
      this.stop();
      this.#phase = phase;
      this.#bar = new SingleBar({
        format: `${phase.padEnd(7)} {bar} {percentage} %  {iops} IOPS`,
        clearOnComplete: true,
        hideCursor: true,
      });
      this.#bar.start(1000, 0, { iops: '' });
    }
    this.#bar?.update(Math.round(1000 * done), { iops: Math.round(iops).toLocaleString('en-US') });
  }

  stop(): void {
    this.#bar?.stop();
    this.#bar = undefined;
    this.#phase = '';
  }
}
