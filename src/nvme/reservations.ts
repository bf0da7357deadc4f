/**
 * The reservation of a namespace: who has registered with which key, who holds it, and what each host may do therefore. Rules alone: who tells
 * reactors and hosts is elsewhere. NVMe Base 2.0 §8.19, §7.2 to §7.5. Owned by main.
 */
import { Status } from '../spec/nvme.ts';
import {
  AcquireAction,
  RegisterAction,
  ReleaseAction,
  ReservationNotice,
  ReservationType as Type,
} from '../spec/reservations.ts';
import type { Access } from './namespace-state.ts';

/** Hosts that may register. */
export const MAX_REGISTRANTS = 64;
const NO_KEY = '0000000000000000';

/** What hosts are told: one of ReservationNotice. */
export interface Notice {
  readonly notice: number;
  readonly hosts: readonly string[];
}

/** What came of a command. */
export interface Outcome {
  readonly status: number;
  readonly notices: readonly Notice[];
  /** Hosts that are not registered any more. */
  readonly preempted: readonly string[];
  /** Something is otherwise than before. */
  readonly changed: boolean;
}

/** As it is kept. */
export interface KeptReservation {
  readonly generation: number;
  readonly type: number;
  readonly holder: string | undefined;
  /** Host and key. */
  readonly registrants: readonly (readonly [string, string])[];
}

const refused = (status: number): Outcome => ({
  ...{ status, notices: [], preempted: [], changed: false },
});
const CONFLICT = refused(Status.RESERVATION_CONFLICT);
const UNCHANGED = refused(Status.SUCCESS);

const isOfAll = (type: number): boolean =>
  type === Type.WRITE_EXCLUSIVE_ALL || type === Type.EXCLUSIVE_ACCESS_ALL;
/** Registrants may do what the holder may; so they want to know when it ends. */
const isOfRegistrants = (type: number): boolean => type >= Type.WRITE_EXCLUSIVE_REGISTRANTS;
const allowsReads = (type: number): boolean => type % 2 === 1;

/** Hosts are named by their identifiers (`hostKey`), keys are 16 hexadecimal digits. */
export class Reservations {
  generation = 0;
  type: number = Type.NONE;
  /** It persists through power loss. */
  ptpl = false;
  /** Of a type that one host holds. */
  #holder: string | undefined;
  readonly #keys = new Map<string, string>();

  get registrants(): ReadonlyMap<string, string> {
    return this.#keys;
  }

  isHolder(host: string): boolean {
    return isOfAll(this.type) ? this.#keys.has(host) : this.#holder === host;
  }

  /** What the commands of a host may do. */
  access(host: string): Access {
    const { type } = this;
    const isFree =
      type === Type.NONE || this.isHolder(host) || (isOfRegistrants(type) && this.#keys.has(host));
    return isFree
      ? { read: Status.SUCCESS, write: Status.SUCCESS }
      : {
          read: allowsReads(type) ? Status.SUCCESS : Status.RESERVATION_CONFLICT,
          write: Status.RESERVATION_CONFLICT,
        };
  }

  get kept(): KeptReservation {
    const { generation, type } = this;
    return { generation, type, holder: this.#holder, registrants: [...this.#keys] };
  }

  restore({ generation, type, holder, registrants }: KeptReservation): void {
    this.generation = generation;
    this.type = type;
    this.#holder = holder;
    for (const [host, key] of registrants) {
      this.#keys.set(host, key);
    }
    this.ptpl = true;
  }

  #others(host: string): string[] {
    return [...this.#keys.keys()].filter((each) => each !== host);
  }

  #count(): void {
    this.generation = (this.generation + 1) % 0x1_0000_0000;
  }

  #end(): void {
    this.type = Type.NONE;
    this.#holder = undefined;
  }

  // --- register -----------------------------------------------------------------------------------------------------

  register(
    host: string,
    action: number,
    current: string,
    key: string,
    ignoresKey: boolean,
  ): Outcome {
    const known = this.#keys.get(host);
    if (action === RegisterAction.REGISTER) {
      if (known !== undefined) {
        return known === key ? UNCHANGED : CONFLICT;
      }
      return this.#keys.size >= MAX_REGISTRANTS
        ? refused(Status.INTERNAL_ERROR)
        : this.#setKey(host, key);
    }
    if (known === undefined || (!ignoresKey && known !== current)) {
      return CONFLICT;
    }
    return action === RegisterAction.REPLACE ? this.#setKey(host, key) : this.#unregister(host);
  }

