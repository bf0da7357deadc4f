/**
 * An export of an NBD server as a bdev, made on the main thread. How a reactor does I/O on it is in `backend.ts`; who makes the connections is in
 * `connections.ts`.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { ExportFlag } from '../../spec/nbd.ts';
import { describeError, ErrnoError, InvalidError } from '../../util/errors.ts';
import type { BdevHints, DiskFailure, ServerTally } from '../bdev.ts';
import { type BdevIdentity, BLOCK_SIZES, checkBlockSize, Disk } from '../disk.ts';
import type { NoticeSink } from '../kind.ts';
import { DIAL_MS, NbdConnections, type NbdNotices } from './connections.ts';
import type { NbdDescriptor, OnReconnect } from './descriptor.ts';
import { type NbdConnection, NbdDialer } from './dial.ts';
import type { NbdExport } from './handshake.ts';
import { parseNbdUri } from './uri.ts';
import { makeNbdWords, NbdWords } from './words.ts';

export interface NbdOptions {
  readonly uri: string;
  /** Bytes. */
  readonly blockSize?: number | undefined;
  readonly readonly: boolean;
  /** Seconds: how long a request waits for its answer (0: for ever), the longest time between two attempts to connect, how long a server is waited for that is not there. */
  readonly timeout: number;
  readonly reconnectDelay: number;
  readonly openTimeout: number;
  readonly onReconnect: OnReconnect;
}

/** Largest granularity that is passed on. Bytes. */
const MAX_GRANULARITY = 1024 * 1024;
/** Between two attempts of the first connection. Milliseconds. */
const OPEN_DELAY_MS = 250;
const NEEDED =
  ExportFlag.SEND_FLUSH |
  ExportFlag.SEND_FUA |
  ExportFlag.SEND_TRIM |
  ExportFlag.SEND_WRITE_ZEROES |
  ExportFlag.CAN_MULTI_CONN;

export class NbdBdev extends Disk {
  readonly module = 'nbd';
  readonly productName = 'NBD disk';
  readonly readonly: boolean;
  readonly options: NbdOptions;
  readonly hints: BdevHints;
  readonly #told: NbdExport;
  readonly #memory = makeNbdWords();
  readonly #words = new NbdWords(this.#memory);
  readonly #dialer: NbdDialer;
  readonly #connections: NbdConnections;

