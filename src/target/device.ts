/**
 * One client's NVMe device: a PCI function whose registers are a controller's, and whose queues are in the reactors. Owned by main.
 * Made when a client has connected, dropped when it is gone: the next one finds a device that nobody used before.
 */
import type { Tally } from '../bdev/tally.ts';
import { MAX_IO_QUEUE_PAIRS, PAGE_SIZE } from '../limits.ts';
import type { GuestRegion } from '../memory/guest.ts';
import { Controller } from '../nvme/controller.ts';
import type { ControllerConfig, SubsystemEvent } from '../nvme/host.ts';
import type { IoFailure } from '../nvme/plane/failure.ts';
import { ADMIN_WORDS_BYTES, AdminWord, type NvmeEvent } from '../nvme/plane/messages.ts';
import { type PciBar, type PciEvents, PciFunction } from '../pci/function.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import { NVME_PCI_IDENTITY } from '../spec/nvme-pci.ts';
import { DOORBELL_OFFSET } from '../spec/registers.ts';
import { PciRegion } from '../spec/vfio-user.ts';
import type { Logger } from '../util/log.ts';
import type { Client } from '../vfio-user/device.ts';
import { DeviceHost } from './device-host.ts';
import { DeviceNamespaces } from './device-namespaces.ts';
import { diagnose } from './diagnosis.ts';
import { describeFailure } from './disk-failures.ts';
import { DoorbellPage } from './doorbell-page.ts';
import type { NewEvent } from './events.ts';
import { IoQueues } from './queues.ts';
import { RemoteMode } from './remote-mode.ts';
import type {
  AccessChange,
  ControllerInfo,
  Namespace,
  SubsystemView,
  TransportOptions,
} from './types.ts';

/** Registers and doorbells. The registers' BAR is 16 KiB at least (NVMe over PCIe 1.0 §3.1.1). */
const BAR0_SIZE = 0x4000;
/** MSI-X table and PBA, a page each. */
const BAR4_SIZE = 0x2000;
const PBA_OFFSET = 0x1000;
const FIRMWARE_REVISION = '0.1';

export interface DeviceOptions {
  readonly client: Client;
  readonly subsystem: SubsystemView;
  readonly transport: TransportOptions;
  readonly socketPath: string;
  readonly emit: (event: NewEvent) => void;
  readonly reactors: ReactorPool;
  readonly log: Logger;
}

export class NvmeDevice implements PciEvents {
  /** What the client sees. */
  readonly pci: PciFunction;
  readonly #options: DeviceOptions;
  readonly #where: { readonly nqn: string; readonly socket: string };
  readonly #log: Logger;
  readonly #cntlid: number;
  readonly #connectedAt = new Date().toISOString();
  readonly #id: number;
  readonly #doorbells = new DoorbellPage();
  /** See AdminWord. */
  readonly #adminSeen = new Int32Array(new SharedArrayBuffer(ADMIN_WORDS_BYTES));
  readonly #queues: IoQueues;
  readonly #remote: RemoteMode;
  readonly #namespaces: DeviceNamespaces;
  readonly #controller: Controller;
  readonly #host: DeviceHost;
  /** What its client had done when it went. */
  done: Tally | undefined;
  /** The client was told by the log that some of its memory is not mapped. */
  #toldOfFile = false;

