/** Structures against the specifications' own figures: a size and some offsets each, written down a second time on purpose. */
import t from 'tap';
import {
  Abort,
  CreateIoCq,
  CreateIoSq,
  GetFeatures,
  GetLogPage,
  Identify,
  SetFeatures,
} from '../../src/spec/admin.ts';
import { command } from '../../src/spec/command.ts';
import {
  IdentifyController,
  IdentifyNamespace,
  LbaFormat,
  PowerState,
} from '../../src/spec/identify.ts';
import { ErrorLogEntry, SmartLog } from '../../src/spec/logs.ts';
import {
  ChunkError,
  ChunkHole,
  InfoBlockSize,
  InfoExport,
  NbdChunk,
  NbdGreeting,
  NbdOption,
  NbdOptionReply,
  NbdRequest,
  NbdSimpleReply,
} from '../../src/spec/nbd.ts';
import { Copy, DatasetManagement, RangeDword12, Read, WriteZeroes } from '../../src/spec/nvm.ts';
import { Cdw0, Cqe, CqeDword3, Sqe, Status, StatusField } from '../../src/spec/nvme.ts';
import { MsixCapability, PcieCapability, PciHeader, PmCapability } from '../../src/spec/pci.ts';
import {
  Aqa,
  CapHigh,
  CapLow,
  Cc,
  Csts,
  NVME_VERSION,
  Register,
} from '../../src/spec/registers.ts';
import { Iovec, UringCqe, UringSqe } from '../../src/spec/uring.ts';
import { flag } from '../../src/util/bits.ts';
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
check(NbdGreeting, 18, { magicHigh: 0, optionHigh: 8, flags: 16 });
check(NbdOption, 16, { magicHigh: 0, option: 8, length: 12 });
check(NbdOptionReply, 20, { magicHigh: 0, option: 8, type: 12, length: 16 });
check(InfoExport, 12, { type: 0, size: 2, flags: 10 });
check(InfoBlockSize, 14, { type: 0, minimum: 2, preferred: 6, maximum: 10 });
check(NbdRequest, 28, { magic: 0, flags: 4, type: 6, cookieHigh: 8, offset: 16, length: 24 });
check(NbdSimpleReply, 16, { magic: 0, error: 4, cookieHigh: 8, cookieLow: 12 });
check(NbdChunk, 20, { magic: 0, flags: 4, type: 6, cookieHigh: 8, length: 16 });
check(ChunkHole, 12, { offset: 0, length: 8 });
check(ChunkError, 6, { error: 0, length: 4 });
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

t.test('registers and command dwords: each field where its figure has it', async (t) => {
  t.equal(Cc.encode({ en: true, iosqes: 6, iocqes: 4 }), 0x0046_0001);
  t.equal(Cc.encode({ css: 7, mps: 15, ams: 7, shn: 3, crime: true }), 0x0100_fff0);
  t.equal(Csts.encode({ rdy: true, cfs: true, shst: 2, nssro: true, pp: true }), 0x3b);
  t.equal(CapLow.encode({ mqesZ: 4095, cqr: true, ams: 3, to: 60 }), 0x3c07_0fff);
  t.equal(CapHigh.encode({ dstrd: 1, nssrs: true, cssNvm: true, crwms: true }), 0x0800_0031);
  t.equal(CapHigh.encode({ mpsmin: 1, mpsmax: 2, crims: true }), 0x1021_0000);
  t.equal(Aqa.encode({ asqsZ: 31, acqsZ: 63 }), 0x003f_001f);
  t.equal(NVME_VERSION, 0x0002_0000);
  t.equal(StatusField.encode({ sc: 0x80, sct: 2, crd: 3, more: true, dnr: true }), 0x7a80);
  t.equal(CqeDword3.encode({ cid: 5, p: true, status: 0x4002 }), 0x8005_0005);
  t.equal(Cdw0.encode({ opcode: 0xff, fuse: 3, psdt: 3, cid: 1 }), 0x0001_c3ff);
  const cq = { qid: 3, sizeZ: 255, pc: true, ien: true, iv: 4 };
  t.strictSame(CreateIoCq.fields({ ...cq, prp1: 0x1000 }), {
    opcode: 5,
    prp1: 0x1000,
    cdw10: 0x00ff_0003,
    cdw11: 0x0004_0003,
  });
  t.match(CreateIoSq.fields({ qid: 1, qprio: 2, cqid: 7 }), { cdw10: 1, cdw11: 0x0007_0004 });
  t.match(Abort.fields({ sqid: 2, cid: 3 }), { opcode: 8, cdw10: 0x0003_0002 });
  t.strictSame(
    GetLogPage.fields({ lid: 2, lsp: 1, rae: true, numdLZ: 127, numdU: 1, lpo: 2 ** 33 + 4 }),
    {
      opcode: 2,
      cdw10: 0x007f_8102,
      cdw11: 1,
      cdw12: 4,
      cdw13: 2,
    },
  );
  t.match(GetLogPage.fields({ uuid: 1, ot: true, csi: 2 }), { cdw14: 0x0280_0001 });
  t.match(SetFeatures.fields({ fid: 6, sv: true, value: 1 }), { cdw10: 0x8000_0006, cdw11: 1 });
  t.match(GetFeatures.fields({ fid: 6, sel: 3 }), { cdw10: 0x306 });
  t.match(Identify.fields({ cns: 0x12, cntid: 1, csi: 2 }), {
    cdw10: 0x0001_0012,
    cdw11: 0x0200_0000,
  });
  const range = { slba: 2 ** 32 + 8, nlbZ: 7, prinfo: 15, fua: true, lr: true };
  t.match(Read.fields(range), { opcode: 2, cdw10: 8, cdw11: 1, cdw12: 0xfc00_0007 });
  t.equal(RangeDword12.mask.fua, 1 << 30);
  t.match(WriteZeroes.fields({ deac: true }), { opcode: 8, cdw12: 1 << 25 });
  t.match(DatasetManagement.fields({ nrZ: 255, ad: true }), { opcode: 9, cdw10: 255, cdw11: 4 });
  t.match(Copy.fields({ nrZ: 1, descriptorFormat: 2 }), { opcode: 0x19, cdw12: 0x201 });
});

t.test('commands are read as they were written', async (t) => {
  const range = { slba: 2 ** 52 + 1, nlbZ: 0xffff, prinfo: 5, fua: true, lr: false };
  const entry = Sqe.read(new DataView(Sqe.encode(Read.fields(range)).buffer));
  t.strictSame(Read.parse(entry), range);
  t.equal(Read.parse({ ...entry, cdw10: -1, cdw11: -1 }).slba, 2 ** 64, 'not exact, and too large');
  t.throws(() => Read.fields({ nlbZ: 0x1_0000 }), /nlbZ/);
  t.throws(() => Read.fields({ slba: -1 }), /Read\.slba/);
  t.throws(() => command('Twice', 1, { 10: { a: flag(0) }, 11: { a: flag(0) } }), /two fields a/);
});

t.test('status fields: code, type, do not retry', async (t) => {
  t.equal(Status.SUCCESS, 0);
  t.equal(Status.LBA_OUT_OF_RANGE, 0x4080);
  t.equal(Status.INVALID_QUEUE_IDENTIFIER, 0x4101);
  t.equal(Status.UNRECOVERED_READ_ERROR, 0x0281);
  t.equal(Status.INTERNAL_ERROR, 0x0006);
});
