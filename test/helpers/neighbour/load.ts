/**
 * The load of a neighbour on one namespace: writes, reads and flushes, everything that is read compared with what was written, each
 * command timed. A turn allocates nothing, so that what is measured is the target.
 */
import assert from 'node:assert/strict';
import { Latencies } from '../../../src/client/latencies.ts';
import type { NvmeClient } from '../../../src/client/nvme.ts';
import { describeStatus, type QueuePair } from '../../../src/client/queue-pair.ts';
import { Verifier } from '../../../src/client/verifier.ts';
import { native } from '../../../src/native/index.ts';
import { NvmOpcode, RangeDword12 } from '../../../src/spec/nvm.ts';

const { READ, WRITE, FLUSH } = NvmOpcode;
const PAGE = 4096;
const LBA_BYTES = 512;
const LBAS = PAGE / LBA_BYTES;
/** Of 256 commands: flushes; of 256 writes: with Force Unit Access. */
const FLUSHES = 16;
const FUA = 16;

export interface NeighbourLoadOptions {
  readonly client: NvmeClient;
  readonly pair: QueuePair;
  readonly nsid: number;
  /** Pages of the namespace. */
  readonly pages: number;
  /** Commands in flight. */
  readonly depth: number;
  readonly seed: number;
}

export class NeighbourLoad {
  /** By opcode (flush, write, read): commands that completed. */
  readonly done = new Float64Array(3);
  /** By opcode. Nanoseconds. */
  readonly latencies = [new Latencies(), new Latencies(), new Latencies()];
  readonly #options: NeighbourLoadOptions;
  readonly #verifier: Verifier;
  readonly #buffers: readonly Int32Array[];
  readonly #freeCids: Int32Array;
  #free: number;
  /** By command id. */
  readonly #opcodes: Uint8Array;
  readonly #places: Int32Array;
  readonly #starts: Float64Array;
  readonly #time = new Float64Array(new SharedArrayBuffer(8));
  readonly #readClock = native.bindClock(this.#time);
  #bits: number;
  #phase: 'load' | 'sweep' | 'end' = 'load';

  constructor(options: NeighbourLoadOptions) {
    const { client, pair, nsid, pages, depth, seed } = options;
    this.#options = options;
    const range = { nsid, places: pages, firstLba: 0, lbas: LBAS, lbaBytes: LBA_BYTES };
    this.#verifier = new Verifier(seed, [range]);
    this.#buffers = Array.from({ length: depth }, (_, cid) => {
      const offset = client.memory.allocate(PAGE);
      pair.setBuffer(cid, client.memory.iova + offset, 0);
      return new Int32Array(client.memory.buffer, offset, PAGE / 4);
    });
    this.#freeCids = Int32Array.from({ length: depth }, (_, cid) => cid);
    this.#free = depth;
    this.#opcodes = new Uint8Array(depth);
    this.#places = new Int32Array(depth);
    this.#starts = new Float64Array(depth);
    this.#bits = seed | 1;
  }

  /** Reads that were compared. */
  get checked(): number {
    return this.#verifier.checked;
  }

  /** No new load: everything that was written is read and compared once more. `turn` goes on until `finished`. */
  sweep(): void {
    this.#phase = 'sweep';
  }

  get finished(): boolean {
    return this.#phase === 'end' && this.#options.pair.inflight === 0;
  }

  /** Takes completions and submits commands in their place. Returns how many had completed. Throws if anything is not as it should be. */
  turn(): number {
    const { pair } = this.#options;
    this.#readClock();
    const count = pair.poll();
    for (let i = 0; i < count; i++) {
      this.#take(pair.doneIds[i], pair.doneStatus[i]);
    }
    // What was written must have ended before it is read for the last time.
    const wait = this.#phase === 'end' || (this.#phase === 'sweep' && this.#writing());
    if (this.#free > 0 && !wait) {
      while (this.#free > 0 && this.#submit()) {}
      pair.ring();
    }
    return count;
  }

  #writing(): boolean {
    return this.#options.pair.inflight > 0 && this.#opcodes.some((opcode) => opcode !== READ);
  }

  #take(cid: number, status: number): void {
    const opcode = this.#opcodes[cid];
    const place = this.#places[cid];
    if (status !== 0) {
      const what = ['flush', 'write', 'read'][opcode];
      assert.fail(
        `namespace ${this.#options.nsid}: ${what} of page ${place}: ${describeStatus(status)}`,
      );
    }
    if (opcode === READ) {
      this.#verifier.read(this.#buffers[cid], 0, place);
    } else if (opcode === WRITE) {
      this.#verifier.wrote(0, place);
    }
    this.done[opcode] += 1;
    this.latencies[opcode].recordSince(this.#starts, cid, this.#time);
    this.#opcodes[cid] = READ;
    this.#freeCids[this.#free] = cid;
    this.#free += 1;
  }

  /** 32 random bits, signed (xorshift32, Marsaglia 2003). */
  #random(): number {
    let bits = this.#bits;
    bits ^= bits << 13;
    bits ^= bits >>> 17;
    bits ^= bits << 5;
    this.#bits = bits;
    return bits;
  }

  /** One command; false if there is none to submit. */
  #submit(): boolean {
    const verifier = this.#verifier;
    const random = this.#random() >>> 0;
    const choice = random & 0xff;
    let opcode: number = READ;
    let place = 0;
    let dw12 = LBAS - 1;
    if (this.#phase === 'sweep') {
      if (verifier.sweep() < 0) {
        this.#phase = 'end';
        return false;
      }
      place = verifier.sweepPlace;
    } else if (choice < FLUSHES) {
      opcode = FLUSH;
      dw12 = 0;
    } else {
      place = verifier.claim(0, (random >>> 8) % this.#options.pages);
      if (choice & 1) {
        opcode = WRITE;
        dw12 |= ((random >>> 8) & 0xff) < FUA ? RangeDword12.mask.fua : 0;
      }
    }
    this.#free -= 1;
    const cid = this.#freeCids[this.#free];
    this.#opcodes[cid] = opcode;
    this.#places[cid] = place;
    this.#starts[cid] = this.#time[0];
    if (opcode === WRITE) {
      verifier.fill(this.#buffers[cid], 0, place);
    }
    this.#options.pair.push(cid, opcode, this.#options.nsid, place * LBAS, dw12);
    return true;
  }
}
