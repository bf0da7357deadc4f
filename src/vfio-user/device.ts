/**
 * What the vfio-user server asks of a PCI device, one made for each client. The server checks everything that needs no knowledge of the device,
 * calls one method at a time, and waits for the promises.
 *
 * A method refuses by throwing an error with a numeric `errno` (a SystemError of the addon, or a `Refusal`); the client gets that number.
 */
import type { DmaMessages } from './dma-messages.ts';

export interface DeviceRegion {
  /** Of PciRegion. */
  readonly index: number;
  /** Bytes, more than 0. */
  readonly size: number;
  /** Not readable: reads as zeros. */
  readonly readable: boolean;
  /** Not writable: writes are dropped. */
  readonly writable: boolean;
  /** Parts that the client may map itself; none means all of it. Areas and file share offsets. The descriptor stays the device's. */
  readonly mmap?: {
    readonly fd: number;
    readonly areas: readonly { readonly offset: number; readonly size: number }[];
  };
}

export interface IrqIndex {
  /** Of PciIrq. */
  readonly index: number;
  /** Vectors, more than 0. */
  readonly count: number;
  /** Of IrqInfoFlag. */
  readonly flags: number;
}

export interface DmaRegion {
  /** A multiple of the page size, as are `size` and, with a descriptor, `offset`. */
  readonly iova: number;
  readonly size: number;
  /** undefined: memory that the server cannot reach. */
  readonly fd: number | undefined;
  readonly offset: number;
  /** By the device. */
  readonly readable: boolean;
  readonly writable: boolean;
}

/** A client that has agreed on the protocol, as its device sees it. */
export interface Client {
  /** Its socket's descriptor: not to be read from, written to or closed. */
  readonly socket: number;
  /** Closes descriptors that it sent, some time; -1 stands for none. Never waits. */
  readonly close: (fds: readonly number[]) => void;
  /** Its memory, by messages. No reply to a command of its may wait for that: a client that waits may answer nothing meanwhile. */
  readonly messages: DmaMessages;
  /** It is known to answer these. */
  readonly answersDma: boolean;
}

/** Which pages of the client's memory the device writes without the client seeing it. */
export interface DmaLog {
  /** From now on: nothing is written yet. */
  start(): void;
  stop(): void;
  /** Sets bit i of `bitmap` where page i of a range of whole pages of 4096 bytes was written since it was last asked for. */
  report(iova: number, length: number, bitmap: Uint8Array): void;
}

/** Makes the device of a client that has agreed on the protocol. What it throws turns the client away. */
export type Accept = (client: Client) => VfioUserDevice;

export interface VfioUserDevice {
  /** Those that exist; PCI_NUM_REGIONS are announced. */
  readonly regions: readonly DeviceRegion[];
  /** Those that exist; PCI_NUM_IRQS are announced. */
  readonly irqs: readonly IrqIndex[];
  /** Absent: it does not know. */
  readonly dmaLog?: DmaLog | undefined;

  /** The client is gone: drops maps, interrupts, everything of it. The last call. */
  clientGone(): Promise<void> | void;

  /** The region overlaps no other. The device owns `fd` from now on, also when it throws. */
  dmaMap(region: DmaRegion): Promise<void> | void;
  /** All regions in a range that cuts none, be they none. When this is done nothing uses their memory any more. */
  dmaUnmap(iova: number, size: number): Promise<void> | void;

  /** Within a readable region, at least one byte. `into` is zeroed. */
  regionRead(index: number, offset: number, into: Uint8Array): Promise<void> | void;
  /** Within a writable region, at least one byte. */
  regionWrite(index: number, offset: number, data: Uint8Array): Promise<void> | void;

  /** Connects vectors start, start + 1, …; undefined disconnects one. The device owns the descriptors, also when it throws. */
  setIrqEventfds(
    index: number,
    start: number,
    fds: readonly (number | undefined)[],
  ): Promise<void> | void;
  /** The eventfd that the client signals to unmask vector 0; undefined: none any more. The device owns it, also when it throws. */
  setIrqUnmaskEventfd(index: number, fd: number | undefined): Promise<void> | void;
  /** Signals vector start + i where `fire[i]`. */
  triggerIrqs(index: number, start: number, fire: readonly boolean[]): void;
  /** Masks or unmasks vector start + i where `which[i]`. Also called for an index that is not MASKABLE: then to be ignored. */
  maskIrqs(index: number, start: number, which: readonly boolean[], mask: boolean): void;
  /** Disconnects all vectors of an index. */
  disableIrqs(index: number): Promise<void> | void;

  /** Back to the state of power-on; maps and interrupts stay. */
  reset(): Promise<void> | void;
}
