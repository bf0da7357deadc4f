/** The Identify command's data structures. NVMe Base 2.0 §5.17. Owned by main. */
import { MAX_ASYNC_EVENT_REQUESTS, MAX_ERROR_LOG_ENTRIES } from '../limits.ts';
import {
  Cmic,
  EntrySizes,
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
  Nstat,
  Oacs,
  Oaes,
  PowerState,
  Vwc,
} from '../spec/identify.ts';
import { CQE_SHIFT, SQE_SHIFT } from '../spec/nvme.ts';
import { NVME_PCI_IDENTITY } from '../spec/nvme-pci.ts';
import { NVME_VERSION } from '../spec/registers.ts';
import { KEEP_ALIVE_GRANULARITY, WARNING_TEMPERATURE } from './features.ts';
import type { ControllerConfig } from './host.ts';
import type { Namespace } from './namespace.ts';

/** Kelvin: 85 °C. */
const CRITICAL_TEMPERATURE = 358;
/** The OUI that SPDK uses, which belongs to the project's PCI vendor. */
const IEEE = Uint8Array.from([0x8d, 0x6b, 0x50]);
const CNTRLTYPE_IO = 1;
/** One firmware slot, read only. */
const FRMW = Frmw.encode({ slot1ReadOnly: true, slots: 1 });
/** Effects log; extended data (offset) for Get Log Page. */
const LPA = Lpa.encode({ commandEffects: true, extended: true });
/** A volatile write cache; Flush of all namespaces at once (NSID FFFFFFFFh) is not supported. */
const VWC = Vwc.encode({ present: true, flushAll: 2 });
/** How long a shutdown may take, in which all data is made durable: the most that Linux waits. */
const SHUTDOWN_US = 60_000_000;
/** Power state 0: 25 W, in hundredths. */
const MAX_POWER = 2500;
/** NSFEAT none, FLBAS 0: LBA format 0. */
const RELATIVE_PERFORMANCE_BEST = 0;

/** ASCII, padded with spaces, as SN, MN and FR want. */
export function padded(text: string, width: number): Uint8Array {
  return new Uint8Array(Buffer.from(text.padEnd(width).slice(0, width), 'latin1'));
}

/** `shared`: the subsystem can have other controllers. */
export function identifyController(config: ControllerConfig, shared: boolean): Uint8Array {
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
    oaes: Oaes.encode({ namespaceAttribute: true }),
    cntrltype: CNTRLTYPE_IO,
    oacs: Oacs.encode({ doorbellBufferConfig: config.shadowDoorbells }),
    acl: 3,
    aerl: MAX_ASYNC_EVENT_REQUESTS - 1,
    frmw: FRMW,
    lpa: LPA,
    elpe: MAX_ERROR_LOG_ENTRIES - 1,
    wctemp: WARNING_TEMPERATURE,
    cctemp: CRITICAL_TEMPERATURE,
    kas: KEEP_ALIVE_GRANULARITY,
    sqes: EntrySizes.encode({ min: SQE_SHIFT, max: SQE_SHIFT }),
    cqes: EntrySizes.encode({ min: CQE_SHIFT, max: CQE_SHIFT }),
    maxcmd: config.maxQueueEntries,
    nn: config.maxNamespaces,
    vwc: VWC,
    mnan: config.maxNamespaces,
    subnqn: new Uint8Array(Buffer.from(`${config.subnqn}\0`, 'utf8')),
    psds: PowerState.encode({ mp: MAX_POWER }),
  });
}

function hex(digits: string): Uint8Array {
  return new Uint8Array(Buffer.from(digits, 'hex'));
}

/** An NSID without a namespace gives zeros. `shared`: other controllers have it, too. */
export function identifyNamespace(namespace: Namespace | undefined, shared: boolean): Uint8Array {
  if (namespace === undefined) {
    return new Uint8Array(IDENTIFY_SIZE);
  }
  return IdentifyNamespace.encode({
    nsze: namespace.numBlocks,
    ncap: namespace.numBlocks,
    nuse: namespace.numBlocks,
    nmic: Nmic.encode({ shared }),
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
    nsattr: Nsattr.encode({ writeProtected: namespace.readonly }),
    nstat: Nstat.encode({ nrdy: true }),
  });
}

/** NSIDs above `after`, in ascending order, CNS 02h and 07h. */
export function activeNamespaces(nsids: Iterable<number>, after: number): Uint8Array {
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
  // NVM command set.
  descriptors.push([Nidt.CSI, Uint8Array.of(0)]);
  const out = new Uint8Array(IDENTIFY_SIZE);
  let at = 0;
  for (const [type, value] of descriptors) {
    out.set(NamespaceDescriptor.encode({ nidt: type, nidl: value.length }), at);
    out.set(value, at + NamespaceDescriptor.size);
    at += NamespaceDescriptor.size + value.length;
  }
  return out;
}
