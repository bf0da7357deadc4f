/**
 * The graceful end: what guests have under way finishes and becomes durable, however slow their disks; but not for ever, and not
 * without a word. Owned by main.
 */
import { describeError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { Service } from './serve.ts';

/** Between two lines about what is waited for. Milliseconds. */
const REPORT_MS = 5000;
/** After this it will not end by itself: less than a service manager waits (TimeoutStopSec=). Milliseconds. */
export const STOP_TIMEOUT_MS = 50_000;

export type Outcome = 'stopped' | 'failed' | 'stuck';

/** Ends a service. Resolves with 'failed' if a part of it could not be stopped cleanly, 'stuck' if it has not ended after `timeoutMs`. */
export async function shutDown(
  service: Service,
  log: Logger,
  timeoutMs = STOP_TIMEOUT_MS,
): Promise<Outcome> {
  const report = setInterval(() => {
    log.warn({ waitingFor: service.stopping, ...inFlight(service) }, 'still stopping');
  }, REPORT_MS);
  let timer: NodeJS.Timeout | undefined;
  const stuck = new Promise<Outcome>((resolve) => {
    timer = setTimeout(() => {
      log.error({ waitingFor: service.stopping, ...inFlight(service) }, 'not stopped in time');
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

/** The clients that are still there, and their commands under way when the reactors last told. */
function inFlight({ target }: Service): { clients: string[]; commands: number } {
  void target.reactors.report();
  const controllers = target.subsystems
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
  };
}
