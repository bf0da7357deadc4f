/**
 * One client's NVMe PCI device: where vfio-user, PCI, the controller and the reactors meet. Owned by main.
 * Made when a client has connected, dropped when it is gone: the next one finds a device that nobody used before.
 */
import { closeSync } from 'node:fs';
import type { Tally } from '../bdev/tally.ts';
import { DOORBELLS_BYTES, MAX_IO_QUEUE_PAIRS, MAX_REGIONS, PAGE_SIZE } from '../limits.ts';
import { GuestMemory, type GuestRegion } from '../memory/guest.ts';
import type { DescriptorCloser } from '../native/descriptor-closer.ts';
import { native } from '../native/index.ts';
import { Controller } from '../nvme/controller.ts';
import type { ControllerEvent, ControllerHost } from '../nvme/host.ts';
import type { IoFailure } from '../nvme/plane/failure.ts';
import {
  ADMIN_WORDS_BYTES,
  AdminWord,
  NOT_WAITING,
  type NvmeEvent,
} from '../nvme/plane/messages.ts';
import { ConfigSpace } from '../pci/config-space.ts';
import { Interrupts } from '../pci/interrupts.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import { DOORBELL_OFFSET } from '../spec/nvme.ts';
import { CONFIG_SPACE_SIZE, PciCommand, PciHeader } from '../spec/pci.ts';
import { IOVA_END, IrqInfoFlag, PciIrq, PciRegion } from '../spec/vfio-user.ts';
import type { Logger } from '../util/log.ts';
import type { DeviceRegion, DmaRegion, IrqIndex, VfioUserDevice } from '../vfio-user/device.ts';
import { Refusal } from '../vfio-user/refusal.ts';
import { DeviceNamespaces } from './device-namespaces.ts';
import { DeviceVectors } from './device-vectors.ts';
import { diagnose } from './diagnosis.ts';
import { describeFailure } from './disk-failures.ts';
import type { NewEvent } from './events.ts';
import { unwatchMemory, watchMemory } from './lost-memory.ts';
import { IoQueues } from './queues.ts';
import type { ControllerInfo, Namespace, SubsystemView, TransportOptions } from './types.ts';
import { UnsharedMemory } from './unshared-memory.ts';

/** Registers and doorbells. The registers' BAR is 16 KiB at least (NVMe over PCIe 1.0 §3.1.1). */
const BAR0_SIZE = 0x4000;
/** MSI-X table and PBA, a page each. */
const BAR4_SIZE = 0x2000;
const PBA_OFFSET = 0x1000;
const FIRMWARE_REVISION = '0.1';

/** DMA regions mapped in the whole process. */
let mappedRegions = 0;

export interface DeviceOptions {
  readonly subsystem: SubsystemView;
  readonly transport: TransportOptions;
  readonly socketPath: string;
  readonly emit: (event: NewEvent) => void;
  readonly reactors: ReactorPool;
  /** Closes what the client sent. */
  readonly closer: DescriptorCloser;
  readonly log: Logger;
}

export class NvmeDevice implements VfioUserDevice {
  readonly regions: readonly DeviceRegion[];
  readonly irqs: readonly IrqIndex[];
  readonly #options: DeviceOptions;
  readonly #log: Logger;
  readonly #cntlid: number;
  readonly #connectedAt = new Date().toISOString();
  readonly #id: number;
  readonly #memory = new GuestMemory();
  readonly #unshared = new UnsharedMemory();
  readonly #bar0Fd: number;
  readonly #doorbells: Int32Array;
  /** See AdminWord. */
  readonly #adminSeen: Int32Array;
  readonly #config: ConfigSpace;
  readonly #msixTable = new Uint8Array(BAR4_SIZE);
  readonly #interrupts: Interrupts;
  readonly #queues: IoQueues;
  readonly #namespaces: DeviceNamespaces;
  readonly #vectors: DeviceVectors;
  readonly #controller: Controller;
  /** What its client had done when it went. */
  done: Tally | undefined;
  /** Whom the addon names when memory of this client is lost. */
  #owner = 0;
  /** Settles when lost memory is out of use, and never rejects. */
  #losing = Promise.resolve();
  /** The client was told by the log that some of its memory is not mapped. */
  #toldOfFile = false;

