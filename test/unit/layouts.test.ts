/** Structures against the specifications' own figures: a size and some offsets each, written down a second time on purpose. */
import t from 'tap';
import {
  IdentifyController,
  IdentifyNamespace,
  LbaFormat,
  PowerState,
} from '../../src/spec/identify.ts';
import { Cqe, ErrorLogEntry, Register, SmartLog, Sqe, Status } from '../../src/spec/nvme.ts';
import { MsixCapability, PcieCapability, PciHeader, PmCapability } from '../../src/spec/pci.ts';
import { Iovec, UringCqe, UringSqe } from '../../src/spec/uring.ts';
import type { Fields, Struct } from '../../src/util/struct.ts';

function check<F extends Fields>(
  layout: Struct<F>,
  size: number,
  offsets: Partial<Record<keyof F, number>>,
) {
  t.test(layout.name, async (t) => {
    t.equal(layout.size, size);
    for (const [field, offset] of Object.entries(offsets)) {
      t.equal(layout.offset[field], offset, field);
    }
  });
}

check(Sqe, 64, { cdw0: 0, nsid: 4, mptr: 16, prp1: 24, prp2: 32, cdw10: 40, cdw12: 48, cdw15: 60 });
check(Cqe, 16, { dw0: 0, sqhd: 8, sqid: 10, cid: 12, status: 14 });
check(Register, 0x1000, {
  cap: 0,
  vs: 8,
  intms: 0xc,
  cc: 0x14,
  csts: 0x1c,
  aqa: 0x24,
  asq: 0x28,
  acq: 0x30,
});
check(IdentifyController, 4096, {
  sn: 4,
  mn: 24,
  fr: 64,
  mdts: 77,
  cntlid: 78,
  ver: 80,
  oaes: 92,
  oacs: 256,
  sqes: 512,
  nn: 516,
  oncs: 520,
  vwc: 525,
  sgls: 536,
  subnqn: 768,
  psds: 2048,
  rrls: 100,
  cntrltype: 111,
  crdt3: 132,
  mec: 255,
  elpe: 262,
  wctemp: 266,
  unvmcap: 296,
  rpmbs: 312,
  kas: 320,
  sanicap: 328,
  hmmaxd: 336,
  anatt: 342,
  pels: 352,
  megcap: 368,
  icsvscc: 530,
  maxcna: 560,
  mcdqpc: 586,
  ioccsz: 1792,
  ofcs: 1804,
});
check(IdentifyNamespace, 4096, {
  nsze: 0,
  ncap: 8,
  nuse: 16,
  flbas: 26,
  nsattr: 99,
  nguid: 104,
  eui64: 120,
  lbafs: 128,
  nawun: 34,
  noiob: 46,
  nvmcap: 48,
  nows: 72,
  mcl: 76,
  kpiodaag: 84,
  anagrpid: 92,
  endgid: 102,
});
check(LbaFormat, 4, { ms: 0, ds: 2, rp: 3 });
check(PowerState, 32, { mp: 0, flags: 3, enlat: 4, exlat: 8, rrt: 12, idlp: 16, actp: 20 });
check(SmartLog, 512, {
  compositeTemperature: 1,
  dataUnitsRead: 32,
  hostReads: 64,
  powerCycles: 112,
  mediaErrors: 160,
  errorLogEntries: 176,
  warningTemperatureMinutes: 192,
  thermal1Transitions: 216,
  thermal2Seconds: 228,
});
check(ErrorLogEntry, 64, { sqid: 8, cid: 10, status: 12, lba: 16, nsid: 24 });
check(PciHeader, 64, {
  command: 4,
  classCode: 0xb,
  bar0: 0x10,
  capabilities: 0x34,
  interruptPin: 0x3d,
});
check(PmCapability, 8, { pmc: 2, pmcsr: 4 });
check(MsixCapability, 12, { messageControl: 2, table: 4, pba: 8 });
check(PcieCapability, 60, {
  flags: 2,
  deviceCapabilities: 4,
  deviceControl: 8,
  deviceCapabilities2: 36,
});
check(UringSqe, 64, {
  opcode: 0,
  flags: 1,
  fd: 4,
  off: 8,
  addr: 16,
  len: 24,
  opFlags: 28,
  userData: 32,
  bufIndex: 40,
});
check(UringCqe, 16, { userData: 0, res: 8, flags: 12 });
check(Iovec, 16, { base: 0, len: 8 });

t.test('status fields: code, type, do not retry', async (t) => {
  t.equal(Status.SUCCESS, 0);
  t.equal(Status.LBA_OUT_OF_RANGE, 0x4080);
  t.equal(Status.INVALID_QUEUE_IDENTIFIER, 0x4101);
  t.equal(Status.UNRECOVERED_READ_ERROR, 0x0281);
  t.equal(Status.INTERNAL_ERROR, 0x0006);
});
