/**
 * A bdev as one reactor has it open, for all its owners there: the backend, and how much of it may be under way in the kernel. (SPDK: an I/O
 * channel.) It stays open until the last use, and the last request of an owner that has gone, is over.
 */
import type { Backend } from '../backend.ts';
import type { BdevDescriptor } from '../bdev.ts';
import type { BackendContext } from '../context.ts';
import { Op } from '../op.ts';
import { openBackend } from '../open.ts';
import { StaleWrites } from './stale-writes.ts';

export class BdevChannel {
  /** Of the bdev. */
  readonly generation: number;
  readonly backend: Backend;
  /** For reads, writes and flushes. */
  readonly direct: Backend;
  /** Reads and writes that may be under way at a time. */
  readonly depth: number;
  readonly stale: StaleWrites;
  /** Reads and writes under way. */
  busy = 0;
  /** Who keeps it open: shares, and requests that nobody waits for any more. */
  users = 0;

  constructor(generation: number, backend: Backend, stale: StaleWrites) {
    this.generation = generation;
    this.backend = backend;
    this.direct = backend.direct ?? backend;
    this.depth = backend.depth ?? Number.MAX_SAFE_INTEGER;
    this.stale = stale;
  }

  /** Hot. What carries out an operation, from the first to the last. */
  backendOf(op: Op): Backend {
    return op > Op.FLUSH ? this.backend : this.direct;
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
  open({ generation, backend, stale }: BdevDescriptor): BdevChannel {
    let channel = this.#channels.get(generation);
    if (channel === undefined) {
      const opened = openBackend(backend, this.#context);
      channel = new BdevChannel(generation, opened, new StaleWrites(stale));
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
