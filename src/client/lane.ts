/**
 * The load of one queue pair: keeps it at its depth, or at its rate, and records how long commands take. Lives on the thread of its
 * {@link Workload}, which turns it. A turn allocates nothing.
 */
import { NvmOpcode } from '../spec/nvm.ts';
import { Latencies } from './latencies.ts';
import { describeStatus, type QueuePair } from './queue-pair.ts';
import type { Verifier } from './verifier.ts';

/** What a lane uses of a namespace: places of one command each. */
export interface LaneRange {
  readonly nsid: number;
  readonly lbasPerCommand: number;
  readonly firstLba: number;
  readonly places: number;
  /** Where a sequential load begins. */
  readonly start: number;
}

export interface LaneOptions {
  readonly pair: QueuePair;
  /** Commands in flight. */
  readonly depth: number;
  /** Buffers, used in turn: the queue pair has as many command ids. One by one if the data is verified. */
  readonly buffers: number;
  readonly words: readonly Int32Array[];
  readonly ranges: readonly LaneRange[];
  readonly random: boolean;
  /** Share of reads, 0 to 1. */
  readonly reads: number;
  /** Commands a second at most; 0: as many as possible. */
  readonly rate: number;
  readonly seed: number;
  readonly latency: boolean;
  readonly verifier: Verifier | undefined;
  /** `readClock` writes CLOCK_MONOTONIC (ns) to `time[0]`. */
  readonly time: Float64Array;
  readonly readClock: () => void;
}

const TWO_32 = 2 ** 32;
const { READ, WRITE } = NvmOpcode;
/** Indexes of `#account`. */
const REMAINING = 0;
const ISSUED = 1;
const ORIGIN = 2;

export class Lane {
  /** Latencies in ns. */
  readonly readLatencies = new Latencies();
  readonly writeLatencies = new Latencies();
  /** Commands completed: reads, writes. */
  readonly totals = new Float64Array(2);
  readonly #pair: QueuePair;
  readonly #depth: number;
  readonly #random: boolean;
  readonly #reads: number;
  readonly #latency: boolean;
  readonly #verifier: Verifier | undefined;
  readonly #words: readonly Int32Array[];
  readonly #ratePerNs: number;
  readonly #time: Float64Array;
  readonly #readClock: () => void;
  /** Free command ids in the order in which they became free. */
  readonly #ids: Int32Array;
  #idHead = 0;
  #idTail = 0;
  /** By command id: when it was submitted, what it does, and where. */
  readonly #starts: Float64Array;
  readonly #writes: Uint8Array;
  readonly #rangeOf: Int32Array;
  readonly #placeOf: Float64Array;
  /** By range: as {@link LaneRange}, and the next place of a sequential load. */
  readonly #nsids: Uint32Array;
  readonly #lbasPerCommand: Int32Array;
  readonly #firstLbas: Float64Array;
  readonly #places: Float64Array;
  readonly #cursors: Float64Array;
  #range = 0;
  #bits: number;
  /** Doubles that change: as fields they would be allocated. */
  readonly #account = new Float64Array(3);
  #sweeping = false;
  /** The next completions are of unknown age: nobody looked for a while. */
  #unsure = false;

  constructor(options: LaneOptions) {
    const { buffers, ranges } = options;
    this.#pair = options.pair;
    this.#depth = options.depth;
    this.#random = options.random;
    this.#reads = options.reads;
    this.#latency = options.latency;
    this.#verifier = options.verifier;
    this.#words = options.words;
    this.#ratePerNs = options.rate / 1e9;
    this.#time = options.time;
    this.#readClock = options.readClock;
    // xorshift never leaves 0.
    this.#bits = options.seed === 0 ? 1 : options.seed | 0;
    this.#ids = Int32Array.from({ length: buffers }, (_, cid) => cid);
    this.#starts = new Float64Array(buffers);
    this.#writes = new Uint8Array(buffers);
    this.#rangeOf = new Int32Array(buffers);
    this.#placeOf = new Float64Array(buffers);
    this.#nsids = Uint32Array.from(ranges, ({ nsid }) => nsid);
    this.#lbasPerCommand = Int32Array.from(ranges, ({ lbasPerCommand }) => lbasPerCommand);
    this.#firstLbas = Float64Array.from(ranges, ({ firstLba }) => firstLba);
    this.#places = Float64Array.from(ranges, ({ places }) => places);
    this.#cursors = Float64Array.from(ranges, ({ start }) => start);
  }

  /** From now on commands are submitted, `commands` at most. */
  start(commands: number): void {
    this.#readClock();
    this.#account[REMAINING] = commands;
    this.#account[ISSUED] = 0;
    this.#account[ORIGIN] = this.#time[0];
  }

  /** No further commands; those in flight complete. */
  stop(): void {
    this.#account[REMAINING] = 0;
    this.#sweeping = false;
  }

  /** Forgets what was recorded. */
  clear(): void {
    this.readLatencies.clear();
    this.writeLatencies.clear();
    this.totals.fill(0);
  }

  /** Reads everything that was written once more, to verify it. */
  sweep(): void {
    this.#sweeping = this.#verifier !== undefined;
  }

  /** Nobody looked for completions for a while, so the next turn does not record how old they are. */
  pause(): void {
    this.#unsure = true;
  }

  /** Nothing is in flight, and nothing will be. */
  get finished(): boolean {
    return this.#pair.inflight === 0 && this.#account[REMAINING] === 0 && !this.#sweeping;
  }

