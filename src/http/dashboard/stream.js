/**
 * The stream of snapshots and events. It reconnects by itself for as long as the page is open, and says how it stands. The browser's own
 * EventSource gives up on some failures and waits for ever on others, so a timer watches it.
 */

import { session } from './rpc.js';

/**
 * @typedef {import('../../target/snapshot.ts').Snapshot} Snapshot
 * @typedef {import('../../target/events.ts').TargetEvent} TargetEvent
 * @typedef {'connecting' | 'live' | 'lost' | 'login'} StreamState
 */

/** A snapshot comes every second. After this time without, the stream counts as lost; after the second, it is opened anew. */
const LOST_AFTER_MS = 3500;
const REOPEN_AFTER_MS = 8000;
const RETRY_MS = 2000;
const WATCH_MS = 1000;

/** The names of all events, as src/target/events.ts has them, but for `error`: a test compares. */
export const EVENT_TYPES = /** @type {const} */ ([
  'client-connected',
  'client-gone',
  'controller-enabled',
  'controller-disabled',
  'guest-reset',
  'guest-shutdown',
  'namespace-added',
  'namespace-removed',
  'namespace-resized',
  'subsystem-created',
  'subsystem-deleted',
  'listener-added',
  'listener-removed',
  'bdev-created',
  'bdev-deleted',
  'bdev-reopened',
  'bdev-disconnected',
  'bdev-connected',
  'write-back-failed',
  'queue-moved',
  'reactor-lost',
]);

export class Stream {
  /** @type {EventSource | undefined} */
  #source;
  /** Of the last snapshot, or of the last attempt. ms */
  #heard = 0;
  #opened = 0;
  #lastSeq = 0;
  #asking = false;
  /** @type {StreamState} */
  state = 'connecting';

  /** @param {{ snapshot(value: Snapshot): void, event(value: TargetEvent): void, state(value: StreamState): void }} listener */
  constructor(listener) {
    this.listener = listener;
  }

  start() {
    void this.#begin();
    setInterval(() => this.#watch(), WATCH_MS);
  }

  /** Asks first, since a refused stream is an error in the browser's console. */
  async #begin() {
    await this.#askSession();
    if (this.state !== 'login') this.#open();
  }

  /** Begins with the events of a target that has just started: its numbers have nothing to do with those before. */
  forgetEvents() {
    this.#lastSeq = 0;
  }

  /** Connects now, for one who has just logged in or does not want to wait. */
  reopen() {
    this.#open();
  }

  #open() {
    this.#source?.close();
    this.#opened = performance.now();
    this.#heard = this.#opened;
    const source = new EventSource(`/events?since=${this.#lastSeq}`);
    this.#source = source;
    source.addEventListener('snapshot', (message) => {
      this.#heard = performance.now();
      this.#become('live');
      this.listener.snapshot(JSON.parse(message.data));
    });
    /** @param {MessageEvent} message */
    const onEvent = (message) => {
      /** @type {TargetEvent} */
      const event = JSON.parse(message.data);
      this.#lastSeq = event.seq;
      this.listener.event(event);
    };
    for (const type of EVENT_TYPES) source.addEventListener(type, onEvent);
    source.addEventListener('error', (event) => {
      // The target has an event of that name; the browser's own has no data.
      if (event instanceof MessageEvent) onEvent(event);
      else this.#failed();
    });
  }

  #failed() {
    this.#source?.close();
    this.#source = undefined;
    if (this.state !== 'login') this.#become('lost');
    this.#askSession();
  }

  /** A refusal looks like any other failure to an EventSource. */
  async #askSession() {
    if (this.#asking) return;
    this.#asking = true;
    try {
      const { tokenNeeded, open } = await session();
      if (tokenNeeded && !open) this.#become('login');
    } catch {
      // Nobody there: #watch tries again.
    } finally {
      this.#asking = false;
    }
  }

  #watch() {
    const now = performance.now();
    if (this.state === 'login') return;
    if (this.#source === undefined) {
      if (now - this.#opened >= RETRY_MS) this.#open();
    } else if (now - this.#heard >= REOPEN_AFTER_MS) {
      this.#open();
    } else if (now - this.#heard >= LOST_AFTER_MS) {
      this.#become('lost');
    }
  }

  /** @param {StreamState} state */
  #become(state) {
    if (this.state === state) return;
    this.state = state;
    this.listener.state(state);
  }
}
