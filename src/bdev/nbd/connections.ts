/**
 * The connections of one bdev, one for each reactor that uses it: made, checked, offered, and made again when one is lost. Owned by main.
 *
 * A connection that is lost may be all that is seen of a server that has crashed. So the others are drained first; then it is asked whether
 * there was data that had been acknowledged and not flushed; and then all are made anew. See `words.ts`.
 */
import { closeSync } from 'node:fs';
import { constants } from 'node:os';
import { type FdPoll, native } from '../../native/index.ts';
import { describeError, errnoName, strerror } from '../../util/errors.ts';
import type { NbdConnection, NbdDialer } from './dial.ts';
import type { NbdExport } from './handshake.ts';
import { Ask, NbdWords } from './words.ts';

/** How long a server may take to answer while a connection is made. Milliseconds. */
export const DIAL_MS = 5000;
/** Before the second attempt; twice as long before each that follows. */
const FIRST_DELAY_MS = 100;
/** A connection that was lost sooner does not end the row of attempts: the next comes later. Milliseconds. */
const STABLE_MS = 1000;
const NO_FD = -1;

/** What is told of connections. */
export interface NbdNotices {
  lost(reason: string): void;
  /** It does not come back at once. */
  failing(reason: string): void;
  restored(): void;
  /** The export, as it is now. */
  told(now: NbdExport): void;
  /** Data that was acknowledged may be gone. */
  dataLost(): void;
}

export interface NbdConnectionsOptions {
  readonly dialer: NbdDialer;
  /** The first connection: for whoever asks first. */
  readonly first: NbdConnection;
  readonly words: SharedArrayBuffer;
  readonly reactors: number;
  /** The longest time between two attempts. Milliseconds. */
  readonly reconnectDelayMs: number;
  /** A server that was lost has lost what was not flushed. */
  readonly forgets: boolean;
  /** Throws if the export is not what it was. */
  readonly check: (told: NbdExport) => void;
  readonly notices: NbdNotices;
}

interface Row {
  fd: number;
  /** The number of the last offer. */
  offer: number;
}

export class NbdConnections {
  /** See NbdDescriptor. */
  readonly wakes: readonly number[];
  readonly tell = native.eventfdCreate();
  readonly #options: NbdConnectionsOptions;
  readonly #words: NbdWords;
  readonly #rows: readonly Row[];
  readonly #poll: FdPoll;
  #spare: NbdConnection | undefined;
  #dialing = false;
  /** One was lost, and the others are still in use. */
  #draining = false;
  /** There is none, since one was lost. */
  #down = false;
  #attempts = 0;
  /** When the last connection was made, in ms. */
  #madeAt = Number.NEGATIVE_INFINITY;
  #retry: NodeJS.Timeout | undefined;
  /** Who waits for all to be let go of, which an operator asked for. */
  #renewing: (() => void)[] = [];
  #closing: Promise<void> | undefined;
  #closed: (() => void) | undefined;
  /** Connections made after one was lost. */
  reconnects = 0;

