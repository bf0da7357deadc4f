/**
 * What an admin command is here: its layout, what it does, and what the controller says of it. Identify, the Commands Supported and Effects
 * log and docs/conformance.md are made of what is registered (`table.ts`), so nothing is advertised that is not carried out. Owned by main.
 */
import type { CommandLayout, ParameterPlace, Parsed, SqeValues } from '../../spec/command.ts';
import type { IdentifyController, Oacs } from '../../spec/identify.ts';
import type { Effects } from '../../spec/logs.ts';
import { Status, StatusField } from '../../spec/nvme.ts';
import type { BitValues } from '../../util/bits.ts';
import type { StructValues } from '../../util/struct.ts';
import type { AsyncEvents } from '../events.ts';
import type { Features } from '../features/state.ts';
import type { ControllerConfig, ControllerHost } from '../host.ts';
import type { ChangedNamespaces } from '../logs/changed.ts';
import type { ErrorLog } from '../logs/errors.ts';
import type { ReservationNotices } from '../logs/reservations.ts';
import type { Health } from '../logs/smart.ts';
import type { Telemetry } from '../logs/telemetry.ts';
import type { SelfTests } from '../self-test.ts';
import type { ShadowPages } from '../shadow.ts';
import type { AdminData } from './data.ts';
import type { AdminIoQueues } from './io-queues.ts';

/** A command as a copy of its entry, so that the host cannot change it meanwhile. */
export type Command = SqeValues;

/** How a command ends: a status and dword 0. `place`: the parameter that it is refused for. */
export interface Result {
  readonly status: number;
  readonly dw0: number;
  readonly place?: ParameterPlace;
}

/** Or not yet: an Asynchronous Event Request. */
export type Outcome = Result | 'parked';

export const done = (status: number, dw0 = 0): Result => ({ status, dw0 });
export const SUCCESS = done(Status.SUCCESS);

/** Refuses a command for a parameter of its. The error log has the place, which is what the More bit says. NVMe Base 2.0 figure 92. */
export function refuse<C extends { location(field: never): ParameterPlace }>(
  layout: C,
  field: Parameters<C['location']>[0],
  status: number = Status.INVALID_FIELD,
): Result {
  return {
    status: StatusField.replace(status, { more: true }),
    dw0: 0,
    place: layout.location(field),
  };
}

/** What commands work on: the parts of one controller. */
export interface AdminContext {
  readonly config: ControllerConfig;
  /** All commands of this controller. */
  readonly commands: readonly AdminCommand[];
  readonly host: ControllerHost;
  readonly features: Features;
  readonly events: AsyncEvents;
  readonly errors: ErrorLog;
  readonly health: Health;
  readonly changed: ChangedNamespaces;
  readonly telemetry: Telemetry;
  readonly reservations: ReservationNotices;
  readonly tellReservations: () => void;
  readonly selfTests: SelfTests;
  /** Abort commands under way. */
  readonly aborts: { count: number };
  /** Another one after each reset: what waited meanwhile must not touch the host's memory any more. */
  readonly epoch: number;
  readonly queues: AdminIoQueues;
  readonly data: AdminData;
  /** The host gave a sign of life, or changed how often it has to. */
  readonly keepAlive: () => void;
  /** The admin queue finds its doorbells in these pages from now on; false if they are not in guest memory. */
  readonly setShadow: (pages: ShadowPages) => boolean;
  /** A critical warning, or whether the host wants to be told of it, may have changed. */
  readonly checkHealth: () => void;
}

export type EffectsValues = Partial<BitValues<(typeof Effects)['fields']>>;

export interface AdminCommand {
  readonly name: string;
  readonly opcode: number;
  /** In the log of effects, beside CSUPP. */
  readonly effects: EffectsValues;
  /** What Identify Controller says of it otherwise. */
  readonly identify: Partial<StructValues<(typeof IdentifyController)['fields']>>;
  /** The bit of OACS that says that the command is supported. */
  readonly oacs: keyof (typeof Oacs)['fields'] | undefined;
  /** A controller of this kind has the command. */
  readonly offered: (config: ControllerConfig) => boolean;
  /** It is of use only where the host's memory is mapped here. */
  readonly needsSharedMemory: boolean;
  /** Carries the command out: at once, unless it has to wait for a reactor or a disk. */
  readonly run: (context: AdminContext, command: Command) => Outcome | Promise<Outcome>;
}

/** A command of the table: `run` gets its parameters as `layout` reads them. */
// biome-ignore lint/suspicious/noExplicitAny: any layout, whose parameters `Parsed` gives.
export function adminCommand<C extends CommandLayout<any>>(
  layout: C,
  run: (
    parameters: Parsed<C>,
    context: AdminContext,
    command: Command,
  ) => Outcome | Promise<Outcome>,
  options: Partial<
    Pick<AdminCommand, 'effects' | 'oacs' | 'offered' | 'needsSharedMemory' | 'identify'>
  > = {},
): AdminCommand {
  const { effects = {}, oacs, offered = () => true } = options;
  const { needsSharedMemory = false, identify = {} } = options;
  return {
    name: layout.name,
    opcode: layout.opcode,
    effects,
    oacs,
    offered,
    needsSharedMemory,
    identify,
    run: (context, command) => run(layout.parse(command) as Parsed<C>, context, command),
  };
}
