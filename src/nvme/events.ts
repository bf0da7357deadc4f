/**
 * Asynchronous events: requests that the host parked, events that wait for one, and the rule that a type is silent until its log page was
 * read. NVMe Base 2.0 §5.2. Owned by main.
 */
import { MAX_ASYNC_EVENT_REQUESTS } from '../limits.ts';
import { AsyncEventResult } from '../spec/events.ts';

/** Notices that this controller gives to hosts that ask for them: bits of OAES and of the Asynchronous Event Configuration. */
export const NOTICES = ['namespaceAttribute'] as const;
export type AsyncNotice = (typeof NOTICES)[number];

export interface Event {
  /** AsyncEventType. */
  readonly type: number;
  readonly info: number;
  /** Log page that tells more, and whose reading lets the next event of the type through. */
  readonly logPage: number;
}

export class AsyncEvents {
  /** Command ids of parked requests, oldest first. */
  #parked: number[] = [];
  /** Command ids of requests that were taken back and are still to be completed. */
  #aborted: number[] = [];
  #waiting: Event[] = [];
  /** Types reported and not yet read about, by log page. */
  readonly #silenced = new Map<number, number>();

  reset(): void {
    this.#parked = [];
    this.#aborted = [];
    this.#waiting = [];
    this.#silenced.clear();
  }

  /** Parks a request. False if the host has as many as it may: those taken back count until they are completed. */
  park(cid: number): boolean {
    if (this.#parked.length + this.#aborted.length >= MAX_ASYNC_EVENT_REQUESTS) {
      return false;
    }
    this.#parked.push(cid);
    return true;
  }

  /** Requests that wait for an event, and events that wait for a request. */
  get counts(): { readonly requests: number; readonly events: number } {
    return { requests: this.#parked.length, events: this.#waiting.length };
  }

  /** Takes back a parked request, for Abort. False if none has this command id. */
  abort(cid: number): boolean {
    const at = this.#parked.indexOf(cid);
    if (at < 0) {
      return false;
    }
    this.#parked.splice(at, 1);
    this.#aborted.push(cid);
    return true;
  }

  /** There is a request to complete. */
  get ready(): boolean {
    return (
      this.#aborted.length > 0 ||
      (this.#parked.length > 0 && this.#waiting.some(({ type }) => !this.#silenced.has(type)))
    );
  }

  /** The next request to complete as aborted. */
  nextAborted(): number | undefined {
    return this.#aborted.shift();
  }

  /** Notes an event; the same event is not noted twice. */
  add(event: Event): void {
    if (!this.#waiting.some((other) => other.type === event.type && other.info === event.info)) {
      this.#waiting.push(event);
    }
  }

  /** The log page was read: events of its type may be reported again. */
  read(logPage: number): void {
    for (const [type, page] of this.#silenced) {
      if (page === logPage) {
        this.#silenced.delete(type);
      }
    }
  }

  /** The next request to complete, with dword 0 of its completion. */
  next(): { cid: number; dw0: number } | undefined {
    const event = this.#waiting.find(({ type }) => !this.#silenced.has(type));
    if (event === undefined || this.#parked.length === 0) {
      return undefined;
    }
    const cid = this.#parked.shift()!;
    this.#waiting = this.#waiting.filter((other) => other !== event);
    this.#silenced.set(event.type, event.logPage);
    const { type, info, logPage } = event;
    return { cid, dw0: AsyncEventResult.encode({ type, info, logPage }) };
  }
}
