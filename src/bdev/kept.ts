/**
 * Requests that a backend has to remember whole, as it carries them out later, or in steps. Memory of a reactor's own, made when the first
 * request needs it: few ever do.
 */
import { MAX_INFLIGHT } from '../limits.ts';
import type { System } from '../native/system.ts';
import type { Request } from './backend.ts';
import { Op } from './op.ts';
import { Ranges } from './ranges.ts';
import { Transfers } from './transfers.ts';

export class KeptRequests {
  /** Their scatter lists. */
  readonly transfers: Transfers;
  // By slot.
  readonly fua = new Uint8Array(MAX_INFLIGHT);
  readonly deallocate = new Uint8Array(MAX_INFLIGHT);
  readonly span = new Float64Array(MAX_INFLIGHT);
  /** Of discards. */
  readonly #ranges: (Ranges | undefined)[] = new Array(MAX_INFLIGHT).fill(undefined);

  constructor(system: System) {
    this.transfers = new Transfers(system);
  }

  keep(slot: number, op: Op, request: Request): void {
    const { transfers } = this;
    transfers.start(slot, op, request.segments);
    transfers.offset[slot] = request.offset[0];
    transfers.rest[slot] = request.length;
    this.fua[slot] = request.fua ? 1 : 0;
    this.deallocate[slot] = request.deallocate ? 1 : 0;
    this.span[slot] = request.span[0];
    if (op === Op.DISCARD) {
      let kept = this.#ranges[slot];
      if (kept === undefined) {
        kept = new Ranges();
        this.#ranges[slot] = kept;
      }
      kept.copy(request.ranges);
    }
  }

  /** Makes it the request under way. */
  recall(slot: number, request: Request): Op {
    const { transfers } = this;
    transfers.restore(slot, request.segments);
    request.offset[0] = transfers.offset[slot];
    request.length = transfers.rest[slot];
    request.fua = this.fua[slot] !== 0;
    request.deallocate = this.deallocate[slot] !== 0;
    request.span[0] = this.span[slot];
    const op = transfers.op[slot] as Op;
    if (op === Op.DISCARD) {
      request.ranges.copy(this.ranges(slot));
    }
    return op;
  }

  /** Of a discard that was kept. */
  ranges(slot: number): Ranges {
    const ranges = this.#ranges[slot];
    if (ranges === undefined) {
      throw new Error(`slot ${slot} has no ranges`);
    }
    return ranges;
  }
}
