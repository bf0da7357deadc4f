/**
 * PCI configuration space: an image with a write mask per byte, the capability chain, and the BARs. Owned by main.
 * What a write means beyond the stored bits (function level reset) is told by its return value.
 */
import {
  CONFIG_SPACE_SIZE,
  MSIX_CAPABILITY_ID,
  MSIX_CONTROL_ENABLE,
  MSIX_CONTROL_FUNCTION_MASK,
  MsixCapability,
  PCI_BAR_64BIT,
  PCI_CLASS_NVME,
  PCI_COMMAND_WRITABLE,
  PCI_DEVICE_ID,
  PCI_STATUS_CAPABILITIES,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
  PCIE_CAPABILITY_ID,
  PCIE_DEVCAP_FLR,
  PCIE_DEVCAP_RBER,
  PCIE_DEVCAP2_COMPLETION_TIMEOUT_DISABLE,
  PCIE_DEVCTL_FLR,
  PCIE_VERSION_2,
  PcieCapability,
  PciHeader,
  PM_CAPABILITY_ID,
  PMCSR_NO_SOFT_RESET,
  PMCSR_POWER_STATE,
  PmCapability,
} from '../spec/pci.ts';

// The chain: header → PM → MSI-X → PCI Express.
const PM_OFFSET = 0x40;
const PMCSR_OFFSET = PM_OFFSET + PmCapability.offset.pmcsr;
const MSIX_OFFSET = 0x50;
const PCIE_OFFSET = 0x80;

/** PCIe device control without the reset bit, which reads as 0; link control's ASPM and common clock bits. */
const DEVICE_CONTROL_WRITABLE = 0x7fff;
const LINK_CONTROL_WRITABLE = 0x00f3;
const DEVICE_CONTROL2_WRITABLE = 0x001f;
/** One lane at 2.5 GT/s: a link nobody looks at. */
const LINK_X1_2_5GT = 0x11;
const PIN_INTA = 1;
const PM_VERSION_3 = 3;

export interface Bar {
  /** 0 to 5. */
  readonly index: number;
  /** Bytes, a power of two. */
  readonly size: number;
  readonly is64Bit: boolean;
}

export interface MsixPlacement {
  readonly vectors: number;
  readonly bar: number;
  readonly tableOffset: number;
  readonly pbaOffset: number;
}

export class ConfigSpace {
  readonly #bars: readonly Bar[];
  readonly #msix: MsixPlacement;
  readonly #image = new Uint8Array(CONFIG_SPACE_SIZE);
  readonly #view = new DataView(this.#image.buffer);
  /** Bits that software can set. */
  readonly #mask = new Uint8Array(CONFIG_SPACE_SIZE);

  constructor(bars: readonly Bar[], msix: MsixPlacement) {
    this.#bars = bars;
    this.#msix = msix;
    this.reset();
  }

  /** Power-on state. */
  reset(): void {
    this.#image.fill(0);
    this.#mask.fill(0);
    this.#header();
    this.#capabilities();
  }

  #header(): void {
    const mask = new DataView(this.#mask.buffer);
    PciHeader.write(this.#view, 0, {
      vendorId: PCI_VENDOR_ID,
      deviceId: PCI_DEVICE_ID,
      status: PCI_STATUS_CAPABILITIES,
      ...PCI_CLASS_NVME,
      subsystemVendorId: PCI_SUBSYSTEM_VENDOR_ID,
      subsystemId: PCI_SUBSYSTEM_ID,
      capabilities: PM_OFFSET,
      interruptPin: PIN_INTA,
    });
    PciHeader.write(mask, 0, {
      command: PCI_COMMAND_WRITABLE,
      cacheLineSize: 0xff,
      interruptLine: 0xff,
    });
    // Only the address bits above a BAR's size can be set, so that writing all ones reads back the size.
    for (const { index, size, is64Bit } of this.#bars) {
      const at = PciHeader.offset.bar0 + 4 * index;
      this.#view.setUint32(at, is64Bit ? PCI_BAR_64BIT : 0, true);
      mask.setUint32(at, ~(size - 1) >>> 0, true);
      if (is64Bit) {
        mask.setUint32(at + 4, 0xffff_ffff, true);
      }
    }
  }

  #capabilities(): void {
    const mask = new DataView(this.#mask.buffer);
    PmCapability.write(this.#view, PM_OFFSET, {
      id: PM_CAPABILITY_ID,
      next: MSIX_OFFSET,
      pmc: PM_VERSION_3,
      pmcsr: PMCSR_NO_SOFT_RESET,
    });
    PmCapability.write(mask, PM_OFFSET, { pmcsr: PMCSR_POWER_STATE });
    const { vectors, bar, tableOffset, pbaOffset } = this.#msix;
    MsixCapability.write(this.#view, MSIX_OFFSET, {
      id: MSIX_CAPABILITY_ID,
      next: PCIE_OFFSET,
      messageControl: vectors - 1,
      table: tableOffset | bar,
      pba: pbaOffset | bar,
    });
    MsixCapability.write(mask, MSIX_OFFSET, {
      messageControl: MSIX_CONTROL_ENABLE | MSIX_CONTROL_FUNCTION_MASK,
    });
    PcieCapability.write(this.#view, PCIE_OFFSET, {
      id: PCIE_CAPABILITY_ID,
      flags: PCIE_VERSION_2,
      deviceCapabilities: PCIE_DEVCAP_RBER | PCIE_DEVCAP_FLR,
      linkCapabilities: LINK_X1_2_5GT,
      linkStatus: LINK_X1_2_5GT,
      deviceCapabilities2: PCIE_DEVCAP2_COMPLETION_TIMEOUT_DISABLE,
    });
    PcieCapability.write(mask, PCIE_OFFSET, {
      deviceControl: DEVICE_CONTROL_WRITABLE,
      linkControl: LINK_CONTROL_WRITABLE,
      deviceControl2: DEVICE_CONTROL2_WRITABLE,
    });
  }

  /** D0 to D3. */
  get #powerState(): number {
    return this.#image[PMCSR_OFFSET] & PMCSR_POWER_STATE;
  }
  set #powerState(state: number) {
    this.#image[PMCSR_OFFSET] = (this.#image[PMCSR_OFFSET] & ~PMCSR_POWER_STATE) | state;
  }

  /** Any offset and width within the space. */
  read(offset: number, into: Uint8Array): void {
    into.set(this.#image.subarray(offset, offset + into.length));
  }

  /** Any offset and width within the space; bits that are read only stay. Returns 'reset' if the write asks for a function level reset. */
  write(offset: number, data: Uint8Array): 'reset' | undefined {
    const before = this.#powerState;
    for (const [i, value] of data.entries()) {
      const mask = this.#mask[offset + i];
      this.#image[offset + i] = (this.#image[offset + i] & ~mask) | (value & mask);
    }
    if (this.#powerState === 1 || this.#powerState === 2) {
      // D1 and D2 are not offered: the write completes, and the state stays (PCI Power Management 1.2 §3.2.4).
      this.#powerState = before;
    }
    const control = PCIE_OFFSET + PcieCapability.offset.deviceControl + 1 - offset;
    return ((data[control] ?? 0) << 8) & PCIE_DEVCTL_FLR ? 'reset' : undefined;
  }
}
