/** What one client's controller finds around it: its memory, doorbells, queues, namespaces and interrupts. Owned by main. */
import type { GuestMemory } from '../memory/guest.ts';
import type { Coalescing } from '../nvme/features/coalescing.ts';
import type {
  AdminRegisters,
  ControllerEvent,
  ControllerHost,
  CqRequest,
  IoTotals,
  Operate,
  SqRequest,
  SubsystemEvent,
} from '../nvme/host.ts';
import { hostKey } from '../nvme/host-key.ts';
import type { Namespace as NvmeNamespace } from '../nvme/namespace.ts';
import type { NamespaceState } from '../nvme/namespace-state.ts';
import { AdminWord, NOT_WAITING } from '../nvme/plane/messages.ts';
import type { RemoteMemory } from '../nvme/remote/memory.ts';
import type { SanitizeState } from '../nvme/sanitize.ts';
import type { ShadowPages } from '../nvme/shadow.ts';
import type { PciFunction } from '../pci/function.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import { Status } from '../spec/nvme.ts';
import type { Logger } from '../util/log.ts';
import type { DeviceNamespaces } from './device-namespaces.ts';
import type { NewEvent } from './events.ts';
import type { IoQueues } from './queues.ts';
import type { RemoteMode } from './remote-mode.ts';
import type { SubsystemView } from './types.ts';

/** No identifier. */
const NOBODY = new Uint8Array(8);

export interface DeviceHostParts {
  readonly log: Logger;
  readonly subsystem: SubsystemView;
  readonly cntlid: number;
  readonly pci: PciFunction;
  readonly doorbells: Int32Array;
  /** See AdminWord. */
  readonly adminSeen: Int32Array;
  readonly queues: IoQueues;
  readonly remote: RemoteMode;
  readonly namespaces: DeviceNamespaces;
  /** As an operator sees the controller. */
  readonly describe: () => Promise<unknown>;
  readonly reactors: ReactorPool;
  readonly emit: (event: NewEvent) => void;
  /** What the device is, in events. */
  readonly where: { readonly nqn: string; readonly socket: string };
}

export class DeviceHost implements ControllerHost {
  readonly log: Logger;
  readonly #parts: DeviceHostParts;

  constructor(parts: DeviceHostParts) {
    this.log = parts.log;
    this.#parts = parts;
  }

  get memory(): GuestMemory {
    return this.#parts.remote.stagedMemory ?? this.#parts.pci.memory.guest;
  }

  get doorbells(): Int32Array {
    return this.#parts.remote.stagedDoorbells ?? this.#parts.doorbells;
  }

  get remote(): RemoteMemory | undefined {
    return this.#parts.remote.memory;
  }

  reach(place: AdminRegisters): AdminRegisters | Promise<AdminRegisters> {
    return this.#parts.remote.reach(place);
  }

  doubt(place: AdminRegisters): Promise<AdminRegisters | undefined> | undefined {
    return this.#parts.remote.doubt(place);
  }

  unshared(iova: number): boolean {
    return this.#parts.pci.memory.isUnshared(iova);
  }

  get namespaces(): ReadonlyMap<number, NvmeNamespace> {
    return this.#parts.namespaces.presented();
  }

  get shared(): boolean {
    return this.#parts.subsystem.shared;
  }

  get controllers(): readonly number[] {
    return this.#parts.subsystem.cntlids;
  }

  get unreliable(): boolean {
    return [...this.#parts.subsystem.namespaces.values()].some(
      ({ bdev }) => bdev.failure !== undefined,
    );
  }

  describe(): Promise<unknown> {
    return this.#parts.describe();
  }

  createCq(request: CqRequest): Promise<number> {
    return this.#parts.queues.createCq(request);
  }

  createSq(request: SqRequest): Promise<number> {
    return this.#parts.queues.createSq(request);
  }

  deleteCq(qid: number): Promise<number> {
    return this.#parts.queues.deleteCq(qid);
  }

  deleteSq(qid: number): Promise<number> {
    return this.#parts.queues.deleteSq(qid);
  }

  abort(sqid: number, cid: number): Promise<boolean> {
    return this.#parts.queues.abort(sqid, cid);
  }

  resetQueues(): Promise<void> {
    this.#parts.remote.stop();
    return this.#parts.queues.reset();
  }

  setShadow(pages: ShadowPages): Promise<void> {
    return this.#parts.queues.setShadow(pages);
  }

  setWriteThrough(enabled: boolean): Promise<void> {
    return this.#parts.queues.setWriteThrough(enabled);
  }

  setCoalescing(coalescing: Coalescing): Promise<void> {
    return this.#parts.queues.setCoalescing(coalescing);
  }

