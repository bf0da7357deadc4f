/**
 * An NVMe driver over the vfio-user client: what a guest's driver does, for tests, benches and tools. It polls its completion queues, or
 * waits for MSI-X eventfds. Lives on the event loop of the thread that made it.
 */
import { closeSync } from 'node:fs';
import { type FdPoll, native } from '../native/index.ts';
import {
  Cns,
  CreateIoCq,
  CreateIoSq,
  DeleteIoCq,
  DeleteIoSq,
  DoorbellBufferConfig,
  Identify,
} from '../spec/admin.ts';
import type { CommandFields } from '../spec/command.ts';
import {
  Flbas,
  IDENTIFY_SIZE,
  IdentifyController,
  IdentifyNamespace,
  LbaFormat,
  Oacs,
} from '../spec/identify.ts';
import { CQE_SHIFT, CQE_SIZE, SQE_SHIFT, SQE_SIZE } from '../spec/nvme.ts';
import { Aqa, CapLow, Cc, Csts, DOORBELL_OFFSET, Register } from '../spec/registers.ts';
import { PciIrq, PciRegion } from '../spec/vfio-user.ts';
import type { StructValues } from '../util/struct.ts';
import { ClientMemory } from './memory.ts';
import { type Completion, describeStatus, QueuePair, type QueuePairPlace } from './queue-pair.ts';
import { type VersionOptions, VfioClient } from './vfio.ts';

export type { CommandFields };

export interface NvmeClientOptions {
  /** Bytes of memory that the device can reach: queues and buffers come from it. */
  readonly memoryBytes?: number;
  /** Map the doorbells, if the server offers it; else each write is a message. */
  readonly mapDoorbells?: boolean;
  /** Share the memory (default); else the device reaches it by messages. */
  readonly shareMemory?: boolean;
  /** Connect MSI-X eventfds and wait for them, instead of polling. */
  readonly interrupts?: boolean;
  /** Give the device shadow doorbells for the I/O queues (Doorbell Buffer Config), as Linux does; rejects if it has no use for them. */
  readonly shadowDoorbells?: boolean;
  readonly adminDepth?: number;
  readonly version?: VersionOptions;
  /** Enable the controller (default); else `enable` is the caller's to call, who may want to read its registers first. */
  readonly enable?: boolean;
  /** Hangs up, so that what waits for the server rejects: a server that has a client does not answer another. */
  readonly signal?: AbortSignal;
}

const DEFAULT_MEMORY = 64 * 1024 * 1024;
const BASE_IOVA = 0x1_0000_0000;
const READY_POLL_MS = 1;
const PAGE = 4096;

export class NvmeClient {
  readonly vfio: VfioClient;
  readonly memory: ClientMemory;
  readonly admin: QueuePair;
  /** CAP.MQES + 1. */
  readonly maxQueueEntries: number;
  /** Signals that came on the MSI-X eventfds, those that came together counted one by one. */
  interruptCount = 0;
  readonly #doorbells: Int32Array | undefined;
  #shadow: QueuePairPlace['shadow'];
  readonly #eventfds: readonly number[];
  readonly #polls: readonly FdPoll[];
  readonly #queues = new Map<number, QueuePair>();
  /** Offsets of buffers that no admin command uses. */
  readonly #adminBuffers: number[] = [];
  #closed = false;

