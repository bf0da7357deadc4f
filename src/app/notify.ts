/**
 * Tells the service manager how the target does: sd_notify(3), without its library. Without $NOTIFY_SOCKET nothing is sent.
 * Owned by main.
 */
import { native } from '../native/index.ts';
import { describeError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export class Notifier {
  readonly #socket: string | undefined;
  readonly #log: Logger;
  #complained = false;

  /** Takes $NOTIFY_SOCKET: a path, or '@' and the name of an abstract socket. */
  constructor(environment: Environment, log: Logger) {
    this.#log = log;
    const address = environment.NOTIFY_SOCKET;
    if (address !== undefined && address !== '') {
      if (/^[/@]./.test(address)) {
        this.#socket = address;
      } else {
        log.warn({ address }, '$NOTIFY_SOCKET is neither a path nor an abstract socket: not used');
      }
    }
  }

  /** The target serves. */
  ready(status: string): void {
    this.#send({ READY: 1, STATUS: status });
  }

  status(status: string): void {
    this.#send({ STATUS: status });
  }

  /** The configuration is being read anew; `ready` ends that. */
  reloading(): void {
    this.#send({ RELOADING: 1, MONOTONIC_USEC: process.hrtime.bigint() / 1000n });
  }

  stopping(status: string): void {
    this.#send({ STOPPING: 1, STATUS: status });
  }

  /** All is well: the manager's watchdog begins anew. */
  alive(): void {
    this.#send({ WATCHDOG: 1 });
  }

  /** A message that cannot be sent is logged, once, and is lost. */
  #send(fields: Readonly<Record<string, string | number | bigint>>): void {
    if (this.#socket === undefined) {
      return;
    }
    // A line each: what is in a status must not begin another.
    const lines = Object.entries(fields).map(([name, value]) =>
      `${name}=${value}`.replaceAll('\n', ' '),
    );
    try {
      native.datagramSend(this.#socket, Buffer.from(lines.join('\n')));
    } catch (error) {
      this.#log[this.#complained ? 'debug' : 'warn'](
        { address: this.#socket, reason: describeError(error) },
        'the service manager was not told',
      );
      this.#complained = true;
    }
  }
}

/** What $WATCHDOG_USEC asks for, if it is meant for this process ($WATCHDOG_PID). Milliseconds. */
export function watchdogTimeoutMs(environment: Environment, pid: number): number | undefined {
  const { WATCHDOG_USEC, WATCHDOG_PID } = environment;
  if (WATCHDOG_PID !== undefined && WATCHDOG_PID !== String(pid)) {
    return undefined;
  }
  return /^[1-9]\d{0,15}$/.test(WATCHDOG_USEC ?? '') ? Number(WATCHDOG_USEC) / 1000 : undefined;
}
