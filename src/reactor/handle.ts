/**
 * One reactor as main sees it: its thread, from start to end and in the place of one that died, the requests it is sent, and the memory that
 * both look at. Owned by main.
 */
import { COUNTERS_BYTES } from '../bdev/counters.ts';
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
import type { ReactorStart, ReactorThread, ReactorThreads } from './threads.ts';

export interface ReactorOptions {
  /** Polling without work before the first sleep. Microseconds. */
  readonly spinUs: number;
  /** Longest sleep of an idle reactor: the most that a command waits for it to wake. Microseconds. */
  readonly maxSleepUs: number;
  readonly log: Logger;
}

export interface ReactorEvents {
  /** Its plane tells something. */
  told(message: PlaneMessage): void;
  /**
   * It has died, and another may run in its place already. `left(controller)` resolves when no operation of the dead one uses memory of that
   * controller's guest any more.
   */
  died(reactor: number, message: string, left: (controller: number) => Promise<void>): void;
}

/** What a reactor tells of itself. Counted since it started. */
export interface ReactorTotals {
  /** Times with and without work. Nanoseconds. */
  readonly busy: number;
  readonly idle: number;
  /** Times it went to sleep in the kernel. */
  readonly sleeps: number;
  /** Eventfds it signalled. */
  readonly interrupts: number;
  /** Of its thread, in the kernel; 0 if there is none. */
  readonly tid: number;
}

interface Pending {
  readonly resolve: (status: number) => void;
  readonly reject: (error: Error) => void;
}

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

/** A reactor that dies this soon after its start is not started again. Milliseconds. */
const MIN_LIFE_MS = 1000;

export class ReactorHandle {
  readonly index: number;
  readonly cpu: number;
  readonly counters: SharedArrayBuffer;
  readonly #options: ReactorOptions;
  readonly #threads: ReactorThreads;
  readonly #events: ReactorEvents;
  readonly #control = new SharedArrayBuffer(CONTROL_BYTES);
  readonly #words = new Int32Array(this.#control);
  readonly #wakeFd: number;
  /** The live one. */
  #thread: Thread | undefined;
  #nextMessage = 1;
  #stopping = false;

  constructor(
    index: number,
    cpu: number,
    options: ReactorOptions,
    threads: ReactorThreads,
    events: ReactorEvents,
  ) {
    this.index = index;
    this.cpu = cpu;
    this.#options = options;
    this.#threads = threads;
    this.#events = events;
    this.counters = threads.mapAnonymous(Math.ceil(COUNTERS_BYTES / 4096) * 4096);
    this.#wakeFd = threads.eventfdCreate();
  }

  get alive(): boolean {
    return this.#thread !== undefined;
  }

  /** Starts a thread for it. Resolves when it polls. */
  launch(): Promise<void> {
    this.#words.fill(0);
    const start: ReactorStart = {
      index: this.index,
      cpu: this.cpu,
      workerCpus: this.#threads.workerCpus,
      spinUs: this.#options.spinUs,
      maxSleepUs: this.#options.maxSleepUs,
      control: this.#control,
      counters: this.counters,
      wakeFd: this.#wakeFd,
    };
    return new Promise((ready, failed) => {
      const runs = this.#threads.start(start, (reply) => {
        if (reply.kind === 'ready') {
          thread.ringFd = reply.ringFd;
          thread.tid = reply.tid;
          ready();
        } else {
          this.#receive(thread, reply);
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
      this.#thread = thread;
      runs.over.then(
        () => this.#ended(thread),
        (error: Error) => {
          failed(error);
          if (!thread.dead) {
            this.#died(thread, error, []);
          }
          this.#ended(thread);
        },
      );
    });
  }

  #receive(thread: Thread, reply: Exclude<Reply, { kind: 'ready' }>): void {
    switch (reply.kind) {
      case 'done':
        thread.pending.get(reply.id)?.resolve(reply.status);
        thread.pending.delete(reply.id);
        break;
      case 'dying':
        this.#died(thread, new Error(reply.message), reply.holders);
        break;
      case 'left':
        thread.holders.get(reply.owner)?.();
        break;
      case 'plane':
        this.#events.told(reply.message);
        break;
    }
  }

  /** The thread's task is over, with nothing of it under way in the kernel: closes its ring. */
  #ended(thread: Thread): void {
    this.#refuse(thread);
    thread.runs.close();
    if (thread.ringFd >= 0) {
      this.#threads.close(thread.ringFd);
    }
    for (const left of thread.holders.values()) {
      left();
    }
  }

  /** It carries out nothing any more: answers whoever waits. */
  #refuse(thread: Thread): void {
    if (this.#thread === thread) {
      this.#thread = undefined;
    }
    for (const { reject } of thread.pending.values()) {
      reject(new ReactorLostError(this.index));
    }
    thread.pending.clear();
  }

  /**
   * Another takes its place at once. `holders`: the controllers whose guests' memory is in use by what it has left under way; the others need
   * not wait for that.
   */
  #died(thread: Thread, error: Error, holders: readonly number[]): void {
    thread.dead = true;
    this.#refuse(thread);
    if (this.#stopping) {
      return;
    }
    this.#options.log.error({ err: error, reactor: this.index }, 'reactor died');
    if (Date.now() - thread.started > MIN_LIFE_MS) {
      // First, so that requests wait in the new thread's port.
      this.launch().catch(() => {});
    }
    this.#events.died(this.index, error.message, (controller) =>
      holders.includes(controller)
        ? new Promise<void>((resolve) => thread.holders.set(controller, resolve))
        : Promise.resolve(),
    );
  }

  /** Resolves with the status of the answer. Rejects with ReactorLostError if the reactor is dead or dies meanwhile. */
  send(request: Request): Promise<number> {
    const thread = this.#thread;
    if (thread === undefined) {
      return Promise.reject(new ReactorLostError(this.index));
    }
    return new Promise((resolve, reject) => {
      const id = this.#nextMessage++;
      thread.pending.set(id, { resolve, reject });
      const message: Message = { id, request };
      thread.runs.post(message);
      Atomics.add(this.#words, Word.MESSAGES, 1);
      this.wake();
    });
  }

  /** Ends its sleep. */
  wake(): void {
    if (Atomics.load(this.#words, Word.SLEEPING) === 1) {
      this.#threads.eventfdSignal(this.#wakeFd);
    }
  }

  /** The process ends without `stop`: Node waits for its threads, and cannot end one that sleeps in the kernel. */
  abandon(): void {
    Atomics.store(this.#words, Word.EXITING, 1);
    Atomics.add(this.#words, Word.MESSAGES, 1);
    this.#threads.eventfdSignal(this.#wakeFd);
  }

  totals(): ReactorTotals {
    const shared = new Float64Array(this.#control);
    return {
      busy: shared[Total.BUSY],
      idle: shared[Total.IDLE],
      sleeps: shared[Total.SLEEPS],
      interrupts: shared[Total.INTERRUPTS],
      tid: this.#thread?.tid ?? 0,
    };
  }

  /** Ends it, for good. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.send({ kind: 'stop' });
  }

  /** After its end. */
  close(): void {
    this.#threads.close(this.#wakeFd);
  }
}

/** The reactor is dead, and with it the queues it had. */
export class ReactorLostError extends Error {
  override readonly name = 'ReactorLostError';

  constructor(reactor: number) {
    super(`reactor ${reactor} died`);
  }
}