  #setKey(host: string, key: string): Outcome {
    this.#keys.set(host, key);
    this.#count();
    return { ...UNCHANGED, changed: true };
  }

  #unregister(host: string): Outcome {
    const { type } = this;
    const ends =
      this.#holder === host || (isOfAll(type) && this.#keys.size === 1 && this.#keys.has(host));
    this.#keys.delete(host);
    this.#count();
    if (!ends) {
      return { ...UNCHANGED, changed: true };
    }
    this.#end();
    return { ...UNCHANGED, changed: true, notices: this.#released(host, type) };
  }

  #released(host: string, type: number): Notice[] {
    const hosts = this.#others(host);
    return isOfRegistrants(type) && hosts.length > 0
      ? [{ notice: ReservationNotice.RESERVATION_RELEASED, hosts }]
      : [];
  }

  // --- acquire ------------------------------------------------------------------------------------------------------

  acquire(host: string, action: number, current: string, preempts: string, type: number): Outcome {
    if (this.#keys.get(host) !== current) {
      return CONFLICT;
    }
    if (action !== AcquireAction.ACQUIRE) {
      return this.#preempt(host, preempts, type);
    }
    if (this.type === Type.NONE) {
      this.#hold(host, type);
      return { ...UNCHANGED, changed: true };
    }
    return this.isHolder(host) && this.type === type ? UNCHANGED : CONFLICT;
  }

  #hold(host: string, type: number): void {
    this.type = type;
    this.#holder = isOfAll(type) ? undefined : host;
  }

  #preempt(host: string, key: string, type: number): Outcome {
    const before = this.type;
    const isAll = isOfAll(before);
    if (key === NO_KEY && !isAll && before !== Type.NONE) {
      return refused(Status.INVALID_FIELD);
    }
    const everybody = isAll && key === NO_KEY;
    const named = [...this.#keys].filter(([, each]) => everybody || each === key);
    const takes =
      everybody || (!isAll && this.#holder !== undefined && this.#keys.get(this.#holder) === key);
    if (named.length === 0) {
      return CONFLICT;
    }
    const preempted = named.map(([each]) => each).filter((each) => each !== host);
    const held = preempted.filter((each) => this.isHolder(each));
    for (const each of preempted) {
      this.#keys.delete(each);
    }
    this.#count();
    if (takes) {
      this.#hold(host, type);
    }
    const { RESERVATION_PREEMPTED, REGISTRATION_PREEMPTED, RESERVATION_RELEASED } =
      ReservationNotice;
    const registrations = preempted.filter((each) => !(takes && held.includes(each)));
    const notices: Notice[] = [
      { notice: RESERVATION_PREEMPTED, hosts: takes ? held : [] },
      { notice: REGISTRATION_PREEMPTED, hosts: registrations },
      // Those who stay have lost what the reservation before let them do.
      {
        notice: RESERVATION_RELEASED,
        hosts: takes && isOfRegistrants(before) && before !== type ? this.#others(host) : [],
      },
    ];
    return {
      status: Status.SUCCESS,
      notices: notices.filter(({ hosts }) => hosts.length > 0),
      preempted,
      changed: true,
    };
  }

  // --- release ------------------------------------------------------------------------------------------------------

  release(host: string, action: number, current: string, type: number): Outcome {
    if (this.#keys.get(host) !== current) {
      return CONFLICT;
    }
    if (action === ReleaseAction.CLEAR) {
      const hosts = this.#others(host);
      this.#keys.clear();
      this.#end();
      this.#count();
      const notice = { notice: ReservationNotice.RESERVATION_PREEMPTED, hosts };
      return { ...UNCHANGED, changed: true, notices: hosts.length > 0 ? [notice] : [] };
    }
    if (this.type === Type.NONE || !this.isHolder(host)) {
      return UNCHANGED;
    }
    if (this.type !== type) {
      return refused(Status.INVALID_FIELD);
    }
    this.#end();
    return { ...UNCHANGED, changed: true, notices: this.#released(host, type) };
  }
}