  /** Hot. Takes completions and submits commands in their place. Returns how many had completed. Throws at an error status. */
  turn(): number {
    const pair = this.#pair;
    const paced = this.#ratePerNs > 0;
    const count = pair.poll();
    if (paced || (count > 0 && this.#latency)) {
      this.#readClock();
    }
    if (count > 0) {
      this.#take(count);
    }
    this.#unsure = false;
    const room = this.#depth - pair.inflight;
    if (room > 0) {
      if (this.#sweeping) {
        this.#sweep(room);
      } else {
        this.#refill(paced ? Math.min(room, this.#due()) : room);
      }
    }
    return count;
  }

  /** Commands that the rate allows now. What could not be submitted in time is not made up for later. */
  #due(): number {
    const account = this.#account;
    const earned = Math.floor((this.#time[0] - account[ORIGIN]) * this.#ratePerNs);
    if (earned - account[ISSUED] > this.#depth) {
      account[ISSUED] = earned - this.#depth;
    }
    return earned - account[ISSUED];
  }

  /** Hot. What has completed. */
  #take(count: number): void {
    const { doneIds, doneStatus } = this.#pair;
    const ids = this.#ids;
    const timed = this.#latency && !this.#unsure;
    let tail = this.#idTail;
    for (let i = 0; i < count; i++) {
      const cid = doneIds[i];
      const write = this.#writes[cid];
      if (doneStatus[i] !== 0) {
        throw this.#failure(cid, doneStatus[i]);
      }
      this.totals[write] += 1;
      if (timed) {
        const latencies = write === 0 ? this.readLatencies : this.writeLatencies;
        latencies.recordSince(this.#starts, cid, this.#time);
      }
      if (this.#verifier !== undefined) {
        this.#verify(this.#verifier, cid, write);
      }
      ids[tail] = cid;
      tail = tail + 1 === ids.length ? 0 : tail + 1;
    }
    this.#idTail = tail;
  }

  #verify(verifier: Verifier, cid: number, write: number): void {
    if (write === 0) {
      verifier.read(this.#words[cid], this.#rangeOf[cid], this.#placeOf[cid]);
    } else {
      verifier.wrote(this.#rangeOf[cid], this.#placeOf[cid]);
    }
  }

  #failure(cid: number, status: number): Error {
    const range = this.#rangeOf[cid];
    const count = this.#lbasPerCommand[range];
    const lba = this.#firstLbas[range] + this.#placeOf[cid] * count;
    const what = this.#writes[cid] === 0 ? 'read' : 'write';
    const where = `${count} blocks at LBA ${lba} of namespace ${this.#nsids[range]}`;
    return new Error(`a ${what} of ${where} failed: ${describeStatus(status)}`);
  }

  /** 32 random bits, signed (xorshift32, Marsaglia 2003). */
  #next(): number {
    let bits = this.#bits;
    bits ^= bits << 13;
    bits ^= bits >>> 17;
    bits ^= bits << 5;
    this.#bits = bits;
    return bits;
  }

  /** Hot. Submits as many commands, or what is left of them. */
  #refill(wanted: number): void {
    const account = this.#account;
    const count = Math.min(wanted, account[REMAINING]);
    if (count <= 0) {
      return;
    }
    account[REMAINING] -= count;
    account[ISSUED] += count;
    const reads = this.#reads;
    const last = this.#places.length - 1;
    for (let i = 0; i < count; i++) {
      const range = this.#range;
      this.#range = range === last ? 0 : range + 1;
      let write = reads === 1 ? 0 : 1;
      if (reads > 0 && reads < 1 && this.#next() >>> 0 < reads * TWO_32) {
        write = 0;
      }
      const places = this.#places[range];
      let place: number;
      if (this.#random) {
        place = Math.floor((this.#next() >>> 0) * (1 / TWO_32) * places);
      } else {
        place = this.#cursors[range];
        this.#cursors[range] = place + 1 === places ? 0 : place + 1;
      }
      const cid = this.#ids[this.#idHead];
      this.#placeOf[cid] =
        this.#verifier === undefined ? place : this.#verifier.claim(range, place);
      this.#push(range, write);
    }
    this.#pair.ring();
  }

  /** The next commands of a sweep. */
  #sweep(room: number): void {
    const verifier = this.#verifier!;
    for (let i = 0; i < room; i++) {
      const range = verifier.sweep();
      if (range < 0) {
        this.#sweeping = false;
        break;
      }
      this.#placeOf[this.#ids[this.#idHead]] = verifier.sweepPlace;
      this.#push(range, 0);
    }
    this.#pair.ring();
  }

  /** Hot. The next free command id, for the place noted with it: a number as large as that would be allocated as an argument. */
  #push(range: number, write: number): void {
    const cid = this.#ids[this.#idHead];
    this.#idHead = this.#idHead + 1 === this.#ids.length ? 0 : this.#idHead + 1;
    this.#starts[cid] = this.#time[0];
    this.#writes[cid] = write;
    this.#rangeOf[cid] = range;
    if (write !== 0 && this.#verifier !== undefined) {
      this.#verifier.fill(this.#words[cid], range, this.#placeOf[cid]);
    }
    const count = this.#lbasPerCommand[range];
    const lba = this.#firstLbas[range] + this.#placeOf[cid] * count;
    this.#pair.push(
      cid,
      write === 0 ? READ : WRITE,
      this.#nsids[range] | 0,
      lba | 0,
      count - 1,
      (lba * (1 / TWO_32)) | 0,
    );
  }
}
