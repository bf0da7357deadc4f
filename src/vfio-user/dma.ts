/** DMA_MAP and DMA_UNMAP, and all checks on them. vfio-user: DMA_MAP, DMA_UNMAP. */
import { MAX_CLIENT_REGIONS, MAX_IOVA } from '../limits.ts';
import {
  DMA_PAGE_SIZE,
  DmaMap,
  DmaMapFlag,
  DmaUnmap,
  DmaUnmapFlag,
  IOVA_END,
} from '../spec/vfio-user.ts';
import type { Message } from './codec.ts';
import { Refusal } from './refusal.ts';
import { checkArgsz, DONE, type Handler, readRounded, readSized } from './request.ts';

const isAligned = (value: number): boolean => value % DMA_PAGE_SIZE === 0;

/** The same range twice is EEXIST too: whether it is the same memory only the kernel could tell. */
export const dmaMap: Handler = async ({ device, dma }, request) => {
  const { flags, offset, address, size } = readSized(request, DmaMap);
  if (request.fds.length > 1) throw new Refusal('EINVAL', 'DMA_MAP takes one file descriptor');
  const { READ, WRITE, MMAP, FILE_IO } = DmaMapFlag;
  if ((flags & ~(READ | WRITE | MMAP | FILE_IO)) !== 0 || (flags & (READ | WRITE)) === 0) {
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
  if (dma.count >= MAX_CLIENT_REGIONS) {
    throw new Refusal('ENOSPC', `${MAX_CLIENT_REGIONS} ranges are mapped already`);
  }
  // A file that is only to be read and written counts as none: what is not mapped is reached by messages.
  const mayMap = (flags & FILE_IO) === 0 || (flags & MMAP) !== 0;
  await device.dmaMap({
    iova: address,
    size,
    fd: mayMap ? request.fds.pop() : undefined,
    offset,
    readable: (flags & READ) !== 0,
    writable: (flags & WRITE) !== 0,
  });
  dma.add(address, size);
  return DONE;
};

/**
 * As VFIO's type 1 v2 IOMMU, whatever the protocol's text says, since VMMs are written for that one: every region that lies wholly inside
 * the range goes, be it none; a range that would cut one is refused, and changes nothing. The reply's size is the bytes that went.
 * (SPDK's host attaches the descriptor here too; it is not looked at.)
 */
export const dmaUnmap: Handler = async ({ device, dma }, request) => {
  const { argsz, flags, address, size } = readRounded(request, DmaUnmap);
  checkArgsz(argsz, DmaUnmap);
  let bytes: number;
  if (flags === DmaUnmapFlag.ALL) {
    if (address !== 0 || size !== 0) {
      throw new Refusal('EINVAL', 'DMA_UNMAP of all ranges takes neither address nor size');
    }
    await device.dmaUnmap(0, IOVA_END);
    bytes = dma.remove(0, IOVA_END);
  } else if (flags === 0) {
    const end = endOf(request, address, size);
    if (dma.cuts(address, end)) {
      throw new Refusal('EINVAL', `DMA_UNMAP of ${size} bytes at ${address} would cut a region`);
    }
    await device.dmaUnmap(address, size);
    bytes = dma.remove(address, end);
  } else if (flags === DmaUnmapFlag.GET_DIRTY_BITMAP) {
    throw new Refusal('ENOTSUP', 'dirty pages are not tracked');
  } else {
    throw new Refusal('EINVAL', `DMA_UNMAP flags 0x${flags.toString(16)}`);
  }
  return { payload: DmaUnmap.encode({ argsz: DmaUnmap.size, flags, address, size: bytes }) };
};

/** The end of a range to unmap, 2^64 at most. Multiples of a page are exact numbers up to there; what they were read from must be some. */
function endOf({ view }: Message, address: number, size: number): number {
  const { offset } = DmaUnmap;
  const low = view.getUint32(offset.address, true) | view.getUint32(offset.size, true);
  if (size === 0 || !isAligned(low)) {
    throw new Refusal('EINVAL', `DMA_UNMAP of ${size} bytes at ${address}: not whole pages`);
  }
  if (address + size > IOVA_END) {
    throw new Refusal('EINVAL', `DMA_UNMAP of ${size} bytes at ${address} ends above 2^64`);
  }
  return address + size;
}
