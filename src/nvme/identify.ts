/** The Identify command's data structures. NVMe Base 2.0 §5.17. Owned by main. */
import { MAX_ABORTS, MAX_ASYNC_EVENT_REQUESTS, MAX_ERROR_LOG_ENTRIES } from '../limits.ts';
import { Csi } from '../spec/admin.ts';
import {
  Cmic,
  Ctratt,
  Dlfeat,
  DlfeatValue,
  EntrySizes,
  Fpi,
  Frmw,
  IDENTIFY_SIZE,
  IdentifyController,
  IdentifyNamespace,
  IdentifyNamespaceIndependent,
  LbaFormat,
  Lpa,
  NamespaceDescriptor,
  Nidt,
  Nmic,
  Nsattr,
  Nsfeat,
  Nstat,
  Oacs,
  Oaes,
  Oncs,
  PowerState,
  Sgls,
  Vwc,
} from '../spec/identify.ts';
import { CQE_SHIFT, SQE_SHIFT } from '../spec/nvme.ts';
import { NVME_PCI_IDENTITY } from '../spec/nvme-pci.ts';
import { NVME_VERSION } from '../spec/registers.ts';
import { Rescap } from '../spec/reservations.ts';
import type { BitFields, Word } from '../util/bits.ts';
import type { AdminContext } from './admin/command.ts';
import {
  ALL_COPY_FORMATS,
  MOST_COPY_RANGES,
  mostBlocksOfCopy,
  mostBlocksOfRange,
} from './copy-formats.ts';
import { NOTICES } from './events.ts';
import { WARNING_TEMPERATURE } from './features/temperature.ts';
import { KEEP_ALIVE_GRANULARITY } from './features/time.ts';
import { FORWARDED_COMMANDS } from './forwarded.ts';
import { IO_COMMANDS } from './io-commands.ts';
import { LOG_PAGES } from './logs/table.ts';
import type { Namespace } from './namespace.ts';
import { selfTestMinutes } from './self-test.ts';
import { padded } from './text.ts';

/** Kelvin: 85 °C. */
const CRITICAL_TEMPERATURE = 358;
/** The OUI that SPDK uses, which belongs to the project's PCI vendor. */
export const IEEE = Uint8Array.from([0x8d, 0x6b, 0x50]);
const CNTRLTYPE_IO = 1;
/** One firmware slot, read only. */
const FRMW = Frmw.encode({ slot1ReadOnly: true, slots: 1 });
/** A volatile write cache; Flush of all namespaces at once (NSID FFFFFFFFh) is supported. */
const VWC = Vwc.encode({ present: true, flushAll: 3 });
/** I/O commands may have SGLs: data blocks of any alignment, segments, bit buckets (`sgl.ts`). */
const SGLS = Sgls.encode({ support: 1, bitBucket: true });
/** How long a shutdown may take, in which all data is made durable: the most that Linux waits. */
const SHUTDOWN_US = 60_000_000;
/** Power state 0: 25 W, in hundredths. */
const MAX_POWER = 2500;
/** NSFEAT none, FLBAS 0: LBA format 0. */
const RELATIVE_PERFORMANCE_BEST = 0;

/** The bits that are registered somewhere. */
function bitsOf<F extends BitFields>(
  layout: Word<F>,
  keys: readonly (keyof F | undefined)[],
): number {
  return (
    keys.reduce<number>((all, key) => (key === undefined ? all : all | layout.mask[key]), 0) >>> 0
  );
}

export function identifyController({ config, host, commands, features }: AdminContext): Uint8Array {
  const shared = host.shared;
  const registered = [...features.all, ...commands].map(({ identify }) => identify);
  const oncs = [...IO_COMMANDS, ...FORWARDED_COMMANDS, ...features.all].map((each) => each.oncs);
  return IdentifyController.encode({
    vid: NVME_PCI_IDENTITY.vendorId,
    ssvid: NVME_PCI_IDENTITY.subsystemVendorId,
    sn: padded(config.serialNumber, 20),
    mn: padded(config.modelNumber, 40),
    fr: padded(config.firmwareRevision, 8),
    rab: 6,
    ieee: IEEE,
    cmic: Cmic.encode({ multiController: shared }),
    mdts: config.mdts,
    cntlid: config.cntlid,
    ver: NVME_VERSION,
    rtd3e: SHUTDOWN_US,
    oaes: bitsOf(Oaes, NOTICES),
    ctratt: Ctratt.encode({ hostId128: true }),
    cntrltype: CNTRLTYPE_IO,
    oacs: bitsOf(
      Oacs,
      commands.map((command) => command.oacs),
    ),
    acl: MAX_ABORTS - 1,
    aerl: MAX_ASYNC_EVENT_REQUESTS - 1,
    frmw: FRMW,
    // Get Log Page takes offsets.
    lpa: bitsOf(Lpa, ['extended', ...LOG_PAGES.map((page) => page.lpa)]),
    elpe: MAX_ERROR_LOG_ENTRIES - 1,
    wctemp: WARNING_TEMPERATURE,
    cctemp: CRITICAL_TEMPERATURE,
    edstt: selfTestMinutes(host),
    kas: KEEP_ALIVE_GRANULARITY,
    sqes: EntrySizes.encode({ min: SQE_SHIFT, max: SQE_SHIFT }),
    cqes: EntrySizes.encode({ min: CQE_SHIFT, max: CQE_SHIFT }),
    maxcmd: config.maxQueueEntries,
    nn: config.maxNamespaces,
    // Get Features takes Select. Set Features takes Save, though no feature can be saved.
    oncs: bitsOf(Oncs, ['saveSelect', ...oncs]),
    vwc: VWC,
    ocfs: ALL_COPY_FORMATS,
    sgls: SGLS,
    mnan: config.maxNamespaces,
    subnqn: new Uint8Array(Buffer.from(`${config.subnqn}\0`, 'utf8')),
    psds: PowerState.encode({ mp: MAX_POWER }),
    ...Object.assign({}, ...registered),
  });
}

