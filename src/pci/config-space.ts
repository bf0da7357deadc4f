/**
 * PCI configuration space: an image with a write mask per byte, the BARs, and the chain of capabilities. Owned by main.
 * What a write means beyond the stored bits (function level reset) is told by its return value.
 */
import {
  CONFIG_SPACE_SIZE,
  PCI_BAR_64BIT,
  PCI_BAR_IO,
  PCI_BAR_PREFETCHABLE,
  PCI_CAPABILITIES_END,
  PCI_CAPABILITIES_START,
  PCI_COMMAND_WRITABLE,
  PCI_STATUS_CAPABILITIES,
  PCI_STATUS_INTERRUPT,
  PCIE_CAPABILITY_ID,
  PCIE_DEVCTL_FLR,
  PciCommand,
  PcieCapability,
  PciHeader,
  PM_CAPABILITY_ID,
  PMCSR_POWER_STATE,
  PmCapability,
} from '../spec/pci.ts';
import type { Capability } from './capabilities.ts';

const PIN_INTA = 1;

/** What software knows a function by. PCI Local Bus 3.0 §6.2.1. */
export interface PciIdentity {
  /** 16 bits each. */
  readonly vendorId: number;
  readonly deviceId: number;
  /** Default: 0. */
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  /** 8 bits each. Default: 0. */
  readonly classCode?: number;
  readonly subclass?: number;
  readonly progIf?: number;
  readonly revision?: number;
}

export interface Bar {
  /** 0 to 5. A memory BAR of 64 bits takes the next one, too. */
  readonly index: number;
  /** Bytes: a power of two, of memory 16 at least, of I/O ports 4 to 256. */
  readonly size: number;
  /** I/O ports, or memory below 4 GiB or anywhere. Default: `memory32`. */
  readonly kind?: 'io' | 'memory32' | 'memory64';
  /** Of memory: reads have no effects, and writes may be merged. Default: no. */
  readonly prefetchable?: boolean;
}

export interface ConfigSpaceOptions {
  readonly identity: PciIdentity;
  readonly bars: readonly Bar[];
  readonly capabilities: readonly Capability[];
  /** It has INTA. */
  readonly pin: boolean;
}

/** A capability with its place in the space. */
interface Placed {
  readonly at: number;
  readonly capability: Capability;
}

export class ConfigSpace {
  readonly #options: ConfigSpaceOptions;
  readonly #capabilities: readonly Placed[];
  /** Where those are that writes have effects in; beyond the space if they are not there. */
  readonly #pmcsr: number;
  readonly #deviceControl: number;
  readonly #image = new Uint8Array(CONFIG_SPACE_SIZE);
  readonly #view = new DataView(this.#image.buffer);
  /** Bits that software can set. */
  readonly #mask = new Uint8Array(CONFIG_SPACE_SIZE);

  /** Throws RangeError if BARs or capabilities do not fit. */
  constructor(options: ConfigSpaceOptions) {
    options.bars.forEach(checkBar);
    this.#options = options;
    this.#capabilities = place(options.capabilities);
    this.#pmcsr = this.#find(PM_CAPABILITY_ID, PmCapability.offset.pmcsr);
    this.#deviceControl = this.#find(PCIE_CAPABILITY_ID, PcieCapability.offset.deviceControl);
    this.reset();
  }

