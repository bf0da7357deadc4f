/** The process of a target: start, signals, exit codes (docs/operations.md). */
import { describeError } from '../util/errors.ts';
import { createLogger, type Logger, type LoggerOptions } from '../util/log.ts';
import { banner } from './banner.ts';
import { Manager } from './manager.ts';
import { Reporter } from './reporter.ts';
import { type ServeOptions, Service } from './serve.ts';
import { shutDown } from './shutdown.ts';

/** Signals that end the target cleanly. A second one ends it at once. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Runs a target until a signal ends it, and exits: 0 after a clean stop, 1 if it could not start or stop. */
export async function runTarget(options: ServeOptions, logOptions: LoggerOptions): Promise<never> {
  // A terminal or a reader of the log that goes away must not take the target with it.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', () => {});
  }
  const { log, control } = createLogger(logOptions);
  const reporter = new Reporter(log);
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'a bug of ours');
    reporter.write('uncaught exception', error);
    process.abort();
  });
  process.on('SIGQUIT', () => reporter.write('SIGQUIT'));
  const manager = new Manager(log);
  const end = new EndRequest(log);
  let service: Service;
  try {
    service = await Service.start(options, log, control, () => end.ask('its only client is gone'));
  } catch (error) {
    process.stderr.write(`doorbell: ${describeError(error)}\n`);
    process.exit(1);
  }
  const waits = service.listening.disks === undefined;
  process.stdout.write(banner(service.listening));
  if (waits) {
    void service.initialized.then(() => process.stdout.write(banner(service.listening)));
  }
  reporter.watch(service.target);
  manager.started(service);
  log.info({ reason: await end.asked }, 'stopping');
  manager.stopping();
  switch (await shutDown(service, log, 1000 * options.stopTimeout)) {
    case 'stopped':
      log.info('stopped');
      return process.exit(0);
    case 'failed':
      return process.exit(1);
    case 'stuck':
      reporter.write('not stopped in time');
      // A thread that waits in the kernel cannot be ended otherwise.
      return die('SIGKILL');
  }
}

/** Somebody wants the target to end: the first signal asks for it, the second one does not wait. */
class EndRequest {
  /** Resolves with the reason. */
  readonly asked: Promise<string>;
  #resolve: (reason: string) => void = () => {};
  #signalled = false;

  constructor(log: Logger) {
    this.asked = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    for (const name of SIGNALS) {
      process.on(name, () => {
        if (this.#signalled) {
          log.warn({ signal: name }, 'second signal: exiting at once');
          die(name);
        }
        this.#signalled = true;
        this.ask(name);
      });
    }
  }

  ask(reason: string): void {
    this.#resolve(reason);
  }
}

/** Ends the process by a signal, as if nobody had handled it. */
function die(signal: NodeJS.Signals): never {
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
  throw new Error(`${signal} does not end us`);
}
