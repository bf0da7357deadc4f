/**
 * A PCI function as one client sees it: configuration space, BARs, interrupts, DMA. What the device behind it does is its definition's affair.
 * Owned by main.
 */
import {
  CONFIG_SPACE_SIZE,
  MAX_MSI_VECTORS,
  MAX_MSIX_VECTORS,
  PciCommand,
  PciHeader,
} from '../spec/pci.ts';
import { IOVA_END, IrqInfoFlag, PciIrq, PciRegion } from '../spec/vfio-user.ts';
import type {
  Client,
  DeviceRegion,
  DmaLog,
  DmaRegion,
  IrqIndex,
  VfioUserDevice,
} from '../vfio-user/device.ts';
import {
  type Capability,
  express,
  type MsixPlacement,
  msi,
  msix,
  powerManagement,
} from './capabilities.ts';
import { type Bar, ConfigSpace, type PciIdentity } from './config-space.ts';
import { DirtyPages } from './dirty-pages.ts';
import { Dma } from './dma.ts';
import { Interrupts } from './interrupts.ts';
import { Irq } from './irq.ts';
import { DeviceMemory, type MemoryUser } from './memory.ts';
import { MsixTable } from './msix-table.ts';
import { Vectors, type VectorUser } from './vectors.ts';

/** Where the standard capabilities lie; those of the definition follow. */
const PM_OFFSET = 0x40;
const MSIX_OFFSET = 0x50;
const MSI_OFFSET = 0x60;
const EXPRESS_OFFSET = 0x80;

/** A BAR, and what answers accesses that come as messages. One without `read` reads as zeros, one without `write` drops what is written. */
export interface PciBar extends Bar {
  /** A file that the client may map: all of it, or `areas` (offsets and bytes, whole pages). The descriptor stays the device's. */
  readonly mmap?: NonNullable<DeviceRegion['mmap']>;
  /** Fills `into`, which is zeroed. The access lies within the BAR, and has at least one byte; its width is the client's choice. */
  readonly read?: (offset: number, into: Uint8Array) => Promise<void> | void;
  /** `data` is the callee's to keep. */
  readonly write?: (offset: number, data: Uint8Array) => Promise<void> | void;
}

export interface PciInterrupts {
  /** It has a pin, INTA. Default: no. */
  readonly intx?: boolean;
  /** Vectors of MSI: a power of two up to 32. Default: none. */
  readonly msi?: number;
  /** MSI-X. Its BAR is one of the definition's, whose accesses to table and pending bits the function answers itself. */
  readonly msix?: MsixPlacement;
}

/** What happens to the function, told in order: the client waits for promises. */
export interface PciEvents extends Partial<MemoryUser & VectorUser> {
  /** A reset by the client or the guest (DEVICE_RESET, function level reset): back to power-on. Configuration space and pin follow. */
  reset?(): Promise<void> | void;
  /** Configuration space was written, and has taken what can be written. */
  configWritten?(offset: number, data: Uint8Array): void;
  /**
   * The client is gone. Its memory and interrupts go when this is done, and stay for good if it throws. The next client waits for that a second at most.
   */
  gone?(): Promise<void> | void;
}

export interface PciDefinition {
  readonly identity: PciIdentity;
  readonly bars: readonly PciBar[];
  readonly interrupts?: PciInterrupts;
  /** A conventional PCI device: neither PCI Express, so no function level reset, nor power management. Default: no. */
  readonly conventional?: boolean;
  /** Beyond those of interrupts, power management and PCI Express. */
  readonly capabilities?: readonly Capability[];
  /** Memory is mapped whatever file is behind it: one on FUSE, or a device, can hold up whoever touches it. Default: no. */
  readonly mapFiles?: boolean;
  readonly on?: PciEvents;
}

