/** Keeps the service manager up to date about a running target: its state in words, and that it is alive. Owned by main. */
import type { TargetEvent } from '../target/events.ts';
import type { Target } from '../target/target.ts';
import { componentLogger, type Logger } from '../util/log.ts';
import { Notifier, watchdogTimeoutMs } from './notify.ts';
import type { Service } from './serve.ts';
import { Watchdog } from './watchdog.ts';

/** Changes of the status are told at most this often. Milliseconds. */
const STATUS_MS = 1000;

const CHANGES_STATUS = new Set<TargetEvent['type']>([
  'client-connected',
  'client-gone',
  'listener-added',
  'listener-removed',
]);

export class Manager {
  readonly notifier: Notifier;
  readonly #log: Logger;
  #watchdog: Watchdog | undefined;
  #unsubscribe: (() => void) | undefined;
  #statusTimer: NodeJS.Timeout | undefined;
  #target: Target | undefined;

  constructor(log: Logger) {
    this.#log = componentLogger(log, 'app');
    this.notifier = new Notifier(process.env, this.#log);
  }

  /** The target serves from now on. */
  started({ target, reactors }: Service): void {
    this.#target = target;
    this.notifier.ready(statusOf(target));
    this.#unsubscribe = target.events.subscribe(({ type }) => {
      if (CHANGES_STATUS.has(type)) {
        this.#statusTimer ??= setTimeout(() => {
          this.#statusTimer = undefined;
          this.notifier.status(statusOf(target));
        }, STATUS_MS);
      }
    });
    const timeoutMs = watchdogTimeoutMs(process.env, process.pid);
    if (timeoutMs !== undefined) {
      this.#watchdog = new Watchdog({
        timeoutMs,
        reactors: reactors.count,
        pulse: (reactor) => reactors.pulse(reactor),
        // A target without a reactor serves nobody: the manager may start it anew.
        alive: () => reactors.alive && this.notifier.alive(),
        log: this.#log,
      });
    }
  }

  /** Tells of a reload while `work` runs. Never rejects if `work` does not. */
  async reloading(work: () => Promise<void>): Promise<void> {
    this.notifier.reloading();
    await work();
    if (this.#target !== undefined) {
      this.notifier.ready(statusOf(this.#target));
    }
  }

  /** It ends. The manager's patience is another from now on (TimeoutStopSec). */
  stopping(): void {
    this.#target = undefined;
    this.#watchdog?.stop();
    this.#unsubscribe?.();
    clearTimeout(this.#statusTimer);
    this.notifier.stopping('finishing what is in flight');
  }
}

function statusOf({ subsystems }: Target): string {
  const listeners = subsystems.flatMap((subsystem) => [...subsystem.listeners.values()]);
  const clients = listeners.filter(({ endpoint }) => endpoint.controller !== undefined).length;
  const count = (number: number, noun: string) => `${number} ${noun}${number === 1 ? '' : 's'}`;
  return `serving ${count(clients, 'VM')} at ${count(listeners.length, 'socket')}`;
}
