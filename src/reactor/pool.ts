/**
 * The reactors as main sees them: has them run (`threads.ts`), sends them requests, and starts a new one in the place of one that died. Owned
 * by main.
 */
import { COUNTERS_BYTES } from '../bdev/counters.ts';
import type { Tally } from '../bdev/tally.ts';
import type { Logger } from '../util/log.ts';
import {
  CONTROL_BYTES,
  type Message,
  type PlaneMessage,
  type Reply,
  type Request,
  Total,
  Word,
} from './control.ts';
import { CounterRows } from './counter-rows.ts';
import {
  type ReactorStart,
  type ReactorThread,
  type ReactorThreads,
  workerThreads,
} from './threads.ts';

export interface ReactorPoolOptions {
  /** A processor for each reactor. */
  readonly cores: readonly number[];
  /** Polling without work before the first sleep. Microseconds. */
  readonly spinUs: number;
  /** Longest sleep of an idle reactor: the most that a command waits for it to wake. Microseconds. */
  readonly maxSleepUs: number;
  readonly log: Logger;
}

/** What reactors tell a controller. */
export interface ControllerEvents {
  /** Its plane tells something. */
  told(message: PlaneMessage): void;
  /** A reactor died with all that it knew of the controller. `left`: no operation of it uses memory of the controller's guest any more. */
  reactorLost(reactor: number, left: Promise<void>): void;
}

interface Pending {
  readonly resolve: (status: number) => void;
  readonly reject: (error: Error) => void;
}

/** The live thread of a reactor. */
interface Thread {
  readonly runs: ReactorThread;
  readonly pending: Map<number, Pending>;
  /** Its reactor has died, and operations may be left under way; for the controllers that these belong to: what is called when they are over. */
  dead: boolean;
  readonly holders: Map<number, () => void>;
  /** When (ms). */
  readonly started: number;
  ringFd: number;
  tid: number;
}

interface ReactorSlot {
  readonly index: number;
  readonly cpu: number;
  readonly control: SharedArrayBuffer;
  readonly words: Int32Array;
  readonly counters: SharedArrayBuffer;
  readonly wakeFd: number;
  thread: Thread | undefined;
  /** I/O queue pairs that are there, and admin doorbells that are watched there, for placement. */
  load: number;
  watches: number;
  /** I/O queue pairs made there. */
  queuePairs: number;
}

/** A reactor that dies this soon after its start is not started again. Milliseconds. */
const MIN_LIFE_MS = 1000;
/** How long a report of all reactors is waited for: one that hangs must not hang who watches. Milliseconds. */
const REPORT_TIMEOUT_MS = 500;

export class ReactorPool {
  readonly cores: readonly number[];
  readonly #options: ReactorPoolOptions;
  readonly #threads: ReactorThreads;
  readonly #slots: ReactorSlot[];
  /** What the reactors count. */
  readonly rows: CounterRows;
  readonly #controllers = new Map<number, ControllerEvents>();
  #onLost: (reactor: number, message: string) => void = () => {};
  #nextController = 1;
  #nextMessage = 1;
  #stopping = false;

  /** Resolves when all reactors poll. Rejects if one cannot start (io_uring is not to be had, for example). */
  static async start(
    options: ReactorPoolOptions,
    threads = workerThreads(options.cores.length),
  ): Promise<ReactorPool> {
    const pool = new ReactorPool(options, threads);
    try {
      await Promise.all(pool.#slots.map((slot) => pool.#launch(slot)));
    } catch (error) {
      await pool.stop();
      throw error;
    }
    return pool;
  }

  private constructor(options: ReactorPoolOptions, threads: ReactorThreads) {
    this.#options = options;
    this.#threads = threads;
    this.cores = options.cores;
    this.#slots = options.cores.map((cpu, index) => {
      const control = new SharedArrayBuffer(CONTROL_BYTES);
      return {
        index,
        cpu,
        control,
        words: new Int32Array(control),
        counters: threads.mapAnonymous(Math.ceil(COUNTERS_BYTES / 4096) * 4096),
        wakeFd: threads.eventfdCreate(),
        thread: undefined,
        load: 0,
        watches: 0,
        queuePairs: 0,
      };
    });
    this.rows = new CounterRows(this.#slots.map(({ counters }) => counters));
    process.once('exit', this.#abandon);
  }

  /** The process ends without `stop`: Node waits for its threads, and cannot end one that sleeps in the kernel. */
  readonly #abandon = (): void => {
    for (const slot of this.#slots) {
      Atomics.store(slot.words, Word.EXITING, 1);
      Atomics.add(slot.words, Word.MESSAGES, 1);
      this.#threads.eventfdSignal(slot.wakeFd);
    }
  };

