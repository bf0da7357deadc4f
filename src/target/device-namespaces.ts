/** The namespaces of one client's device: as reactors open them, as the host sees them, and what was counted of them. Owned by main. */
import { Op } from '../bdev/op.ts';
import { Tally } from '../bdev/tally.ts';
import type { IoTotals } from '../nvme/host.ts';
import type { Namespace as NvmeNamespace } from '../nvme/namespace.ts';
import type { NamespaceDescriptor } from '../nvme/plane/messages.ts';
import { NO_BDEV, NO_NAMESPACE } from '../reactor/counter-rows.ts';
import type { ReactorPool } from '../reactor/pool.ts';
import { Status } from '../spec/nvme.ts';
import type { Namespace, SubsystemView } from './types.ts';

export class DeviceNamespaces {
  readonly #controller: number;
  readonly #subsystem: SubsystemView;
  readonly #reactors: ReactorPool;
  readonly #hostName: () => string | undefined;
  /** Counter rows by NSID. */
  readonly #rows = new Map<number, number>();
  /** The counter row of commands that were refused before a namespace was asked. */
  readonly refusedRow: number;

  /** `hostName`: of the controller's host; undefined: it is the target itself. */
  constructor(
    controller: number,
    subsystem: SubsystemView,
    reactors: ReactorPool,
    hostName: () => string | undefined,
  ) {
    this.#hostName = hostName;
    this.#controller = controller;
    this.#subsystem = subsystem;
    this.#reactors = reactors;
    this.refusedRow = reactors.rows.take({ controller, nsid: NO_NAMESPACE, bdev: NO_BDEV });
  }

  /** What a reactor needs of a namespace: plain data. */
  describe({ nsid, bdev, state }: Namespace): NamespaceDescriptor {
    const { index, generation, blockSize, numBlocks, readonly, backend, stale, blocks } = bdev;
    const use = { controller: this.#controller, nsid, bdev: index };
    const row = this.#rows.get(nsid) ?? this.#reactors.rows.take(use);
    this.#rows.set(nsid, row);
    return {
      nsid,
      row,
      limits: bdev.limits,
      access: state.access(readonly, this.#hostName()),
      bdev: { index, generation, blockSize, numBlocks, readonly, backend, stale, blocks },
    };
  }

  describeAll(): NamespaceDescriptor[] {
    return [...this.#subsystem.namespaces.values()].map((each) => this.describe(each));
  }

  /** What the host sees of them, by NSID. */
  presented(): Map<number, NvmeNamespace> {
    const { namespaces, keepsReservations } = this.#subsystem;
    const host = this.#hostName() ?? '';
    return new Map(
      [...namespaces].map(([nsid, each]) => [nsid, present(each, host, keepsReservations)]),
    );
  }

  /** No reactor uses the namespace any more. */
  forget(nsid: number): void {
    const row = this.#rows.get(nsid);
    if (row !== undefined) {
      this.#reactors.rows.give(row);
      this.#rows.delete(nsid);
    }
  }

  /** No reactor knows the controller any more. */
  close(): void {
    const { rows } = this.#reactors;
    for (const row of [this.refusedRow, ...this.#rows.values()]) {
      rows.give(row);
    }
    rows.forgetController(this.#controller);
  }

  /** What this controller did, in all or on a namespace. */
  tally(nsid?: number): Tally {
    return this.#reactors.rows.controller(this.#controller, nsid);
  }

  /** What was done on all namespaces, by whatever controller. */
  totals(): IoTotals {
    const total = new Tally();
    for (const { bdev } of this.#subsystem.namespaces.values()) {
      for (let reactor = 0; reactor < this.#reactors.count; reactor++) {
        total.merge(this.#reactors.bdevTally(bdev.index, reactor));
      }
    }
    const [read, written] = [total.of(Op.READ), total.of(Op.WRITE)];
    return {
      bytesRead: read.bytes,
      numReadOps: read.ops,
      bytesWritten: written.bytes,
      numWriteOps: written.ops,
      latencyNs: read.latency + written.latency,
      errors: total.backendErrors,
    };
  }
}

function present(
  { nsid, bdev, uuid, nguid, eui64, state }: Namespace,
  host: string,
  keepsReservations: boolean,
): NvmeNamespace {
  const { write } = state.reservations.access(host);
  const { blockSize, numBlocks, hints } = bdev;
  const { writeProtection, formatLeft } = state;
  const readonly = bdev.readonly || state.isProtected;
  return {
    ...{ nsid, blockSize, numBlocks, readonly, writeProtection, formatLeft },
    ...{ keepsReservations, conflicts: write !== Status.SUCCESS },
    occupied: state.busy !== Status.SUCCESS,
    ...hints,
    ...{ uuid, nguid, eui64 },
  };
}