  /** Connects, maps memory and doorbells, resets and enables the controller. */
  static async connect(path: string, options: NvmeClientOptions = {}): Promise<NvmeClient> {
    const vfio = VfioClient.connect(path);
    const memory = new ClientMemory(options.memoryBytes ?? DEFAULT_MEMORY, BASE_IOVA);
    let client: NvmeClient | undefined;
    options.signal?.addEventListener('abort', () => vfio.close(), { once: true });
    try {
      await vfio.version(options.version);
      const { iova, size, fd } = memory;
      vfio.memory = memory;
      await vfio.dmaMap({ iova, size, ...(options.shareMemory !== false && { fd }) });
      const doorbells = options.mapDoorbells === false ? undefined : await mapDoorbells(vfio);
      const capLo = await readDword(vfio, Register.offset.cap);
      const eventfds = options.interrupts === true ? await connectEventfds(vfio) : [];
      const adminDepth = options.adminDepth ?? 32;
      client = new NvmeClient(vfio, memory, doorbells, eventfds, adminDepth, { capLo });
      if (options.enable !== false) await client.enable();
      if (options.shadowDoorbells === true) await client.#configureShadowDoorbells();
      return client;
    } catch (error) {
      if (client === undefined) {
        vfio.close();
        memory.close();
      } else {
        client.close();
      }
      throw error;
    }
  }

