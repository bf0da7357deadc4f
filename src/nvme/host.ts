/** What a controller needs of the place that it lives in. Implemented by `target/device-host.ts`. */
import type { GuestMemory } from '../memory/guest.ts';
import type { Logger } from '../util/log.ts';
import type { Coalescing } from './features/coalescing.ts';
import type { Namespace } from './namespace.ts';
import type { NamespaceState } from './namespace-state.ts';
import type { Operation } from './plane/messages.ts';
import type { Registers } from './registers.ts';
import type { RemoteMemory } from './remote/memory.ts';
import type { SanitizeState } from './sanitize.ts';
import type { ShadowPages } from './shadow.ts';

/** Parameters of Create I/O Completion Queue, checked. */
export interface CqRequest {
  readonly qid: number;
  readonly size: number;
  readonly iova: number;
  readonly interrupts: boolean;
  readonly vector: number;
}

/** Parameters of Create I/O Submission Queue, checked. */
export interface SqRequest {
  readonly qid: number;
  readonly size: number;
  readonly iova: number;
  readonly cqid: number;
}

/** Where admin queues are, and their sizes, as the registers say. */
export type AdminRegisters = Pick<Registers, 'aqa' | 'asq' | 'acq'>;

/** What a guest does to its controller as a whole. */
export type ControllerEvent =
  /** CC.EN was set, and the controller is ready. */
  | { readonly type: 'enabled' }
  /** CC.EN was cleared, or the device reset. */
  | { readonly type: 'disabled' }
  /** CC.SHN was set. */
  | { readonly type: 'shutdown' }
  /** CSTS.CFS was set. */
  | { readonly type: 'failed'; readonly reason: string };

/** I/O since the target started, of all namespaces. */
export interface IoTotals {
  readonly bytesRead: number;
  readonly numReadOps: number;
  readonly bytesWritten: number;
  readonly numWriteOps: number;
  /** Of reads and writes, added up. */
  readonly latencyNs: number;
  /** That a backend reported. */
  readonly errors: number;
}

/** What hosts of a subsystem are told. */
export type SubsystemEvent =
  | { readonly kind: 'sanitized' }
  /** `hosts`: their names; `notice`: one of ReservationNotice. */
  | {
      readonly kind: 'reservation';
      readonly nsid: number;
      readonly notice: number;
      readonly hosts: readonly string[];
    };

/** Carries out an operation on a namespace, after those that reactors have under way. Resolves with a status. */
export type Operate = (nsid: number, operation: Operation) => Promise<number>;

