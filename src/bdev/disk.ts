/** What all bdevs have, as main keeps it: who they are and how large. One subclass a kind. */
import { InvalidError } from '../util/errors.ts';
import type { BackendDescriptor, Bdev, BdevHints, DiskFailure, ServerTally } from './bdev.ts';
import { LIMITS, makeLimits, NO_LIMITS, type RateLimits, writeLimits } from './limiter.ts';
import { makeStaleWrites } from './requests/stale-writes.ts';
import { UncorrectableRanges } from './uncorrectable-ranges.ts';

/** Logical block sizes that a namespace can have. Bytes. */
export const BLOCK_SIZES = [512, 4096] as const;

/** The target chooses the index, and makes up what the operator left out. */
export interface BdevIdentity {
  readonly index: number;
  readonly name: string;
  /** Lower-case with dashes. */
  readonly uuid: string;
}

export interface Geometry {
  /** Bytes. */
  readonly blockSize: number;
  readonly numBlocks: number;
}

let generations = 0;

export abstract class Disk implements Bdev {
  #generation = ++generations;
  readonly stale = makeStaleWrites();
  readonly index: number;
  readonly name: string;
  readonly uuid: string;
  readonly aliases: readonly string[];
  readonly blockSize: number;
  #numBlocks: number;
  #uncorrectable: UncorrectableRanges | undefined;
  #rateLimits = NO_LIMITS;
  /** Rate limits as reactors read them; undefined until there were any. */
  #limits: SharedArrayBuffer | undefined;

  abstract readonly module: Bdev['module'];
  abstract readonly productName: string;
  abstract readonly readonly: boolean;
  abstract readonly backend: BackendDescriptor;
  abstract readonly hints: BdevHints;
  abstract readonly driverSpecific: Readonly<Record<string, unknown>>;

  /** Throws InvalidError. */
  constructor(identity: BdevIdentity, { blockSize, numBlocks }: Geometry) {
    checkGeometry(blockSize, numBlocks);
    this.index = identity.index;
    this.name = identity.name;
    this.uuid = identity.uuid;
    this.aliases = [identity.uuid];
    this.blockSize = blockSize;
    this.#numBlocks = numBlocks;
  }

  get generation(): number {
    return this.#generation;
  }

  /** It is opened anew. */
  protected renew(): void {
    this.#generation = ++generations;
  }

  get numBlocks(): number {
    return this.#numBlocks;
  }

  /** Reactors that use the bdev must be told: they know the size they were given. Throws InvalidError. */
  setNumBlocks(numBlocks: number): void {
    checkGeometry(this.blockSize, numBlocks);
    this.#numBlocks = numBlocks;
  }

  get rateLimits(): RateLimits {
    return this.#rateLimits;
  }

  /** For reactors: undefined if nothing is limited. */
  get limits(): SharedArrayBuffer | undefined {
    return LIMITS.some((key) => this.#rateLimits[key] > 0) ? this.#limits : undefined;
  }

  /** True if reactors must be told of `limits`: they see changed values by themselves. */
  setRateLimits(limits: RateLimits): boolean {
    const before = this.limits;
    this.#rateLimits = limits;
    this.#limits ??= makeLimits();
    writeLimits(this.#limits, limits);
    return this.limits !== before;
  }

  /** Its file, if what was written to it may be gone: until it is opened again no Flush succeeds. */
  get failure(): DiskFailure | undefined {
    return undefined;
  }

  /** If its data is on a server: what there was with it. */
  get server(): ServerTally | undefined {
    return undefined;
  }

  /** Its file, if it has one: the same for two bdevs of the same file or device, by whatever path. */
  get fileId(): string | undefined {
    return undefined;
  }

  /** Blocks that hosts have marked: for the life of the bdev, where nothing is said of it. */
  get uncorrectable(): UncorrectableRanges {
    this.#uncorrectable ??= new UncorrectableRanges();
    return this.#uncorrectable;
  }

  /** For reactors. */
  get blocks(): SharedArrayBuffer {
    return this.uncorrectable.memory;
  }

  /** A reactor has died, and its successor, if there is one, has not opened the bdev yet. */
  reactorDied(_reactor: number): void {
    // Most bdevs have nothing of a reactor's.
  }

  abstract sync(): Promise<void>;
  /** Resolves when nothing of it is open any more; what hangs may take for ever. Never rejects. */
  abstract close(): Promise<void>;
}

/** Throws InvalidError. */
export function checkBlockSize(blockSize: number): void {
  if (!BLOCK_SIZES.some((size) => size === blockSize)) {
    throw new InvalidError(
      `key 'block_size' must be one of ${BLOCK_SIZES.join(', ')}, not ${blockSize}`,
    );
  }
}

function checkGeometry(blockSize: number, numBlocks: number): void {
  checkBlockSize(blockSize);
  if (!Number.isSafeInteger(numBlocks) || numBlocks < 1) {
    throw new InvalidError(`key 'num_blocks' must be greater than 0`);
  }
  if (!Number.isSafeInteger(blockSize * numBlocks)) {
    throw new InvalidError(`key 'num_blocks' makes a disk of more than 2^53 bytes`);
  }
}