  constructor(options: DeviceOptions) {
    const { subsystem, transport, reactors } = options;
    this.#options = options;
    const { fd, doorbells } = makeDoorbells();
    this.#bar0Fd = fd;
    this.#doorbells = new Int32Array(doorbells);
    try {
      this.#cntlid = subsystem.allocateCntlid();
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    this.#log = options.log.child({ cntlid: this.#cntlid });
    const adminSeen = new SharedArrayBuffer(ADMIN_WORDS_BYTES);
    this.#adminSeen = new Int32Array(adminSeen);
    const vectors = transport.maxIoQpairsPerCtrlr + 1;
    const close = (fds: readonly number[]) => options.closer.close(fds);
    this.#interrupts = new Interrupts(vectors, () => this.#vectors.changed(), close);
    this.#config = new ConfigSpace(
      [
        { index: PciRegion.BAR0, size: BAR0_SIZE, is64Bit: true },
        { index: PciRegion.BAR4, size: BAR4_SIZE, is64Bit: false },
      ],
      { vectors, bar: PciRegion.BAR4, tableOffset: 0, pbaOffset: PBA_OFFSET },
    );
    this.#id = reactors.register({
      told: (message) => this.#told(message as NvmeEvent),
      reactorLost: (reactor) => {
        if (this.#queues.reactorLost(reactor)) {
          this.#controller.fail(`reactor ${reactor} died`);
        }
      },
    });
    this.#namespaces = new DeviceNamespaces(this.#id, subsystem, reactors);
    this.#queues = new IoQueues({
      controller: this.#id,
      pool: reactors,
      log: this.#log,
      doorbells,
      trapped: transport.disableMappableBar0,
      adaptiveInterrupts: transport.adaptiveInterrupts,
      adminSeen,
      memory: this.#memory,
      maxTransferBytes: transport.maxIoSize,
      writeThrough: () => this.#controller.writeThrough,
      row: this.#namespaces.refusedRow,
      namespaces: () => this.#namespaces.describeAll(),
      eventfds: () => this.#interrupts.table(),
      lost: (reason) => this.#controller.fail(reason),
    });
    this.#controller = new Controller(
      {
        cntlid: this.#cntlid,
        subnqn: subsystem.nqn,
        serialNumber: subsystem.serialNumber,
        modelNumber: subsystem.modelNumber,
        firmwareRevision: FIRMWARE_REVISION,
        maxNamespaces: subsystem.maxNamespaces,
        maxQueueEntries: transport.maxQueueDepth,
        maxIoQueuePairs: Math.min(transport.maxIoQpairsPerCtrlr, MAX_IO_QUEUE_PAIRS),
        mdts: Math.log2(transport.maxIoSize / PAGE_SIZE),
        shadowDoorbells: transport.shadowDoorbells,
      },
      this.#host(),
    );
    this.#vectors = new DeviceVectors(this.#interrupts, this.#queues, this.#controller, close);
    this.regions = this.#makeRegions();
    this.irqs = [
      { index: PciIrq.INTX, count: 1, flags: IrqInfoFlag.EVENTFD },
      { index: PciIrq.MSIX, count: vectors, flags: IrqInfoFlag.EVENTFD },
      { index: PciIrq.ERR, count: 1, flags: IrqInfoFlag.EVENTFD },
      { index: PciIrq.REQ, count: 1, flags: IrqInfoFlag.EVENTFD },
    ];
  }

  #makeRegions(): DeviceRegion[] {
    const access = { readable: true, writable: true };
    const bar0 = { index: PciRegion.BAR0, size: BAR0_SIZE, ...access };
    const areas = [{ offset: DOORBELL_OFFSET, size: DOORBELLS_BYTES }];
    return [
      this.#options.transport.disableMappableBar0
        ? bar0
        : { ...bar0, mmap: { fd: this.#bar0Fd, areas } },
      { index: PciRegion.BAR4, size: BAR4_SIZE, ...access },
      { index: PciRegion.CONFIG, size: CONFIG_SPACE_SIZE, ...access },
    ];
  }

  #host(): ControllerHost {
    const { subsystem } = this.#options;
    const queues = this.#queues;
    const namespaces = this.#namespaces;
    return {
      log: this.#log,
      memory: this.#memory,
      unshared: (iova) => this.#unshared.holds(iova),
      doorbells: this.#doorbells,
      get namespaces() {
        return namespaces.presented();
      },
      get shared() {
        return subsystem.shared;
      },
      createCq: (request) => queues.createCq(request),
      createSq: (request) => queues.createSq(request),
      deleteCq: (qid) => queues.deleteCq(qid),
      deleteSq: (qid) => queues.deleteSq(qid),
      resetQueues: () => queues.reset(),
      setShadow: (pages) => queues.setShadow(pages),
      setWriteThrough: (enabled) => queues.setWriteThrough(enabled),
      watchAdmin: (enabled) => queues.watchAdmin(enabled),
      sawAdminTail: (tail) => Atomics.store(this.#adminSeen, AdminWord.TAIL, tail),
      sawAdminHead: (head) => Atomics.store(this.#adminSeen, AdminWord.HEAD, head ?? NOT_WAITING),
      signalAdmin: () => this.#vectors.signalAdmin(),
      interruptMaskChanged: () => {
        this.#interrupts.pinMask = this.#controller.interruptMask;
        this.#vectors.changed();
      },
      sync: async () => {
        await Promise.all([...subsystem.namespaces.values()].map(({ bdev }) => bdev.sync()));
      },
      ioTotals: () => namespaces.totals(),
      tell: (event) => this.#tell(event),
    };
  }

  get info(): ControllerInfo {
    const queues = this.#queues;
    return {
      cntlid: this.#cntlid,
      connectedAt: this.#connectedAt,
      enabled: this.#controller.enabled,
      guestBytes: this.#memory.regions.reduce((bytes, { size }) => bytes + size, 0),
      qpairs: queues.submissionQueues,
      reactors: queues.reactors,
      tally: (nsid) => this.#namespaces.tally(nsid),
      queues: () => queues.queues(),
      diagnose: () =>
        diagnose({
          cntlid: this.#cntlid,
          connectedAt: this.#connectedAt,
          nvme: this.#controller.diagnose(),
          queues: queues.queues(),
          recent: queues.recent(),
          regions: this.#memory.regions,
          unsharedBytes: this.#unshared.bytes,
          interrupts: this.#interrupts.describe(),
          failed: [...this.#options.subsystem.namespaces.values()]
            .filter(({ bdev }) => bdev.failure !== undefined)
            .map(({ nsid }) => nsid),
        }),
    };
  }

  #tell(event: ControllerEvent): void {
    const { emit, subsystem, socketPath } = this.#options;
    const where = { nqn: subsystem.nqn, socket: socketPath };
    switch (event.type) {
      case 'enabled':
      case 'disabled':
        emit({ type: `controller-${event.type}`, ...where });
        break;
      case 'shutdown':
        emit({ type: 'guest-shutdown', ...where });
        break;
      case 'failed':
        emit({ type: 'error', ...where, message: `the controller failed: ${event.reason}` });
        break;
    }
  }

  // --- the client -------------------------------------------------------------------------------------------------

  clientConnected(socket: number): void {
    this.#owner = watchMemory(() => {
      this.#losing = this.#memoryLost();
    });
    this.#queues.socket = socket;
  }

  async clientGone(): Promise<void> {
    await this.#losing;
    try {
      await this.#controller.reset();
    } catch (error) {
      // Whatever is left of it goes with its queues.
      this.#log.error({ err: error }, 'the controller could not be reset');
    }
    await this.#queues.detach();
    // Nothing is counted any more.
    this.done = this.#namespaces.tally();
    const { reactors } = this.#options;
    this.#namespaces.close();
    reactors.unregister(this.#id);
    revokeRegions(this.#memory.remove(0, IOVA_END), this.#log);
    unwatchMemory(this.#owner);
    this.#options.closer.close(this.#interrupts.release());
    native.revoke(this.#doorbells);
    native.reclaim();
    closeSync(this.#bar0Fd);
    this.#options.subsystem.releaseCntlid(this.#cntlid);
  }

  async reset(): Promise<void> {
    const { emit, subsystem, socketPath } = this.#options;
    emit({ type: 'guest-reset', nqn: subsystem.nqn, socket: socketPath });
    await this.#controller.reset();
    this.#config.reset();
    this.#interrupts.intxDisabled = false;
    this.#interrupts.pinMask = 0;
    await this.#queues.eventfdsChanged();
  }

  // --- memory -----------------------------------------------------------------------------------------------------

  async dmaMap({ iova, size, fd, offset, writable }: DmaRegion): Promise<void> {
    if (fd === undefined) {
      // Memory that only messages could reach: used by nobody.
      this.#unshared.add(iova, size);
      return;
    }
    if (!this.#options.transport.mapFileMemory && !native.isMemoryFile(fd)) {
      this.#options.closer.close([fd]);
      this.#unshared.add(iova, size);
      this.#tellOfFile(iova, size);
      return;
    }
    let buffer: SharedArrayBuffer;
    try {
      if (mappedRegions >= MAX_REGIONS) {
        throw new Refusal('ENOSPC', 'all clients together have too many DMA regions');
      }
      buffer = native.mapFile(fd, offset, size, writable, this.#owner);
    } finally {
      this.#options.closer.close([fd]);
    }
    const region: GuestRegion = { iova, size, buffer, writable };
    mappedRegions += 1;
    this.#memory.add(region);
    this.#controller.memoryChanged();
    // A guest may use the memory as soon as this is answered: every reactor must know it by then.
    try {
      await this.#queues.map(region);
    } catch (error) {
      revokeRegions(this.#memory.remove(iova, iova + size), this.#log);
      this.#controller.memoryChanged();
      throw error;
    }
  }

  /** Memory behind a file that may keep whoever touches it waiting for as long as it likes. */
  #tellOfFile(iova: number, size: number): void {
    const level = this.#toldOfFile ? 'debug' : 'warn';
    this.#toldOfFile = true;
    this.#log[level](
      { iova, size },
      'memory of the VM is not mapped, as its file is no memfd and not on tmpfs or hugetlbfs: map_file_memory (--map-file-memory) maps it all the same',
    );
  }

  /**
   * Memory was truncated or failed while it was mapped: where it was, zeros are. None of the client's memory is used any more, so that no
   * zeros get to a disk, and no second fault comes.
   */
  async #memoryLost(): Promise<void> {
    this.#controller.fail(
      'memory of the VM is lost: its file was truncated while it was mapped here, or the hardware reports an error in it',
    );
    try {
      await this.#takeAway(0, IOVA_END);
    } catch (error) {
      this.#log.error({ err: error }, 'lost memory could not be taken out of use');
    }
  }

  async dmaUnmap(iova: number, size: number): Promise<void> {
    await this.#losing;
    await this.#takeAway(iova, size);
  }

  async #takeAway(iova: number, size: number): Promise<void> {
    this.#unshared.remove(iova, iova + size);
    // Out of the table first: a reactor that gets its first queue meanwhile must not learn of the regions.
    const regions = this.#memory.remove(iova, iova + size);
    if (regions.length > 0) {
      this.#controller.memoryChanged();
      try {
        await this.#queues.unmap(iova, size);
      } finally {
        revokeRegions(regions, this.#log);
        native.reclaim();
      }
    }
  }

  // --- regions ------------------------------------------------------------------------------------------------------

  regionRead(index: number, offset: number, into: Uint8Array): void {
    switch (index) {
      case PciRegion.BAR0:
        // Doorbells read as zeros.
        if (offset < DOORBELL_OFFSET) {
          this.#controller.readRegisters(offset, into);
        }
        break;
      case PciRegion.BAR4:
        into.set(this.#msixTable.subarray(offset, offset + into.length));
        break;
      case PciRegion.CONFIG:
        this.#config.read(offset, into);
        break;
    }
  }

  async regionWrite(index: number, offset: number, data: Uint8Array): Promise<void> {
    switch (index) {
      case PciRegion.BAR0:
        if (offset >= DOORBELL_OFFSET) {
          this.#writeDoorbells(offset - DOORBELL_OFFSET, data);
        } else {
          this.#controller.writeRegisters(offset, data);
        }
        break;
      case PciRegion.BAR4:
        if (offset < PBA_OFFSET) {
          this.#msixTable.set(data.subarray(0, PBA_OFFSET - offset), offset);
        }
        break;
      case PciRegion.CONFIG:
        await this.#writeConfig(offset, data);
        break;
    }
  }

  /** A client that did not map the page: main writes for it, and wakes who is to see it. */
  #writeDoorbells(offset: number, data: Uint8Array): void {
    if (offset % 4 !== 0 || data.length % 4 !== 0) {
      return;
    }
    const view = new DataView(data.buffer, data.byteOffset, data.length);
    for (let at = 0; at < data.length && offset + at < DOORBELLS_BYTES; at += 4) {
      const index = (offset + at) / 4;
      const value = view.getInt32(at, true);
      Atomics.store(this.#doorbells, index, value);
      const qid = index >> 1;
      if (qid === 0) {
        this.#controller.adminDoorbell();
      } else {
        this.#queues.wake(qid);
      }
    }
  }

  async #writeConfig(offset: number, data: Uint8Array): Promise<void> {
    const effect = this.#config.write(offset, data);
    if (effect === 'reset') {
      await this.reset();
    } else if (
      offset <= PciHeader.offset.command + 1 &&
      offset + data.length > PciHeader.offset.command
    ) {
      const command = new Uint8Array(2);
      this.#config.read(PciHeader.offset.command, command);
      const disabled = ((command[0] | (command[1] << 8)) & PciCommand.INTX_DISABLE) !== 0;
      this.#interrupts.intxDisabled = disabled;
      this.#vectors.changed();
    }
  }

  // --- interrupts -----------------------------------------------------------------------------------------------------

  async setIrqEventfds(
    index: number,
    start: number,
    fds: readonly (number | undefined)[],
  ): Promise<void> {
    await this.#vectors.connect(index, start, fds);
  }

  setIrqUnmaskEventfd(index: number, fd: number | undefined): void {
    this.#vectors.connectUnmask(index, fd);
  }

  triggerIrqs(index: number, start: number, fire: readonly boolean[]): void {
    this.#vectors.trigger(index, start, fire);
  }

  maskIrqs(index: number, _start: number, which: readonly boolean[], mask: boolean): void {
    this.#vectors.mask(index, which, mask);
  }

  async disableIrqs(index: number): Promise<void> {
    await this.#vectors.disable(index);
  }

  // --- namespaces, diagnosis ------------------------------------------------------------------------------------------

  async addNamespace(namespace: Namespace): Promise<void> {
    await this.#queues.addNamespace(this.#namespaces.describe(namespace));
    this.#controller.namespaceChanged(namespace.nsid);
  }

  async removeNamespace(nsid: number): Promise<void> {
    await this.#queues.removeNamespace(nsid);
    this.#namespaces.forget(nsid);
    this.#controller.namespaceChanged(nsid);
  }

  /** The rate limits of a namespace's bdev were made, or lifted. */
  limitNamespace(nsid: number, limits: SharedArrayBuffer | undefined): Promise<void> {
    return this.#queues.limitNamespace(nsid, limits);
  }

  /** Moves an I/O completion queue with its submission queues to another reactor. See `IoQueues.move`. */
  moveQueue(cqid: number, reactor: number): Promise<number> {
    return this.#queues.move(cqid, reactor);
  }

  /** What a reactor tells of the controller. */
  #told(event: NvmeEvent): void {
    switch (event.kind) {
      case 'admin':
        Atomics.add(this.#adminSeen, AdminWord.TAKEN, 1);
        this.#controller.adminDoorbell();
        break;
      case 'bad-doorbell':
        this.#badDoorbell(event.qid);
        break;
      case 'io-failed':
        this.#ioFailed(event.failure);
        break;
    }
  }

  #ioFailed(failure: IoFailure): void {
    const { emit, subsystem, socketPath } = this.#options;
    const { nsid } = failure;
    const bdev = subsystem.namespaces.get(nsid)?.bdev.name;
    const { fields, message } = describeFailure(failure);
    this.#log.error({ bdev, ...fields }, 'a disk reports an error');
    const where = { nqn: subsystem.nqn, socket: socketPath, nsid };
    emit({ type: 'error', ...where, ...(bdev !== undefined && { bdev }), message });
  }

  #badDoorbell(qid: number): void {
    this.#log.debug({ qid }, 'doorbell value outside the queue');
    this.#controller.badDoorbell();
  }
}

/** A file of its own for each client: an earlier one may still have its doorbells mapped. */
function makeDoorbells(): { fd: number; doorbells: SharedArrayBuffer } {
  const fd = native.memfdCreate('doorbell-bar0', DOORBELL_OFFSET + DOORBELLS_BYTES);
  try {
    return { fd, doorbells: native.mapFile(fd, DOORBELL_OFFSET, DOORBELLS_BYTES, true) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** The memory is nobody's any more. What the kernel refuses to replace stays mapped, and unused, until the buffer is collected. */
function revokeRegions(regions: readonly GuestRegion[], log: Logger): void {
  for (const { iova, buffer } of regions) {
    mappedRegions -= 1;
    try {
      native.revoke(new DataView(buffer));
    } catch (error) {
      log.error({ err: error, iova }, 'memory of the VM could not be given back yet');
    }
  }
}
