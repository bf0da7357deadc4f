/**
 * The vfio-user protocol, version 0.x: commands, structures, flags, PCI indices. Layouts only.
 *
 * The normative text is QEMU's docs/interop/vfio-user.rst. Integers are in host order: little endian on every host this runs on.
 * Offsets are within the payload: what follows the 16-byte header.
 */
import { bytes, struct, u16, u32, u64 } from '../util/struct.ts';

export const VFIO_USER_MAJOR = 0;
/** The newest minor version spoken here. Versions 0.0 to 0.2 differ in nothing that this side sends. */
export const VFIO_USER_MINOR = 2;

export const VfioUserCommand = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_REGION_IO_FDS: 6,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  /** Server to client. */
  DMA_READ: 11,
  /** Server to client. */
  DMA_WRITE: 12,
  DEVICE_RESET: 13,
  /** Obsolete; the number is still reserved. */
  DIRTY_PAGES: 14,
  REGION_WRITE_MULTI: 15,
  DEVICE_FEATURE: 16,
  MIG_DATA_READ: 17,
  MIG_DATA_WRITE: 18,
} as const;

export const VfioUserHeader = struct('VfioUserHeader', 16, {
  messageId: u16(0),
  command: u16(2),
  /** Of the whole message, with this header. Bytes. */
  size: u32(4),
  flags: u32(8),
  /** errno, if flags has ERROR. */
  error: u32(12),
});

/** Bits 0 to 3 of the header's flags. */
export const HEADER_TYPE_MASK = 0xf;
export const HeaderType = { COMMAND: 0, REPLY: 1 } as const;
export const HeaderFlag = { NO_REPLY: 1 << 4, ERROR: 1 << 5 } as const;

/** Followed by a NUL-terminated JSON object, or by nothing. */
export const VersionPayload = struct('VersionPayload', 4, { major: u16(0), minor: u16(2) });

/** What holds if a capability is absent from the JSON. */
export const DEFAULT_MAX_MSG_FDS = 1;
export const DEFAULT_MAX_DATA_XFER_SIZE = 1024 * 1024;
/** The smallest page of a DMA mapping's address and size. Bytes. */
export const DMA_PAGE_SIZE = 4096;
/** Where IOVAs end. Exclusive. */
export const IOVA_END = 2 ** 64;

export const DmaMap = struct('DmaMap', 32, {
  argsz: u32(0),
  flags: u32(4),
  /** Offset in the file of the attached descriptor. */
  offset: u64(8),
  address: u64(16),
  size: u64(24),
});
/** READ and WRITE as the device does them. */
export const DmaMapFlag = {
  READ: 1 << 0,
  WRITE: 1 << 1,
  /** As the newest clients say it: the file may be mapped; it may be read and written. */
  MMAP: 1 << 2,
  FILE_IO: 1 << 3,
} as const;

export const DmaUnmap = struct('DmaUnmap', 24, {
  argsz: u32(0),
  flags: u32(4),
  address: u64(8),
  size: u64(16),
});
export const DmaUnmapFlag = { GET_DIRTY_BITMAP: 1 << 0, ALL: 1 << 1 } as const;

export const DeviceInfo = struct('DeviceInfo', 16, {
  argsz: u32(0),
  flags: u32(4),
  numRegions: u32(8),
  numIrqs: u32(12),
});
export const DeviceInfoFlag = { RESET: 1 << 0, PCI: 1 << 1 } as const;

/** Followed by capabilities; their offsets count from the start of this structure. */
export const RegionInfo = struct('RegionInfo', 32, {
  argsz: u32(0),
  flags: u32(4),
  index: u32(8),
  /** 0: no capabilities. */
  capOffset: u32(12),
  size: u64(16),
  /** Where the region starts in the file of the returned descriptor. */
  offset: u64(24),
});
export const RegionInfoFlag = { READ: 1 << 0, WRITE: 1 << 1, MMAP: 1 << 2, CAPS: 1 << 3 } as const;

/** Header of a capability. */
export const RegionCap = struct('RegionCap', 8, { id: u16(0), version: u16(2), next: u32(4) });
export const REGION_CAP_SPARSE_MMAP = 1;
/** Followed by `nrAreas` areas. */
export const SparseMmapCap = struct('SparseMmapCap', 16, {
  id: u16(0),
  version: u16(2),
  next: u32(4),
  nrAreas: u32(8),
});
export const SparseMmapArea = struct('SparseMmapArea', 16, { offset: u64(0), size: u64(8) });