  async protectNamespaces(nsids: readonly number[], state: number): Promise<void> {
    const { subsystem, cntlid } = this.#parts;
    await Promise.all(
      nsids.map(async (nsid) => {
        const namespace = subsystem.namespaces.get(nsid);
        if (namespace !== undefined) {
          namespace.state.writeProtection = state;
          await subsystem.changeAccess({ namespace, by: cntlid, tell: true });
          await namespace.bdev.sync();
        }
      }),
    );
  }

  async maintain<T>(work: (operate: Operate) => Promise<T>): Promise<T> {
    const { subsystem, reactors } = this.#parts;
    const maintenance = subsystem.maintenance(reactors, this.log);
    return maintenance.during(() =>
      work((nsid, operation) => maintenance.operate(nsid, operation)),
    );
  }

  async syncNamespace(nsid: number): Promise<void> {
    await this.#parts.subsystem.namespaces.get(nsid)?.bdev.sync();
  }

  async occupyNamespaces(nsids: readonly number[], status: number): Promise<void> {
    const { subsystem, cntlid: by } = this.#parts;
    await Promise.all(
      nsids.map(async (nsid) => {
        const namespace = subsystem.namespaces.get(nsid);
        if (namespace !== undefined) {
          namespace.state.busy = status;
          await subsystem.changeAccess({ namespace, by, tell: status === Status.SUCCESS });
        }
      }),
    );
  }

  setFormatLeft(nsid: number, percent: number): void {
    const namespace = this.#parts.subsystem.namespaces.get(nsid);
    if (namespace !== undefined) {
      namespace.state.formatLeft = percent;
    }
  }

  namespaceState(nsid: number): NamespaceState | undefined {
    return this.#parts.subsystem.namespaces.get(nsid)?.state;
  }

  get hostName(): string {
    const { subsystem, cntlid } = this.#parts;
    return subsystem.hostNames.get(cntlid) ?? hostKey(NOBODY, cntlid);
  }

  async nameHost(id: Uint8Array): Promise<void> {
    const { subsystem, cntlid, queues, namespaces } = this.#parts;
    const name = hostKey(id, cntlid);
    if (name === this.hostName) {
      return;
    }
    subsystem.hostNames.set(cntlid, name);
    for (const namespace of subsystem.namespaces.values()) {
      const { nsid, access } = namespaces.describe(namespace);
      await queues.changeAccess({ nsid, access });
    }
  }

  controllersOf(name: string): readonly number[] {
    const { cntlids, hostNames } = this.#parts.subsystem;
    return cntlids.filter((cntlid) => (hostNames.get(cntlid) ?? hostKey(NOBODY, cntlid)) === name);
  }

  async reservationChanged(nsid: number, hosts: readonly string[]): Promise<void> {
    const { subsystem, cntlid: by } = this.#parts;
    const namespace = subsystem.namespaces.get(nsid);
    if (namespace !== undefined) {
      const abort = { hosts, status: Status.ABORTED_BY_PREEMPTION };
      await subsystem.changeAccess({ namespace, by, tell: false, abort });
    }
  }

  get keepsReservations(): boolean {
    return this.#parts.subsystem.keepsReservations;
  }

  keepReservations(nsids: readonly number[]): Promise<void> {
    return this.#parts.subsystem.keepReservations(nsids);
  }

  get sanitize(): SanitizeState {
    return this.#parts.subsystem.sanitize;
  }

  tellHosts(event: SubsystemEvent): void {
    this.#parts.subsystem.tellHosts(event);
  }

  resetSubsystem(): void {
    this.#parts.subsystem.reset();
  }

  setCopyFormats(formats: number): Promise<void> {
    return this.#parts.queues.setCopyFormats(formats);
  }

  watchAdmin(enabled: boolean): void {
    const { remote, queues } = this.#parts;
    if (enabled) {
      remote.open();
    }
    queues.watchAdmin(enabled);
  }

  sawAdminTail(tail: number): void {
    Atomics.store(this.#parts.adminSeen, AdminWord.TAIL, tail);
  }

  sawAdminHead(head: number | undefined): void {
    Atomics.store(this.#parts.adminSeen, AdminWord.HEAD, head ?? NOT_WAITING);
  }

  signalAdmin(): void {
    const { remote, pci } = this.#parts;
    if (remote.active) {
      remote.completed();
    } else {
      pci.vectors.signal(0);
    }
  }

  interruptMaskChanged(mask: number): void {
    this.#parts.pci.interrupts.pinMask = mask;
    this.#parts.pci.vectors.changed();
  }

  async sync(): Promise<void> {
    const namespaces = [...this.#parts.subsystem.namespaces.values()];
    await Promise.all(namespaces.map(({ bdev }) => bdev.sync()));
  }

  ioTotals(): IoTotals {
    return this.#parts.namespaces.totals();
  }

  tell(event: ControllerEvent): void {
    const { emit, where } = this.#parts;
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
}
