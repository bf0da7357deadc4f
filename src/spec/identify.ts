/**
 * What Identify gives: the data structures of controller, namespace and power states, whole, under the specifications' names. Layouts
 * only. NVMe Base 2.1 §5.1.13, NVM Command Set 1.1 §4.1.5.
 */
import { bits, flag, word } from '../util/bits.ts';
import { bytes, struct, u8, u16, u32, u64 } from '../util/struct.ts';

export const IDENTIFY_SIZE = 4096;

/** Identify Controller, CNS 01h. NVMe Base 2.1 figure 312. Fields of 128 bits are `bytes`. */
export const IdentifyController = struct('IdentifyController', IDENTIFY_SIZE, {
  vid: u16(0),
  ssvid: u16(2),
  sn: bytes(4, 20),
  mn: bytes(24, 40),
  fr: bytes(64, 8),
  rab: u8(72),
  ieee: bytes(73, 3),
  cmic: u8(76),
  mdts: u8(77),
  cntlid: u16(78),
  ver: u32(80),
  rtd3r: u32(84),
  rtd3e: u32(88),
  oaes: u32(92),
  ctratt: u32(96),
  rrls: u16(100),
  bpcap: u8(102),
  nssl: u32(104),
  plsi: u8(110),
  cntrltype: u8(111),
  fguid: bytes(112, 16),
  crdt1: u16(128),
  crdt2: u16(130),
  crdt3: u16(132),
  crcap: u8(134),
  nvmsr: u8(253),
  vwci: u8(254),
  mec: u8(255),
  oacs: u16(256),
  acl: u8(258),
  aerl: u8(259),
  frmw: u8(260),
  lpa: u8(261),
  elpe: u8(262),
  npss: u8(263),
  avscc: u8(264),
  apsta: u8(265),
  wctemp: u16(266),
  cctemp: u16(268),
  mtfa: u16(270),
  hmpre: u32(272),
  hmmin: u32(276),
  tnvmcap: bytes(280, 16),
  unvmcap: bytes(296, 16),
  rpmbs: u32(312),
  edstt: u16(316),
  dsto: u8(318),
  fwug: u8(319),
  kas: u16(320),
  hctma: u16(322),
  mntmt: u16(324),
  mxtmt: u16(326),
  sanicap: u32(328),
  hmminds: u32(332),
  hmmaxd: u16(336),
  nsetidmax: u16(338),
  endgidmax: u16(340),
  anatt: u8(342),
  anacap: u8(343),
  anagrpmax: u32(344),
  nanagrpid: u32(348),
  pels: u32(352),
  domainid: u16(356),
  kpioc: u8(358),
  mptfawr: u16(360),
  megcap: bytes(368, 16),
  tmpthha: u8(384),
  cqt: u16(386),
  sqes: u8(512),
  cqes: u8(513),
  maxcmd: u16(514),
  nn: u32(516),
  oncs: u16(520),
  fuses: u16(522),
  fna: u8(524),
  vwc: u8(525),
  awun: u16(526),
  awupf: u16(528),
  icsvscc: u8(530),
  nwpc: u8(531),
  acwu: u16(532),
  ocfs: u16(534),
  sgls: u32(536),
  mnan: u32(540),
  maxdna: bytes(544, 16),
  maxcna: u32(560),
  oaqd: u32(564),
  rhiri: u8(568),
  hirt: u8(569),
  cmmrtd: u16(570),
  nmmrtd: u16(572),
  minmrtg: u8(574),
  maxmrtg: u8(575),
  trattr: u8(576),
  mcudmq: u16(578),
  mnsudmq: u16(580),
  mcmr: u16(582),
  nmcmr: u16(584),
  mcdqpc: u16(586),
  subnqn: bytes(768, 256),
  ioccsz: u32(1792),
  iorcsz: u32(1796),
  icdoff: u16(1800),
  fcatt: u8(1802),
  msdbd: u8(1803),
  ofcs: u16(1804),
  /** Power state descriptors, NPSS + 1 of them. */
  psds: bytes(2048, 1024),
});

