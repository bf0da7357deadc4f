/**
 * The schedulers by SPDK's names. `static` leaves each queue on the reactor that it was made on. `dynamic` looks at the reactors once a period,
 * and moves queues from one that cannot keep up (see `balancer.ts`). Owned by main.
 */
import { describeError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { Balancer, type QueueGroup } from './balancer.ts';
import { type SchedulerOptions, STATIC } from './model/scheduler.ts';
import type { Reactors } from './reactors.ts';
import type { ControllerInfo } from './types.ts';

/** A controller whose queues can move. */
export interface Schedulable {
  /** The same for as long as it lives, and no other's. */
  readonly key: string;
  readonly controller: ControllerInfo;
  /** Rejects if it did not. */
  move(cqid: number, reactor: number): Promise<void>;
}

export class Scheduler {
  readonly #reactors: Reactors;
  readonly #controllers: () => readonly Schedulable[];
  readonly #log: Logger;
  #options = STATIC;
  #timer: NodeJS.Timeout | undefined;
  #balancer = new Balancer(STATIC);

  constructor(reactors: Reactors, controllers: () => readonly Schedulable[], log: Logger) {
    this.#reactors = reactors;
    this.#controllers = controllers;
    this.#log = log;
  }

  get options(): SchedulerOptions {
    return this.#options;
  }

  set options(options: SchedulerOptions) {
    this.#options = options;
    this.stop();
    if (options.name === 'dynamic') {
      this.#balancer = new Balancer(options);
      this.#wait();
    }
  }

  /** Looks no more. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #wait(): void {
    const timer = setTimeout(() => void this.#look(timer), this.#options.period / 1000);
    timer.unref();
    this.#timer = timer;
  }

  /** Never rejects: what fails is tried again, in a while. */
  async #look(timer: NodeJS.Timeout): Promise<void> {
    const reactors = this.#reactors;
    await reactors.report();
    if (this.#timer !== timer) {
      return;
    }
    const movable = this.#controllers().flatMap(groupsOf);
    const times = Array.from({ length: reactors.count }, (_, index) => reactors.state(index));
    for (const { key, from, to } of this.#balancer.look(times, movable)) {
      const { cqid, move } = movable.find((group) => group.key === key)!;
      try {
        await move(cqid, to);
        this.#log.info({ queue: key, from, to }, 'moved a queue away from a busy reactor');
      } catch (error) {
        this.#log.debug({ queue: key, to, reason: describeError(error) }, 'a queue did not move');
      }
    }
    if (this.#timer === timer) {
      this.#wait();
    }
  }
}

interface MovableGroup extends QueueGroup {
  readonly cqid: number;
  readonly move: Schedulable['move'];
}

function groupsOf({ key, controller, move }: Schedulable): MovableGroup[] {
  const groups = new Map<number, MovableGroup>();
  for (const { cqid, reactor, head, tail, cqTail, phase } of controller.queues()) {
    const before = groups.get(cqid)?.progress ?? `${cqTail} ${phase}`;
    const progress = `${before} ${head} ${tail}`;
    groups.set(cqid, { key: `${key}/${cqid}`, cqid, reactor, progress, move });
  }
  return [...groups.values()];
}
