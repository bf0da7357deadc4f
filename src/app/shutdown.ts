/**
 * The graceful end: what guests have under way finishes and becomes durable, however slow their disks; but not for ever, and not
 * without a word. Owned by main.
 */
import type { Target } from '../target/target.ts';
import { describeError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { Service } from './serve.ts';

/** Between two lines about what is waited for. Milliseconds. */
const REPORT_MS = 5000;
export type Outcome = 'stopped' | 'failed' | 'stuck';

/** Ends a service. Resolves with 'failed' if a part of it could not be stopped cleanly, 'stuck' if it has not ended after `timeoutMs`. */
export async function shutDown(service: Service, log: Logger, timeoutMs: number): Promise<Outcome> {
  const tell = async (level: 'warn' | 'error', message: string): Promise<void> => {
    const { target, stopping } = service;
    // Reactors that hang say nothing: then it is what they said last.
    await target.reactors.report();
    log[level]({ waitingFor: stopping.join(', '), ...left(target) }, message);
  };
  const report = setInterval(() => void tell('warn', 'still stopping'), REPORT_MS);
  let timer: NodeJS.Timeout | undefined;
  const stuck = new Promise<Outcome>((resolve) => {
    timer = setTimeout(async () => {
      await tell('error', 'not stopped in time');
      resolve('stuck');
    }, timeoutMs);
  });
  const stopped = service.stop().then(
    (): Outcome => 'stopped',
    (error: unknown): Outcome => {
      log.error({ err: error, reason: describeError(error) }, 'not stopped cleanly');
      return 'failed';
    },
  );
  try {
    return await Promise.race([stopped, stuck]);
  } finally {
    clearInterval(report);
    clearTimeout(timer);
  }
}

interface Left {
  /** Sockets of the clients that are still there, and their commands under way when the reactors last told. */
  readonly clients: readonly string[];
  readonly commands: number;
  /** Bdevs that may not be durable yet. */
  readonly bdevs: readonly string[];
}

function left({ subsystems, bdevs }: Target): Left {
  const controllers = subsystems
    .flatMap(({ listeners }) => [...listeners.values()])
    .flatMap(({ endpoint }) => {
      const { controller, socketPath } = endpoint;
      return controller === undefined ? [] : [{ socketPath, queues: controller.queues() }];
    });
  return {
    clients: controllers.map(({ socketPath }) => socketPath),
    commands: controllers
      .flatMap(({ queues }) => queues)
      .reduce((sum, queue) => sum + queue.inFlight, 0),
    bdevs: bdevs.list().map(({ name }) => name),
  };
}
