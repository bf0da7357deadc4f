/** The capabilities that a function may have in its configuration space: bytes, and which of their bits software can set. */
import {
  MSI_CAPABILITY_ID,
  MSI_CONTROL_64BIT,
  MSI_CONTROL_CAPABLE_SHIFT,
  MSI_CONTROL_ENABLE,
  MSI_CONTROL_ENABLED_MASK,
  MSIX_CAPABILITY_ID,
  MSIX_CONTROL_ENABLE,
  MSIX_CONTROL_FUNCTION_MASK,
  MsiCapability,
  MsixCapability,
  PCIE_CAPABILITY_ID,
  PCIE_DEVCAP_FLR,
  PCIE_DEVCAP_RBER,
  PCIE_DEVCAP2_COMPLETION_TIMEOUT_DISABLE,
  PCIE_VERSION_2,
  PcieCapability,
  PM_CAPABILITY_ID,
  PMCSR_NO_SOFT_RESET,
  PMCSR_POWER_STATE,
  PmCapability,
} from '../spec/pci.ts';

/** PCIe device control without the reset bit, which reads as 0; link control's ASPM and common clock bits. */
const DEVICE_CONTROL_WRITABLE = 0x7fff;
const LINK_CONTROL_WRITABLE = 0x00f3;
const DEVICE_CONTROL2_WRITABLE = 0x001f;
/** One lane at 2.5 GT/s: a link nobody looks at. */
const LINK_X1_2_5GT = 0x11;
const PM_VERSION_3 = 3;

export interface Capability {
  /** All of it: byte 0 is its id, byte 1 (the next one's offset) is overwritten. */
  readonly bytes: Uint8Array;
  /** Bits that software can set. As long as `bytes`, or shorter: nothing then. */
  readonly writable?: Uint8Array;
  /** Where it lies, 0x40 to 0xff, a multiple of 4. Default: the first multiple of 4 behind the one before it. */
  readonly offset?: number;
}

export interface MsixPlacement {
  /** 1 to 2048. */
  readonly vectors: number;
  /** The BAR that table and pending bits lie in, 0 to 5. */
  readonly bar: number;
  /** Multiples of 8. */
  readonly tableOffset: number;
  readonly pbaOffset: number;
}

/** Power Management with D0 and D3hot, and no state that is lost between them. */
export function powerManagement(): Capability {
  return {
    bytes: PmCapability.encode({
      id: PM_CAPABILITY_ID,
      pmc: PM_VERSION_3,
      pmcsr: PMCSR_NO_SOFT_RESET,
    }),
    writable: PmCapability.encode({ pmcsr: PMCSR_POWER_STATE }),
  };
}

/** `vectors`: a power of two, 1 to 32. */
export function msi(vectors: number): Capability {
  return {
    bytes: MsiCapability.encode({
      id: MSI_CAPABILITY_ID,
      messageControl: MSI_CONTROL_64BIT | (Math.log2(vectors) << MSI_CONTROL_CAPABLE_SHIFT),
    }),
    writable: MsiCapability.encode({
      messageControl: MSI_CONTROL_ENABLE | MSI_CONTROL_ENABLED_MASK,
      addressLow: 0xffff_fffc,
      addressHigh: 0xffff_ffff,
      data: 0xffff,
    }),
  };
}

export function msix({ vectors, bar, tableOffset, pbaOffset }: MsixPlacement): Capability {
  return {
    bytes: MsixCapability.encode({
      id: MSIX_CAPABILITY_ID,
      messageControl: vectors - 1,
      table: tableOffset | bar,
      pba: pbaOffset | bar,
    }),
    writable: MsixCapability.encode({
      messageControl: MSIX_CONTROL_ENABLE | MSIX_CONTROL_FUNCTION_MASK,
    }),
  };
}

/** PCI Express, an endpoint with function level reset. */
export function express(): Capability {
  return {
    bytes: PcieCapability.encode({
      id: PCIE_CAPABILITY_ID,
      flags: PCIE_VERSION_2,
      deviceCapabilities: PCIE_DEVCAP_RBER | PCIE_DEVCAP_FLR,
      linkCapabilities: LINK_X1_2_5GT,
      linkStatus: LINK_X1_2_5GT,
      deviceCapabilities2: PCIE_DEVCAP2_COMPLETION_TIMEOUT_DISABLE,
    }),
    writable: PcieCapability.encode({
      deviceControl: DEVICE_CONTROL_WRITABLE,
      linkControl: LINK_CONTROL_WRITABLE,
      deviceControl2: DEVICE_CONTROL2_WRITABLE,
    }),
  };
}