/** CMIC: several ports, several controllers, SR-IOV, ANA. */
export const Cmic = word('CMIC', {
  multiPort: flag(0),
  multiController: flag(1),
  virtual: flag(2),
  ana: flag(3),
});
/** OAES, optional asynchronous events: bits as in the Asynchronous Event Configuration. */
export const Oaes = word('OAES', {
  namespaceAttribute: flag(8),
  firmwareActivation: flag(9),
  anaChange: flag(11),
});
export const Ctratt = word('CTRATT', { hostId128: flag(0), tbkas: flag(6), uuidList: flag(9) });
/** OACS, optional admin commands. */
export const Oacs = word('OACS', {
  security: flag(0),
  format: flag(1),
  firmware: flag(2),
  namespaceManagement: flag(3),
  selfTest: flag(4),
  directives: flag(5),
  mi: flag(6),
  virtualization: flag(7),
  doorbellBufferConfig: flag(8),
  lbaStatus: flag(9),
  lockdown: flag(10),
});
/** FRMW. `slots`: firmware slots; `slot1ReadOnly`: the first is as it is; `activation`: without a reset. */
export const Frmw = word('FRMW', {
  slot1ReadOnly: flag(0),
  slots: bits(1, 3),
  activation: flag(4),
  smud: flag(5),
});
/** LPA, log page attributes. `extended`: offset, and a length of 32 bits. */
export const Lpa = word('LPA', {
  smartPerNamespace: flag(0),
  commandEffects: flag(1),
  extended: flag(2),
  telemetry: flag(3),
  persistentEvent: flag(4),
  supportedLogs: flag(5),
  telemetryArea4: flag(6),
});
/** ONCS, optional commands and features of I/O command sets. */
export const Oncs = word('ONCS', {
  compare: flag(0),
  writeUncorrectable: flag(1),
  datasetManagement: flag(2),
  writeZeroes: flag(3),
  saveSelect: flag(4),
  reservations: flag(5),
  timestamp: flag(6),
  verify: flag(7),
  copy: flag(8),
});
/** SANICAP. `ndi`: a request to deallocate nothing is refused; `nodmmas`: what is done to media after that. */
export const Sanicap = word('SANICAP', {
  cryptoErase: flag(0),
  blockErase: flag(1),
  overwrite: flag(2),
  ndi: flag(29),
  nodmmas: bits(30, 2),
});
/** FPI: what is left of a format, in percent. */
export const Fpi = word('FPI', { left: bits(0, 7), supported: flag(7) });
export const Fna = word('FNA', {
  formatAll: flag(0),
  eraseAll: flag(1),
  crypto: flag(2),
  noBroadcast: flag(3),
});
/** SGLS. `support`: 1 where data blocks may be of any alignment; `bitBucket`: there are such descriptors. NVMe Base 2.0 figure 275. */
export const Sgls = word('SGLS', { support: bits(0, 2), bitBucket: flag(16) });
/** VWC. `flushAll`: 2 where Flush takes no NSID FFFFFFFFh, 3 where it does. */
export const Vwc = word('VWC', { present: flag(0), flushAll: bits(1, 2) });
/** NWPC, write protection: none and until told otherwise; until the power goes; for good. */
export const Nwpc = word('NWPC', {
  writeProtect: flag(0),
  untilPowerCycle: flag(1),
  permanent: flag(2),
});
/** SQES, CQES: log2 of the least and the largest entry size. */
export const EntrySizes = word('EntrySizes', { min: bits(0, 4), max: bits(4, 4) });

/** Power state descriptor. NVMe Base 2.1 figure 313. */
export const PowerState = struct('PowerState', 32, {
  /** Maximum power: 0.01 W, or 0.0001 W with MXPS. */
  mp: u16(0),
  /** See PowerStateFlags. */
  flags: u8(3),
  enlat: u32(4),
  exlat: u32(8),
  rrt: u8(12),
  rrl: u8(13),
  rwt: u8(14),
  rwl: u8(15),
  idlp: u16(16),
  /** Bits 7:6: idle power scale. */
  ips: u8(18),
  actp: u16(20),
  /** Bits 7:6: active power scale; 2:0: active power workload. */
  apws: u8(22),
});

