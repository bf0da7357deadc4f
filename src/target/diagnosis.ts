/**
 * A controller with all that could keep its guest waiting: registers, queues, memory, interrupts; and what looks wrong about them, in
 * sentences. No data of the guest. Owned by main.
 */
import type { GuestRegion } from '../memory/guest.ts';
import { hex, type NvmeDiagnosis } from '../nvme/diagnosis.ts';
import type { InterruptsDiagnosis } from '../pci/interrupts.ts';
import type { RecentCommands } from './recent.ts';
import type { QueuePairInfo } from './types.ts';

/** DMA regions that are listed; the others are counted. */
const MAX_REGIONS_LISTED = 64;

/** What a device knows of itself. */
export interface DeviceState {
  readonly cntlid: number;
  readonly connectedAt: string;
  readonly nvme: NvmeDiagnosis;
  readonly queues: readonly QueuePairInfo[];
  readonly recent: readonly RecentCommands[];
  readonly regions: readonly GuestRegion[];
  /** Of memory that the client mapped without a file. */
  readonly unsharedBytes: number;
  readonly interrupts: InterruptsDiagnosis;
  /** Namespaces whose bdev's write-back has failed. */
  readonly failed: readonly number[];
}

export interface ControllerDiagnosis {
  readonly cntlid: number;
  readonly connectedAt: string;
  /** What looks wrong, or is waited for; none if all is well. */
  readonly findings: readonly string[];
  readonly nvme: NvmeDiagnosis;
  readonly queues: readonly QueuePairInfo[];
  /** The last commands of each queue. */
  readonly recent: readonly RecentCommands[];
  readonly dma: {
    readonly count: number;
    readonly bytes: number;
    /** The first ones. */
    readonly regions: readonly {
      readonly iova: string;
      readonly size: number;
      readonly writable: boolean;
    }[];
  };
  readonly interrupts: InterruptsDiagnosis;
}

export function diagnose(state: DeviceState): ControllerDiagnosis {
  const { cntlid, connectedAt, nvme, queues, recent, regions, interrupts } = state;
  return {
    cntlid,
    connectedAt,
    findings: [
      ...controllerFindings(state),
      ...queues.flatMap((queue) => [...queueFindings(queue, state)]),
    ],
    nvme,
    queues,
    recent,
    dma: {
      count: regions.length,
      bytes: regions.reduce((bytes, { size }) => bytes + size, 0),
      regions: regions
        .slice(0, MAX_REGIONS_LISTED)
        .map(({ iova, size, writable }) => ({ iova: hex(iova), size, writable })),
    },
    interrupts,
  };
}

function* controllerFindings(state: DeviceState): Generator<string> {
  const { nvme, regions, unsharedBytes, interrupts, failed } = state;
  const { registers, failure, adminQueue, lastAdminCommand } = nvme;
  if (regions.length === 0) {
    yield unsharedBytes === 0
      ? 'the client has mapped no memory'
      : `the client shares none of its ${unsharedBytes} bytes of memory: they came without a file descriptor`;
  }
  if (failure !== undefined) {
    yield `the controller has failed (${failure}) and waits for the guest to reset it`;
  } else if (registers.cc.enabled === false) {
    yield registers.csts.ready === true
      ? 'the guest resets the controller, and queues are still being emptied'
      : 'the guest has not enabled the controller';
  }
  if (registers.csts.shutdown === 'occurring') {
    yield 'the guest shuts down, and data is being made durable';
  }
  if (lastAdminCommand !== undefined && lastAdminCommand.status === undefined) {
    yield `admin command ${lastAdminCommand.name} is being carried out since ${lastAdminCommand.time}`;
  }
  for (const nsid of failed) {
    yield `namespace ${nsid}: a write-back of its disk failed: no flush succeeds until the bdev is reopened`;
  }
  if (adminQueue !== undefined) {
    const { cqHead, cqTail, stopped, zeros } = adminQueue;
    if (zeros) {
      yield 'admin commands were all zeros: the VM may not share its memory (QEMU: share=on), so that the guest’s entries are not seen here';
    }
    if (stopped) {
      yield 'the memory of the admin queue is unmapped: it rests';
    }
    if (cqHead !== cqTail && !signals(interrupts, 0)) {
      yield 'the guest has not seen all admin completions, and their vector signals nowhere';
    }
  }
}

function* queueFindings(queue: QueuePairInfo, { interrupts }: DeviceState): Generator<string> {
  const { qid, cqid, inFlight, stopped, cqSize, cqHead, cqTail, vector } = queue;
  if (stopped) {
    yield `queue ${qid}: its memory, or that of its completion queue, is unmapped: it rests`;
  }
  if (inFlight > 0) {
    yield `queue ${qid}: ${inFlight} commands wait for the disk`;
  }
  if ((cqTail + 1) % cqSize === cqHead) {
    yield `queue ${qid}: completion queue ${cqid} is full: the guest does not take its completions`;
  }
  if (cqHead !== cqTail && queue.interrupts && !signals(interrupts, vector)) {
    yield `queue ${qid}: the guest has not seen all completions, and vector ${vector} signals nowhere`;
  }
}

function signals({ vectors }: InterruptsDiagnosis, vector: number): boolean {
  const { connected, masked } = vectors[vector] ?? { connected: false, masked: false };
  return connected && !masked;
}
