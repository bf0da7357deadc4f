/**
 * A bdev as one reactor has it open, for all its owners there: the backend, and how much of it may be under way in the kernel. (SPDK: an I/O
 * channel.) It stays open until the last use, and the last request of an owner that has gone, is over.
 */
import type { Backend } from '../backend.ts';
import type { BdevDescriptor } from '../bdev.ts';
import { BlockStates } from '../block-states.ts';
import type { BackendContext } from '../context.ts';
import { CopyingBackend, type CopySource } from '../copying.ts';
import { Op } from '../op.ts';
import { openBackend } from '../open.ts';
import { UncorrectableBackend } from '../uncorrectable.ts';
import { StaleWrites } from './stale-writes.ts';

export class BdevChannel implements CopySource {
  /** Of the bdev. */
  readonly generation: number;
  readonly backend: Backend;
  /** For reads, writes and flushes, while something is special about some block. */
  readonly marking: UncorrectableBackend;
  /** For reads, writes and flushes, while nothing is special about any block. */
  readonly direct: Backend;
  /** Reads and writes that may be under way at a time. */
  readonly depth: number;
  readonly stale: StaleWrites;
  readonly blocks: BlockStates;
  /** Reads and writes under way. */
  busy = 0;
  /** Who keeps it open: shares, and requests that nobody waits for any more. */
  users = 0;

  /** `base`: does all operations. `blocks`: see `block-states.ts`. */
  constructor(
    generation: number,
    base: Backend,
    stale: StaleWrites,
    blocks: SharedArrayBuffer,
    context: BackendContext,
  ) {
    this.generation = generation;
    this.blocks = new BlockStates(blocks);
    this.stale = stale;
    this.marking = new UncorrectableBackend(base, this.blocks, context);
    this.backend = new CopyingBackend(this, context);
    this.direct = base.direct ?? base;
    this.depth = base.depth ?? Number.MAX_SAFE_INTEGER;
  }

  /**
   * Hot. What carries out an operation. Where it begins in one backend and ends in the other, as blocks have become special meanwhile, that one
   * hands it on.
   */
  backendOf(op: Op): Backend {
    if (op > Op.FLUSH) {
      return this.backend;
    }
    return this.blocks.any || this.marking.busy > 0 ? this.marking : this.direct;
  }
}

/** The channels of a reactor. */
export class BdevChannels {
  readonly #context: BackendContext;
  readonly #channels = new Map<number, BdevChannel>();

  constructor(context: BackendContext) {
    this.#context = context;
  }

  /** Opens it, or counts one use more. Throws what the system says. */
  open({ generation, backend, stale, blocks }: BdevDescriptor): BdevChannel {
    let channel = this.#channels.get(generation);
    if (channel === undefined) {
      const opened = openBackend(backend, this.#context);
      channel = new BdevChannel(generation, opened, new StaleWrites(stale), blocks, this.#context);
      this.#channels.set(generation, channel);
    }
    channel.users += 1;
    return channel;
  }

  release(channel: BdevChannel): void {
    channel.users -= 1;
    if (channel.users === 0) {
      this.#channels.delete(channel.generation);
      channel.backend.close();
    }
  }
}
