/**
 * Commands of a script with data of any kind: buffers in memory that the device can reach, each with its PRP list, lent to one command at
 * a time. Who finds none free waits for one. Lives on the event loop of its client.
 */
import type { CommandFields, NvmeClient } from './nvme.ts';
import type { Completion, QueuePair } from './queue-pair.ts';

const PAGE = 4096;
/** As far as one page of PRP list entries reaches, and the first page. NVMe Base 2.0 §4.1.1. */
const MAX_BYTES = PAGE * (PAGE / 8);

/** What a command moves: bytes that the device fills, or bytes for it. */
export type Data = { readonly read: number } | { readonly write: Uint8Array };

/** A completion, and what the device filled; empty if the command read nothing. */
export interface Outcome extends Completion {
  readonly data: Uint8Array;
}

export class Transfers {
  /** Of one command. Bytes. */
  readonly maxBytes: number;
  readonly #client: NvmeClient;
  /** Offsets of free buffers in the client's memory. */
  readonly #free: number[] = [];
  readonly #waiting: ((offset: number) => void)[] = [];

  /** Memory that a client needs for so many buffers. Bytes. */
  static memoryFor(buffers: number, maxBytes: number): number {
    return buffers * (maxBytes + PAGE);
  }

  constructor(client: NvmeClient, buffers: number, maxBytes: number) {
    this.#client = client;
    this.maxBytes = Math.min(maxBytes, MAX_BYTES);
    for (let i = 0; i < buffers; i++) {
      this.#free.push(client.memory.allocate(this.maxBytes + PAGE));
    }
  }

  /** Runs one command. Rejects if its data is longer than `maxBytes`, or the connection ends; an error status is the caller's to look at. */
  async execute(pair: QueuePair, fields: CommandFields, data?: Data): Promise<Outcome> {
    if (data === undefined) {
      return { ...(await pair.execute(fields)), data: new Uint8Array(0) };
    }
    const length = 'read' in data ? data.read : data.write.length;
    if (!Number.isSafeInteger(length) || length < 0 || length > this.maxBytes) {
      throw new RangeError(`${length} bytes in one command: it moves at most ${this.maxBytes}`);
    }
    const offset = await this.#borrow();
    try {
      const { memory } = this.#client;
      if ('write' in data) {
        memory.bytes(offset, length).set(data.write);
      }
      const completion = await pair.execute({ ...fields, ...this.#prps(offset, length) });
      const filled = 'read' in data ? memory.bytes(offset, length).slice() : new Uint8Array(0);
      return { ...completion, data: filled };
    } finally {
      this.#giveBack(offset);
    }
  }

  /** NVMe Base 2.0 §4.1.1: the second entry is the second page, or a list of all pages but the first. */
  #prps(offset: number, length: number): { prp1: number; prp2: number } {
    const { memory } = this.#client;
    const prp1 = memory.iova + offset;
    const pages = Math.ceil(length / PAGE);
    if (pages <= 2) {
      return { prp1, prp2: pages === 2 ? prp1 + PAGE : 0 };
    }
    const listOffset = offset + this.maxBytes;
    const list = new BigUint64Array(memory.buffer, listOffset, pages - 1);
    for (let page = 1; page < pages; page++) {
      list[page - 1] = BigInt(prp1 + page * PAGE);
    }
    return { prp1, prp2: memory.iova + listOffset };
  }

  #borrow(): number | Promise<number> {
    return this.#free.pop() ?? new Promise((resolve) => this.#waiting.push(resolve));
  }

  #giveBack(offset: number): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#free.push(offset);
    } else {
      next(offset);
    }
  }
}