  private constructor(
    vfio: VfioClient,
    memory: ClientMemory,
    doorbells: Int32Array | undefined,
    eventfds: readonly number[],
    adminDepth: number,
    registers: { capLo: number },
  ) {
    this.vfio = vfio;
    this.memory = memory;
    this.#doorbells = doorbells;
    this.#eventfds = eventfds;
    this.maxQueueEntries = CapLow.decode(registers.capLo).mqesZ + 1;
    this.admin = this.#queuePair(0, adminDepth, adminDepth);
    // Nothing more will complete.
    void vfio.closed.then(() => this.#abandonQueues());
    this.#polls = eventfds.map((fd, vector) => {
      const poll = new native.FdPoll(fd, () => {
        this.interruptCount += Math.max(0, native.eventfdRead(fd));
        this.#queues.get(vector)?.onInterrupt();
      });
      poll.start(true, false);
      return poll;
    });
  }

  /** Queue memory of its own, and a driver's view of it. Interrupts of queue n come on vector n. */
  #queuePair(qid: number, depth: number, cqDepth: number): QueuePair {
    const sqOffset = this.memory.allocate(depth * SQE_SIZE);
    const cqOffset = this.memory.allocate(cqDepth * CQE_SIZE);
    const doorbells = this.#doorbells;
    const pair = new QueuePair({
      qid,
      depth,
      cqDepth,
      sqIova: this.memory.iova + sqOffset,
      cqIova: this.memory.iova + cqOffset,
      sq: new Int32Array(this.memory.buffer, sqOffset, (depth * SQE_SIZE) / 4),
      cq: new Int32Array(this.memory.buffer, cqOffset, (cqDepth * CQE_SIZE) / 4),
      interrupts: this.#eventfds.length > 0,
      doorbells,
      ...(this.#shadow !== undefined && { shadow: this.#shadow }),
      writeDoorbell: (index, value) => {
        const data = new Uint8Array(4);
        new DataView(data.buffer).setUint32(0, value, true);
        this.vfio.regionWritePosted(PciRegion.BAR0, DOORBELL_OFFSET + 4 * index, data);
      },
    });
    this.#queues.set(qid, pair);
    return pair;
  }

  /** For the queues made after it. NVMe Base 2.0 §5.8. */
  async #configureShadowDoorbells(): Promise<void> {
    if (((await this.identifyController()).oacs & Oacs.mask.doorbellBufferConfig) === 0) {
      throw new Error('the controller has no shadow doorbells');
    }
    const { memory } = this;
    const [doorbells, eventIndexes] = [memory.allocate(PAGE), memory.allocate(PAGE)];
    succeeded(
      await this.admin.execute(
        DoorbellBufferConfig.fields({
          prp1: memory.iova + doorbells,
          prp2: memory.iova + eventIndexes,
        }),
      ),
    );
    this.#shadow = {
      doorbells: new Int32Array(memory.buffer, doorbells, PAGE / 4),
      eventIndexes: new Int32Array(memory.buffer, eventIndexes, PAGE / 4),
    };
  }

  readRegister(offset: number): Promise<number> {
    return readDword(this.vfio, offset);
  }

  async writeRegister(offset: number, value: number): Promise<void> {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setUint32(0, value, true);
    await this.vfio.regionWrite(PciRegion.BAR0, offset, data);
  }

  /** CC.EN 0 → 1 with this client's admin queue. Rejects if the controller reports a fatal status. */
  async enable(): Promise<void> {
    await this.disable();
    this.admin.reset();
    const { depth, sqIova, cqIova } = this.admin.place;
    await this.writeRegister(
      Register.offset.aqa,
      Aqa.encode({ asqsZ: depth - 1, acqsZ: depth - 1 }),
    );
    await this.#writeAddress(Register.offset.asq, sqIova);
    await this.#writeAddress(Register.offset.acq, cqIova);
    await this.writeRegister(
      Register.offset.cc,
      Cc.encode({ en: true, iosqes: SQE_SHIFT, iocqes: CQE_SHIFT }),
    );
    await this.#waitReady(true);
  }

  /** CC.EN → 0: all queues are gone when this resolves. */
  async disable(): Promise<void> {
    await this.writeRegister(Register.offset.cc, 0);
    await this.#waitReady(false);
  }

  async #writeAddress(offset: number, iova: number): Promise<void> {
    await this.writeRegister(offset, iova % 0x1_0000_0000);
    await this.writeRegister(offset + 4, Math.floor(iova / 0x1_0000_0000));
  }

  async #waitReady(ready: boolean): Promise<void> {
    for (;;) {
      const csts = await this.readRegister(Register.offset.csts);
      if (ready && (csts & Csts.mask.cfs) !== 0) {
        throw new Error('the controller reports a fatal status');
      }
      if (((csts & Csts.mask.rdy) !== 0) === ready) {
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, READY_POLL_MS));
    }
  }

  /**
   * Creates an I/O queue pair: `depth` entries of the submission queue, `cqDepth` of the completion queue. Rejects with an NvmeError.
   */
  async createQueuePair(qid: number, depth: number, cqDepth = depth): Promise<QueuePair> {
    const pair = this.#queuePair(qid, depth, cqDepth);
    const vector = this.#eventfds.length > 0 ? qid : 0;
    const ien = this.#eventfds.length > 0;
    const { cqIova, sqIova } = pair.place;
    const cq = { prp1: cqIova, qid, sizeZ: cqDepth - 1, pc: true, ien, iv: vector };
    succeeded(await this.admin.execute(CreateIoCq.fields(cq)));
    const sq = { prp1: sqIova, qid, sizeZ: depth - 1, pc: true, cqid: qid };
    succeeded(await this.admin.execute(CreateIoSq.fields(sq)));
    return pair;
  }

  /** Deletes both queues; resolves when the controller is done with them. */
  async deleteQueuePair(qid: number): Promise<void> {
    succeeded(await this.admin.execute(DeleteIoSq.fields({ qid })));
    succeeded(await this.admin.execute(DeleteIoCq.fields({ qid })));
    this.#queues.get(qid)?.abandon();
    this.#queues.delete(qid);
  }

  /** One admin command with a data buffer that the device fills: at most two pages, so that it needs no PRP list. */
  async adminRead(fields: CommandFields, bytes: number): Promise<Uint8Array> {
    const offset = this.#adminBuffers.pop() ?? this.memory.allocate(2 * PAGE);
    try {
      const prp1 = this.memory.iova + offset;
      succeeded(await this.admin.execute({ ...fields, prp1, prp2: prp1 + PAGE }));
      return this.memory.bytes(offset, bytes).slice();
    } finally {
      this.#adminBuffers.push(offset);
    }
  }

  async identifyController(): Promise<StructValues<(typeof IdentifyController)['fields']>> {
    const data = await this.adminRead(Identify.fields({ cns: Cns.CONTROLLER }), IDENTIFY_SIZE);
    return IdentifyController.read(new DataView(data.buffer));
  }

  async identifyNamespace(
    nsid: number,
  ): Promise<StructValues<(typeof IdentifyNamespace)['fields']>> {
    const fields = Identify.fields({ nsid, cns: Cns.NAMESPACE });
    const data = await this.adminRead(fields, IDENTIFY_SIZE);
    return IdentifyNamespace.read(new DataView(data.buffer));
  }

  /** Of the format that the namespace is in, which need not be the first. NVM Command Set 1.0 figure 97: FLBAS, LBAF. */
  async namespaceGeometry(
    nsid: number,
  ): Promise<{ lbas: number; lbaBytes: number; metadataBytes: number }> {
    const fields = Identify.fields({ nsid, cns: Cns.NAMESPACE });
    const view = new DataView((await this.adminRead(fields, IDENTIFY_SIZE)).buffer);
    const { nsze, flbas, nlbaf } = IdentifyNamespace.read(view);
    const { formatLow, formatHigh } = Flbas.decode(flbas);
    // The upper bits count where there are more than 16 formats.
    const format = formatLow + (nlbaf > 15 ? 16 * formatHigh : 0);
    const { ds, ms } = LbaFormat.read(
      view,
      IdentifyNamespace.offset.lbafs + LbaFormat.size * format,
    );
    return { lbas: nsze, lbaBytes: 2 ** ds, metadataBytes: ms };
  }

  #abandonQueues(): void {
    for (const queue of this.#queues.values()) {
      queue.abandon();
    }
  }

  /** Hangs up. The server drops everything of this client. */
  close(): void {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    this.#abandonQueues();
    for (const poll of this.#polls) {
      poll.close();
    }
    this.vfio.close();
    for (const fd of this.#eventfds) {
      closeSync(fd);
    }
    this.memory.close();
    if (this.#doorbells !== undefined) {
      native.revoke(this.#doorbells);
      native.reclaim();
    }
  }
}

