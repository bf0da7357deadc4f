/**
 * The delay bdev (SPDK: bdev_delay_create): another bdev, whose reads and writes complete later by a fixed time; one in a hundred, at random,
 * by another. A command's data is moved at once, and what is held back is its completion. For trying out what a guest makes of a slow disk.
 */
import type { Timers } from '../io/timers.ts';
import { MAX_INFLIGHT } from '../limits.ts';
import type { HostRanges } from '../memory/host-ranges.ts';
import { type Backend, Detached, PENDING } from './backend.ts';
import type { BackendContext } from './context.ts';
import { ALL_OPS, Counted, countedAs, type Op } from './op.ts';

/** What can be set, as SPDK names it. The order is that of the words that main writes and reactors read. */
export const LATENCIES = ['avg_read', 'p99_read', 'avg_write', 'p99_write'] as const;
export type Latency = (typeof LATENCIES)[number];
/** Microseconds, below 2^32. */
export type Latencies = Readonly<Record<Latency, number>>;

/** Where reads and writes begin, and the slow ones after them. */
const OP_WORDS = 2;
const SLOW = 1;
const SHARE_OF_SLOW = 1 / 100;

const State = { NONE: 0, BELOW: 1, DELAYED: 2, HURRIED: 3 } as const;

export function makeLatencies(latencies: Latencies): SharedArrayBuffer {
  const memory = new SharedArrayBuffer(LATENCIES.length * Uint32Array.BYTES_PER_ELEMENT);
  new Uint32Array(memory).set(LATENCIES.map((latency) => latencies[latency]));
  return memory;
}

export function readLatencies(memory: SharedArrayBuffer): Latencies {
  const words = new Uint32Array(memory);
  const entries = LATENCIES.map((latency, i) => [latency, words[i]]);
  return Object.fromEntries(entries) as Record<Latency, number>;
}

/** For the commands that complete below from now on. */
export function writeLatency(memory: SharedArrayBuffer, latency: Latency, us: number): void {
  Atomics.store(new Uint32Array(memory), LATENCIES.indexOf(latency), us);
}

export class DelayBackend implements Backend {
  readonly async = true;
  readonly operations = ALL_OPS;
  readonly #latencies: Uint32Array;
  readonly #base: Backend;
  readonly #timers: Timers;
  // By slot.
  readonly #state: Uint8Array;
  readonly #op: Uint8Array;
  /** What a command that is held back completes with. */
  readonly #result: Int32Array;

  constructor(latencies: SharedArrayBuffer, base: Backend, context: BackendContext) {
    this.#latencies = new Uint32Array(latencies);
    this.#base = base;
    this.#timers = context.timers;
    this.#state = new Uint8Array(MAX_INFLIGHT);
    this.#op = new Uint8Array(MAX_INFLIGHT);
    this.#result = new Int32Array(MAX_INFLIGHT);
  }

  submit(op: Op, slot: number): number {
    const result = this.#base.submit(op, slot);
    if (result !== PENDING) {
      return this.#delay(op, slot, result);
    }
    this.#op[slot] = op;
    this.#state[slot] = State.BELOW;
    return PENDING;
  }

  complete(slot: number, reported: number): number {
    if (this.#state[slot] === State.BELOW) {
      const result = this.#base.complete(slot, reported);
      return result === PENDING ? PENDING : this.#delay(this.#op[slot] as Op, slot, result);
    }
    this.#state[slot] = State.NONE;
    return this.#result[slot];
  }

  /** The base is done with the command. */
  #delay(op: Op, slot: number, result: number): number {
    let us = 0;
    const counted = countedAs(op);
    if (counted <= Counted.WRITE) {
      const slow = Math.random() < SHARE_OF_SLOW ? SLOW : 0;
      us = Atomics.load(this.#latencies, counted * OP_WORDS + slow);
    }
    if (us === 0) {
      this.#state[slot] = State.NONE;
      return result;
    }
    this.#state[slot] = State.DELAYED;
    this.#result[slot] = result;
    this.#timers.start(slot, us);
    return PENDING;
  }

  hurry(slot: number, ends: boolean): void {
    if (this.#state[slot] === State.DELAYED) {
      this.#state[slot] = State.HURRIED;
      this.#timers.cancel(slot);
    } else if (this.#state[slot] === State.BELOW) {
      this.#base.hurry?.(slot, ends);
    }
  }

  /** What is held back is a completion: its data was moved. */
  touches(slot: number, memory: HostRanges): boolean {
    return this.#state[slot] === State.BELOW && this.#base.touches?.(slot, memory) === true;
  }

  detach(slot: number): Detached {
    return this.#state[slot] === State.BELOW
      ? (this.#base.detach?.(slot) ?? Detached.NO)
      : Detached.NO;
  }

  get depth(): number | undefined {
    return this.#base.depth;
  }

  close(): void {
    this.#base.close();
  }
}
