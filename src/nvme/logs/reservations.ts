/** The Reservation Notification log of a controller: one notice a reading, the oldest first. NVMe Base 2.0 §5.16.1.24. Owned by main. */
import { ReservationLog } from '../../spec/reservations.ts';

/** Those beyond are not kept. */
const MAX_NOTICES = 255;

export class ReservationNotices {
  readonly #waiting: { readonly lpc: number; readonly type: number; readonly nsid: number }[] = [];
  #count = 0;

  /** `type`: one of ReservationNotice. */
  add(nsid: number, type: number): void {
    this.#count += 1;
    if (this.#waiting.length < MAX_NOTICES) {
      this.#waiting.push({ lpc: this.#count, type, nsid });
    }
  }

  get any(): boolean {
    return this.#waiting.length > 0;
  }

  page(): Uint8Array {
    const [first] = this.#waiting;
    return ReservationLog.encode(
      first === undefined ? {} : { ...first, nalp: this.#waiting.length - 1 },
    );
  }

  /** The host has read the oldest. */
  read(): void {
    this.#waiting.shift();
  }

  reset(): void {
    this.#waiting.length = 0;
  }
}
