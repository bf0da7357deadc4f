/**
 * The state of a controller in words, for whoever asks why a guest is stuck: registers decoded, the admin queue, features. No data of the
 * guest. NVMe Base 2.0 §3.1.3. Owned by main.
 */
import { AdminOpcode } from '../spec/admin.ts';
import { STATUS_CODE, Status } from '../spec/nvme.ts';
import { Aqa, CapHigh, CapLow, Cc, Csts, Register, Version } from '../spec/registers.ts';
import { readU64 } from '../util/struct.ts';
import type { Command } from './admin/command.ts';

/** A register: its value, and what it says. */
export type DecodedRegister = Readonly<Record<string, string | number | boolean>>;

export interface AdminQueueDiagnosis {
  readonly sqSize: number;
  readonly cqSize: number;
  readonly head: number;
  readonly tail: number;
  readonly cqHead: number;
  readonly cqTail: number;
  readonly phase: number;
  /** Memory of the queue is unmapped. */
  readonly stopped: boolean;
  /** An entry was all zeros: no driver makes such a command. */
  readonly zeros: boolean;
}

export interface AdminCommandDiagnosis {
  readonly opcode: string;
  readonly name: string;
  readonly cid: number;
  readonly nsid: number;
  readonly cdw10: string;
  readonly cdw11: string;
  /** When it was taken from the queue. ISO 8601. */
  readonly time: string;
  /** NVMe status, like '0x281', and its name; absent while it is carried out. An Asynchronous Event Request is 'parked'. */
  readonly status?: string;
  readonly statusName?: string;
}

export interface NvmeDiagnosis {
  readonly registers: Readonly<Record<string, DecodedRegister>>;
  /** Why CSTS.CFS is set. */
  readonly failure?: string;
  readonly adminQueue?: AdminQueueDiagnosis;
  /** Asynchronous Event Requests that wait for an event, and events that wait for a request. */
  readonly asyncEvents: { readonly requests: number; readonly events: number };
  /** Features whose value the guest changed. */
  readonly features: Readonly<Record<string, number>>;
  readonly lastAdminCommand?: AdminCommandDiagnosis;
}

export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/** The key of a value in a table of constants. */
function nameOf(table: Readonly<Record<string, number>>, value: number): string {
  return Object.entries(table).find(([, known]) => known === value)?.[0] ?? 'unknown';
}

/** By status code and type alone. */
const STATUS_NAMES = Object.fromEntries(
  Object.entries(Status).map(([name, status]) => [name, status & STATUS_CODE]),
);

const SHUTDOWN_NOTICE = ['none', 'normal', 'abrupt', 'reserved'];
const SHUTDOWN_STATUS = ['none', 'occurring', 'complete', 'reserved'];

/** `image`: the registers as the guest reads them. */
export function decodeRegisters(image: DataView): Record<string, DecodedRegister> {
  const { offset } = Register;
  const dword = (at: number): number => image.getUint32(at, true);
  const [low, high] = [dword(offset.cap), dword(offset.cap + 4)];
  const [version, cc, csts, aqa] = [offset.vs, offset.cc, offset.csts, offset.aqa].map(dword);
  const cap = { ...CapLow.decode(low), ...CapHigh.decode(high) };
  const { mjr, mnr, ter } = Version.decode(version);
  const config = Cc.decode(cc);
  const status = Csts.decode(csts);
  const { asqsZ, acqsZ } = Aqa.decode(aqa);
  return {
    cap: {
      value: `0x${high.toString(16)}${low.toString(16).padStart(8, '0')}`,
      maxQueueEntries: cap.mqesZ + 1,
      contiguousQueuesRequired: cap.cqr,
      timeoutMs: cap.to * 500,
      doorbellStride: 4 << cap.dstrd,
      minPageSize: 4096 << cap.mpsmin,
      maxPageSize: 4096 << cap.mpsmax,
    },
    vs: { value: hex(version), version: `${mjr}.${mnr}.${ter}` },
    cc: {
      value: hex(cc),
      enabled: config.en,
      commandSet: config.css,
      pageSize: 4096 << config.mps,
      arbitration: config.ams,
      shutdown: SHUTDOWN_NOTICE[config.shn],
      sqEntryBytes: 1 << config.iosqes,
      cqEntryBytes: 1 << config.iocqes,
    },
    csts: {
      value: hex(csts),
      ready: status.rdy,
      failed: status.cfs,
      shutdown: SHUTDOWN_STATUS[status.shst],
    },
    aqa: { value: hex(aqa), sqSize: asqsZ + 1, cqSize: acqsZ + 1 },
    asq: { value: hex(readU64(image, offset.asq)) },
    acq: { value: hex(readU64(image, offset.acq)) },
    intms: { value: hex(dword(offset.intms)) },
  };
}

/** `status`: undefined while the command is carried out. */
export function describeAdminCommand(
  { opcode, cid, nsid, cdw10, cdw11 }: Command,
  time: Date,
  status: number | 'parked' | undefined,
): AdminCommandDiagnosis {
  return {
    opcode: hex(opcode),
    name: nameOf(AdminOpcode, opcode),
    cid,
    nsid,
    cdw10: hex(cdw10),
    cdw11: hex(cdw11),
    time: time.toISOString(),
    ...(status === 'parked' && { status }),
    ...(typeof status === 'number' && {
      status: hex(status & STATUS_CODE),
      statusName: nameOf(STATUS_NAMES, status & STATUS_CODE),
    }),
  };
}
