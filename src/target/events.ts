/**
 * What happens to the target and its guests, as it happens: for whoever watches (JSON-RPC, HTTP, the state file). Owned by main.
 * A guest can make events as fast as it likes; `guestEvents` bounds them.
 */
import type { Logger } from '../util/log.ts';

/** Events kept for those who ask later. */
export const EVENTS_KEPT = 256;

/** An event without what the emission adds. `message` says why, in words for an operator. */
export type NewEvent =
  /** A vfio-user client agreed on a version: it sees a controller. */
  | {
      readonly type: 'client-connected';
      readonly nqn: string;
      readonly socket: string;
    }
  /** Nothing of the client is left. `message`: the reason of the disconnection. */
  | {
      readonly type: 'client-gone';
      readonly nqn: string;
      readonly socket: string;
      readonly message?: string;
    }
  /** The guest set CC.EN and the controller is ready; or cleared it, or lost it to a reset. */
  | {
      readonly type: 'controller-enabled' | 'controller-disabled';
      readonly nqn: string;
      readonly socket: string;
    }
  /** The device was reset from outside the controller: a function level reset, or the VM itself. */
  | { readonly type: 'guest-reset'; readonly nqn: string; readonly socket: string }
  /** The guest announced its shutdown (CC.SHN). */
  | { readonly type: 'guest-shutdown'; readonly nqn: string; readonly socket: string }
  | {
      readonly type: 'namespace-added' | 'namespace-removed' | 'namespace-resized';
      readonly nqn: string;
      readonly nsid: number;
      readonly bdev: string;
    }
  /** A deleted subsystem takes its namespaces with it; they have no events of their own. */
  | { readonly type: 'subsystem-created' | 'subsystem-deleted'; readonly nqn: string }
  | {
      readonly type: 'listener-added' | 'listener-removed';
      readonly nqn: string;
      readonly socket: string;
    }
  | {
      readonly type: 'bdev-created' | 'bdev-deleted' | 'bdev-reopened' | 'bdev-connected';
      readonly bdev: string;
    }
  /** The server of a bdev is not reached any more; `bdev-connected` when it is again. */
  | { readonly type: 'bdev-disconnected'; readonly bdev: string; readonly message: string }
  /** What was written to the bdev's file may be gone: no Flush succeeds until it is reopened. */
  | { readonly type: 'write-back-failed'; readonly bdev: string; readonly message: string }
  /** A completion queue and its submission queues go on at another reactor. */
  | {
      readonly type: 'queue-moved';
      readonly nqn: string;
      readonly socket: string;
      readonly cqid: number;
      readonly from: number;
      /** Where they are now. */
      readonly reactor: number;
    }
  | { readonly type: 'reactor-lost'; readonly reactor: number; readonly message: string }
  /** Something went wrong; the rest tells where, as far as known. */
  | {
      readonly type: 'error';
      readonly message: string;
      readonly nqn?: string;
      readonly socket?: string;
      readonly nsid?: number;
      readonly bdev?: string;
      readonly reactor?: number;
    };

export type EventType = NewEvent['type'];

export const EVENT_TYPES = [
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
  'error',
] as const satisfies readonly EventType[];

/** `seq` counts the target's events from 1; `time` is ISO 8601. */
export type TargetEvent = NewEvent & { readonly seq: number; readonly time: string };

export type EventListener = (event: TargetEvent) => void;

/** The events of one target. */
export class TargetEvents {
  readonly #log: Logger;
  readonly #listeners = new Set<EventListener>();
  readonly #kept: TargetEvent[] = [];
  #seq = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  /** Sequence number of the last event, or 0. */
  get last(): number {
    return this.#seq;
  }

  /** Tells every listener. Never throws: what a listener throws is logged. */
  emit(event: NewEvent): void {
    this.#seq += 1;
    const full: TargetEvent = { seq: this.#seq, time: new Date().toISOString(), ...event };
    this.#kept.push(full);
    if (this.#kept.length > EVENTS_KEPT) {
      this.#kept.shift();
    }
    for (const listener of [...this.#listeners]) {
      try {
        listener(full);
      } catch (error) {
        this.#log.error({ err: error, event: full.type }, 'a listener to events failed');
      }
    }
  }

  /** `listener` is called during each `emit` from now on, and must be quick. Returns what ends that. */
  subscribe(listener: EventListener): () => void {
    // A function of its own: the same listener may subscribe twice.
    const entry: EventListener = (event) => listener(event);
    this.#listeners.add(entry);
    return () => {
      this.#listeners.delete(entry);
    };
  }

  /** The events after number `seq`, oldest first, as far as they are kept. */
  since(seq = 0): readonly TargetEvent[] {
    return this.#kept.filter((event) => event.seq > seq);
  }
}

/** Events that one guest may cause at once, and how soon it may cause one more. */
const GUEST_BURST = 64;
const GUEST_REFILL_MS = 500;

/**
 * `emit` for the events that a guest causes, bounded: what exceeds the bound is left out, and the next event that is not says how
 * many were. `where` names the guest.
 */
export function guestEvents(
  events: TargetEvents,
  where: { readonly nqn: string; readonly socket: string },
): (event: NewEvent) => void {
  let allowed = GUEST_BURST;
  let refilled = Date.now();
  let leftOut = 0;
  return (event) => {
    const refills = Math.floor((Date.now() - refilled) / GUEST_REFILL_MS);
    if (refills > 0) {
      allowed = Math.min(GUEST_BURST, allowed + refills);
      refilled += refills * GUEST_REFILL_MS;
    }
    if (allowed === 0) {
      leftOut += 1;
      return;
    }
    allowed -= 1;
    if (leftOut > 0) {
      const message = `${leftOut} events of this guest were left out: there were too many`;
      leftOut = 0;
      events.emit({ type: 'error', ...where, message });
    }
    events.emit(event);
  };
}
