/** Memory of a reactor's own for commands that must not use that of their hosts: see bounce.ts. */
import { MAX_INFLIGHT } from '../limits.ts';
import type { System } from '../native/system.ts';
import { Transfers } from './transfers.ts';

/** A slot's share. What was never used takes no memory. Bytes. */
export const CHUNK = 64 * 1024;

/** A reactor's memory for this, made when the first command needs it. */
export class Bounces {
  /** How far the commands are that go through it: their own buffers, as the base's transfers know only the chunk. */
  readonly transfers: Transfers;
  /** Host address of each slot's chunk. */
  readonly address = new Float64Array(MAX_INFLIGHT);
  /** Keeps the mapping alive. */
  readonly memory: SharedArrayBuffer;

  constructor(system: System) {
    this.transfers = new Transfers(system);
    this.memory = system.mapAnonymous(MAX_INFLIGHT * CHUNK);
    const base = system.addressOf(new Uint8Array(this.memory, 0, 1));
    for (let slot = 0; slot < MAX_INFLIGHT; slot++) {
      this.address[slot] = base + slot * CHUNK;
    }
  }
}