export class PciFunction implements VfioUserDevice {
  readonly regions: readonly DeviceRegion[];
  readonly irqs: readonly IrqIndex[];
  readonly dmaLog: DmaLog | undefined;
  readonly irq: Irq;
  readonly dma: Dma;
  /** For devices whose interrupts and memory other threads use. */
  readonly memory: DeviceMemory;
  readonly interrupts: Interrupts;
  readonly vectors: Vectors;
  readonly #client: Client;
  readonly #on: PciEvents;
  readonly #bars: ReadonlyMap<number, PciBar>;
  readonly #config: ConfigSpace;
  readonly #msixTable: MsixTable | undefined;

  /** Throws RangeError if the definition describes no PCI function. */
  constructor(client: Client, definition: PciDefinition) {
    const { identity, bars, interrupts = {}, on = {} } = definition;
    checkInterrupts(interrupts, bars);
    this.#client = client;
    this.#on = on;
    this.#bars = new Map(bars.map((bar) => [bar.index, bar]));
    this.#msixTable = interrupts.msix && new MsixTable(interrupts.msix);
    this.#config = new ConfigSpace({
      identity,
      bars,
      capabilities: [
        ...capabilitiesOf(interrupts, definition.conventional),
        ...(definition.capabilities ?? []),
      ],
      pin: interrupts.intx ?? false,
    });
    this.regions = [
      ...bars.map(({ index, size, mmap }) => ({
        index,
        size,
        readable: true,
        writable: true,
        ...(mmap && { mmap }),
      })),
      { index: PciRegion.CONFIG, size: CONFIG_SPACE_SIZE, readable: true, writable: true },
    ];
    const counts = { msix: interrupts.msix?.vectors ?? 0, msi: interrupts.msi ?? 0 };
    this.irqs = [
      { index: PciIrq.INTX, count: interrupts.intx ? 1 : 0 },
      { index: PciIrq.MSI, count: counts.msi },
      { index: PciIrq.MSIX, count: counts.msix },
      { index: PciIrq.ERR, count: 1 },
      { index: PciIrq.REQ, count: 1 },
    ]
      .filter(({ count }) => count > 0)
      .map((irq) => ({ ...irq, flags: IrqInfoFlag.EVENTFD }));
    this.interrupts = new Interrupts(counts, () => this.vectors.changed(), client.close);
    this.vectors = new Vectors(this.interrupts, vectorUser(this, on), client.close);
    this.irq = new Irq(this.interrupts, this.vectors);
    this.memory = new DeviceMemory(memoryUser(on), definition.mapFiles ?? false, client);
    const dirty = new DirtyPages();
    this.dma = new Dma(this.memory, client.messages, dirty);
    // Where others use the memory, too, what they write is not known.
    this.dmaLog = on.memoryMapped === undefined ? dirty : undefined;
  }

  /** The guest lets the function reach its memory (bus master of the command register). */
  get isBusMaster(): boolean {
    return (this.#config.command & PciCommand.BUS_MASTER) !== 0;
  }

  async clientGone(): Promise<void> {
    await this.memory.settled();
    await this.#on.gone?.();
    this.memory.release();
    this.#client.close(this.interrupts.release());
  }

  async reset(): Promise<void> {
    this.#client.messages.abandon(0, IOVA_END);
    await this.#on.reset?.();
    this.#config.reset();
    this.irq.deassert();
    this.interrupts.intxDisabled = false;
    this.interrupts.pinMask = 0;
    await this.#on.vectorsChanged?.();
  }

  dmaMap(region: DmaRegion): Promise<void> {
    return this.memory.map(region);
  }

  dmaUnmap(iova: number, size: number): Promise<void> {
    return this.memory.unmap(iova, size);
  }

  regionRead(index: number, offset: number, into: Uint8Array): Promise<void> | void {
    if (index === PciRegion.CONFIG) {
      this.#config.interruptStatus = this.irq.asserted;
      this.#config.read(offset, into);
    } else if (this.#msixTable?.holds(index, offset)) {
      this.#msixTable.read(offset, into);
    } else {
      return this.#bars.get(index)?.read?.(offset, into);
    }
  }

  regionWrite(index: number, offset: number, data: Uint8Array): Promise<void> | void {
    if (index === PciRegion.CONFIG) {
      return this.#writeConfig(offset, data);
    }
    if (this.#msixTable?.holds(index, offset)) {
      this.#msixTable.write(offset, data);
    } else {
      return this.#bars.get(index)?.write?.(offset, data);
    }
  }

  async #writeConfig(offset: number, data: Uint8Array): Promise<void> {
    if (this.#config.write(offset, data) === 'reset') {
      await this.reset();
      return;
    }
    const { command } = PciHeader.offset;
    if (offset <= command + 1 && offset + data.length > command) {
      this.interrupts.intxDisabled = (this.#config.command & PciCommand.INTX_DISABLE) !== 0;
      this.vectors.changed();
    }
    this.#on.configWritten?.(offset, data);
  }

  setIrqEventfds(
    index: number,
    start: number,
    fds: readonly (number | undefined)[],
  ): Promise<void> {
    return this.vectors.connect(index, start, fds);
  }

  setIrqUnmaskEventfd(index: number, fd: number | undefined): void {
    this.vectors.connectUnmask(index, fd);
  }

  triggerIrqs(index: number, start: number, fire: readonly boolean[]): void {
    this.vectors.trigger(index, start, fire);
  }

  maskIrqs(index: number, _start: number, which: readonly boolean[], mask: boolean): void {
    this.vectors.mask(index, which, mask);
  }

  disableIrqs(index: number): Promise<void> {
    return this.vectors.disable(index);
  }
}

