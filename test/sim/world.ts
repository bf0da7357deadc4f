/**
 * One simulation: reactors, main, hosts and disks in one thread and virtual time, in an order that the seed decides. What is real is all of
 * the product above the system calls: the loop, the plane, the request layer, the backends, `IoQueues`, moves, the pool.
 */
import { pino } from 'pino';
import { ReactorPool } from '../../src/reactor/pool.ts';
import type { Random } from '../helpers/random.ts';
import { SimBdev } from './bdevs.ts';
import type { Coverage, State } from './coverage.ts';
import { SECTOR } from './disk.ts';
import { settled } from './globals.ts';
import { Host } from './host.ts';
import { SimKernel } from './kernel.ts';
import { SimMemory } from './memory.ts';
import { type SimThread, SimThreads } from './threads.ts';
import { Timeline } from './timeline.ts';
import { Violation } from './violation.ts';

const BDEVS = 5;
const MAX_HOSTS = 3;

/** Something that main was asked for and has not answered. */
export interface Operation {
  readonly name: string;
  readonly host: Host;
}

export class World {
  readonly log = pino({ level: 'silent' });
  readonly random: Random;
  readonly timeline = new Timeline();
  readonly memory = new SimMemory();
  readonly kernel: SimKernel;
  readonly threads: SimThreads;
  readonly bdevs: SimBdev[];
  readonly hosts: Host[] = [];
  readonly operations = new Set<Operation>();
  readonly #coverage: Coverage;
  /** Messages of clients. */
  readonly #toMain: (() => void)[] = [];
  readonly reactors: number;
  readonly blockSize: number;
  pool!: ReactorPool;
  #steps = 1;
  #hosts = 1;

  constructor(random: Random, coverage: Coverage) {
    this.random = random;
    this.#coverage = coverage;
    this.kernel = new SimKernel(this.timeline, this.memory, random);
    this.threads = new SimThreads(this.kernel);
    this.reactors = 1 + random.below(3);
    // The same for all, so that a command is as long in whatever namespace it finds.
    this.blockSize = random.chance(0.25) ? 4096 : SECTOR;
    this.bdevs = Array.from(
      { length: BDEVS },
      (_, i) => new SimBdev(i, this.reactors, this.blockSize, this.kernel, random),
    );
  }

  async start(): Promise<void> {
    const { random } = this;
    const options = {
      cores: Array.from({ length: this.reactors }, () => 0),
      spinUs: random.pick([0, 5, 50]),
      maxSleepUs: random.pick([1000, 10_000]),
      log: this.log,
    };
    const pool = ReactorPool.start(options, this.threads);
    await this.deliverAll();
    this.pool = await pool;
    for (let i = 0; i < 1 + random.below(MAX_HOSTS); i++) {
      this.addHost();
    }
    await settled();
  }

  addHost(): Host {
    const host = new Host(this, this.#hosts++);
    this.hosts.push(host);
    if (this.random.chance(0.3)) {
      this.operation('shadow', host, () => host.setShadow());
    }
    return host;
  }

  step(): number {
    return ++this.#steps;
  }

  get now(): number {
    return this.timeline.now;
  }

  // --- main -------------------------------------------------------------------------------------------------------------

  toMain(run: () => void): void {
    this.#toMain.push(run);
  }

  /** Has main begin something. */
  operation(name: string, host: Host, run: () => Promise<void>): void {
    // What a client sends is read in its order.
    for (const message of this.#toMain.splice(0)) {
      message();
    }
    const operation: Operation = { name, host };
    this.cover(name, host);
    this.operations.add(operation);
    run()
      .catch((error: unknown) => {
        if (!EXPECTED.has((error as Error).name)) {
          this.#fault ??= error;
        }
      })
      .finally(() => this.operations.delete(operation));
  }

  /** What an operation threw that none should. */
  #fault: unknown;

  /** Throws what went wrong unseen. */
  check(): void {
    Violation.check();
    if (this.#fault !== undefined) {
      throw this.#fault;
    }
  }

  underWay(host: Host, ...names: string[]): boolean {
    return [...this.operations].some((each) => each.host === host && names.includes(each.name));
  }

  /** One message of those that wait for main. False if there is none. */
  deliverOne(): boolean {
    const { random } = this;
    const sources: (() => boolean)[] = this.threads.threads.map((thread) => () => thread.deliver());
    sources.push(() => {
      const run = this.#toMain.shift();
      run?.();
      return run !== undefined;
    });
    for (let at = random.below(sources.length), i = 0; i < sources.length; i++) {
      if (sources[(at + i) % sources.length]()) {
        this.#reap();
        return true;
      }
    }
    return false;
  }

  /** All of them; what waits for one goes on before the next. */
  async deliverAll(): Promise<void> {
    while (this.deliverOne()) {
      await settled();
    }
  }

  #reap(): void {
    if (this.threads.threads.some(({ gone }) => gone)) {
      this.threads.threads = this.threads.threads.filter(({ gone }) => !gone);
    }
  }

  // --- reactors ---------------------------------------------------------------------------------------------------------

  turns = 0;

  turn(thread: SimThread): void {
    this.turns += 1;
    thread.turn();
    this.timeline.advanceTo(this.now + 100 + this.random.below(900));
  }

  /** Lets time pass until something happens, if no reactor is awake, and main has nothing to read. False if nothing ever will. */
  passTime(until: number): boolean {
    const { threads } = this.threads;
    if (this.#toMain.length > 0 || threads.some(({ awake, tells }) => awake || tells)) {
      return true;
    }
    const wakes = threads.filter(({ state }) => state !== 'over').map(({ ring }) => ring.wakesAt);
    const next = Math.min(this.timeline.next, ...wakes, until);
    if (next === Number.POSITIVE_INFINITY) {
      return false;
    }
    this.timeline.advanceTo(next);
    return next < until;
  }

  // --- states -----------------------------------------------------------------------------------------------------------

  cover(event: string, host?: Host): void {
    this.#coverage.add(event, this.#states(host));
  }

  #states(host: Host | undefined): Set<State> {
    const states = new Set<State>(['any']);
    const add = (state: State, is: boolean): void => {
      if (is) {
        states.add(state);
      }
    };
    for (const { disk, limited } of this.bdevs) {
      add('hung', disk?.mood === 'hung');
      add('slow', disk?.mood === 'slow');
      add('failing', disk?.mood === 'failing');
      add('limited', limited);
    }
    for (const { state, ring } of this.threads.threads) {
      add('dying', state === 'ends');
      add('asleep', ring.wakesAt > this.now);
    }
    for (const each of host === undefined ? this.hosts : [host]) {
      add(
        'unmapped',
        each.memory.regions.some(({ mapped }) => !mapped),
      );
      add('memory', each.busy.has('memory'));
      add('resetting', each.resetting);
      add('moving', each.busy.has('move'));
      add('namespace', each.busy.has('namespaces'));
      add('shadow', each.shadowed);
      add('trapped', each.trapped);
      add(
        'full',
        [...each.queues.sqs.values()].some(({ commands, size }) => commands.size >= size - 1),
      );
    }
    return states;
  }
}

/** How operations may fail. */
const EXPECTED = new Set(['ErrnoError', 'InvalidError', 'FailedError', 'ReactorLostError']);
