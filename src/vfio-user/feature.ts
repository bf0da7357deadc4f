/** DEVICE_FEATURE: which pages of the client's memory the device has written. vfio-user: DEVICE_FEATURE. */
import {
  DEVICE_FEATURE_MASK,
  DeviceFeature,
  DeviceFeatureId,
  DeviceFeatureOp,
  DMA_PAGE_SIZE,
  DmaLoggingControl,
  DmaLoggingReport,
} from '../spec/vfio-user.ts';
import type { DmaLog } from './device.ts';
import { MAX_DATA_XFER_SIZE } from './negotiate.ts';
import { Refusal } from './refusal.ts';
import { type Handler, type Reply, readSized } from './request.ts';

const { GET, SET, PROBE } = DeviceFeatureOp;
const { DMA_LOGGING_START, DMA_LOGGING_STOP, DMA_LOGGING_REPORT } = DeviceFeatureId;

/** What can be done with each feature. */
const OPERATIONS: ReadonlyMap<number, number> = new Map([
  [DMA_LOGGING_START, SET],
  [DMA_LOGGING_STOP, SET],
  [DMA_LOGGING_REPORT, GET],
]);

export const deviceFeature: Handler = ({ device }, request) => {
  const { argsz, flags } = readSized(request, DeviceFeature);
  const feature = flags & DEVICE_FEATURE_MASK;
  const operations = flags & ~DEVICE_FEATURE_MASK;
  const offered = device.dmaLog === undefined ? undefined : OPERATIONS.get(feature);
  if (device.dmaLog === undefined || offered === undefined) {
    throw new Refusal('ENOTSUP', `the device has no feature ${feature}: it does not migrate`);
  }
  if ((operations & ~(offered | PROBE)) !== 0 || operations === 0) {
    throw new Refusal('EINVAL', `feature ${feature} with flags 0x${flags.toString(16)}`);
  }
  if (argsz < request.payload.length) {
    throw new Refusal('EINVAL', `argsz ${argsz}, of ${request.payload.length} bytes`);
  }
  if ((operations & PROBE) !== 0) {
    return { payload: request.payload };
  }
  const body = request.payload.subarray(DeviceFeature.size);
  switch (feature) {
    case DMA_LOGGING_START:
      checkControl(body);
      device.dmaLog.start();
      return { payload: request.payload };
    case DMA_LOGGING_STOP:
      device.dmaLog.stop();
      return { payload: request.payload };
    default:
      return report(device.dmaLog, argsz, flags, body);
  }
};

/** Ranges are not looked at: all memory is logged. */
function checkControl(body: Uint8Array): void {
  if (body.length < DmaLoggingControl.size) {
    throw new Refusal('EINVAL', `DMA_LOGGING_START with ${body.length} bytes`);
  }
  const { pageSize } = DmaLoggingControl.read(viewOf(body));
  if (pageSize !== DMA_PAGE_SIZE) {
    throw new Refusal('EINVAL', `DMA_LOGGING_START with pages of ${pageSize} bytes`);
  }
}

/** The bitmap has a bit a page, in words of 64 bits; what it tells is forgotten. */
function report(log: DmaLog, room: number, flags: number, body: Uint8Array): Reply {
  if (body.length < DmaLoggingReport.size) {
    throw new Refusal('EINVAL', `DMA_LOGGING_REPORT with ${body.length} bytes`);
  }
  const { iova, length, pageSize } = DmaLoggingReport.read(viewOf(body));
  const bitmapBytes = Math.ceil(length / DMA_PAGE_SIZE / 64) * 8;
  const argsz = DeviceFeature.size + DmaLoggingReport.size + bitmapBytes;
  const isWhole = iova % DMA_PAGE_SIZE === 0 && length % DMA_PAGE_SIZE === 0 && length > 0;
  if (!isWhole || pageSize !== DMA_PAGE_SIZE || !Number.isSafeInteger(iova + length)) {
    throw new Refusal('EINVAL', `DMA_LOGGING_REPORT of ${length} bytes at ${iova}`);
  }
  if (argsz > room || bitmapBytes > MAX_DATA_XFER_SIZE) {
    throw new Refusal('EINVAL', `DMA_LOGGING_REPORT of ${argsz} bytes, room for ${room}`);
  }
  const payload = new Uint8Array(argsz);
  payload.set(DeviceFeature.encode({ argsz, flags }));
  payload.set(DmaLoggingReport.encode({ iova, length, pageSize }), DeviceFeature.size);
  log.report(iova, length, payload.subarray(argsz - bitmapBytes));
  return { payload };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
}
