/**
 * Reading and writing regions. vfio-user: REGION_READ, REGION_WRITE, REGION_WRITE_MULTI.
 *
 * A region that does not exist reads as zeros and swallows writes, as does one that is not readable or writable: Cloud Hypervisor would
 * wait for ever for the data of a refused read. Outside a region that exists is EINVAL.
 */
import {
  PCI_NUM_REGIONS,
  RegionAccess,
  RegionWriteEntry,
  RegionWriteMulti,
} from '../spec/vfio-user.ts';
import type { DeviceRegion, VfioUserDevice } from './device.ts';
import { MAX_DATA_XFER_SIZE } from './negotiate.ts';
import { Refusal } from './refusal.ts';
import { type Handler, type Reply, readPayload, whenDone } from './request.ts';

export const regionRead: Handler = ({ device }, request) => {
  const { offset, region: index, count } = readPayload(request, RegionAccess);
  const region = findRegion(device, index, offset, count);
  const payload = new Uint8Array(RegionAccess.size + count);
  RegionAccess.write(new DataView(payload.buffer), 0, { offset, region: index, count });
  if (region?.readable && count > 0) {
    const into = payload.subarray(RegionAccess.size);
    return whenDone(device.regionRead(index, offset, into), { payload });
  }
  return { payload };
};

export const regionWrite: Handler = ({ device }, request) => {
  const { offset, region: index, count } = readPayload(request, RegionAccess);
  const data = request.payload.subarray(RegionAccess.size);
  if (data.length !== count) {
    throw new Refusal('EINVAL', `REGION_WRITE of ${count} bytes with ${data.length}`);
  }
  const reply = { payload: RegionAccess.encode({ offset, region: index, count }) };
  return whenDone(write(device, index, offset, data), reply);
};

/** Carried out in order up to the first that is refused; the reply tells how many were. None at all is an error. */
export const regionWriteMulti: Handler = async ({ device, terms }, request): Promise<Reply> => {
  if (!terms.writeMultiple) throw new Refusal('EINVAL', 'REGION_WRITE_MULTI was not agreed on');
  const { count } = readPayload(request, RegionWriteMulti);
  const entries = request.payload.length - RegionWriteMulti.size;
  if (count * RegionWriteEntry.size !== entries) {
    throw new Refusal('EINVAL', `REGION_WRITE_MULTI of ${count} writes in ${entries} bytes`);
  }
  let done = 0;
  try {
    for (; done < count; done++) {
      const at = RegionWriteMulti.size + done * RegionWriteEntry.size;
      const entry = RegionWriteEntry.read(request.view, at);
      if (entry.count > entry.data.length) {
        throw new Refusal('EINVAL', `REGION_WRITE_MULTI with ${entry.count} bytes in one write`);
      }
      await write(device, entry.region, entry.offset, entry.data.subarray(0, entry.count));
    }
  } catch (error) {
    if (done === 0) throw error;
  }
  return { payload: RegionWriteMulti.encode({ count: done }) };
};

function write(
  device: VfioUserDevice,
  index: number,
  offset: number,
  data: Uint8Array,
): Promise<void> | void {
  const region = findRegion(device, index, offset, data.length);
  if (region?.writable && data.length > 0) return device.regionWrite(index, offset, data);
}

/** The region that holds [offset, offset + count); undefined if there is none of that index. */
function findRegion(
  device: VfioUserDevice,
  index: number,
  offset: number,
  count: number,
): DeviceRegion | undefined {
  if (index >= PCI_NUM_REGIONS) {
    throw new Refusal('EINVAL', `region index ${index} of ${PCI_NUM_REGIONS}`);
  }
  if (count > MAX_DATA_XFER_SIZE) {
    throw new Refusal('EINVAL', `an access of ${count} bytes is too large`);
  }
  const region = device.regions.find((r) => r.index === index);
  if (region !== undefined && offset + count > region.size) {
    throw new Refusal(
      'EINVAL',
      `${count} bytes at ${offset} of region ${index}, which has ${region.size}`,
    );
  }
  return region;
}
