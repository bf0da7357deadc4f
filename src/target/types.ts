/** What the parts of the target know of each other: subsystem ↔ endpoint. Owned by main. */
import type { Bdev } from '../bdev/bdev.ts';
import type { Tally } from '../bdev/tally.ts';
import type { SubsystemEvent } from '../nvme/host.ts';
import type { NamespaceState } from '../nvme/namespace-state.ts';
import type { SanitizeState } from '../nvme/sanitize.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import type { Logger } from '../util/log.ts';
import type { ControllerDiagnosis } from './diagnosis.ts';
import type { Maintenance } from './maintenance.ts';

/** A namespace of a subsystem: a bdev under an NSID, with the identifiers a host sees. */
export interface Namespace {
  /** NSID, from 1. */
  readonly nsid: number;
  readonly bdev: Bdev;
  /** Lower-case with dashes. Always there: the bdev's if none was given. */
  readonly uuid: string;
  /** 32 hex digits. */
  readonly nguid?: string;
  /** 16 hex digits. */
  readonly eui64?: string;
  readonly state: NamespaceState;
}

/** Parameters of nvmf_create_transport that the vfio-user transport acts on. */
export interface TransportOptions {
  /** Entries of an I/O queue, 2 to MAX_QUEUE_ENTRIES. */
  readonly maxQueueDepth: number;
  /** I/O queue pairs a controller, 1 to MAX_IO_QUEUE_PAIRS. */
  readonly maxIoQpairsPerCtrlr: number;
  /** Largest transfer in bytes: a power of two of pages, up to MAX_TRANSFER_BYTES. */
  readonly maxIoSize: number;
  /** No mmap of the doorbell page: each doorbell write comes as a message. */
  readonly disableMappableBar0: boolean;
  /** Guest memory is mapped whatever file is behind it: one on a FUSE file system, or a device, can hold up a reactor. */
  readonly mapFileMemory: boolean;
  /** A guest whose memory is not shared is refused, and not served by messages. */
  readonly requireSharedMemory: boolean;
  /** Offers shadow doorbells. Of use only where the page is not mapped. */
  readonly shadowDoorbells: boolean;
  /** Does not interrupt a host that is still busy with the last interrupt. */
  readonly adaptiveInterrupts: boolean;
}

/** What a controller needs of its subsystem. */
export interface SubsystemView {
  readonly nqn: string;
  readonly serialNumber: string;
  readonly modelNumber: string;
  readonly maxNamespaces: number;
  readonly namespaces: ReadonlyMap<number, Namespace>;
  /** It has several listeners, and so can have several controllers. */
  readonly shared: boolean;
  /** A guest may reset all controllers at once (NSSR). */
  readonly enableNssr: boolean;
  /** Of live controllers. */
  readonly cntlids: readonly number[];
  /** A controller id that no live controller of the subsystem has. */
  allocateCntlid(): number;
  releaseCntlid(cntlid: number): void;
  readonly sanitize: SanitizeState;
  /** Names of hosts by controller. */
  readonly hostNames: Map<number, string>;
  readonly keepsReservations: boolean;
  /** Resolves when the reservations of these namespaces that are to be kept are on stable storage. */
  keepReservations(nsids: readonly number[]): Promise<void>;
  /** Tells the hosts of all controllers. */
  tellHosts(event: SubsystemEvent): void;
  /** Resets all controllers (NVM Subsystem Reset). */
  reset(): void;
  /** Tells all controllers. Resolves when nothing is under way that may not be carried out any more. */
  changeAccess(change: AccessChange): Promise<void>;
  /** What main has done to its namespaces goes through there. */
  maintenance(reactors: ReactorPool, log: Logger): Maintenance;
}

/** nvmf_subsystem_get_controllers and nvmf_subsystem_get_qpairs read this. */
export interface ControllerInfo {
  readonly cntlid: number;
  /** ISO 8601. */
  readonly connectedAt: string;
  /** The guest enabled the controller. */
  readonly enabled: boolean;
  /** Guest memory that is mapped. */
  readonly guestBytes: number;
  /** Live I/O submission queues. */
  readonly qpairs: readonly { readonly qid: number; readonly reactor: number }[];
  /** Reactors that know of it: they have its namespaces open. */
  readonly reactors: readonly number[];
  /** What it did, in all or on a namespace that it has. */
  tally(nsid?: number): Tally;
  /** How far the I/O queues were when the reactors last reported. */
  queues(): QueuePairInfo[];
  /** All that may tell why a guest waits; queues as in `queues`. */
  diagnose(): ControllerDiagnosis;
}

/** A submission queue and its completion queue. */
export interface QueuePairInfo {
  readonly qid: number;
  readonly cqid: number;
  readonly reactor: number;
  /** Entries. */
  readonly size: number;
  /** Next entry to be taken, and the host's doorbell. */
  readonly head: number;
  readonly tail: number;
  /** Commands submitted and not completed. */
  readonly outstanding: number;
  /** Commands taken and not completed. */
  readonly inFlight: number;
  /** It rests: memory under it is unmapped. */
  readonly stopped: boolean;
  readonly cqSize: number;
  /** The host's doorbell, and the next entry to be posted with its phase tag. */
  readonly cqHead: number;
  readonly cqTail: number;
  readonly phase: number;
  /** IEN and vector, as the CQ was created. */
  readonly interrupts: boolean;
  readonly vector: number;
}

/** What the commands of a namespace may do has changed. */
export interface AccessChange {
  readonly namespace: Namespace;
  /** The controller that has changed it, whose host knows; others are told of the namespace's attributes, if these have changed. */
  readonly by: number;
  readonly tell: boolean;
  /** Hosts of which all that is under way is aborted, and the status that it ends with. */
  readonly abort?: { readonly hosts: readonly string[]; readonly status: number };
}

/** Who has namespaces of a subsystem open in reactors. */
export interface NamespaceUser {
  /** The guest gets a namespace-changed event. */
  addNamespace(namespace: Namespace): Promise<void>;
  /** Resolves when nothing is under way that may not be carried out any more. */
  changeAccess(change: AccessChange): Promise<void>;
  /** The rate limits of the namespace's bdev were made, or lifted. */
  limitNamespace(nsid: number, limits: SharedArrayBuffer | undefined): Promise<void>;
  /** Resolves when no I/O uses the namespace any more; the guest gets a namespace-changed event. */
  removeNamespace(nsid: number): Promise<void>;
}

/** One listener: a vfio-user socket, and the controller of the client connected to it. */
export interface EndpointView extends NamespaceUser {
  readonly socketPath: string;
  /** The connected client's controller, if one is connected. */
  readonly controller: ControllerInfo | undefined;
  /** NVM Subsystem Reset. */
  resetController(): void;
  /** The host is told. */
  subsystemEvent(event: SubsystemEvent): void;
  /**
   * Moves an I/O completion queue with its submission queues to another reactor; resolves when they go on there, with the one
   * that had them. Rejects with InvalidError, ErrnoError (EBUSY) or FailedError; the queues go on where they were then.
   */
  moveQueue(cqid: number, reactor: number): Promise<number>;
  /** Finishes what is in flight, disconnects the client, removes the socket. */
  close(): Promise<void>;
}
