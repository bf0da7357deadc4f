/** The NVMe controller as a PCI function. NVMe over PCIe 1.0 §3.1. */

/** Identifiers as SPDK's vfio-user target has them, so that guests and tools treat both alike. */
export const NVME_PCI_IDENTITY = {
  vendorId: 0x4e58,
  deviceId: 0x0001,
  subsystemVendorId: 0x4e58,
  subsystemId: 0x0000,
  /** Mass storage, non-volatile memory, NVM Express. */
  classCode: 0x01,
  subclass: 0x08,
  progIf: 0x02,
} as const;
