/**
 * Server-sent events: what happens to the target, as it happens, and a snapshot of its counters once a second. One snapshot serves all
 * clients; a client that does not read is dropped before it costs memory. Owned by main.
 */
import type { ServerResponse } from 'node:http';
import type { TargetEvent, TargetEvents } from '../target/events.ts';
import type { Snapshot } from '../target/snapshot.ts';
import type { Logger } from '../util/log.ts';

/** Clients at the same time. */
export const MAX_EVENT_CLIENTS = 32;
/** What a client has not read, in bytes, above which it is dropped. */
const MAX_UNREAD_BYTES = 1024 * 1024;
const SNAPSHOT_INTERVAL_MS = 1000;
/** How long a browser waits before it connects again. */
const RETRY_MS = 2000;

export interface EventSources {
  readonly events: TargetEvents;
  readonly snapshot: () => Promise<Snapshot>;
}

export class EventStream {
  readonly #sources: EventSources;
  readonly #log: Logger;
  readonly #clients = new Set<ServerResponse>();
  readonly #unsubscribe: () => void;
  #timer: NodeJS.Timeout | undefined;
  /** The last snapshot, as sent. Kept while there are clients. */
  #latest = '';

  constructor(sources: EventSources, log: Logger) {
    this.#sources = sources;
    this.#log = log;
    this.#unsubscribe = sources.events.subscribe((event) => this.#send(eventFrame(event)));
  }

  get full(): boolean {
    return this.#clients.size >= MAX_EVENT_CLIENTS;
  }

  /** Sends events from now on to a response whose head is written; first those after number `since`, as far as they are kept. */
  add(response: ServerResponse, since: number | undefined): void {
    response.on('close', () => this.#remove(response));
    response.on('error', () => {});
    response.write(`retry: ${RETRY_MS}\n\n${this.#replay(since)}${this.#latest}`);
    this.#clients.add(response);
    if (this.#timer === undefined) {
      this.#timer = setTimeout(() => this.#tick(), 0);
    }
  }

  #replay(since: number | undefined): string {
    const { events } = this.#sources;
    if (since === undefined) {
      return '';
    }
    // A number that was not reached yet is of a target that ran here before.
    return events
      .since(since > events.last ? 0 : since)
      .map(eventFrame)
      .join('');
  }

  #remove(response: ServerResponse): void {
    this.#clients.delete(response);
    if (this.#clients.size === 0) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
      this.#latest = '';
    }
  }

  async #tick(): Promise<void> {
    const timer = this.#timer;
    const due = Date.now() + SNAPSHOT_INTERVAL_MS;
    let frame = '';
    try {
      frame = `event: snapshot\ndata: ${JSON.stringify(await this.#sources.snapshot())}\n\n`;
    } catch (error) {
      this.#log.error({ err: error }, 'no snapshot for the clients of /events');
    }
    // Unless all clients went meanwhile.
    if (timer !== undefined && timer === this.#timer) {
      this.#latest = frame;
      this.#timer = setTimeout(() => this.#tick(), Math.max(0, due - Date.now()));
      this.#send(frame);
    }
  }

  #send(frame: string): void {
    for (const response of this.#clients) {
      if (response.writableLength > MAX_UNREAD_BYTES) {
        this.#log.warn('a client of /events does not read and was dropped');
        response.destroy();
      } else if (frame !== '') {
        response.write(frame);
      }
    }
  }

  /** Ends all streams. */
  close(): void {
    this.#unsubscribe();
    for (const response of [...this.#clients]) {
      this.#remove(response);
      response.end();
    }
  }
}

function eventFrame(event: TargetEvent): string {
  return `id: ${event.seq}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}
