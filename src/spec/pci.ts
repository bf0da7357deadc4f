/** PCI and PCI Express configuration space: the header and the capabilities this device has. Layouts only. */
import { struct, u8, u16, u32 } from '../util/struct.ts';

/** PCI Express extended configuration space. Bytes. */
export const CONFIG_SPACE_SIZE = 4096;

/** Identifiers as SPDK's vfio-user target has them, so that guests and tools treat both alike. */
export const PCI_VENDOR_ID = 0x4e58;
export const PCI_DEVICE_ID = 0x0001;
export const PCI_SUBSYSTEM_VENDOR_ID = 0x4e58;
export const PCI_SUBSYSTEM_ID = 0x0000;
/** Mass storage, non-volatile memory, NVM Express. */
export const PCI_CLASS_NVME = { classCode: 0x01, subclass: 0x08, progIf: 0x02 } as const;

/** Type 0 header. PCI Local Bus 3.0 §6.1. */
export const PciHeader = struct('PciHeader', 64, {
  vendorId: u16(0x00),
  deviceId: u16(0x02),
  command: u16(0x04),
  status: u16(0x06),
  revision: u8(0x08),
  progIf: u8(0x09),
  subclass: u8(0x0a),
  classCode: u8(0x0b),
  cacheLineSize: u8(0x0c),
  latencyTimer: u8(0x0d),
  headerType: u8(0x0e),
  bar0: u32(0x10),
  bar1: u32(0x14),
  bar2: u32(0x18),
  bar3: u32(0x1c),
  bar4: u32(0x20),
  bar5: u32(0x24),
  subsystemVendorId: u16(0x2c),
  subsystemId: u16(0x2e),
  expansionRom: u32(0x30),
  capabilities: u8(0x34),
  interruptLine: u8(0x3c),
  interruptPin: u8(0x3d),
});

export const PciCommand = { MEMORY: 1 << 1, BUS_MASTER: 1 << 2, INTX_DISABLE: 1 << 10 } as const;
/** Memory, bus master, parity response, SERR, INTx disable: the bits software can set. */
export const PCI_COMMAND_WRITABLE = 0x0546;
export const PCI_STATUS_CAPABILITIES = 1 << 4;
export const PCI_BAR_64BIT = 2 << 1;

/** Power Management capability. PCI Power Management 1.2 §3.2. */
export const PmCapability = struct('PmCapability', 8, {
  id: u8(0),
  next: u8(1),
  pmc: u16(2),
  pmcsr: u16(4),
});
export const PM_CAPABILITY_ID = 0x01;
export const PMCSR_NO_SOFT_RESET = 1 << 3;
export const PMCSR_POWER_STATE = 3;

/** PCI Express capability, version 2. PCIe Base 3.0 §7.8. */
export const PcieCapability = struct('PcieCapability', 60, {
  id: u8(0),
  next: u8(1),
  flags: u16(2),
  deviceCapabilities: u32(4),
  deviceControl: u16(8),
  deviceStatus: u16(10),
  linkCapabilities: u32(12),
  linkControl: u16(16),
  linkStatus: u16(18),
  deviceCapabilities2: u32(36),
  deviceControl2: u16(40),
});
export const PCIE_CAPABILITY_ID = 0x10;
export const PCIE_VERSION_2 = 2;
/** Role-based error reporting; function level reset. */
export const PCIE_DEVCAP_RBER = 1 << 15;
export const PCIE_DEVCAP_FLR = 1 << 28;
export const PCIE_DEVCAP2_COMPLETION_TIMEOUT_DISABLE = 1 << 4;
export const PCIE_DEVCTL_FLR = 1 << 15;

/** MSI-X capability. PCI Local Bus 3.0 §6.8.2. */
export const MsixCapability = struct('MsixCapability', 12, {
  id: u8(0),
  next: u8(1),
  messageControl: u16(2),
  /** Offset in the BAR, with the BAR's number in the low three bits. */
  table: u32(4),
  pba: u32(8),
});
export const MSIX_CAPABILITY_ID = 0x11;
export const MSIX_CONTROL_ENABLE = 1 << 15;
export const MSIX_CONTROL_FUNCTION_MASK = 1 << 14;
