/**
 * Reactors without threads: each is a loop whose turns the simulation takes one by one, with a mailbox either way. A turn is not interrupted,
 * and so the order of accesses to shared memory within one is not looked at.
 */
import { Ring } from '../../src/io/ring.ts';
import type { System } from '../../src/native/system.ts';
import { NvmePlane } from '../../src/nvme/plane/plane.ts';
import type { Message, Reply } from '../../src/reactor/control.ts';
import { Reactor } from '../../src/reactor/loop.ts';
import type { ReactorStart, ReactorThread, ReactorThreads } from '../../src/reactor/threads.ts';
import type { SimKernel } from './kernel.ts';
import type { SimRing } from './ring.ts';
import { Violation } from './violation.ts';

/** SQEs prepared at a time. */
const RING_ENTRIES = 1024;

export class SimThread implements ReactorThread {
  readonly index: number;
  readonly ring: SimRing;
  readonly #reactor: Reactor;
  readonly #inbox: Message[] = [];
  /** For main, and not delivered yet. */
  readonly outbox: Reply[] = [];
  readonly #receive: (reply: Reply) => void;
  readonly over: Promise<void>;
  #stopped!: () => void;
  #died!: (error: Error) => void;
  /** Why it ends. */
  #error: Error | undefined;
  state: 'runs' | 'ends' | 'over' = 'runs';

  constructor(start: ReactorStart, kernel: SimKernel, receive: (reply: Reply) => void) {
    this.index = start.index;
    this.#receive = receive;
    this.over = new Promise((resolve, reject) => {
      this.#stopped = resolve;
      this.#died = reject;
    });
    const system = simSystem(kernel);
    const ring = new Ring(RING_ENTRIES, start.workerCpus, 1, system);
    this.ring = kernel.ring(ring.fd);
    const platform = {
      system,
      ring,
      tid: 1 + start.index,
      receive: () => this.#inbox.shift(),
      post: (reply: Reply) => {
        this.outbox.push(reply);
      },
      readWake: () => kernel.readEvent(start.wakeFd),
      reclaim: () => {},
    };
    const task = { ...start, port: undefined as never };
    this.#reactor = new Reactor(task, platform, (parts) => new NvmePlane(parts));
    this.#reactor.start();
  }

  post(message: Message): void {
    this.#inbox.push(message);
  }

  close(): void {
    this.outbox.length = 0;
  }

  /** It has something to do, or looks whether there is something. */
  get awake(): boolean {
    return this.state !== 'over' && !this.ring.sleeps;
  }

  /** One turn; or, when it has died, a look whether what it had under way is over. */
  turn(): void {
    if (this.state === 'runs') {
      try {
        if (!this.#reactor.turn()) {
          this.state = 'ends';
        }
      } catch (error) {
        if (error instanceof Violation || !this.ring.broken) {
          throw error;
        }
        this.#error = error as Error;
        this.ring.broken = false;
        this.#reactor.die(this.#error);
        this.state = 'ends';
      }
    }
    if (this.state === 'ends' && this.#reactor.end()) {
      this.state = 'over';
    }
  }

  /** The next call of the kernel fails. */
  kill(): void {
    this.ring.broken = true;
  }

  /** Main reads a message. False if there is none; the end of the thread is the last. */
  deliver(): boolean {
    const reply = this.outbox.shift();
    if (reply !== undefined) {
      this.#receive(reply);
      return true;
    }
    if (this.state !== 'over' || this.#told) {
      return false;
    }
    this.#told = true;
    if (this.#error === undefined) {
      this.#stopped();
    } else {
      this.#died(this.#error);
    }
    return true;
  }

  #told = false;

  /** There is something for main. */
  get tells(): boolean {
    return this.outbox.length > 0 || (this.state === 'over' && !this.#told);
  }

  /** All is delivered. */
  get gone(): boolean {
    return this.#told;
  }

  /** Commands that hold a slot. */
  get inflight(): number {
    return this.#reactor.inflight;
  }
}

export class SimThreads implements ReactorThreads {
  readonly workerCpus = [0];
  readonly #kernel: SimKernel;
  threads: SimThread[] = [];

  constructor(kernel: SimKernel) {
    this.#kernel = kernel;
  }

  start(start: ReactorStart, receive: (reply: Reply) => void): SimThread {
    const thread = new SimThread(start, this.#kernel, receive);
    this.threads.push(thread);
    return thread;
  }

  async destroy(): Promise<void> {}

  mapAnonymous(length: number): SharedArrayBuffer {
    return this.#kernel.memory.map(length);
  }

  eventfdCreate(): number {
    return this.#kernel.openEvent();
  }

  eventfdSignal(fd: number): void {
    this.#kernel.signal(fd);
  }

  close(fd: number): void {
    this.#kernel.close(fd);
  }
}

export function simSystem(kernel: SimKernel): System {
  const { memory, timeline } = kernel;
  const bindClock =
    (times: Float64Array) =>
    (index = 0) => {
      times[index] = timeline.now;
    };
  return {
    mapAnonymous: (length) => memory.map(Math.ceil(length / 4096) * 4096),
    mapAlias: () => {
      throw new Error('memory is not mapped twice here');
    },
    addressOf: (view) => memory.addressOf(view),
    revoke: () => {},
    bindCopyBatch: (list) => (count) => memory.copyBatch(list, count),
    bindCompareBatch: (list) => (count) => memory.compareBatch(list, count),
    bindZeroMemory: (range) => () => memory.zero(range),
    bindClock,
    bindThreadClock: bindClock,
    eventfdSignal: (fd) => kernel.signal(fd),
    uringSetup: (entries, cqEntries) => kernel.setup(entries, cqEntries),
    uringEnter: (fd, toSubmit, minComplete, _flags, timeoutUs) =>
      kernel.ring(fd).enter(toSubmit, minComplete, timeoutUs),
    uringRegisterFiles: () => {},
    uringUpdateFile: (fd, index, file) => kernel.ring(fd).setFile(index, file),
    uringRegisterWorkerCpus: () => {},
    uringRegisterMaxWorkers: () => {},
  };
}