  private constructor(
    identity: BdevIdentity,
    options: NbdOptions,
    host: NbdHost,
    dialer: NbdDialer,
    first: NbdConnection,
  ) {
    const { told } = first;
    const blockSize = chooseBlockSize(options, told);
    super(identity, { blockSize, numBlocks: Math.floor(told.size / blockSize) });
    this.options = options;
    this.readonly = options.readonly || (told.flags & ExportFlag.READ_ONLY) !== 0;
    this.#told = told;
    this.#dialer = dialer;
    checkUse(told, options, this.readonly, host.reactors);
    const granularity = Math.min(MAX_GRANULARITY, Math.max(told.preferred, blockSize));
    // What a trim leaves behind is the server's to say, and it does not.
    this.hints = { granularity, readsZeroes: false };
    this.#connections = new NbdConnections({
      dialer,
      first,
      words: this.#memory,
      reactors: host.reactors,
      reconnectDelayMs: options.reconnectDelay * 1000,
      forgets: options.onReconnect === 'fail-flush',
      check: (now) => this.#check(now),
      notices: this.#notices(host.notice),
    });
  }

  /**
   * Connects. Rejects with InvalidError, or what the system or the server says; a server that is not there is tried again until `openTimeout` is
   * over.
   */
  static async open(identity: BdevIdentity, options: NbdOptions, host: NbdHost): Promise<NbdBdev> {
    const dialer = new NbdDialer(parseNbdUri(options.uri));
    const until = Date.now() + options.openTimeout * 1000;
    for (;;) {
      try {
        const first = await dialer.dial(DIAL_MS);
        try {
          return new NbdBdev(identity, options, host, dialer, first);
        } catch (error) {
          dialer.close(first.fd, true);
          throw error;
        }
      } catch (error) {
        if (error instanceof InvalidError || Date.now() + OPEN_DELAY_MS > until) {
          throw error;
        }
        await pause(OPEN_DELAY_MS);
      }
    }
  }

  get backend(): NbdDescriptor {
    const { wakes, tell } = this.#connections;
    const { timeout, onReconnect } = this.options;
    return {
      kind: 'nbd',
      words: this.#memory,
      wakes,
      tell,
      flags: this.#told.flags,
      fua: onReconnect === 'fua',
      timeoutMs: timeout * 1000,
    };
  }

  override get server(): ServerTally {
    const reactors = this.#connections.wakes.map((_, reactor) => reactor);
    const sum = (of: (reactor: number) => number) =>
      reactors.reduce((all, reactor) => all + of(reactor), 0);
    return {
      connections: this.#connections.count,
      reconnects: this.#connections.reconnects,
      requests: sum((reactor) => this.#words.requests(reactor)),
      inFlight: sum((reactor) => this.#words.inFlight(reactor)),
    };
  }

  override get failure(): DiskFailure | undefined {
    const errno = this.#words.lost;
    return errno === 0 ? undefined : { errno };
  }

  get driverSpecific() {
    const { connections, reconnects, requests, inFlight } = this.server;
    const { uri, onReconnect, timeout, reconnectDelay } = this.options;
    return {
      nbd: {
        uri,
        on_reconnect: onReconnect,
        timeout,
        reconnect_delay: reconnectDelay,
        connections,
        reconnects,
        requests,
        in_flight: inFlight,
        flush_fails: this.#words.lost !== 0,
        structured_replies: this.#told.structured,
        block_size_minimum: this.#told.minimum,
        block_size_preferred: this.#told.preferred,
        block_size_maximum: this.#told.maximum,
        export_flags: Object.entries(ExportFlag)
          .filter(([, bit]) => (this.#told.flags & bit) !== 0)
          .map(([name]) => name.toLowerCase()),
      },
    };
  }

  /** Throws if another server has come back, or the export has changed in a way that cannot be hidden from guests. */
  #check(now: NbdExport): void {
    const { size, flags, minimum, maximum } = now;
    if (size < this.numBlocks * this.blockSize) {
      throw new ErrnoError('EIO', `the export has only ${size} bytes now`);
    }
    if (!this.readonly && (flags & ExportFlag.READ_ONLY) !== 0) {
      throw new ErrnoError('EROFS', 'the export can only be read now');
    }
    const missing = this.#told.flags & NEEDED & ~flags;
    if (missing !== 0) {
      throw new ErrnoError('EIO', `the server can do less than before (flags ${flags})`);
    }
    if (minimum > this.blockSize || maximum < this.blockSize) {
      throw new ErrnoError('EIO', `the export has blocks of ${minimum} bytes now`);
    }
  }

  #notices(tell: NoticeSink): NbdNotices {
    const { name } = this;
    const at = this.#dialer.where;
    return {
      lost: (reason) =>
        tell({ type: 'bdev-disconnected', bdev: name, message: `${at}: ${reason}` }),
      failing: (reason) => tell({ type: 'error', bdev: name, message: reason }),
      restored: () => tell({ type: 'bdev-connected', bdev: name }),
      told: ({ size }) => {
        const numBlocks = Math.floor(size / this.blockSize);
        if (numBlocks > this.numBlocks) {
          tell({ type: 'grown', bdev: name, numBlocks });
        }
      },
      dataLost: () =>
        tell({
          type: 'write-back-failed',
          bdev: name,
          message: `the server at ${at} may have forgotten what it acknowledged: no flush succeeds until bdev_nbd_reopen`,
        }),
    };
  }

  /** The size that the export has now, in blocks, asked over a connection of its own. Rejects as `NbdDialer.dial` does. */
  async currentBlocks(): Promise<number> {
    const { fd, told } = await this.#dialer.dial(DIAL_MS);
    this.#dialer.close(fd, true);
    const numBlocks = Math.floor(told.size / this.blockSize);
    if (numBlocks < 1) {
      throw new ErrnoError('EINVAL', `${this.options.uri} is shorter than a block`);
    }
    return numBlocks;
  }

  override reactorDied(reactor: number): void {
    this.#connections.reactorDied(reactor);
  }

  /** All connections are made anew, and flushes may succeed again: what was lost is gone. */
  async reopen(): Promise<void> {
    await this.#connections.renew();
    this.#words.forgive();
  }

  async sync(): Promise<void> {
    if (this.#words.lost !== 0) {
      throw new ErrnoError('EIO', `what was written to ${this.options.uri} may be lost`);
    }
    if (!this.#words.dirty || (this.#told.flags & ExportFlag.SEND_FLUSH) === 0) {
      return;
    }
    const epoch = this.#words.flushes();
    try {
      await this.#dialer.flush(DIAL_MS, (told) => this.#check(told));
    } catch (error) {
      throw new ErrnoError('EIO', `${this.options.uri} cannot be flushed: ${describeError(error)}`);
    }
    this.#words.flushed(epoch);
  }

  close(): Promise<void> {
    return this.#connections.close();
  }
}

/** What an NBD bdev needs of the target. */
export interface NbdHost {
  readonly reactors: number;
  readonly notice: NoticeSink;
}

function chooseBlockSize(
  { blockSize, uri }: NbdOptions,
  { minimum, maximum, size }: NbdExport,
): number {
  const chosen = blockSize ?? BLOCK_SIZES.find((each) => each >= minimum) ?? minimum;
  if (minimum > BLOCK_SIZES[BLOCK_SIZES.length - 1]) {
    throw new InvalidError(
      `${uri} takes no requests of less than ${minimum} bytes, which are more than a block can have`,
      { key: 'uri' },
    );
  }
  checkBlockSize(chosen);
  if (chosen < minimum) {
    throw new InvalidError(`must not be less than the ${minimum} bytes that ${uri} asks for`, {
      key: 'block_size',
    });
  }
  if (chosen > maximum || size < chosen) {
    throw new InvalidError(`${uri} is too small: ${size} bytes, ${maximum} in a request`, {
      key: 'uri',
    });
  }
  return chosen;
}

/** Throws InvalidError for what the server cannot do. */
function checkUse(
  { flags }: NbdExport,
  { uri, onReconnect }: NbdOptions,
  readonly: boolean,
  reactors: number,
): void {
  if (reactors > 1 && !readonly && (flags & ExportFlag.CAN_MULTI_CONN) === 0) {
    throw new InvalidError(
      `the server of ${uri} does not say that its connections agree on what was written (NBD_FLAG_CAN_MULTI_CONN), and there is one for each of the ${reactors} reactors: serve with one reactor, or have the server allow more (qemu-nbd: --shared)`,
      { key: 'uri' },
    );
  }
  if (onReconnect === 'fua' && !readonly && (flags & ExportFlag.SEND_FUA) === 0) {
    throw new InvalidError(`'fua' needs a server that knows FUA, and that of ${uri} does not`, {
      key: 'on_reconnect',
    });
  }
}
