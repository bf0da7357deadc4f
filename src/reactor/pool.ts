/** The reactors: which there are, what is placed where, what they count, and which controllers hear of them. Owned by main. */
import type { Tally } from '../bdev/tally.ts';
import type { PlaneMessage } from './control.ts';
import { CounterRows } from './counter-rows.ts';
import { ReactorHandle, type ReactorOptions, type ReactorTotals } from './handle.ts';
import { Placement } from './placement.ts';
import { type ReactorThreads, workerThreads } from './threads.ts';

export interface ReactorPoolOptions extends ReactorOptions {
  /** A processor for each reactor. */
  readonly cores: readonly number[];
}

/** What reactors tell a controller. */
export interface ControllerEvents {
  /** Its plane tells something. */
  told(message: PlaneMessage): void;
  /** A reactor died with all that it knew of the controller. `left`: no operation of it uses memory of the controller's guest any more. */
  reactorLost(reactor: number, left: Promise<void>): void;
}

/** How long a report of all reactors is waited for: one that hangs must not hang who watches. Milliseconds. */
const REPORT_TIMEOUT_MS = 500;

export class ReactorPool {
  readonly cores: readonly number[];
  readonly #threads: ReactorThreads;
  readonly #reactors: readonly ReactorHandle[];
  readonly placement: Placement;
  /** What the reactors count. */
  readonly rows: CounterRows;
  readonly #controllers = new Map<number, ControllerEvents>();
  #onLost: (reactor: number, message: string) => void = () => {};
  #nextController = 1;

  /** Resolves when all reactors poll. Rejects if one cannot start (io_uring is not to be had, for example). */
  static async start(
    options: ReactorPoolOptions,
    threads = workerThreads(options.cores.length),
  ): Promise<ReactorPool> {
    const pool = new ReactorPool(options, threads);
    try {
      await Promise.all(pool.#reactors.map((reactor) => reactor.launch()));
    } catch (error) {
      await pool.stop();
      throw error;
    }
    return pool;
  }

  private constructor(options: ReactorPoolOptions, threads: ReactorThreads) {
    this.#threads = threads;
    this.cores = options.cores;
    const events = {
      told: (message: PlaneMessage) => this.#controllers.get(message.controller)?.told(message),
      died: this.#died,
    };
    this.#reactors = options.cores.map(
      (cpu, index) => new ReactorHandle(index, cpu, options, threads, events),
    );
    this.placement = new Placement(this.#reactors);
    this.rows = new CounterRows(this.#reactors.map(({ counters }) => counters));
    process.once('exit', this.#abandon);
  }

  readonly #abandon = (): void => {
    for (const reactor of this.#reactors) {
      reactor.abandon();
    }
  };

  readonly #died = (
    index: number,
    message: string,
    left: (controller: number) => Promise<void>,
  ): void => {
    // First: it is about the dead one, and controllers may have its successor open bdevs.
    this.#onLost(index, message);
    for (const [id, events] of this.#controllers) {
      events.reactorLost(index, left(id));
    }
  };

  get count(): number {
    return this.#reactors.length;
  }

  /** A new controller id; `events` is told what reactors see of it. */
  register(events: ControllerEvents): number {
    const id = this.#nextController++;
    this.#controllers.set(id, events);
    return id;
  }

  /** Controllers that there were, with those that there are. */
  get controllersSeen(): number {
    return this.#nextController - 1;
  }

  unregister(controller: number): void {
    this.#controllers.delete(controller);
  }

  /** Some reactor lives. */
  get alive(): boolean {
    return this.#reactors.some(({ alive }) => alive);
  }

  /**
   * Asks the plane of a reactor; resolves with a status when it has carried the request out. Rejects with ReactorLostError if the
   * reactor is dead or dies meanwhile.
   */
  request(reactor: number, message: PlaneMessage): Promise<number> {
    return this.#reactors[reactor].send({ kind: 'plane', message });
  }

  /** Ends a reactor's sleep, after main wrote a doorbell for a client that did not map the page. */
  wake(reactor: number): void {
    this.#reactors[reactor].wake();
  }

  /** What a reactor did on a bdev since its statistics were last reset. */
  iostat(bdevIndex: number, reactor: number): Tally {
    return this.rows.bdevSinceReset(bdevIndex, reactor);
  }

  /** What a reactor ever did on a bdev. */
  bdevTally(bdevIndex: number, reactor: number): Tally {
    return this.rows.bdev(bdevIndex, reactor);
  }

  /** Begins a bdev's statistics anew: all of them, its errors, or the shortest and longest latencies. */
  resetIostat(bdevIndex: number, what: 'all' | 'error' | 'maxmin'): void {
    this.rows.reset(bdevIndex, what);
    if (what !== 'error') {
      for (const { row } of this.rows.rowsOf(bdevIndex)) {
        for (const reactor of this.#reactors) {
          reactor.send({ kind: 'clear-extremes', row }).catch(() => {});
        }
      }
    }
  }

  /** The bdev is gone. */
  forgetBdev(bdevIndex: number): void {
    this.rows.forgetBdev(bdevIndex);
  }

  state(reactor: number): ReactorTotals & { alive: boolean; queuePairs: number } {
    const handle = this.#reactors[reactor];
    const queuePairs = this.placement.made(reactor);
    return { alive: handle.alive, ...handle.totals(), queuePairs };
  }

  /** `listener` is told of each reactor that dies from now on, before its successor is asked for anything. */
  onLost(listener: (reactor: number, message: string) => void): void {
    this.#onLost = listener;
  }

  /** Has every reactor write down how far its queues are (QueueWord). Resolves when they have, or soon in any case. */
  async report(): Promise<void> {
    const alive = this.#reactors.filter((reactor) => reactor.alive);
    const reports = Promise.allSettled(alive.map((reactor) => reactor.send({ kind: 'report' })));
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, REPORT_TIMEOUT_MS);
    });
    await Promise.race([reports, patience]);
    clearTimeout(timer);
  }

  /** Resolves when the reactor has answered, or is dead. One that hangs does neither. */
  async pulse(reactor: number): Promise<void> {
    await this.#reactors[reactor].send({ kind: 'report' }).catch(() => {});
  }

  /** Ends all reactors. Their controllers are to be detached before. */
  async stop(): Promise<void> {
    await Promise.allSettled(this.#reactors.map((reactor) => reactor.stop()));
    await this.#threads.destroy();
    process.off('exit', this.#abandon);
    for (const reactor of this.#reactors) {
      reactor.close();
    }
  }
}