/** `mxps`: the maximum power counts in 0.0001 W. `nops`: no command is carried out in this state. */
export const PowerStateFlags = word('PowerState.flags', { mxps: flag(0), nops: flag(1) });

/** Identify Namespace, CNS 00h. NVM Command Set 1.1 figure 114. */
export const IdentifyNamespace = struct('IdentifyNamespace', IDENTIFY_SIZE, {
  nsze: u64(0),
  ncap: u64(8),
  nuse: u64(16),
  nsfeat: u8(24),
  nlbaf: u8(25),
  flbas: u8(26),
  mc: u8(27),
  dpc: u8(28),
  dps: u8(29),
  nmic: u8(30),
  rescap: u8(31),
  fpi: u8(32),
  dlfeat: u8(33),
  nawun: u16(34),
  nawupf: u16(36),
  nacwu: u16(38),
  nabsn: u16(40),
  nabo: u16(42),
  nabspf: u16(44),
  noiob: u16(46),
  nvmcap: bytes(48, 16),
  npwg: u16(64),
  npwa: u16(66),
  npdg: u16(68),
  npda: u16(70),
  nows: u16(72),
  mssrl: u16(74),
  mcl: u32(76),
  msrc: u8(80),
  kpios: u8(81),
  nulbaf: u8(82),
  kpiodaag: u32(84),
  anagrpid: u32(92),
  nsattr: u8(99),
  nvmsetid: u16(100),
  endgid: u16(102),
  nguid: bytes(104, 16),
  eui64: bytes(120, 8),
  /** LBA formats, NLBAF + 1 of them. */
  lbafs: bytes(128, 256),
});

/** LBA format: metadata bytes, log2 of the data bytes, relative performance. NVM Command Set 1.1 figure 116. */
export const LbaFormat = struct('LbaFormat', 4, { ms: u16(0), ds: u8(2), rp: u8(3) });

/** NMIC: several controllers can have the namespace. */
export const Nmic = word('NMIC', { shared: flag(0) });
export const Nsattr = word('NSATTR', { writeProtected: flag(0) });
/** NSFEAT. `thinp`: thin provisioning; `nsabp`: own atomic write units; `optperf`: NPWG and what follows mean something. */
export const Nsfeat = word('NSFEAT', {
  thinp: flag(0),
  nsabp: flag(1),
  dae: flag(2),
  uidreuse: flag(3),
  optperf: flag(4),
});
/** DLFEAT: what a deallocated block reads as; whether Write Zeroes knows the Deallocate bit. NVM Command Set 1.0 figure 97. */
export const Dlfeat = word('DLFEAT', { value: bits(0, 3), writeZeroes: flag(3), guard: flag(4) });
export const DlfeatValue = { NOT_TOLD: 0, ZEROES: 1, ONES: 2 } as const;
/** FLBAS: the LBA format in use, its lower and upper bits. */
export const Flbas = word('FLBAS', {
  formatLow: bits(0, 4),
  extended: flag(4),
  formatHigh: bits(5, 2),
});

/** Identify Namespace, I/O command set independent, CNS 08h. NVMe Base 2.1 figure 319. */
export const IdentifyNamespaceIndependent = struct('IdentifyNamespaceIndependent', IDENTIFY_SIZE, {
  nsfeat: u8(0),
  nmic: u8(1),
  rescap: u8(2),
  fpi: u8(3),
  anagrpid: u32(4),
  nsattr: u8(8),
  nvmsetid: u16(10),
  endgid: u16(12),
  nstat: u8(14),
});

export const Nstat = word('NSTAT', { nrdy: flag(0) });

/** The head of a namespace identification descriptor, CNS 03h; NIDL bytes follow. NVMe Base 2.1 figure 315. */
export const NamespaceDescriptor = struct('NamespaceDescriptor', 4, { nidt: u8(0), nidl: u8(1) });
/** Its types. */
export const Nidt = { EUI64: 1, NGUID: 2, UUID: 3, CSI: 4 } as const;
