/**
 * The state of a controller in words, for whoever asks why a guest is stuck: registers decoded, the admin queue, features. No data of the
 * guest. NVMe Base 2.0 §3.1.3. Owned by main.
 */
import { AdminOpcode, Cc, Csts, Register, Status } from '../spec/nvme.ts';
import { readU64 } from '../util/struct.ts';
import type { Command } from './admin.ts';

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

/** SCT and SC of a status. */
const STATUS_MASK = 0x7ff;

export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}

/** The key of a value in a table of constants. */
function nameOf(table: Readonly<Record<string, number>>, value: number): string {
  return Object.entries(table).find(([, known]) => known === value)?.[0] ?? 'unknown';
}

const SHUTDOWN_NOTICE = ['none', 'normal', 'abrupt', 'reserved'];
const SHUTDOWN_STATUS = ['none', 'occurring', 'complete', 'reserved'];

/** `image`: the registers as the guest reads them. */
export function decodeRegisters(image: DataView): Record<string, DecodedRegister> {
  const { offset } = Register;
  const dword = (at: number): number => image.getUint32(at, true);
  const [capLo, capHi, version] = [dword(offset.cap), dword(offset.cap + 4), dword(offset.vs)];
  const [cc, csts, aqa] = [dword(offset.cc), dword(offset.csts), dword(offset.aqa)];
  return {
    cap: {
      value: `0x${capHi.toString(16)}${capLo.toString(16).padStart(8, '0')}`,
      maxQueueEntries: (capLo & 0xffff) + 1,
      contiguousQueuesRequired: ((capLo >>> 16) & 1) === 1,
      timeoutMs: (capLo >>> 24) * 500,
      doorbellStride: 4 << (capHi & 15),
      minPageSize: 4096 << ((capHi >>> 16) & 15),
      maxPageSize: 4096 << ((capHi >>> 20) & 15),
    },
    vs: {
      value: hex(version),
      version: `${version >>> 16}.${(version >>> 8) & 0xff}.${version & 0xff}`,
    },
    cc: {
      value: hex(cc),
      enabled: (cc & Cc.EN) !== 0,
      commandSet: (cc >>> Cc.CSS_SHIFT) & Cc.CSS_MASK,
      pageSize: 4096 << ((cc >>> Cc.MPS_SHIFT) & Cc.MPS_MASK),
      arbitration: (cc >>> Cc.AMS_SHIFT) & Cc.AMS_MASK,
      shutdown: SHUTDOWN_NOTICE[(cc >>> Cc.SHN_SHIFT) & Cc.SHN_MASK],
      sqEntryBytes: 1 << ((cc >>> Cc.IOSQES_SHIFT) & Cc.ES_MASK),
      cqEntryBytes: 1 << ((cc >>> Cc.IOCQES_SHIFT) & Cc.ES_MASK),
    },
    csts: {
      value: hex(csts),
      ready: (csts & Csts.RDY) !== 0,
      failed: (csts & Csts.CFS) !== 0,
      shutdown: SHUTDOWN_STATUS[(csts & Csts.SHST_MASK) >>> 2],
    },
    aqa: { value: hex(aqa), sqSize: (aqa & 0xfff) + 1, cqSize: ((aqa >>> 16) & 0xfff) + 1 },
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
      status: hex(status & STATUS_MASK),
      statusName: nameOf(Status, status),
    }),
  };
}
