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
  readonly #options: LaneOptions;
  readonly #ratePerNs: number;
  readonly #readClock: () => void;
  readonly #time: Float64Array;
  /** Free command ids in the order in which they became free. */
  readonly #ids: Int32Array;
  #idHead = 0;
  #idTail = 0;
  /** By command id: when it was submitted, what it does, and where. */
  readonly #starts: Float64Array;
  readonly #writes: Uint8Array;
  readonly #rangeOf: Int32Array;
  readonly #placeOf: Float64Array;
  /** By range. */
  readonly #cursors: Float64Array;
  #range = 0;
  #random: number;
  readonly #readBelow: number;
  /** Doubles that change: as fields they would be allocated. */
  readonly #account = new Float64Array(3);
  #sweeping = false;
  /** The next completions are of unknown age: nobody looked for a while. */
  #unsure = false;

  constructor(options: LaneOptions) {
    const { buffers, ranges } = options;
    this.#options = options;
    this.#pair = options.pair;
    this.#readClock = options.readClock;
    this.#time = options.time;
    this.#ratePerNs = options.rate / 1e9;
    this.#random = options.seed | 1;
    this.#readBelow = options.reads * TWO_32;
    this.#ids = Int32Array.from({ length: buffers }, (_, cid) => cid);
    this.#starts = new Float64Array(buffers);
    this.#writes = new Uint8Array(buffers);
    this.#rangeOf = new Int32Array(buffers);
    this.#placeOf = new Float64Array(buffers);
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
    this.#sweeping = this.#options.verifier !== undefined;
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
    if (paced || (count > 0 && this.#options.latency)) {
      this.#readClock();
    }
    for (let i = 0; i < count; i++) {
      this.#complete(pair.doneIds[i], pair.doneStatus[i]);
    }
    this.#unsure = false;
    let room = this.#options.depth - pair.inflight;
    if (room > 0) {
      if (this.#sweeping) {
        this.#sweep(room);
        return count;
      }
      if (paced) {
        room = Math.min(room, this.#due());
      }
      if (room > this.#account[REMAINING]) {
        room = this.#account[REMAINING];
      }
      if (room > 0) {
        this.#account[REMAINING] -= room;
        this.#account[ISSUED] += room;
        for (let i = 0; i < room; i++) {
          this.#submit();
        }
        pair.ring();
      }
    }
    return count;
  }

  /** Commands that the rate allows now. What could not be submitted in time is not made up for later. */
  #due(): number {
    const account = this.#account;
    const earned = Math.floor((this.#time[0] - account[ORIGIN]) * this.#ratePerNs);
    if (earned - account[ISSUED] > this.#options.depth) {
      account[ISSUED] = earned - this.#options.depth;
    }
    return earned - account[ISSUED];
  }

  #complete(cid: number, status: number): void {
    const write = this.#writes[cid];
    if (status !== 0) {
      throw this.#failure(cid, status);
    }
    this.totals[write] += 1;
    const { latency, verifier, words } = this.#options;
    if (latency && !this.#unsure) {
      (write === 0 ? this.readLatencies : this.writeLatencies).record(
        this.#time[0] - this.#starts[cid],
      );
    }
    if (verifier !== undefined) {
      if (write === 0) {
        verifier.read(words[cid], this.#rangeOf[cid], this.#placeOf[cid]);
      } else {
        verifier.wrote(this.#rangeOf[cid], this.#placeOf[cid]);
      }
    }
    this.#ids[this.#idTail] = cid;
    this.#idTail = this.#idTail + 1 === this.#ids.length ? 0 : this.#idTail + 1;
  }

  #failure(cid: number, status: number): Error {
    const { nsid, firstLba, lbasPerCommand } = this.#options.ranges[this.#rangeOf[cid]];
    const lba = firstLba + this.#placeOf[cid] * lbasPerCommand;
    const what = this.#writes[cid] === 0 ? 'read' : 'write';
    const where = `${lbasPerCommand} blocks at LBA ${lba} of namespace ${nsid}`;
    return new Error(`a ${what} of ${where} failed: ${describeStatus(status)}`);
  }

  /** 32 random bits (xorshift32, Marsaglia 2003). */
  #bits(): number {
    let bits = this.#random;
    bits ^= bits << 13;
    bits ^= bits >>> 17;
    bits ^= bits << 5;
    this.#random = bits;
    return bits >>> 0;
  }

  #submit(): void {
    const { ranges, random, reads, verifier } = this.#options;
    const index = this.#range;
    this.#range = index + 1 === ranges.length ? 0 : index + 1;
    const { places } = ranges[index];
    const write = reads === 1 ? 0 : reads === 0 ? 1 : this.#bits() < this.#readBelow ? 0 : 1;
    let place: number;
    if (random) {
      place = Math.floor((this.#bits() / TWO_32) * places);
    } else {
      place = this.#cursors[index];
      this.#cursors[index] = place + 1 === places ? 0 : place + 1;
    }
    if (verifier !== undefined) {
      place = verifier.claim(index, place);
    }
    this.#push(index, place, write);
  }

  /** The next commands of a sweep. */
  #sweep(room: number): void {
    const verifier = this.#options.verifier!;
    for (let i = 0; i < room; i++) {
      const index = verifier.sweep();
      if (index < 0) {
        this.#sweeping = false;
        break;
      }
      this.#push(index, verifier.sweepPlace, 0);
    }
    this.#pair.ring();
  }

  #push(index: number, place: number, write: number): void {
    const { ranges, verifier, words } = this.#options;
    const { nsid, lbasPerCommand, firstLba } = ranges[index];
    const cid = this.#ids[this.#idHead];
    this.#idHead = this.#idHead + 1 === this.#ids.length ? 0 : this.#idHead + 1;
    this.#starts[cid] = this.#time[0];
    this.#writes[cid] = write;
    this.#rangeOf[cid] = index;
    this.#placeOf[cid] = place;
    if (verifier !== undefined && write !== 0) {
      verifier.fill(words[cid], index, place);
    }
    const lba = firstLba + place * lbasPerCommand;
    const opcode = write === 0 ? NvmOpcode.READ : NvmOpcode.WRITE;
    this.#pair.push(cid, opcode, nsid, lba | 0, lbasPerCommand - 1, (lba / TWO_32) | 0);
  }
}
