/** Queues made of any memory and in any combination, which the client's own driver would not make. */
import type { ClientMemory } from '../../src/client/memory.ts';
import type { CommandFields, NvmeClient } from '../../src/client/nvme.ts';
import { type Completion, QueuePair } from '../../src/client/queue-pair.ts';
import { CreateIoCq, CreateIoSq, DeleteIoCq, DeleteIoSq } from '../../src/spec/admin.ts';
import { CQE_SIZE, CqeDword3, SQE_SIZE, Sqe } from '../../src/spec/nvme.ts';
import { DOORBELL_OFFSET } from '../../src/spec/registers.ts';
import { PciRegion } from '../../src/spec/vfio-user.ts';

/** Memory of one queue. */
export interface Room {
  readonly iova: number;
  readonly words: Int32Array;
}

export function room(memory: ClientMemory, bytes: number): Room {
  const offset = memory.allocate(bytes);
  return {
    iova: memory.iova + offset,
    words: new Int32Array(memory.buffer, offset, bytes / 4),
  };
}

export function createCq(
  client: NvmeClient,
  queue: { qid: number; depth: number; iova: number; vector?: number },
): Promise<Completion> {
  const { qid, depth, iova, vector } = queue;
  const interrupts = vector === undefined ? {} : { ien: true, iv: vector };
  return client.admin.execute(
    CreateIoCq.fields({ prp1: iova, qid, sizeZ: depth - 1, pc: true, ...interrupts }),
  );
}

export function createSq(
  client: NvmeClient,
  queue: { qid: number; depth: number; iova: number; cqid?: number },
): Promise<Completion> {
  const { qid, depth, iova, cqid = qid } = queue;
  return client.admin.execute(
    CreateIoSq.fields({ prp1: iova, qid, sizeZ: depth - 1, pc: true, cqid }),
  );
}

export function deleteSq(client: NvmeClient, qid: number): Promise<Completion> {
  return client.admin.execute(DeleteIoSq.fields({ qid }));
}

export function deleteCq(client: NvmeClient, qid: number): Promise<Completion> {
  return client.admin.execute(DeleteIoCq.fields({ qid }));
}

export interface PairOptions {
  readonly qid: number;
  readonly depth: number;
  readonly cqDepth?: number;
  readonly sq?: Room;
  readonly cq?: Room;
  /** MSI-X vector; no interrupts if left out. */
  readonly vector?: number;
  /** The caller polls, when the interrupt comes. */
  readonly interrupts?: boolean;
}

/** A queue pair in memory of the caller's choice. Throws if the controller refuses it. */
export async function createPair(client: NvmeClient, options: PairOptions): Promise<QueuePair> {
  const { qid, depth, cqDepth = depth, vector } = options;
  const sq = options.sq ?? room(client.memory, depth * SQE_SIZE);
  const cq = options.cq ?? room(client.memory, cqDepth * CQE_SIZE);
  const pair = new QueuePair({
    qid,
    depth,
    cqDepth,
    sqIova: sq.iova,
    cqIova: cq.iova,
    sq: sq.words,
    cq: cq.words,
    interrupts: options.interrupts ?? false,
    doorbells: client.admin.place.doorbells,
    writeDoorbell: (index, value) => writeDoorbell(client, index, value),
  });
  const vectors = vector === undefined ? {} : { vector };
  const made = [
    await createCq(client, { qid, depth: cqDepth, iova: cq.iova, ...vectors }),
    await createSq(client, { qid, depth, iova: sq.iova }),
  ];
  if (made.some(({ status }) => status !== 0)) {
    throw new Error(
      `queue pair ${qid} was refused: ${made.map(({ status }) => status.toString(16))}`,
    );
  }
  return pair;
}

/** A doorbell as a message. */
export function writeDoorbell(client: NvmeClient, index: number, value: number): void {
  const data = new Uint8Array(4);
  new DataView(data.buffer).setUint32(0, value >>> 0, true);
  client.vfio.regionWritePosted(PciRegion.BAR0, DOORBELL_OFFSET + 4 * index, data);
}

export interface Entry {
  readonly sqid: number;
  readonly sqhd: number;
  readonly cid: number;
  readonly status: number;
}

/** One completion queue, whose entries may come from any submission queue. */
export class Cq {
  readonly qid: number;
  readonly depth: number;
  readonly #client: NvmeClient;
  readonly #words: Int32Array;
  #head = 0;
  #phase = 1;

  static async create(client: NvmeClient, qid: number, depth: number): Promise<Cq> {
    const { iova, words } = room(client.memory, depth * CQE_SIZE);
    const { status } = await createCq(client, { qid, depth, iova });
    if (status !== 0) {
      throw new Error(`completion queue ${qid} was refused: ${status.toString(16)}`);
    }
    return new Cq(client, qid, depth, words);
  }

  private constructor(client: NvmeClient, qid: number, depth: number, words: Int32Array) {
    this.#client = client;
    this.qid = qid;
    this.depth = depth;
    this.#words = words;
  }

  /** Takes at most `most` completions, and tells the device. */
  reap(most = Number.POSITIVE_INFINITY): Entry[] {
    const entries: Entry[] = [];
    while (entries.length < most) {
      const dw3 = Atomics.load(this.#words, 4 * this.#head + 3);
      const { cid, p, status } = CqeDword3.decode(dw3);
      if (Number(p) !== this.#phase) {
        break;
      }
      const dw2 = this.#words[4 * this.#head + 2];
      entries.push({
        sqhd: dw2 & 0xffff,
        sqid: dw2 >>> 16,
        cid,
        status,
      });
      this.#head = (this.#head + 1) % this.depth;
      this.#phase ^= this.#head === 0 ? 1 : 0;
    }
    if (entries.length > 0) {
      ring(this.#client, 2 * this.qid + 1, this.#head);
    }
    return entries;
  }
}

/** One submission queue. */
export class Sq {
  readonly qid: number;
  readonly depth: number;
  readonly #client: NvmeClient;
  readonly #view: DataView;
  #tail = 0;

  static async create(client: NvmeClient, qid: number, depth: number, cqid: number): Promise<Sq> {
    const { iova, words } = room(client.memory, depth * SQE_SIZE);
    const { status } = await createSq(client, { qid, depth, iova, cqid });
    if (status !== 0) {
      throw new Error(`submission queue ${qid} was refused: ${status.toString(16)}`);
    }
    return new Sq(client, qid, depth, words);
  }

  private constructor(client: NvmeClient, qid: number, depth: number, words: Int32Array) {
    this.#client = client;
    this.qid = qid;
    this.depth = depth;
    this.#view = new DataView(words.buffer, words.byteOffset, words.byteLength);
  }

  push(fields: CommandFields): void {
    const at = this.#tail * SQE_SIZE;
    new Uint8Array(this.#view.buffer, this.#view.byteOffset + at, SQE_SIZE).fill(0);
    Sqe.write(this.#view, at, fields);
    this.#tail = (this.#tail + 1) % this.depth;
  }

  ring(): void {
    ring(this.#client, 2 * this.qid, this.#tail);
  }
}

function ring(client: NvmeClient, index: number, value: number): void {
  const { doorbells } = client.admin.place;
  if (doorbells === undefined) {
    writeDoorbell(client, index, value);
  } else {
    Atomics.store(doorbells, index, value);
  }
}
