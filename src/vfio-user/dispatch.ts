/** Command → handler. docs/vfio-user.md has the table of what each command answers to what. */
import { DmaAccess, MigData, VfioUserCommand } from '../spec/vfio-user.ts';
import type { Fields, Struct } from '../util/struct.ts';
import { regionRead, regionWrite, regionWriteMulti } from './access.ts';
import { dmaMap, dmaUnmap } from './dma.ts';
import { deviceFeature } from './feature.ts';
import { getInfo, getIrqInfo, getRegionInfo, getRegionIoFds } from './info.ts';
import { setIrqs } from './irqs.ts';
import { Refusal } from './refusal.ts';
import { DONE, type Handler, readPayload, whenDone } from './request.ts';

const deviceReset: Handler = ({ device }, request) => {
  if (request.payload.length > 0) {
    throw new Refusal('EINVAL', `DEVICE_RESET with ${request.payload.length} bytes of payload`);
  }
  return whenDone(device.reset(), DONE);
};

/** A command that exists and is well-formed, and that this device has no use for. */
function unsupported<F extends Fields>(struct: Struct<F>, reason: string): Handler {
  return (_context, request) => {
    readPayload(request, struct);
    throw new Refusal('ENOTSUP', reason);
  };
}

const C = VfioUserCommand;

const HANDLERS: ReadonlyMap<number, Handler> = new Map<number, Handler>([
  [C.DMA_MAP, dmaMap],
  [C.DMA_UNMAP, dmaUnmap],
  [C.DEVICE_GET_INFO, getInfo],
  [C.DEVICE_GET_REGION_INFO, getRegionInfo],
  [C.DEVICE_GET_REGION_IO_FDS, getRegionIoFds],
  [C.DEVICE_GET_IRQ_INFO, getIrqInfo],
  [C.DEVICE_SET_IRQS, setIrqs],
  [C.REGION_READ, regionRead],
  [C.REGION_WRITE, regionWrite],
  [C.DMA_READ, unsupported(DmaAccess, 'DMA_READ is for servers to send')],
  [C.DMA_WRITE, unsupported(DmaAccess, 'DMA_WRITE is for servers to send')],
  [C.DEVICE_RESET, deviceReset],
  [C.REGION_WRITE_MULTI, regionWriteMulti],
  [C.DEVICE_FEATURE, deviceFeature],
  [C.MIG_DATA_READ, unsupported(MigData, 'the device does not migrate')],
  [C.MIG_DATA_WRITE, unsupported(MigData, 'the device does not migrate')],
]);

/** The handler of a command after VERSION. */
export function handlerOf(command: number): Handler {
  const handler = HANDLERS.get(command);
  if (handler !== undefined) return handler;
  const { VERSION, DIRTY_PAGES } = VfioUserCommand;
  if (command === VERSION) throw new Refusal('EINVAL', 'the version is agreed on already');
  if (command === DIRTY_PAGES) throw new Refusal('ENOTSUP', 'DIRTY_PAGES is obsolete');
  throw new Refusal('EINVAL', `command ${command} does not exist`);
}
