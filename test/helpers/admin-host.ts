/** A host with an admin queue of any sizes, which rings and consumes as it likes: no command waits for another. */
import type { CommandFields, NvmeClient } from '../../src/client/nvme.ts';
import { AdminOpcode } from '../../src/spec/admin.ts';
import { CQE_SHIFT, CqeDword3, SQE_SHIFT, Sqe } from '../../src/spec/nvme.ts';
import { Aqa, Cc, Register } from '../../src/spec/registers.ts';
import { type Room, room, writeDoorbell } from './queues.ts';

const CQE_WORDS = 4;
const PAGE = 4096;

/** What was taken from the completion queue. */
export interface Taken {
  readonly cid: number;
  readonly status: number;
}

export class AdminHost {
  readonly #client: NvmeClient;
  readonly #sqSize: number;
  readonly #cqSize: number;
  readonly #sq: Room;
  readonly #cq: Room;
  /** Shadow doorbells and event indexes, once the device has them. */
  #shadow: { readonly doorbells: Int32Array; readonly events: Int32Array } | undefined;
  #tail = 0;
  #head = 0;
  #phase = 1;
  #cid = 0;

  constructor(client: NvmeClient, sqSize: number, cqSize: number) {
    this.#client = client;
    this.#sqSize = sqSize;
    this.#cqSize = cqSize;
    this.#sq = room(client.memory, Math.ceil((sqSize * 64) / PAGE) * PAGE);
    this.#cq = room(client.memory, Math.ceil((cqSize * 16) / PAGE) * PAGE);
  }

  /** Resets the controller, and enables it with these queues. */
  async enable(): Promise<void> {
    const { offset } = Register;
    const client = this.#client;
    await client.disable();
    this.#shadow = undefined;
    this.#tail = this.#head = 0;
    this.#phase = 1;
    this.#cq.words.fill(0);
    const aqa = Aqa.encode({ asqsZ: this.#sqSize - 1, acqsZ: this.#cqSize - 1 });
    await client.writeRegister(offset.aqa, aqa);
    for (const [at, { iova }] of [
      [offset.asq, this.#sq],
      [offset.acq, this.#cq],
    ] as const) {
      await client.writeRegister(at, iova % 2 ** 32);
      await client.writeRegister(at + 4, Math.floor(iova / 2 ** 32));
    }
    const cc = Cc.encode({ en: true, iosqes: SQE_SHIFT, iocqes: CQE_SHIFT });
    await client.writeRegister(offset.cc, cc);
  }

  /** Gives the device shadow doorbells, and writes the admin queue's there from then on. */
  async configureShadow(): Promise<void> {
    const doorbells = room(this.#client.memory, PAGE);
    const events = room(this.#client.memory, PAGE);
    this.push({
      opcode: AdminOpcode.DOORBELL_BUFFER_CONFIG,
      prp1: doorbells.iova,
      prp2: events.iova,
    });
    this.ring();
    while (!this.#completed) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    this.#shadow = { doorbells: doorbells.words, events: events.words };
    this.take(1);
  }

  /** Puts a command into the next entry, and gives its id. */
  push(fields: CommandFields): number {
    const cid = this.#cid;
    this.#cid = (cid + 1) & 0xffff;
    const { words } = this.#sq;
    const bytes = Sqe.encode({ ...fields, cid });
    new Uint8Array(words.buffer, words.byteOffset).set(bytes, this.#tail * Sqe.size);
    this.#tail = (this.#tail + 1) % this.#sqSize;
    return cid;
  }

  /** Tells the device of the commands pushed. */
  ring(): void {
    this.#write(0, this.#tail);
  }

  /** There is a completion to take. */
  get #completed(): boolean {
    const dw3 = Atomics.load(this.#cq.words, this.#head * CQE_WORDS + 3);
    return Number(CqeDword3.decode(dw3).p) === this.#phase;
  }

  /** Takes at most so many completions, and tells the device. */
  take(most: number): Taken[] {
    const taken: Taken[] = [];
    while (taken.length < most && this.#completed) {
      const dw3 = this.#cq.words[this.#head * CQE_WORDS + 3];
      const { cid, status } = CqeDword3.decode(dw3);
      taken.push({ cid, status });
      this.#head = (this.#head + 1) % this.#cqSize;
      this.#phase ^= this.#head === 0 ? 1 : 0;
    }
    if (taken.length > 0) {
      this.#write(1, this.#head);
    }
    return taken;
  }

  #write(index: number, value: number): void {
    const shadow = this.#shadow;
    if (shadow !== undefined) {
      const old = shadow.doorbells[index];
      Atomics.store(shadow.doorbells, index, value);
      const event = Atomics.load(shadow.events, index);
      if (((value - event - 1) & 0xffff) >= ((value - old) & 0xffff)) {
        return;
      }
    }
    const { doorbells } = this.#client.admin.place;
    if (doorbells === undefined) {
      writeDoorbell(this.#client, index, value);
    } else {
      Atomics.store(doorbells, index, value);
    }
  }
}
