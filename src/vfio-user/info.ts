/** The commands that describe the device. vfio-user: DEVICE_GET_INFO, _REGION_INFO, _REGION_IO_FDS, _IRQ_INFO. */
import {
  DeviceInfo,
  DeviceInfoFlag,
  IrqInfo,
  PCI_NUM_IRQS,
  PCI_NUM_REGIONS,
  REGION_CAP_SPARSE_MMAP,
  RegionInfo,
  RegionInfoFlag,
  RegionIoFds,
  SparseMmapArea,
  SparseMmapCap,
} from '../spec/vfio-user.ts';
import type { DeviceRegion } from './device.ts';
import { Refusal } from './refusal.ts';
import { type Handler, type Reply, readSized } from './request.ts';

/** Cloud Hypervisor reads flag RESET the wrong way round and then sends no reset; QEMU resets at each boot. */
export const getInfo: Handler = (_context, request) => {
  readSized(request, DeviceInfo);
  const payload = DeviceInfo.encode({
    argsz: DeviceInfo.size,
    flags: DeviceInfoFlag.RESET | DeviceInfoFlag.PCI,
    numRegions: PCI_NUM_REGIONS,
    numIrqs: PCI_NUM_IRQS,
  });
  return { payload };
};

/** An index that the device does not use is a region of 0 bytes: Cloud Hypervisor asks for all of them and hangs on an error. */
export const getRegionInfo: Handler = ({ device, terms }, request) => {
  const { argsz, index } = readSized(request, RegionInfo);
  checkRegionIndex(index);
  const region = device.regions.find((r) => r.index === index);
  if (region === undefined) {
    return { payload: RegionInfo.encode({ argsz: RegionInfo.size, index }) };
  }
  // Without the descriptor a mapping cannot be made: a client that takes no descriptors gets no offer of one.
  return encodeRegion(region, terms.clientMaxMsgFds > 0 ? region.mmap : undefined, argsz);
};

/** As libvfio-user, a reply that has no room for the areas says so in argsz, and comes without them and without the descriptor. */
function encodeRegion(region: DeviceRegion, mmap: DeviceRegion['mmap'], room: number): Reply {
  const areas = mmap?.areas ?? [];
  const capSize = areas.length === 0 ? 0 : SparseMmapCap.size + areas.length * SparseMmapArea.size;
  const argsz = RegionInfo.size + capSize;
  const complete = room >= argsz;
  const withCap = complete && capSize > 0;

  const payload = new Uint8Array(withCap ? argsz : RegionInfo.size);
  const view = new DataView(payload.buffer);
  RegionInfo.write(view, 0, {
    argsz,
    flags:
      (region.readable ? RegionInfoFlag.READ : 0) |
      (region.writable ? RegionInfoFlag.WRITE : 0) |
      (mmap === undefined ? 0 : RegionInfoFlag.MMAP) |
      (withCap ? RegionInfoFlag.CAPS : 0),
    index: region.index,
    capOffset: withCap ? RegionInfo.size : 0,
    size: region.size,
    offset: 0,
  });
  if (withCap) {
    SparseMmapCap.write(view, RegionInfo.size, {
      id: REGION_CAP_SPARSE_MMAP,
      version: 1,
      next: 0,
      nrAreas: areas.length,
    });
    areas.forEach((area, i) => {
      SparseMmapArea.write(
        view,
        RegionInfo.size + SparseMmapCap.size + i * SparseMmapArea.size,
        area,
      );
    });
  }
  return { payload, fds: complete && mmap !== undefined ? [mmap.fd] : [] };
}

/** There are none: an eventfd would say that a doorbell was written, and not with what. */
export const getRegionIoFds: Handler = (_context, request) => {
  const { flags, index, count } = readSized(request, RegionIoFds);
  checkRegionIndex(index);
  if (flags !== 0 || count !== 0) {
    throw new Refusal('EINVAL', `REGION_IO_FDS with flags ${flags} and count ${count}`);
  }
  return { payload: RegionIoFds.encode({ argsz: RegionIoFds.size, index }) };
};

/** An index that the device does not use has 0 vectors, for the same reason. */
export const getIrqInfo: Handler = ({ device }, request) => {
  const { index } = readSized(request, IrqInfo);
  if (index >= PCI_NUM_IRQS) {
    throw new Refusal('EINVAL', `interrupt index ${index} of ${PCI_NUM_IRQS}`);
  }
  const irq = device.irqs.find((i) => i.index === index);
  const payload = IrqInfo.encode({
    argsz: IrqInfo.size,
    flags: irq?.flags ?? 0,
    index,
    count: irq?.count ?? 0,
  });
  return { payload };
};

function checkRegionIndex(index: number): void {
  if (index >= PCI_NUM_REGIONS) {
    throw new Refusal('EINVAL', `region index ${index} of ${PCI_NUM_REGIONS}`);
  }
}