function checkInterrupts({ msi = 0, msix }: PciInterrupts, bars: readonly PciBar[]): void {
  if (msi !== 0 && (!Number.isInteger(Math.log2(msi)) || msi > MAX_MSI_VECTORS)) {
    throw new RangeError(`MSI with ${msi} vectors`);
  }
  if (msix !== undefined) {
    const { vectors, bar, tableOffset, pbaOffset } = msix;
    if (!Number.isInteger(vectors) || vectors < 1 || vectors > MAX_MSIX_VECTORS) {
      throw new RangeError(`MSI-X with ${vectors} vectors`);
    }
    if (tableOffset % 8 !== 0 || pbaOffset % 8 !== 0 || !bars.some(({ index }) => index === bar)) {
      throw new RangeError(`MSI-X at ${tableOffset} and ${pbaOffset} of BAR ${bar}`);
    }
  }
}

/** The standard capabilities of a function, without those of its own. */
export function capabilitiesOf(interrupts: PciInterrupts, conventional = false): Capability[] {
  return [
    ...(conventional ? [] : [{ ...powerManagement(), offset: PM_OFFSET }]),
    ...(interrupts.msix ? [{ ...msix(interrupts.msix), offset: MSIX_OFFSET }] : []),
    ...(interrupts.msi ? [{ ...msi(interrupts.msi), offset: MSI_OFFSET }] : []),
    ...(conventional ? [] : [{ ...express(), offset: EXPRESS_OFFSET }]),
  ];
}

function vectorUser(pci: PciFunction, on: PciEvents): VectorUser {
  return {
    vectorsChanged: async () => on.vectorsChanged?.(),
    signalPending: () => {
      pci.irq.signalPending();
      on.signalPending?.();
    },
  };
}

function memoryUser(on: PciEvents): MemoryUser {
  return {
    memoryMapped: async (region) => on.memoryMapped?.(region),
    memoryUnmapped: async (iova, size) => on.memoryUnmapped?.(iova, size),
    memoryChanged: () => on.memoryChanged?.(),
    memoryLost: () => on.memoryLost?.(),
    memorySkipped: (iova, size) => on.memorySkipped?.(iova, size),
    memoryFailed: (error, what) => on.memoryFailed?.(error, what),
  };
}
