/** The I/O commands that main carries out, and what the controller says of them: beside `io-commands.ts`, which has those of reactors. */
import type { Oncs } from '../spec/identify.ts';
import {
  RELEASE_BYTES,
  ReservationAcquire,
  ReservationKeys,
  ReservationRegister,
  ReservationRelease,
  ReservationReport,
} from '../spec/reservations.ts';

export interface ForwardedCommand {
  readonly name: string;
  readonly opcode: number;
  /** In the log of effects, beside CSUPP. */
  readonly effects: Readonly<Record<string, never>>;
  /** The bit of ONCS that says that the command is supported. */
  readonly oncs: keyof (typeof Oncs)['fields'];
  /** Bytes of data that the host sends. */
  readonly fromHost: number;
}

const describe = (
  { name, opcode }: { readonly name: string; readonly opcode: number },
  fromHost: number,
): ForwardedCommand => ({ name, opcode, effects: {}, oncs: 'reservations', fromHost });

export const FORWARDED_COMMANDS: readonly ForwardedCommand[] = [
  describe(ReservationRegister, ReservationKeys.size),
  describe(ReservationReport, 0),
  describe(ReservationAcquire, ReservationKeys.size),
  describe(ReservationRelease, RELEASE_BYTES),
];

/** By opcode. */
export const FORWARDED: ReadonlyMap<number, ForwardedCommand> = new Map(
  FORWARDED_COMMANDS.map((command) => [command.opcode, command]),
);