/** Throws unless the command succeeded. */
export function succeeded({ status, dw0 }: Completion): number {
  if (status !== 0) {
    throw new NvmeError(status);
  }
  return dw0;
}

/** A completion with an error status. */
export class NvmeError extends Error {
  override readonly name = 'NvmeError';
  /** The status field: SC, SCT << 8, DNR << 14. */
  readonly status: number;

  constructor(status: number) {
    super(describeStatus(status));
    this.status = status;
  }
}

async function readDword(vfio: VfioClient, offset: number): Promise<number> {
  const data = await vfio.regionRead(PciRegion.BAR0, offset, 4);
  return new DataView(data.buffer, data.byteOffset).getUint32(0, true);
}

/** The doorbell page, if the server lets it be mapped. */
async function mapDoorbells(vfio: VfioClient): Promise<Int32Array | undefined> {
  const { fd, offset, size, areas } = await vfio.regionInfo(PciRegion.BAR0);
  if (fd === undefined) {
    return undefined;
  }
  try {
    const whole = [{ offset: 0, size }];
    const area = (areas.length > 0 ? areas : whole).find(
      (candidate) =>
        candidate.offset <= DOORBELL_OFFSET && DOORBELL_OFFSET < candidate.offset + candidate.size,
    );
    if (area === undefined) {
      return undefined;
    }
    const bytes = area.offset + area.size - DOORBELL_OFFSET;
    return new Int32Array(native.mapFile(fd, offset + DOORBELL_OFFSET, bytes, true));
  } finally {
    closeSync(fd);
  }
}

async function connectEventfds(vfio: VfioClient): Promise<number[]> {
  const { count } = await vfio.irqInfo(PciIrq.MSIX);
  const fds = Array.from({ length: count }, () => native.eventfdCreate());
  try {
    await vfio.connectIrqs(PciIrq.MSIX, 0, fds);
  } catch (error) {
    for (const fd of fds) {
      closeSync(fd);
    }
    throw error;
  }
  return fds;
}