/** The I/O queues live in reactors; each call resolves with an NVMe status when the reactor has done it. */
export interface ControllerHost {
  readonly log: Logger;
  readonly memory: GuestMemory;
  /** The host's memory, if it is reached by messages: queues and data of I/O are then in `memory` all the same, which is ours. */
  readonly remote: RemoteMemory | undefined;
  /**
   * The host has enabled the controller, with its admin queues there: finds out how its memory is reached, and says where the controller is to
   * find them. `memory`, `remote` and `doorbells` are so from then on, until it is enabled again. Rejects with what is wrong, in words.
   */
  reach(place: AdminRegisters): AdminRegisters | Promise<AdminRegisters>;
  /**
   * The host has rung for a first command, and there is none where its memory is mapped: finds out whether that is the memory which it sees. As
   * `reach` if it is not; undefined if it is, or where that cannot be found out.
   */
  doubt(place: AdminRegisters): Promise<AdminRegisters | undefined> | undefined;
  /** Whether the VM has memory at this address that it did not share. */
  unshared(iova: number): boolean;
  /** The doorbell page as 32-bit words. */
  readonly doorbells: Int32Array;
  /** By NSID. */
  readonly namespaces: ReadonlyMap<number, Namespace>;
  /** The subsystem can have other controllers, which have the same namespaces. */
  readonly shared: boolean;
  /** Identifiers of all controllers that the subsystem has, this one among them. */
  readonly controllers: readonly number[];
  /** A disk has lost data that was completed: a write-back has failed. */
  readonly unreliable: boolean;
  /** All that may tell what the controller does, and why the guest waits, as of now: plain data. */
  describe(): Promise<unknown>;
  createCq(request: CqRequest): Promise<number>;
  createSq(request: SqRequest): Promise<number>;
  deleteCq(qid: number): Promise<number>;
  deleteSq(qid: number): Promise<number>;
  /** Ends a command of an I/O queue that has not begun. Resolves with whether there was one, when its completion was posted. */
  abort(sqid: number, cid: number): Promise<boolean>;
  /** Drops all I/O queues; commands in flight end without completion. */
  resetQueues(): Promise<void>;
  /** I/O queues find their doorbells in these pages, until `resetQueues`. */
  setShadow(pages: ShadowPages): Promise<void>;
  setWriteThrough(enabled: boolean): Promise<void>;
  /** When hosts are interrupted for completions of I/O queues. */
  setCoalescing(coalescing: Coalescing): Promise<void>;
  /** Formats of source ranges that Copy takes from now on: a bit each. */
  setCopyFormats(formats: number): Promise<void>;
  /** Write protects namespaces (a WriteProtectionState) for all controllers, which are told. Resolves when their data is on stable storage. */
  protectNamespaces(nsids: readonly number[], state: number): Promise<void>;
  /** Has namespaces open in a reactor while `work` goes on, for operations that no command asked for. */
  maintain<T>(work: (operate: Operate) => Promise<T>): Promise<T>;
  /** Makes durable what was completed of a namespace. */
  syncNamespace(nsid: number): Promise<void>;
  /** No command is carried out on these namespaces, but ends with this status; Success: as before. Resolves when none is under way. */
  occupyNamespaces(nsids: readonly number[], status: number): Promise<void>;
  /** What is left of a format that is under way. Percent. */
  setFormatLeft(nsid: number, percent: number): void;
  /** Of the subsystem. */
  readonly sanitize: SanitizeState;
  namespaceState(nsid: number): NamespaceState | undefined;
  /** The host has told its identifier, 8 or 16 bytes. Resolves when its commands may do what it may. */
  nameHost(id: Uint8Array): Promise<void>;
  /** Its name; see `hostKey`. */
  readonly hostName: string;
  /** Controllers of the host of this name. */
  controllersOf(name: string): readonly number[];
  /** Commands of all hosts may do what the reservation lets them. Those under way of these hosts are aborted. Resolves when none is left. */
  reservationChanged(nsid: number, aborted: readonly string[]): Promise<void>;
  /** Reservations can be kept through power loss. */
  readonly keepsReservations: boolean;
  /** Resolves when those of these namespaces that are to be kept are on stable storage. */
  keepReservations(nsids: readonly number[]): Promise<void>;
  /** Tells the hosts of all controllers of the subsystem. */
  tellHosts(event: SubsystemEvent): void;
  /** Resets all controllers of the subsystem, this one among them. */
  resetSubsystem(): void;
  /** Whether the admin doorbells are to be watched. */
  watchAdmin(enabled: boolean): void;
  /** Admin doorbell values that need no further look; undefined: a change of the CQ's head is of no interest. */
  sawAdminTail(tail: number): void;
  sawAdminHead(head: number | undefined): void;
  /** Completions were posted to the admin CQ: interrupts the host on vector 0. */
  signalAdmin(): void;
  /** The mask of INTMS/INTMC changed: masked vectors while interrupts are pin-based. */
  interruptMaskChanged(mask: number): void;
  /** Makes all that was completed durable. */
  sync(): Promise<void>;
  ioTotals(): IoTotals;
  /** Something happened that an operator may want to know. Quick, and does not throw. */
  tell(event: ControllerEvent): void;
}

/** What does not change in a controller's life. */
export interface ControllerConfig {
  readonly cntlid: number;
  readonly subnqn: string;
  readonly serialNumber: string;
  readonly modelNumber: string;
  readonly firmwareRevision: string;
  readonly maxNamespaces: number;
  readonly maxQueueEntries: number;
  readonly maxIoQueuePairs: number;
  /** MDTS: log2 of the largest transfer in pages. */
  readonly mdts: number;
  /** The host may reset the whole subsystem (NSSR). */
  readonly subsystemReset: boolean;
  /** Doorbell Buffer Config is offered. */
  readonly shadowDoorbells: boolean;
}
