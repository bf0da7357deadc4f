/** The process of a target: start, signals, exit codes (docs/operations.md). */
import { closeSync, openSync } from 'node:fs';
import { DESCRIPTOR_RESERVE } from '../limits.ts';
import { native } from '../native/index.ts';
import { Asked } from '../target/report.ts';
import { describeError } from '../util/errors.ts';
import { createLogger, type Logger, type LoggerOptions } from '../util/log.ts';
import { banner } from './banner.ts';
import { Manager } from './manager.ts';
import { Reporter } from './reporter.ts';
import { type ServeOptions, Service } from './serve.ts';
import { shutDown } from './shutdown.ts';

/** Signals that end the target cleanly. A second one ends it at once. */
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

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
  process.on('SIGQUIT', () => void reporter.save(Asked.SIGNAL));
  const manager = new Manager(log);
  const end = new EndRequest(log);
  const reloader = new Reloading(log, () => end.ask('the terminal is gone'));
  prepareForHostilePeers(log);
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
  reloader.serve(service, manager);
  log.info({ reason: await end.asked }, 'stopping');
  manager.stopping();
  switch (await shutDown(service, log, 1000 * options.stopTimeout)) {
    case 'stopped':
      log.info('stopped');
      return process.exit(0);
    case 'failed':
      return process.exit(1);
    case 'stuck':
      await reporter.save('not stopped in time');
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

/** What SIGHUP asks for: the configuration is read again. From a terminal that has gone it asks for the end. */
class Reloading {
  readonly #log: Logger;
  #reload: (() => Promise<void>) | undefined;
  #pending = false;

  constructor(log: Logger, onHangup: () => void) {
    this.#log = log;
    process.on('SIGHUP', () => {
      if (terminalIsGone()) {
        onHangup();
      } else if (this.#reload === undefined) {
        this.#pending = true;
      } else {
        void this.#reload();
      }
    });
  }

  /** From now on there is something to reload; what was asked for earlier is done now. */
  serve({ configuration }: Service, manager: Manager): void {
    this.#reload = () => manager.reloading(() => this.#run(configuration));
    if (this.#pending) {
      void this.#reload();
    }
  }

  async #run(configuration: Service['configuration']): Promise<void> {
    if (configuration === undefined) {
      this.#log.warn('SIGHUP: there is no configuration file to read again');
      return;
    }
    try {
      const { changes, kept, needsRestart } = await configuration.reload({ overwrite: false });
      this.#log.info({ changes: changes.length, kept, needsRestart }, 'configuration reloaded');
    } catch (error) {
      this.#log.error({ reason: describeError(error) }, 'configuration not reloaded');
    }
  }
}

/** The terminal that the target was started from has been closed. */
function terminalIsGone(): boolean {
  if (!process.stdout.isTTY && !process.stderr.isTTY) {
    return false;
  }
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return false;
  } catch {
    return true;
  }
}

/** Ends the process by a signal, as if nobody had handled it. */
function die(signal: NodeJS.Signals): never {
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
  throw new Error(`${signal} does not end us`);
}

/** What has to be so before the first client comes. */
function prepareForHostilePeers(log: Logger): void {
  native.reserveDescriptors(DESCRIPTOR_RESERVE);
  if (!native.eventfdSignalCannotBlock()) {
    log.warn(
      'the kernel gives no asynchronous I/O (io_setup): a VMM can hang its reactor by an eventfd that is full',
    );
  }
}