  constructor(options: DeviceOptions) {
    const { client, subsystem, transport, reactors, emit } = options;
    this.#options = options;
    this.#where = { nqn: subsystem.nqn, socket: options.socketPath };
    try {
      this.#cntlid = subsystem.allocateCntlid();
    } catch (error) {
      this.#doorbells.close();
      throw error;
    }
    this.#log = options.log.child({ cntlid: this.#cntlid });
    const vectors = transport.maxIoQpairsPerCtrlr + 1;
    this.pci = new PciFunction(client, {
      identity: NVME_PCI_IDENTITY,
      bars: [this.#registerBar(), { index: PciRegion.BAR4, size: BAR4_SIZE }],
      interrupts: {
        intx: true,
        msix: { vectors, bar: PciRegion.BAR4, tableOffset: 0, pbaOffset: PBA_OFFSET },
      },
      mapFiles: transport.mapFileMemory,
      on: this,
    });
    this.#id = reactors.register({
      told: (message) => this.#told(message as NvmeEvent),
      reactorLost: (reactor, left) => this.#reactorLost(reactor, left),
    });
    this.#namespaces = new DeviceNamespaces(
      this.#id,
      subsystem,
      reactors,
      () => this.#host.hostName,
    );
    this.#queues = this.#makeQueues();
    this.#remote = this.#makeRemoteMode(vectors);
    this.#host = new DeviceHost({
      log: this.#log,
      subsystem,
      cntlid: this.#cntlid,
      pci: this.pci,
      doorbells: this.#doorbells.words,
      adminSeen: this.#adminSeen,
      queues: this.#queues,
      remote: this.#remote,
      namespaces: this.#namespaces,
      reactors,
      emit,
      where: this.#where,
      describe: async () => {
        await reactors.report();
        return this.info.diagnose();
      },
    });
    this.#controller = new Controller(configOf(this.#cntlid, subsystem, transport), this.#host);
    this.#queues.socket = client.socket;
  }

  #registerBar(): PciBar {
    return {
      index: PciRegion.BAR0,
      size: BAR0_SIZE,
      kind: 'memory64',
      ...(!this.#options.transport.disableMappableBar0 && { mmap: this.#doorbells.mmap }),
      read: (offset, into) => {
        // Doorbells read as zeros.
        if (offset < DOORBELL_OFFSET) {
          this.#controller.readRegisters(offset, into);
        }
      },
      write: (offset, data) => {
        if (offset >= DOORBELL_OFFSET) {
          this.#doorbells.write(offset - DOORBELL_OFFSET, data, (qid) => this.#rung(qid));
        } else {
          this.#controller.writeRegisters(offset, data);
        }
      },
    };
  }

  #makeQueues(): IoQueues {
    const { transport, reactors } = this.#options;
    return new IoQueues({
      controller: this.#id,
      pool: reactors,
      log: this.#log,
      doorbells: this.#doorbells.buffer,
      trapped: transport.disableMappableBar0,
      adaptiveInterrupts: transport.adaptiveInterrupts,
      adminSeen: this.#adminSeen.buffer as SharedArrayBuffer,
      memory: this.pci.memory.guest,
      maxTransferBytes: transport.maxIoSize,
      writeThrough: () => this.#controller.writeThrough,
      coalescing: () => this.#controller.coalescing,
      copyFormats: () => this.#controller.copyFormats,
      row: this.#namespaces.refusedRow,
      namespaces: () => this.#namespaces.describeAll(),
      eventfds: () => this.pci.interrupts.table(),
      lost: (reason) => this.#controller.fail(reason),
    });
  }

  #makeRemoteMode(vectors: number): RemoteMode {
    const { client, subsystem, transport } = this.#options;
    return new RemoteMode({
      log: this.#log,
      memory: this.pci.memory,
      messages: client.messages,
      answersDma: client.answersDma,
      required: transport.requireSharedMemory,
      queues: this.#queues,
      doorbells: this.#doorbells.buffer,
      vectors,
      maxTransferBytes: transport.maxIoSize,
      blockSize: (nsid) => subsystem.namespaces.get(nsid)?.bdev.blockSize,
      signal: (vector) => this.pci.vectors.signal(vector),
      ringAdmin: () => this.#controller.adminDoorbell(),
      badDoorbell: () => this.#controller.badDoorbell(),
      fail: (reason) => this.#controller.fail(reason),
    });
  }

  /** A doorbell came as a message: wakes who is to see it. */
  #rung(qid: number): void {
    if (this.#remote.active) {
      this.#remote.rung();
    } else if (qid === 0) {
      this.#controller.adminDoorbell();
    } else {
      this.#queues.wake(qid);
    }
  }

  get info(): ControllerInfo {
    const queues = this.#queues;
    const { guest } = this.pci.memory;
    return {
      cntlid: this.#cntlid,
      connectedAt: this.#connectedAt,
      enabled: this.#controller.enabled,
      guestBytes: guest.regions.reduce((bytes, { size }) => bytes + size, 0),
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
          regions: guest.regions,
          unsharedBytes: this.pci.memory.unsharedBytes,
          interrupts: this.pci.interrupts.describe(),
          failed: [...this.#options.subsystem.namespaces.values()]
            .filter(({ bdev }) => bdev.failure !== undefined)
            .map(({ nsid }) => nsid),
        }),
    };
  }

  // --- the client -------------------------------------------------------------------------------------------------

  async reset(): Promise<void> {
    this.#options.emit({ type: 'guest-reset', ...this.#where });
    await this.#controller.reset();
  }

  async gone(): Promise<void> {
    try {
      await this.#controller.reset();
    } catch (error) {
      // Whatever is left of it goes with its queues.
      this.#log.error({ err: error }, 'the controller could not be reset');
    }
    await this.#queues.detach();
    this.#remote.close();
    // Nothing is counted any more.
    this.done = this.#namespaces.tally();
    this.#namespaces.close();
    this.#options.reactors.unregister(this.#id);
    this.#doorbells.close();
    this.#options.subsystem.hostNames.delete(this.#cntlid);
    this.#options.subsystem.releaseCntlid(this.#cntlid);
  }

  vectorsChanged(): Promise<void> {
    return this.#queues.eventfdsChanged();
  }

  signalPending(): void {
    if (this.#remote.active) {
      this.#remote.signalPending();
    } else if (this.#controller.adminPending) {
      this.pci.vectors.signal(0);
    }
  }

  // --- memory -----------------------------------------------------------------------------------------------------

  memoryMapped(region: GuestRegion): Promise<void> {
    return this.#queues.map(region);
  }

  memoryUnmapped(iova: number, size: number): Promise<void> {
    return this.#queues.unmap(iova, size);
  }

  memoryChanged(): void {
    if (this.#remote.active) {
      this.#remote.memoryChanged();
    } else {
      this.#controller.memoryChanged();
    }
  }

  memoryLost(): void {
    this.#controller.fail(
      'memory of the VM is lost: its file was truncated while it was mapped here, or the hardware reports an error in it',
    );
  }

  memorySkipped(iova: number, size: number): void {
    const level = this.#toldOfFile ? 'debug' : 'warn';
    this.#toldOfFile = true;
    this.#log[level](
      { iova, size },
      'memory of the VM is not mapped, as its file is no memfd and not on tmpfs or hugetlbfs: map_file_memory (--map-file-memory) maps it all the same',
    );
  }

  memoryFailed(error: unknown, what: string): void {
    this.#log.error({ err: error }, what);
  }

  // --- namespaces -----------------------------------------------------------------------------------------------------

  async addNamespace(namespace: Namespace): Promise<void> {
    await this.#queues.addNamespace(this.#namespaces.describe(namespace));
    this.#controller.namespaceChanged(namespace.nsid);
  }

  async removeNamespace(nsid: number): Promise<void> {
    await this.#queues.removeNamespace(nsid);
    this.#namespaces.forget(nsid);
    this.#controller.namespaceChanged(nsid);
  }

  async changeAccess({ namespace, by, tell, abort }: AccessChange): Promise<void> {
    const { nsid, access } = this.#namespaces.describe(namespace);
    const aborted = abort?.hosts.includes(this.#host.hostName) ? { abort: abort.status } : {};
    await this.#queues.changeAccess({ nsid, access, ...aborted });
    if (tell && by !== this.#cntlid) {
      this.#controller.namespaceChanged(nsid);
    }
  }

  subsystemEvent(event: SubsystemEvent): void {
    this.#controller.subsystemEvent(event);
  }

  /** NVM Subsystem Reset. */
  resetController(): void {
    this.#options.emit({ type: 'guest-reset', ...this.#where });
    this.#controller.subsystemReset();
  }

  /** The rate limits of a namespace's bdev were made, or lifted. */
  limitNamespace(nsid: number, limits: SharedArrayBuffer | undefined): Promise<void> {
    return this.#queues.limitNamespace(nsid, limits);
  }

  /** Moves an I/O completion queue with its submission queues to another reactor. See `IoQueues.move`. */
  moveQueue(cqid: number, reactor: number): Promise<number> {
    return this.#queues.move(cqid, reactor);
  }

  // --- reactors -------------------------------------------------------------------------------------------------------

  #reactorLost(reactor: number, left: Promise<void>): void {
    if (this.#queues.reactorLost(reactor, left)) {
      this.#controller.fail(`reactor ${reactor} died`);
    }
  }

  /** What a reactor tells of the controller. */
  #told(event: NvmeEvent): void {
    switch (event.kind) {
      case 'admin':
        Atomics.add(this.#adminSeen, AdminWord.TAKEN, 1);
        this.#controller.adminDoorbell();
        break;
      case 'rung':
        this.#remote.toldOfPage();
        break;
      case 'command':
        void this.#carryOut(event);
        break;
      case 'bad-doorbell':
        this.#log.debug({ qid: event.qid }, 'doorbell value outside the queue');
        this.#controller.badDoorbell();
        break;
      case 'io-failed':
        this.#ioFailed(event.failure);
        break;
    }
  }

  async #carryOut(event: NvmeEvent & { kind: 'command' }): Promise<void> {
    const { qid, words, data } = event;
    try {
      await this.#queues.complete(event, await this.#controller.ioCommand(words, data));
    } catch (error) {
      this.#log.error({ err: error, qid }, 'a command of an I/O queue failed');
      this.#controller.fail('a command of an I/O queue could not be completed');
    }
  }

  #ioFailed(failure: IoFailure): void {
    const { emit, subsystem } = this.#options;
    const { nsid } = failure;
    const bdev = subsystem.namespaces.get(nsid)?.bdev.name;
    const { fields, message } = describeFailure(failure);
    this.#log.error({ bdev, ...fields }, 'a disk reports an error');
    this.#controller.diskFailed(failure);
    emit({ type: 'error', ...this.#where, nsid, ...(bdev !== undefined && { bdev }), message });
  }
}

function configOf(
  cntlid: number,
  subsystem: SubsystemView,
  transport: TransportOptions,
): ControllerConfig {
  return {
    cntlid,
    subnqn: subsystem.nqn,
    serialNumber: subsystem.serialNumber,
    modelNumber: subsystem.modelNumber,
    firmwareRevision: FIRMWARE_REVISION,
    maxNamespaces: subsystem.maxNamespaces,
    maxQueueEntries: transport.maxQueueDepth,
    maxIoQueuePairs: Math.min(transport.maxIoQpairsPerCtrlr, MAX_IO_QUEUE_PAIRS),
    mdts: Math.log2(transport.maxIoSize / PAGE_SIZE),
    subsystemReset: subsystem.enableNssr,
    shadowDoorbells: transport.shadowDoorbells,
  };
}