export const RegionIoFds = struct('RegionIoFds', 16, {
  argsz: u32(0),
  flags: u32(4),
  index: u32(8),
  count: u32(12),
});

export const IrqInfo = struct('IrqInfo', 16, {
  argsz: u32(0),
  flags: u32(4),
  index: u32(8),
  count: u32(12),
});
export const IrqInfoFlag = {
  EVENTFD: 1 << 0,
  MASKABLE: 1 << 1,
  AUTOMASKED: 1 << 2,
  NORESIZE: 1 << 3,
} as const;

/** Followed by `count` bytes if the data is BOOL. */
export const IrqSet = struct('IrqSet', 20, {
  argsz: u32(0),
  flags: u32(4),
  index: u32(8),
  start: u32(12),
  count: u32(16),
});
/** Exactly one of the three goes into IrqSet.flags … */
export const IrqSetData = { NONE: 1 << 0, BOOL: 1 << 1, EVENTFD: 1 << 2 } as const;
/** … with exactly one of these. */
export const IrqSetAction = { MASK: 1 << 3, UNMASK: 1 << 4, TRIGGER: 1 << 5 } as const;
export const IRQ_SET_DATA_MASK = 0x7;
export const IRQ_SET_ACTION_MASK = 0x38;

/** REGION_READ and REGION_WRITE; followed by the data. */
export const RegionAccess = struct('RegionAccess', 16, {
  offset: u64(0),
  region: u32(8),
  count: u32(12),
});

/** REGION_WRITE_MULTI; followed by `count` entries. */
export const RegionWriteMulti = struct('RegionWriteMulti', 8, { count: u64(0) });
export const RegionWriteEntry = struct('RegionWriteEntry', 24, {
  offset: u64(0),
  region: u32(8),
  count: u32(12),
  data: bytes(16, 8),
});

/** DMA_READ and DMA_WRITE; followed by the data. */
export const DmaAccess = struct('DmaAccess', 16, { address: u64(0), count: u64(8) });
/** The same as QEMU 10.1 and 10.2 have it; its reply to DMA_WRITE is a header alone. */
export const DmaAccessShort = struct('DmaAccessShort', 12, { address: u64(0), count: u32(8) });
/** Data bytes of one DMA message: QEMU 11.1 loses the device at 256 KiB, whatever was agreed on. */
export const MAX_DMA_MESSAGE_BYTES = 128 * 1024;

/** Followed by the feature's data. */
export const DeviceFeature = struct('DeviceFeature', 8, { argsz: u32(0), flags: u32(4) });
/** The feature's number, in the low bits of its flags; what to do with it, above. */
export const DEVICE_FEATURE_MASK = 0xffff;
export const DeviceFeatureOp = { GET: 1 << 16, SET: 1 << 17, PROBE: 1 << 18 } as const;
export const DeviceFeatureId = {
  DMA_LOGGING_START: 6,
  DMA_LOGGING_STOP: 7,
  DMA_LOGGING_REPORT: 8,
} as const;
/** Of DMA_LOGGING_START; followed by `numRanges` of first address and length, 64 bits each. */
export const DmaLoggingControl = struct('DmaLoggingControl', 16, {
  pageSize: u64(0),
  numRanges: u32(8),
});
/** Of DMA_LOGGING_REPORT; the reply has the bitmap behind it. */
export const DmaLoggingReport = struct('DmaLoggingReport', 24, {
  iova: u64(0),
  length: u64(8),
  pageSize: u64(16),
});

/** MIG_DATA_READ and MIG_DATA_WRITE; followed by the data. */
export const MigData = struct('MigData', 8, { argsz: u32(0), size: u32(4) });

/** Indices of a PCI device's regions. */
export const PciRegion = {
  BAR0: 0,
  BAR1: 1,
  BAR2: 2,
  BAR3: 3,
  BAR4: 4,
  BAR5: 5,
  ROM: 6,
  CONFIG: 7,
  VGA: 8,
} as const;
export const PCI_NUM_REGIONS = 9;

/** Indices of a PCI device's interrupts. */
export const PciIrq = { INTX: 0, MSI: 1, MSIX: 2, ERR: 3, REQ: 4 } as const;
export const PCI_NUM_IRQS = 5;