function hex(digits: string): Uint8Array {
  return new Uint8Array(Buffer.from(digits, 'hex'));
}

/** All types; whether they persist. */
const rescap = ({ keepsReservations: ptpl }: Namespace): number =>
  Rescap.encode({
    ptpl,
    writeExclusive: true,
    exclusiveAccess: true,
    writeExclusiveRegistrants: true,
    exclusiveAccessRegistrants: true,
    writeExclusiveAll: true,
    exclusiveAccessAll: true,
    iekey13: true,
  });

/** An NSID without a namespace gives zeros. `shared`: other controllers have it, too. */
export function identifyNamespace(namespace: Namespace | undefined, shared: boolean): Uint8Array {
  if (namespace === undefined) {
    return new Uint8Array(IDENTIFY_SIZE);
  }
  const granuleZ = namespace.granularity / namespace.blockSize - 1;
  return IdentifyNamespace.encode({
    nsze: namespace.numBlocks,
    ncap: namespace.numBlocks,
    nuse: namespace.numBlocks,
    nsfeat: Nsfeat.encode({ optperf: true }),
    nmic: Nmic.encode({ shared }),
    rescap: rescap(namespace),
    fpi: Fpi.encode({ supported: true, left: namespace.formatLeft }),
    dlfeat: namespace.readsZeroes
      ? Dlfeat.encode({ value: DlfeatValue.ZEROES, writeZeroes: true })
      : 0,
    npwg: granuleZ,
    npwa: granuleZ,
    npdg: granuleZ,
    npda: granuleZ,
    nows: granuleZ,
    mssrl: mostBlocksOfRange(namespace.blockSize),
    mcl: mostBlocksOfCopy(namespace.blockSize),
    msrc: MOST_COPY_RANGES - 1,
    nsattr: Nsattr.encode({ writeProtected: namespace.readonly }),
    nguid: hex(namespace.nguid ?? ''),
    eui64: hex(namespace.eui64 ?? ''),
    lbafs: LbaFormat.encode({
      ds: Math.log2(namespace.blockSize),
      rp: RELATIVE_PERFORMANCE_BEST,
    }),
  });
}

/** I/O command set independent part, CNS 08h. */
export function identifyNamespaceIndependent(
  namespace: Namespace | undefined,
  shared: boolean,
): Uint8Array {
  if (namespace === undefined) {
    return new Uint8Array(IDENTIFY_SIZE);
  }
  return IdentifyNamespaceIndependent.encode({
    nmic: Nmic.encode({ shared }),
    rescap: rescap(namespace),
    fpi: Fpi.encode({ supported: true, left: namespace.formatLeft }),
    nsattr: Nsattr.encode({ writeProtected: namespace.readonly }),
    nstat: Nstat.encode({ nrdy: true }),
  });
}

/** NSIDs above `after`, in ascending order, CNS 02h, 07h, 10h. */
export function namespaceList(nsids: Iterable<number>, after: number): Uint8Array {
  const list = [...nsids].filter((nsid) => nsid > after).sort((a, b) => a - b);
  const out = new Uint8Array(IDENTIFY_SIZE);
  const view = new DataView(out.buffer);
  for (const [i, nsid] of list.slice(0, IDENTIFY_SIZE / 4).entries()) {
    view.setUint32(4 * i, nsid, true);
  }
  return out;
}

/** CNS 03h: type, length, two reserved bytes, then the identifier. */
export function namespaceDescriptors(namespace: Namespace): Uint8Array {
  const descriptors: [number, Uint8Array][] = [];
  if (namespace.eui64 !== undefined) {
    descriptors.push([Nidt.EUI64, hex(namespace.eui64)]);
  }
  if (namespace.nguid !== undefined) {
    descriptors.push([Nidt.NGUID, hex(namespace.nguid)]);
  }
  descriptors.push([Nidt.UUID, hex(namespace.uuid.replaceAll('-', ''))]);
  descriptors.push([Nidt.CSI, Uint8Array.of(Csi.NVM)]);
  const out = new Uint8Array(IDENTIFY_SIZE);
  let at = 0;
  for (const [type, value] of descriptors) {
    out.set(NamespaceDescriptor.encode({ nidt: type, nidl: value.length }), at);
    out.set(value, at + NamespaceDescriptor.size);
    at += NamespaceDescriptor.size + value.length;
  }
  return out;
}

/** Identifiers of controllers from `from` on, in ascending order; their number is first. CNS 12h, 13h. */
export function controllerList(cntlids: readonly number[], from: number): Uint8Array {
  const list = cntlids.filter((cntlid) => cntlid >= from).sort((a, b) => a - b);
  const out = new Uint8Array(IDENTIFY_SIZE);
  const view = new DataView(out.buffer);
  const count = Math.min(list.length, IDENTIFY_SIZE / 2 - 1);
  view.setUint16(0, count, true);
  for (const [i, cntlid] of list.slice(0, count).entries()) {
    view.setUint16(2 + 2 * i, cntlid, true);
  }
  return out;
}

/** Combinations of command sets that can be enabled together: one, of NVM alone. CNS 1Ch. */
export function ioCommandSets(): Uint8Array {
  const out = new Uint8Array(IDENTIFY_SIZE);
  out[0] = 1 << Csi.NVM;
  return out;
}
