/**
 * The reservation commands, which come by I/O queues: reactors pass them on with their data, and complete them with what they are answered here
 * (`plane/main-commands.ts`). NVMe Base 2.0 §7.2 to §7.5. Owned by main.
 */
import type { SqeValues } from '../spec/command.ts';
import { Status } from '../spec/nvme.ts';
import {
  AcquireAction,
  ChangePtpl,
  EXTENDED_STATUS_BYTES,
  NO_CNTLID,
  Rcsts,
  RegisterAction,
  RegisteredController,
  RegisteredControllerExtended,
  ReleaseAction,
  ReservationAcquire,
  ReservationOpcode,
  ReservationRegister,
  ReservationRelease,
  ReservationReport,
  ReservationStatus,
  ReservationType,
} from '../spec/reservations.ts';
import type { ControllerHost } from './host.ts';
import { hostIdOf } from './host-key.ts';
import type { NamespaceState } from './namespace-state.ts';
import type { Outcome } from './reservations.ts';

/** How a command that a reactor has passed on ends. `data`: for its host. */
export interface MainResult {
  readonly status: number;
  readonly data?: Uint8Array;
}

interface Parts {
  readonly host: ControllerHost;
  /** The host's name. */
  readonly name: string;
  readonly nsid: number;
  readonly state: NamespaceState;
  /** Of the command. */
  readonly data: Uint8Array;
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** Keys as they are in memory. */
const keysOf = (data: Uint8Array): [string, string] => [
  hex(data.subarray(0, 8)),
  hex(data.subarray(8, 16)),
];

const isType = (type: number): boolean =>
  type > ReservationType.NONE && type <= ReservationType.EXCLUSIVE_ACCESS_ALL;

export async function executeReservation(
  command: SqeValues,
  data: Uint8Array,
  name: string,
  host: ControllerHost,
): Promise<MainResult> {
  const { nsid, opcode } = command;
  const state = host.namespaceState(nsid);
  if (state === undefined) {
    return { status: Status.INVALID_NAMESPACE };
  }
  if (state.busy !== Status.SUCCESS) {
    return { status: state.busy };
  }
  const parts: Parts = { host, name, nsid, state, data };
  switch (opcode) {
    case ReservationOpcode.REGISTER:
      return register(parts, command);
    case ReservationOpcode.ACQUIRE:
      return acquire(parts, command);
    case ReservationOpcode.RELEASE:
      return release(parts, command);
    case ReservationOpcode.REPORT:
      return report(parts, command);
    default:
      return { status: Status.INVALID_OPCODE };
  }
}

/** The answer comes when reactors, and the state folder, have what has changed. */
async function apply(
  { host, nsid, state }: Parts,
  outcome: Outcome,
  aborts: boolean,
  keep: boolean,
): Promise<MainResult> {
  const { status, changed, notices, preempted } = outcome;
  const isChanged = changed || keep;
  // What is unchanged may not be kept yet, where it was changed by a command that failed at that.
  if (status === Status.SUCCESS && (isChanged || state.reservations.ptpl)) {
    try {
      if (isChanged) {
        await host.reservationChanged(nsid, aborts ? preempted : []);
      }
      await host.keepReservations([nsid]);
    } catch (error) {
      host.log.error({ err: error, nsid }, 'a reservation could not be carried out');
      return { status: Status.INTERNAL_ERROR };
    }
    for (const { notice, hosts } of notices) {
      host.tellHosts({ kind: 'reservation', nsid, notice, hosts });
    }
  }
  return { status };
}

function register(parts: Parts, command: SqeValues): Promise<MainResult> | MainResult {
  const { host, name, state, data } = parts;
  const { rrega, iekey, cptpl } = ReservationRegister.parse(command);
  const { reservations } = state;
  const wantsKept = cptpl === ChangePtpl.PERSIST;
  if (rrega > RegisterAction.REPLACE || cptpl === 1 || (wantsKept && !host.keepsReservations)) {
    return { status: Status.INVALID_FIELD };
  }
  const [current, key] = keysOf(data);
  const outcome = reservations.register(name, rrega, current, key, iekey);
  const keep = outcome.status === Status.SUCCESS && cptpl !== ChangePtpl.NO_CHANGE;
  if (keep) {
    reservations.ptpl = wantsKept;
  }
  return apply(parts, outcome, false, keep);
}

function acquire(parts: Parts, command: SqeValues): Promise<MainResult> | MainResult {
  const { name, state, data } = parts;
  const { racqa, iekey, rtype } = ReservationAcquire.parse(command);
  if (racqa > AcquireAction.PREEMPT_AND_ABORT || iekey || !isType(rtype)) {
    return { status: Status.INVALID_FIELD };
  }
  const [current, other] = keysOf(data);
  const outcome = state.reservations.acquire(name, racqa, current, other, rtype);
  return apply(parts, outcome, racqa === AcquireAction.PREEMPT_AND_ABORT, false);
}

function release(parts: Parts, command: SqeValues): Promise<MainResult> | MainResult {
  const { name, state, data } = parts;
  const { rrela, iekey, rtype } = ReservationRelease.parse(command);
  if (rrela > ReleaseAction.CLEAR || iekey) {
    return { status: Status.INVALID_FIELD };
  }
  const [current] = keysOf(data);
  return apply(parts, state.reservations.release(name, rrela, current, rtype), false, false);
}

/** One entry for each controller of a registrant; one without a controller has one, too. */
function report({ host, name, state }: Parts, command: SqeValues): MainResult {
  const { numdZ, eds } = ReservationReport.parse(command);
  const { reservations } = state;
  // The two formats are of the two lengths of host identifiers.
  const own = hostIdOf(name);
  const isExtended = own.length > 8;
  if (own.some((byte) => byte !== 0) && isExtended !== eds) {
    return { status: Status.HOST_IDENTIFIER_INCONSISTENT_FORMAT };
  }
  const entries = [...reservations.registrants].flatMap(([each, key]) => {
    const cntlids = host.controllersOf(each);
    return (cntlids.length > 0 ? cntlids : [NO_CNTLID]).map((cntlid) => {
      const values = {
        cntlid,
        rcsts: Rcsts.encode({ holds: reservations.isHolder(each) }),
        rkey: Uint8Array.from(Buffer.from(key, 'hex')),
      };
      return eds
        ? RegisteredControllerExtended.encode({ ...values, hostid: hostIdOf(each) })
        : RegisteredController.encode({ ...values, hostid: hostIdOf(each).subarray(0, 8) });
    });
  });
  const head = new Uint8Array(eds ? EXTENDED_STATUS_BYTES : ReservationStatus.size);
  head.set(
    ReservationStatus.encode({
      gen: reservations.generation,
      rtype: reservations.type,
      regctl: entries.length,
      ptpls: Number(reservations.ptpl),
    }),
  );
  const all = Buffer.concat([head, ...entries]);
  const data = new Uint8Array(Math.min(4 * (numdZ + 1), Math.max(all.length, 4096)));
  data.set(all.subarray(0, data.length));
  return { status: Status.SUCCESS, data };
}
