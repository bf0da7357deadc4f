/** The process of a target: start, signals, exit codes. */
import { describeError } from '../util/errors.ts';
import { createLogger, type Logger, type LoggerOptions } from '../util/log.ts';
import { banner } from './banner.ts';
import { Manager } from './manager.ts';
import { type ServeOptions, Service } from './serve.ts';

/** Signals that end the target cleanly. A second one ends it at once. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;
type StopSignal = (typeof SIGNALS)[number];

/** Runs a target until a signal ends it, and exits: 0 after a clean stop, 1 if it could not start or stop. */
export async function runTarget(options: ServeOptions, logOptions: LoggerOptions): Promise<never> {
  // A terminal or a reader of the log that goes away must not take the target with it.
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', () => {});
  }
  const { log, control } = createLogger(logOptions);
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'a bug of ours');
    die('SIGKILL');
  });
  const manager = new Manager(log);
  const signal = firstSignal(log);
  const starting = Service.start(options, log, control);
  let service: Service;
  try {
    service = await starting;
  } catch (error) {
    process.stderr.write(`doorbell: ${describeError(error)}\n`);
    process.exit(1);
  }
  process.stdout.write(banner(service.listening));
  manager.started(service);
  log.info({ signal: await signal }, 'stopping');
  manager.stopping();
  try {
    await service.stop();
  } catch (error) {
    log.error({ err: error }, 'not stopped cleanly');
    process.exit(1);
  }
  log.info('stopped');
  process.exit(0);
}

/** Resolves with the first signal, and makes the second one end the process at once. */
function firstSignal(log: Logger): Promise<StopSignal> {
  return new Promise((resolve) => {
    let seen = false;
    for (const name of SIGNALS) {
      process.on(name, () => {
        if (seen) {
          log.warn({ signal: name }, 'second signal: exiting at once');
          die(name);
        }
        seen = true;
        resolve(name);
      });
    }
  });
}

/** Ends the process by a signal, as if nobody had handled it. `process.exit` would wait for reactors that sleep. */
function die(signal: NodeJS.Signals): void {
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}
