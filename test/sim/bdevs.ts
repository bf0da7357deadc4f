/** The bdevs of a simulation: of every kind, over made-up disks, with the reference that judges them. */
import type { BackendDescriptor, BdevDescriptor } from '../../src/bdev/bdev.ts';
import { makeBlockStates } from '../../src/bdev/block-states.ts';
import { makeLatencies } from '../../src/bdev/delay.ts';
import { clearInjections, inject, makeInjections } from '../../src/bdev/injections.ts';
import { makeLimits, NO_LIMITS, writeLimits } from '../../src/bdev/limiter.ts';
import { makeStaleWrites } from '../../src/bdev/requests/stale-writes.ts';
import { makeWriteBack } from '../../src/bdev/write-back.ts';
import type { Random } from '../helpers/random.ts';
import { type DiskKind, SECTOR, SimDisk } from './disk.ts';
import { History } from './history.ts';
import type { SimKernel } from './kernel.ts';

export const SECTORS = 128;
const KINDS = [
  'local',
  'local',
  'direct',
  'blocking',
  'blocking',
  'malloc',
  'null',
  'delay',
  'error',
] as const;
type Kind = (typeof KINDS)[number];

export class SimBdev {
  readonly name: string;
  readonly kind: Kind;
  /** Undefined: it is in memory. */
  readonly disk: SimDisk | undefined;
  readonly history: History;
  readonly blockSize: number;
  readonly readonly: boolean;
  numBlocks: number;
  /** Errors were injected. */
  injected = false;
  limited = false;
  readonly #index: number;
  readonly #backend: BackendDescriptor;
  readonly #stale = makeStaleWrites();
  readonly #blocks = makeBlockStates();
  readonly #limits = makeLimits();
  readonly #injections = makeInjections();

  constructor(
    index: number,
    reactors: number,
    blockSize: number,
    kernel: SimKernel,
    random: Random,
  ) {
    this.#index = index;
    this.kind = random.pick(KINDS);
    this.name = `${this.kind}${index}`;
    this.history = new History(this.name, SECTORS);
    this.readonly = random.chance(0.05);
    this.blockSize = blockSize;
    this.numBlocks = (SECTORS * SECTOR) / this.blockSize;
    const below = this.kind === 'delay' || this.kind === 'error';
    if (this.kind === 'malloc') {
      this.#backend = { kind: 'malloc', memory: kernel.memory.map(SECTORS * SECTOR) };
    } else if (this.kind === 'null') {
      this.#backend = { kind: 'null' };
    } else {
      const kind: DiskKind = below ? random.pick(['local', 'blocking']) : (this.kind as DiskKind);
      const disk = new SimDisk(kind, SECTORS, random);
      this.disk = disk;
      const base: BackendDescriptor = {
        kind: 'uring',
        fds: Array.from({ length: reactors }, () => kernel.openDisk(disk)),
        alignment: kind === 'direct' ? SECTOR : 1,
        writeBack: makeWriteBack(),
        mayBlock: kind === 'blocking',
        ownBuffers: kind === 'blocking',
      };
      this.#backend = below ? this.#over(base) : base;
    }
  }

  #over(base: BackendDescriptor): BackendDescriptor {
    if (this.kind === 'error') {
      return { kind: 'error', injections: this.#injections, base };
    }
    const latencies = makeLatencies({ avg_read: 50, p99_read: 900, avg_write: 0, p99_write: 300 });
    return { kind: 'delay', latencies, base };
  }

  /** What it holds is to be looked at. */
  get checked(): boolean {
    return this.kind !== 'null';
  }

  get descriptor(): BdevDescriptor {
    return {
      generation: this.#index + 1,
      stale: this.#stale,
      blocks: this.#blocks,
      index: this.#index,
      blockSize: this.blockSize,
      numBlocks: this.numBlocks,
      readonly: this.readonly,
      backend: this.#backend,
    };
  }

  get limits(): SharedArrayBuffer | undefined {
    return this.limited ? this.#limits : undefined;
  }

  /** Half of it, or all of it again. */
  resize(): void {
    const all = (SECTORS * SECTOR) / this.blockSize;
    this.numBlocks = this.numBlocks === all ? all / 2 : all;
  }

  limit(on: boolean): void {
    this.limited = on;
    const limits = on ? { ...NO_LIMITS, rwIos: 20_000, readBytes: 400_000_000 } : NO_LIMITS;
    writeLimits(this.#limits, limits);
  }

  /** Commands that fail, are tried again, or (`pending`) stay until something that needs it ends them. */
  injectErrors(error: 'failure' | 'nomem' | 'pending', op: 0 | 1, count: number): void {
    this.injected = true;
    inject(this.#injections, op, {
      error,
      count,
      status: 0,
      queueDepth: 0,
      corruptOffset: 0,
      corruptValue: 0,
    });
  }

  clearErrors(): void {
    clearInjections(this.#injections);
  }
}
