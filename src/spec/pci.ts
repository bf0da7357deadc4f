/** PCI and PCI Express configuration space: the header and the capabilities that functions here may have. Layouts only. */
import { struct, u8, u16, u32 } from '../util/struct.ts';

/** PCI Express extended configuration space. Bytes. */
export const CONFIG_SPACE_SIZE = 4096;

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

export const PciCommand = {
  IO: 1 << 0,
  MEMORY: 1 << 1,
  BUS_MASTER: 1 << 2,
  INTX_DISABLE: 1 << 10,
} as const;
/** Memory, bus master, parity response, SERR, INTx disable: the bits software can set in any function; IO where it has such a BAR. */
export const PCI_COMMAND_WRITABLE = 0x0546;
/** INTx is asserted, whether it is disabled or not. */
export const PCI_STATUS_INTERRUPT = 1 << 3;
export const PCI_STATUS_CAPABILITIES = 1 << 4;
export const PCI_BAR_IO = 1;
export const PCI_BAR_64BIT = 2 << 1;
export const PCI_BAR_PREFETCHABLE = 1 << 3;
/** Where capabilities begin, and end. */
export const PCI_CAPABILITIES_START = 0x40;
export const PCI_CAPABILITIES_END = 0x100;

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

/** Message Signalled Interrupts capability with 64-bit addresses and without masks. PCI Local Bus 3.0 §6.8.1. */
export const MsiCapability = struct('MsiCapability', 16, {
  id: u8(0),
  next: u8(1),
  messageControl: u16(2),
  addressLow: u32(4),
  addressHigh: u32(8),
  data: u16(12),
});
export const MSI_CAPABILITY_ID = 0x05;
export const MSI_CONTROL_ENABLE = 1 << 0;
/** log2 of the vectors that the function asks for; of those it got, as software sets it. */
export const MSI_CONTROL_CAPABLE_SHIFT = 1;
export const MSI_CONTROL_ENABLED_MASK = 7 << 4;
export const MSI_CONTROL_64BIT = 1 << 7;
export const MAX_MSI_VECTORS = 32;

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
/** Bytes of a vector's entry in the table; vectors at most. */
export const MSIX_ENTRY_SIZE = 16;
export const MAX_MSIX_VECTORS = 2048;
