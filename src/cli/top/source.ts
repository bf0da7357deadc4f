/** Where `doorbell top` gets its figures: a target's snapshots and events, through JSON-RPC. */
import type { TargetEvent } from '../../target/events.ts';
import type { Snapshot } from '../../target/snapshot.ts';
import { callTarget } from '../call.ts';
import { CliError } from '../output.ts';
import { compare, type View } from './rates.ts';

const TIMEOUT_MS = 10_000;
const MAX_EVENTS = 256;

export class Source {
  readonly #socket: string;
  #last: Snapshot | undefined;
  #events: TargetEvent[] = [];

  constructor(socket: string) {
    this.#socket = socket;
  }

  /** Takes a snapshot, and compares it with the one before. Rejects with a CliError; the next call starts anew. */
  async next(): Promise<View> {
    const current = await this.#call('doorbell_get_snapshot');
    if (!isSnapshot(current)) {
      throw new CliError(
        `${this.#socket} answers with another kind of snapshot: its target is of another version`,
      );
    }
    if (this.#last !== undefined && this.#last.pid !== current.pid) {
      this.#events = [];
    }
    const since = this.#events.at(-1)?.seq ?? 0;
    const events = await this.#call('doorbell_get_events', { since });
    if (Array.isArray(events)) {
      this.#events = [...this.#events, ...events.filter(isEvent)].slice(-MAX_EVENTS);
    }
    const view = compare(this.#last, current);
    this.#last = current;
    return view;
  }

  /** The last ones, oldest first. */
  get events(): readonly TargetEvent[] {
    return this.#events;
  }

  async #call(method: string, params?: unknown): Promise<unknown> {
    return callTarget(this.#socket, method, params, TIMEOUT_MS);
  }
}

/** The parts that this reads are there; a target of this version fills them in rightly. */
function isSnapshot(value: unknown): value is Snapshot {
  return (
    typeof value === 'object' &&
    value !== null &&
    'ticks' in value &&
    typeof value.ticks === 'number' &&
    'pid' in value &&
    'memory' in value &&
    ['reactors', 'bdevs', 'subsystems'].every((key) =>
      Array.isArray((value as Record<string, unknown>)[key]),
    )
  );
}

function isEvent(value: unknown): value is TargetEvent {
  return (
    typeof value === 'object' &&
    value !== null &&
    'seq' in value &&
    typeof value.seq === 'number' &&
    'type' in value &&
    typeof value.type === 'string' &&
    'time' in value &&
    typeof value.time === 'string'
  );
}
