/** DMA_MAP and DMA_UNMAP, and all checks on them. vfio-user: DMA_MAP, DMA_UNMAP. */
import { MAX_IOVA } from '../limits.ts';
import {
  DEFAULT_MAX_DMA_MAPS,
  DMA_PAGE_SIZE,
  DmaMap,
  DmaMapFlag,
  DmaUnmap,
  DmaUnmapFlag,
} from '../spec/vfio-user.ts';
import { Refusal } from './refusal.ts';
import { DONE, type Handler, readSized } from './request.ts';

const isAligned = (value: number): boolean => value % DMA_PAGE_SIZE === 0;

/** The same range twice is EEXIST too: whether it is the same memory only the kernel could tell. */
export const dmaMap: Handler = async ({ device, dma }, request) => {
  const { flags, offset, address, size } = readSized(request, DmaMap);
  if (request.fds.length > 1) throw new Refusal('EINVAL', 'DMA_MAP takes one file descriptor');
  if ((flags & ~(DmaMapFlag.READ | DmaMapFlag.WRITE)) !== 0 || flags === 0) {
    throw new Refusal('EINVAL', `DMA_MAP flags 0x${flags.toString(16)}`);
  }
  if (size === 0 || !isAligned(size) || !isAligned(address)) {
    throw new Refusal('EINVAL', `DMA_MAP of ${size} bytes at ${address}: not whole pages`);
  }
  if (address + size > MAX_IOVA) {
    throw new Refusal('EINVAL', `DMA_MAP of ${size} bytes at ${address} ends above 2^53`);
  }
  if (request.fds.length > 0 && (!isAligned(offset) || offset + size > MAX_IOVA)) {
    throw new Refusal('EINVAL', `DMA_MAP of ${size} bytes at file offset ${offset}`);
  }
  if (dma.overlaps(address, size)) {
    throw new Refusal('EEXIST', `DMA_MAP of ${size} bytes at ${address} overlaps a mapped range`);
  }
  if (dma.count >= DEFAULT_MAX_DMA_MAPS) {
    throw new Refusal('ENOSPC', `${DEFAULT_MAX_DMA_MAPS} ranges are mapped already`);
  }
  await device.dmaMap({
    iova: address,
    size,
    fd: request.fds.pop(),
    offset,
    readable: (flags & DmaMapFlag.READ) !== 0,
    writable: (flags & DmaMapFlag.WRITE) !== 0,
  });
  dma.add(address, size);
  return DONE;
};

/** SPDK's host attaches the descriptor here too; it is not looked at. */
export const dmaUnmap: Handler = async ({ device, dma }, request) => {
  const { flags, address, size } = readSized(request, DmaUnmap);
  if (flags === DmaUnmapFlag.ALL) {
    if (address !== 0 || size !== 0) {
      throw new Refusal('EINVAL', 'DMA_UNMAP of all ranges takes neither address nor size');
    }
    await device.dmaUnmapAll();
    dma.clear();
  } else if (flags === 0) {
    if (!dma.has(address, size)) {
      throw new Refusal('ENOENT', `DMA_UNMAP of ${size} bytes at ${address}: no such range`);
    }
    await device.dmaUnmap(address, size);
    dma.remove(address);
  } else if (flags === DmaUnmapFlag.GET_DIRTY_BITMAP) {
    throw new Refusal('ENOTSUP', 'dirty pages are not tracked');
  } else {
    throw new Refusal('EINVAL', `DMA_UNMAP flags 0x${flags.toString(16)}`);
  }
  return { payload: DmaUnmap.encode({ argsz: DmaUnmap.size, flags, address, size }) };
};
