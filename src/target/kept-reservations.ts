/**
 * Reservations that persist through power loss, by the UUID of their namespace, also while that is away. Where nobody keeps them, hosts are
 * told so: RESCAP says that none persists. Owned by main.
 */
import { isDeepStrictEqual } from 'node:util';
import { isLasting } from '../nvme/host-key.ts';
import type { KeptReservation, Reservations } from '../nvme/reservations.ts';

/** The reservation of a namespace. */
export interface KeptNamespace extends KeptReservation {
  readonly uuid: string;
}

export class KeptReservations {
  readonly #kept = new Map<string, KeptReservation>();
  /** Counts what changed; and how much of that is on stable storage. */
  #changes = 0;
  #saved = 0;
  /** Puts `list` on stable storage. */
  #save: (() => Promise<void>) | undefined;

  get isDurable(): boolean {
    return this.#save !== undefined;
  }

  /** What was kept before; and from now on `save` is called when `list` gives something else. */
  follow(before: readonly KeptNamespace[], save: () => Promise<void>): void {
    for (const { uuid, ...reservation } of before) {
      this.#kept.set(uuid, reservation);
    }
    this.#save = save;
  }

  list(): readonly KeptNamespace[] {
    return [...this.#kept].map(([uuid, reservation]) => ({ uuid, ...reservation }));
  }

  /** A namespace is there again. */
  restore(uuid: string, reservations: Reservations): void {
    const kept = this.#kept.get(uuid);
    if (kept !== undefined) {
      reservations.restore(kept);
    }
  }

  /** Resolves when those that persist are kept, and others are not any more. Rejects with what the system says. */
  async keep(all: readonly (readonly [uuid: string, Reservations])[]): Promise<void> {
    for (const [uuid, reservations] of all) {
      const before = this.#kept.get(uuid);
      const now = reservations.ptpl ? lastingPart(reservations.kept) : undefined;
      if (isDeepStrictEqual(before, now)) {
        continue;
      }
      this.#changes += 1;
      if (now === undefined) {
        this.#kept.delete(uuid);
      } else {
        this.#kept.set(uuid, now);
      }
    }
    // Also what an earlier call failed to save, or has not saved yet: its change may be what this one is answered for.
    const changes = this.#changes;
    if (changes > this.#saved) {
      await this.#save?.();
      this.#saved = Math.max(this.#saved, changes);
    }
  }
}

/** Hosts without an identifier are not known again. */
function lastingPart({ generation, type, holder, registrants }: KeptReservation): KeptReservation {
  const isLost = holder !== undefined && !isLasting(holder);
  return {
    generation,
    type: isLost ? 0 : type,
    holder: isLost ? undefined : holder,
    registrants: registrants.filter(([host]) => isLasting(host)),
  };
}