  get count(): number {
    return this.#slots.length;
  }

  /** Starts a thread for a slot. Resolves when it polls. */
  #launch(slot: ReactorSlot): Promise<void> {
    slot.words.fill(0);
    const start: ReactorStart = {
      index: slot.index,
      cpu: slot.cpu,
      workerCpus: this.#threads.workerCpus,
      spinUs: this.#options.spinUs,
      maxSleepUs: this.#options.maxSleepUs,
      control: slot.control,
      counters: slot.counters,
      wakeFd: slot.wakeFd,
    };
    return new Promise((ready, failed) => {
      const runs = this.#threads.start(start, (reply) => {
        if (reply.kind === 'ready') {
          thread.ringFd = reply.ringFd;
          thread.tid = reply.tid;
          ready();
        } else {
          this.#receive(slot, thread, reply);
        }
      });
      const thread: Thread = {
        runs,
        pending: new Map(),
        dead: false,
        holders: new Map(),
        started: Date.now(),
        ringFd: -1,
        tid: 0,
      };
      slot.thread = thread;
      runs.over.then(
        () => this.#ended(slot, thread),
        (error: Error) => {
          failed(error);
          if (!thread.dead) {
            this.#died(slot, thread, error, []);
          }
          this.#ended(slot, thread);
        },
      );
    });
  }

  #receive(slot: ReactorSlot, thread: Thread, reply: Exclude<Reply, { kind: 'ready' }>): void {
    switch (reply.kind) {
      case 'done':
        thread.pending.get(reply.id)?.resolve(reply.status);
        thread.pending.delete(reply.id);
        break;
      case 'dying':
        this.#died(slot, thread, new Error(reply.message), reply.holders);
        break;
      case 'left':
        thread.holders.get(reply.owner)?.();
        break;
      case 'plane':
        this.#controllers.get(reply.message.controller)?.told(reply.message);
        break;
    }
  }

  /** The thread's task is over, with nothing of it under way in the kernel: closes its ring. */
  #ended(slot: ReactorSlot, thread: Thread): void {
    this.#refuse(slot, thread);
    thread.runs.close();
    if (thread.ringFd >= 0) {
      this.#threads.close(thread.ringFd);
    }
    for (const left of thread.holders.values()) {
      left();
    }
  }

  /** It carries out nothing any more: answers whoever waits. */
  #refuse(slot: ReactorSlot, thread: Thread): void {
    if (slot.thread === thread) {
      slot.thread = undefined;
    }
    for (const { reject } of thread.pending.values()) {
      reject(new ReactorLostError(slot.index));
    }
    thread.pending.clear();
  }

  /**
   * Another takes its place at once. `holders`: the controllers whose guests' memory is in use by what it has left under way; the others need
   * not wait for that.
   */
  #died(slot: ReactorSlot, thread: Thread, error: Error, holders: readonly number[]): void {
    thread.dead = true;
    this.#refuse(slot, thread);
    if (this.#stopping) {
      return;
    }
    this.#options.log.error({ err: error, reactor: slot.index }, 'reactor died');
    if (Date.now() - thread.started > MIN_LIFE_MS) {
      // First, so that requests wait in the new thread's port.
      this.#launch(slot).catch(() => {});
    }
    this.#onLost(slot.index, error.message);
    for (const [id, events] of this.#controllers) {
      const left = holders.includes(id)
        ? new Promise<void>((resolve) => thread.holders.set(id, resolve))
        : Promise.resolve();
      events.reactorLost(slot.index, left);
    }
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
    return this.#slots.some(({ thread }) => thread !== undefined);
  }

  /** The reactor with the fewest queue pairs; it has one more from now on, until `unload`. Throws ReactorLostError if none lives. */
  place(): number {
    const slot = this.#least((a, b) => a.load - b.load || a.watches - b.watches);
    slot.load += 1;
    return slot.index;
  }

  /** The reactor that watches the fewest admin doorbells, which are next to no work; it watches one more, until `unwatch`. The same. */
  placeWatch(): number {
    const slot = this.#least((a, b) => a.watches - b.watches || a.load - b.load);
    slot.watches += 1;
    return slot.index;
  }

  #least(compare: (a: ReactorSlot, b: ReactorSlot) => number): ReactorSlot {
    const [slot] = this.#slots.filter(({ thread }) => thread !== undefined).sort(compare);
    if (slot === undefined) {
      throw new ReactorLostError(0);
    }
    return slot;
  }

  /** Counts an I/O queue pair that was made there. */
  countQueuePair(reactor: number): void {
    this.#slots[reactor].queuePairs += 1;
  }

  /** Something is placed there that was placed elsewhere. */
  load(reactor: number): void {
    this.#slots[reactor].load += 1;
  }

  unload(reactor: number): void {
    this.#slots[reactor].load -= 1;
  }

  unwatch(reactor: number): void {
    this.#slots[reactor].watches -= 1;
  }

  /**
   * Asks the plane of a reactor; resolves with a status when it has carried the request out. Rejects with ReactorLostError if the
   * reactor is dead or dies meanwhile.
   */
  request(reactor: number, message: PlaneMessage): Promise<number> {
    return this.#send(this.#slots[reactor], { kind: 'plane', message });
  }

  #send(slot: ReactorSlot, request: Request): Promise<number> {
    const { thread } = slot;
    if (thread === undefined) {
      return Promise.reject(new ReactorLostError(slot.index));
    }
    return new Promise((resolve, reject) => {
      const id = this.#nextMessage++;
      thread.pending.set(id, { resolve, reject });
      const message: Message = { id, request };
      thread.runs.post(message);
      Atomics.add(slot.words, Word.MESSAGES, 1);
      this.#wake(slot);
    });
  }

  #wake(slot: ReactorSlot): void {
    if (Atomics.load(slot.words, Word.SLEEPING) === 1) {
      this.#threads.eventfdSignal(slot.wakeFd);
    }
  }

  /** Ends a reactor's sleep, after main wrote a doorbell for a client that did not map the page. */
  wake(reactor: number): void {
    this.#wake(this.#slots[reactor]);
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
        for (const slot of this.#slots) {
          this.#send(slot, { kind: 'clear-extremes', row }).catch(() => {});
        }
      }
    }
  }

  /** The bdev is gone. */
  forgetBdev(bdevIndex: number): void {
    this.rows.forgetBdev(bdevIndex);
  }

  /** What a reactor tells of itself: times with and without work in ns, sleeps, interrupts. */
  state(reactor: number): {
    alive: boolean;
    busy: number;
    idle: number;
    sleeps: number;
    interrupts: number;
    tid: number;
    queuePairs: number;
  } {
    const { control, thread, queuePairs } = this.#slots[reactor];
    const shared = new Float64Array(control);
    return {
      alive: thread !== undefined,
      busy: shared[Total.BUSY],
      idle: shared[Total.IDLE],
      sleeps: shared[Total.SLEEPS],
      interrupts: shared[Total.INTERRUPTS],
      tid: thread?.tid ?? 0,
      queuePairs,
    };
  }

  /** `listener` is told of each reactor that dies from now on. */
  onLost(listener: (reactor: number, message: string) => void): void {
    this.#onLost = listener;
  }

  /** Has every reactor write down how far its queues are (QueueWord). Resolves when they have, or soon in any case. */
  async report(): Promise<void> {
    const alive = this.#slots.filter(({ thread }) => thread !== undefined);
    const reports = Promise.allSettled(alive.map((slot) => this.#send(slot, { kind: 'report' })));
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, REPORT_TIMEOUT_MS);
    });
    await Promise.race([reports, patience]);
    clearTimeout(timer);
  }

  /** Resolves when the reactor has answered, or is dead. One that hangs does neither. */
  async pulse(reactor: number): Promise<void> {
    await this.#send(this.#slots[reactor], { kind: 'report' }).catch(() => {});
  }

  /** Ends all reactors. Their controllers are to be detached before. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.allSettled(this.#slots.map((slot) => this.#send(slot, { kind: 'stop' })));
    await this.#threads.destroy();
    process.off('exit', this.#abandon);
    for (const slot of this.#slots) {
      this.#threads.close(slot.wakeFd);
    }
  }
}

/** The reactor is dead, and with it the queues it had. */
export class ReactorLostError extends Error {
  override readonly name = 'ReactorLostError';

  constructor(reactor: number) {
    super(`reactor ${reactor} died`);
  }
}