  /** Throws what the system says if there are no descriptors left. */
  constructor(options: NbdConnectionsOptions) {
    this.#options = options;
    this.#words = new NbdWords(options.words);
    this.#spare = options.first;
    this.#rows = Array.from({ length: options.reactors }, () => ({ fd: NO_FD, offer: 0 }));
    this.wakes = this.#rows.map(() => native.eventfdCreate());
    this.#poll = new native.FdPoll(this.tell, () => {
      native.eventfdRead(this.tell);
      this.#step();
    });
    this.#poll.start(true, false);
  }

  /** Those in use. */
  get count(): number {
    return this.#rows.filter(({ fd }) => fd !== NO_FD).length;
  }

  /** What reactors say has changed, or what main waited for. */
  #step(): void {
    let lost: number | undefined;
    for (const [reactor, row] of this.#rows.entries()) {
      const { offer, ask } = this.#words.asked(reactor);
      if (row.fd !== NO_FD && offer === row.offer && ask !== Ask.USES) {
        this.#options.dialer.close(row.fd, ask === Ask.CLOSED);
        row.fd = NO_FD;
        const reason = this.#words.reason(reactor);
        if (ask === Ask.WANTS && reason !== 0) {
          lost ??= reason;
        }
      }
    }
    if (lost !== undefined && !this.#draining && this.#closing === undefined) {
      this.#lose(reasonOf(lost));
    }
    if (this.#draining && this.count === 0) {
      this.#drained();
    }
    if (this.#closing !== undefined) {
      this.#checkClosed();
    } else if (!this.#draining) {
      this.#connect();
    }
  }

  /**
   * The reactor has died, and no other runs in its place that has opened the bdev: what it used is let go of for it, or it would be waited for for ever.
   */
  reactorDied(reactor: number): void {
    // What it said last is heard first: it may have lost its connection.
    this.#step();
    if (this.#words.asked(reactor).ask === Ask.CLOSED) {
      return;
    }
    const row = this.#rows[reactor];
    if (row.fd !== NO_FD) {
      // Operations of the dead one may be under way on it, and a request sent in part: nothing may follow that in the stream.
      native.socketShutdown(row.fd);
      this.#options.dialer.close(row.fd, false);
      row.fd = NO_FD;
    }
    this.#words.begin(reactor);
    this.#words.ask(reactor, row.offer, Ask.CLOSED);
    this.#step();
  }

  #lose(reason: string): void {
    this.#draining = true;
    this.#down = true;
    if (performance.now() - this.#madeAt >= STABLE_MS) {
      this.#attempts = 0;
    } else {
      this.#pause();
    }
    this.#dropSpare();
    this.#options.notices.lost(reason);
    this.#words.nextRound();
    for (const wake of this.wakes) {
      native.eventfdSignal(wake);
    }
  }

  /** No reactor uses a connection: all that was answered is known. */
  #drained(): void {
    this.#draining = false;
    if (this.#options.forgets && this.#words.dirty && this.#words.lose(constants.errno.EIO)) {
      this.#options.notices.dataLost();
    }
    // An operator's wish may come just when a server has crashed: whoever forgives the loss has been told of it before.
    for (const resolve of this.#renewing.splice(0)) {
      resolve();
    }
  }

  /** The first reactor that wants a connection and has none gets the next. */
  #connect(): void {
    const reactor = this.#rows.findIndex(
      ({ fd }, each) => fd === NO_FD && this.#words.asked(each).ask === Ask.WANTS,
    );
    if (reactor < 0 || this.#dialing || this.#retry !== undefined) {
      return;
    }
    if (this.#spare !== undefined) {
      const spare = this.#spare;
      this.#spare = undefined;
      this.#offer(reactor, spare);
      this.#connect();
      return;
    }
    this.#dialing = true;
    this.#dial().finally(() => {
      this.#dialing = false;
      this.#step();
    });
  }

  /** What is made becomes the spare connection. Never rejects. */
  async #dial(): Promise<void> {
    const { dialer, check, notices } = this.#options;
    const round = this.#words.round;
    try {
      const connection = await dialer.dial(DIAL_MS);
      try {
        check(connection.told);
      } catch (error) {
        dialer.close(connection.fd, true);
        throw error;
      }
      if (this.#closing !== undefined || this.#words.round !== round) {
        dialer.close(connection.fd, true);
        return;
      }
      this.#madeAt = performance.now();
      this.#spare = connection;
      notices.told(connection.told);
      if (this.#down) {
        this.#down = false;
        this.reconnects += 1;
        notices.restored();
      }
    } catch (error) {
      if (this.#attempts === 1) {
        notices.failing(describeError(error));
      }
      this.#pause();
    }
  }

  /** The next attempt is not to come at once. */
  #pause(): void {
    const delay = Math.min(
      this.#options.reconnectDelayMs,
      FIRST_DELAY_MS * 2 ** Math.min(this.#attempts, 16),
    );
    this.#attempts += 1;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#step();
    }, delay);
    this.#retry.unref();
  }

  /**
   * Ends all connections, whatever is under way; new ones are made, and what was not answered is sent again. Resolves when all are let go of, and it is known whether
   * data may be lost: nobody can tell whether the server was there until then.
   */
  renew(): Promise<void> {
    if (this.count === 0 || this.#closing !== undefined) {
      return Promise.resolve();
    }
    const renewed = new Promise<void>((resolve) => this.#renewing.push(resolve));
    this.#shutDown();
    if (!this.#draining) {
      this.#lose('an operator asked for new ones');
    }
    this.#step();
    return renewed;
  }

  /** What waits for a server that hangs ends. */
  #shutDown(): void {
    for (const { fd } of this.#rows) {
      if (fd !== NO_FD) {
        native.socketShutdown(fd);
      }
    }
  }

  #offer(reactor: number, { fd, told }: NbdConnection): void {
    const { structured, maximum } = told;
    const row = this.#rows[reactor];
    row.fd = fd;
    row.offer = this.#words.makeOffer(reactor, { fd, structured, maximum });
    native.eventfdSignal(this.wakes[reactor]);
  }

  #dropSpare(): void {
    if (this.#spare !== undefined) {
      this.#options.dialer.close(this.#spare.fd, true);
      this.#spare = undefined;
    }
  }

  /**
   * Ends all connections at once: what is left to itself with a server that hangs ends with them. Resolves when no reactor has anything of the bdev open any
   * more.
   */
  close(): Promise<void> {
    if (this.#closing === undefined) {
      this.#closing = new Promise((resolve) => {
        this.#closed = resolve;
      });
      clearTimeout(this.#retry);
      this.#dropSpare();
      this.#shutDown();
      this.#step();
    }
    return this.#closing;
  }

  #checkClosed(): void {
    const isClosed = this.#rows.every(
      ({ fd }, reactor) => fd === NO_FD && this.#words.asked(reactor).ask === Ask.CLOSED,
    );
    if (isClosed && this.#closed !== undefined) {
      this.#poll.close();
      for (const fd of [this.tell, ...this.wakes]) {
        closeSync(fd);
      }
      this.#closed();
      this.#closed = undefined;
    }
  }
}

function reasonOf(errno: number): string {
  return errno === constants.errno.EPROTO
    ? 'the server answers what it was not asked'
    : `${errnoName(errno)} (${strerror(errno)})`;
}
