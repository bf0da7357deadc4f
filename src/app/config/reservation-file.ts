/** Reservations that persist through power loss, kept in the state folder: over any end of the process. Owned by main. */
import type { KeptNamespace, KeptReservations } from '../../target/kept-reservations.ts';
import type { Logger } from '../../util/log.ts';
import { KeptFile } from './kept-file.ts';

const MAX_TYPE = 6;

export class ReservationFile extends KeptFile<KeptNamespace> {
  constructor(folder: string, log: Logger) {
    const complaint = 'reservations could not be kept: the commands of guests about them fail';
    super(folder, { name: 'reservations.json', key: 'namespaces', isEntry, complaint }, log);
  }

  /** Keeps what `kept` has from now on. */
  follow(kept: KeptReservations, before: readonly KeptNamespace[]): void {
    kept.follow(before, () => this.save(() => kept.list()));
  }
}

function isEntry({
  uuid,
  generation,
  type,
  holder,
  registrants,
}: Partial<Record<keyof KeptNamespace, unknown>>): boolean {
  return (
    typeof uuid === 'string' &&
    Number.isInteger(generation) &&
    Number.isInteger(type) &&
    Number(type) >= 0 &&
    Number(type) <= MAX_TYPE &&
    (holder === undefined || typeof holder === 'string') &&
    areRegistrants(registrants)
  );
}

/** Host identifiers of 8 or 16 bytes, and keys of 8. */
function areRegistrants(registrants: unknown): boolean {
  return (
    Array.isArray(registrants) &&
    registrants.every((each: unknown) => {
      const [host, key] = (Array.isArray(each) ? each : []) as unknown[];
      return /^(?:[0-9a-f]{16}){1,2}$/.test(String(host)) && /^[0-9a-f]{16}$/.test(String(key));
    })
  );
}
