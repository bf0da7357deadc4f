/**
 * A connection that watches the target: each event, and if it wants the state from time to time, is a notification. A client that reads
 * too slowly loses its oldest events and is told how many; of snapshots it gets fewer. Owned by main.
 */
import type { EventType, TargetEvent } from '../target/events.ts';
import { type Snapshot, snapshot } from '../target/snapshot.ts';
import type { Target } from '../target/target.ts';
import type { Outlet } from './dispatcher.ts';

/** Events kept for a client that does not read. */
export const MAX_EVENTS_WAITING = 256;

export interface WatchOptions {
  /** Only these; undefined: all. */
  readonly types: ReadonlySet<EventType> | undefined;
  /** Begin with the events after this number that are kept. */
  readonly since: number;
  /** Milliseconds between two snapshots; undefined: none. */
  readonly snapshotMs: number | undefined;
}

export class Watch {
  readonly #target: Target;
  readonly #outlet: Outlet;
  readonly #types: ReadonlySet<EventType> | undefined;
  readonly #waiting: TargetEvent[] = [];
  readonly #unsubscribe: () => void;
  readonly #timer: NodeJS.Timeout | undefined;
  /** Events that were thrown away since the client was last told. */
  #dropped = 0;
  /** A snapshot is being taken. */
  #busy = false;
  #closed = false;

  /** Runs until `close`, or the end of the connection. */
  constructor(target: Target, outlet: Outlet, { types, since, snapshotMs }: WatchOptions) {
    this.#target = target;
    this.#outlet = outlet;
    this.#types = types;
    for (const event of target.events.since(since)) {
      this.#add(event);
    }
    this.#unsubscribe = target.events.subscribe((event) => {
      this.#add(event);
      this.#flush();
    });
    if (snapshotMs !== undefined) {
      this.#timer = setInterval(() => {
        // A target that has no snapshot has a bug: this watch ends, and nobody else is harmed.
        this.#sendSnapshot().catch(() => this.close());
      }, snapshotMs);
    }
    outlet.onReady(() => this.#flush());
    outlet.onClose(() => this.close());
    // After the answer to the request that asked for it.
    setImmediate(() => this.#flush());
  }

  close(): void {
    this.#closed = true;
    this.#unsubscribe();
    clearInterval(this.#timer);
    this.#waiting.length = 0;
  }

  #add(event: TargetEvent): void {
    if (this.#types?.has(event.type) ?? true) {
      this.#waiting.push(event);
      if (this.#waiting.length > MAX_EVENTS_WAITING) {
        this.#waiting.shift();
        this.#dropped += 1;
      }
    }
  }

  #flush(): void {
    const outlet = this.#outlet;
    while (!this.#closed && outlet.ready && (this.#dropped > 0 || this.#waiting.length > 0)) {
      if (this.#dropped > 0) {
        outlet.notify('doorbell_dropped', { dropped: this.#dropped });
        this.#dropped = 0;
      } else {
        outlet.notify('doorbell_event', this.#waiting.shift());
      }
    }
  }

  async #sendSnapshot(): Promise<void> {
    if (this.#busy || !this.#outlet.ready) {
      return;
    }
    this.#busy = true;
    const state: Snapshot = await snapshot(this.#target);
    this.#busy = false;
    if (!this.#closed && this.#outlet.ready) {
      this.#outlet.notify('doorbell_snapshot', state);
    }
  }
}