  #find(id: number, field: number): number {
    const found = this.#capabilities.find(({ capability }) => capability.bytes[0] === id);
    return found === undefined ? CONFIG_SPACE_SIZE : found.at + field;
  }

  /** Power-on state. */
  reset(): void {
    this.#image.fill(0);
    this.#mask.fill(0);
    this.#writeHeader();
    this.#writeBars();
    this.#writeCapabilities();
  }

  #writeHeader(): void {
    const { identity, bars, pin } = this.#options;
    const hasPorts = bars.some(({ kind }) => kind === 'io');
    PciHeader.write(this.#view, 0, {
      ...identity,
      status: this.#capabilities.length > 0 ? PCI_STATUS_CAPABILITIES : 0,
      capabilities: this.#capabilities[0]?.at ?? 0,
      interruptPin: pin ? PIN_INTA : 0,
    });
    PciHeader.write(new DataView(this.#mask.buffer), 0, {
      command: PCI_COMMAND_WRITABLE | (hasPorts ? PciCommand.IO : 0),
      cacheLineSize: 0xff,
      interruptLine: 0xff,
    });
  }

  /** Only the address bits above a BAR's size can be set, so that writing all ones reads back the size. */
  #writeBars(): void {
    const mask = new DataView(this.#mask.buffer);
    for (const { index, size, kind, prefetchable } of this.#options.bars) {
      const at = PciHeader.offset.bar0 + 4 * index;
      const wide = kind === 'memory64';
      const flags = kind === 'io' ? PCI_BAR_IO : wide ? PCI_BAR_64BIT : 0;
      this.#view.setUint32(at, flags | (prefetchable ? PCI_BAR_PREFETCHABLE : 0), true);
      mask.setUint32(at, size > 0xffff_ffff ? 0 : ~(size - 1) >>> 0, true);
      if (wide) {
        mask.setUint32(at + 4, ~Math.floor((size - 1) / 2 ** 32) >>> 0, true);
      }
    }
  }

  #writeCapabilities(): void {
    for (const [i, { at, capability }] of this.#capabilities.entries()) {
      this.#image.set(capability.bytes, at);
      this.#image[at + 1] = this.#capabilities[i + 1]?.at ?? 0;
      this.#mask.set(capability.writable ?? [], at);
      this.#mask.fill(0, at, at + 2);
    }
  }

  /** D0 to D3. */
  get #powerState(): number {
    return (this.#image[this.#pmcsr] ?? 0) & PMCSR_POWER_STATE;
  }

  /** Of the header. See PciCommand. */
  get command(): number {
    return this.#view.getUint16(PciHeader.offset.command, true);
  }

  /** The pin is asserted: software that shares an interrupt line looks whose it is. */
  set interruptStatus(asserted: boolean) {
    const at = PciHeader.offset.status;
    const status = this.#view.getUint16(at, true) & ~PCI_STATUS_INTERRUPT;
    this.#view.setUint16(at, status | (asserted ? PCI_STATUS_INTERRUPT : 0), true);
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
      this.#image[this.#pmcsr] = (this.#image[this.#pmcsr] & ~PMCSR_POWER_STATE) | before;
    }
    const control = this.#deviceControl + 1 - offset;
    return ((data[control] ?? 0) << 8) & PCIE_DEVCTL_FLR ? 'reset' : undefined;
  }
}

function checkBar({ index, size, kind }: Bar, _i: number, bars: readonly Bar[]): void {
  const [least, most] = kind === 'io' ? [4, 256] : [16, kind === 'memory64' ? 2 ** 52 : 2 ** 31];
  if (!Number.isInteger(Math.log2(size)) || size < least || size > most) {
    throw new RangeError(`BAR ${index} of ${size} bytes`);
  }
  const last = kind === 'memory64' ? index + 1 : index;
  const taken = bars.filter((other) => other.index === index || other.index === last).length > 1;
  if (!Number.isInteger(index) || index < 0 || last > 5 || taken) {
    throw new RangeError(`BAR ${index} does not exist, or is taken by another`);
  }
}

function place(capabilities: readonly Capability[]): Placed[] {
  let end = PCI_CAPABILITIES_START;
  return capabilities.map((capability) => {
    const at = capability.offset ?? end;
    const { length } = capability.bytes;
    if (at % 4 !== 0 || at < end || at + length > PCI_CAPABILITIES_END || length < 2) {
      throw new RangeError(`a capability of ${length} bytes at ${at}`);
    }
    end = Math.ceil((at + length) / 4) * 4;
    return { at, capability };
  });
}
