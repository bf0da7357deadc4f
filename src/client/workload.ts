/**
 * The load generator: keeps queue pairs of one or several controllers busy from one thread that polls, and measures. It knows nothing of
 * the target but NVMe and vfio-user. Owned by the thread that opens it, whose event loop gets a short turn every so often.
 */
import { setImmediate as eventLoop } from 'node:timers/promises';
import { native } from '../native/index.ts';
import { Buffers } from './buffers.ts';
import { Lane, type LaneRange } from './lane.ts';
import { Latencies } from './latencies.ts';
import type { NvmeClient } from './nvme.ts';
import { MAX_VERIFIED_PLACES, Verifier } from './verifier.ts';
import type { WorkloadOptions } from './workload-options.ts';
import {
  connect,
  describe,
  type WorkloadController,
  type WorkloadNamespace,
} from './workload-target.ts';

export interface RunOptions {
  /** Load that is not measured, before that which is. Seconds. */
  readonly warmup: number;
  /** Ends after this time, or after this many commands. */
  readonly seconds: number;
  readonly commands: number;
  /** Called when the measurement begins. */
  readonly onStart?: () => void;
  /** Called a few times a second with the state so far. */
  readonly onProgress?: (progress: Progress) => void;
  /** Ends the measurement early. */
  readonly signal?: AbortSignal;
}

export interface Progress {
  readonly phase: 'warm-up' | 'load' | 'verify';
  /** Of the phase; 0 to 1. NaN where nobody knows. */
  readonly done: number;
  /** Commands a second since the last call. */
  readonly iops: number;
}

/** What was done on one socket, or on all. */
export interface WorkloadPart {
  /** Commands completed in the measured time. */
  readonly reads: number;
  readonly writes: number;
  readonly readLatencies: Latencies;
  readonly writeLatencies: Latencies;
}

export interface WorkloadResult extends WorkloadPart {
  /** Measured. */
  readonly seconds: number;
  /** In the order of the sockets. */
  readonly sockets: readonly WorkloadPart[];
  /** Reads whose data was compared. */
  readonly verified: number;
  /** Why a target is gone, which ended the load: all else is what was measured until then. */
  readonly lost: string | undefined;
}

/** A target hung up. */
class LostTarget extends Error {}

/** Data buffers are mapped from here on: above all memory that {@link NvmeClient} maps. */
const BUFFER_IOVA = 0x100_0000_0000;
/** Between two turns of the event loop, and between two reports of progress. Nanoseconds. */
const SLICE_NS = 200e6;
/** A target that completes nothing for this long is taken for dead. Nanoseconds. */
const PATIENCE_NS = 30e9;
/** Turns of all lanes between two looks at the clock; lanes that time commands look more often. */
const ROUNDS_PER_CLOCK = 64;

export class Workload {
  readonly controllers: readonly WorkloadController[];
  readonly #clients: readonly NvmeClient[];
  readonly #buffers: readonly Buffers[];
  readonly #lanes: readonly Lane[];
  readonly #verifiers: readonly Verifier[];
  readonly #time: Float64Array;
  readonly #readClock: () => void;
  /** Why a connection ended. */
  #lost: string | undefined;

  /** Connects and prepares. Rejects with what is wrong with the options, or with a target; nothing is left open then. */
  static async open(options: WorkloadOptions): Promise<Workload> {
    const clients: NvmeClient[] = [];
    const buffers: Buffers[] = [];
    const close = (): void => {
      for (const client of clients) client.close();
      for (const buffer of buffers) buffer.close();
    };
    try {
      const controllers: WorkloadController[] = [];
      const lanes: Lane[] = [];
      const verifiers: Verifier[] = [];
      const time = new Float64Array(new SharedArrayBuffer(8));
      const clock = { time, readClock: native.bindClock(time) };
      for (const [index, socket] of options.sockets.entries()) {
        const client = await connect(socket, options);
        clients.push(client);
        const controller = await describe(client, socket, options);
        controllers.push(controller);
        const count = Math.max(options.depth, Math.ceil(options.regions / options.queuePairs));
        const pool = await Buffers.create(client.vfio, {
          bytes: options.blockSize,
          regions: options.regions,
          count: count * options.queuePairs,
          iova: BUFFER_IOVA,
        });
        buffers.push(pool);
        for (let i = 0; i < options.queuePairs; i++) {
          const entries = Math.max(options.depth + 1, options.queueEntries, count);
          const pair = await client.createQueuePair(i + 1, entries);
          pool.assign(pair, i * count, count);
          const number = index * options.queuePairs + i;
          const ranges = laneRanges(controller.namespaces, options, number);
          const verifier = makeVerifier(ranges, controller.namespaces, options);
          if (verifier !== undefined) verifiers.push(verifier);
          const laneCount = options.sockets.length * options.queuePairs;
          const { depth, random, reads, latency } = options;
          lanes.push(
            new Lane({
              ...{ pair, depth, random, reads, latency, ranges, verifier, ...clock },
              rate: options.rate / laneCount,
              buffers: count,
              words: options.verify
                ? Array.from({ length: count }, (_, buffer) => pool.words(i * count + buffer))
                : [],
              seed: (options.seed + Math.imul(number + 1, 0x9e37_79b1)) | 0,
            }),
          );
        }
      }
      return new Workload(controllers, clients, buffers, lanes, verifiers, clock);
    } catch (error) {
      close();
      throw error;
    }
  }

  private constructor(
    controllers: readonly WorkloadController[],
    clients: readonly NvmeClient[],
    buffers: readonly Buffers[],
    lanes: readonly Lane[],
    verifiers: readonly Verifier[],
    { time, readClock }: { readonly time: Float64Array; readonly readClock: () => void },
  ) {
    this.controllers = controllers;
    this.#clients = clients;
    this.#buffers = buffers;
    this.#lanes = lanes;
    this.#verifiers = verifiers;
    this.#time = time;
    this.#readClock = readClock;
    for (const [index, client] of clients.entries()) {
      void client.vfio.closed.then((reason) => {
        this.#lost ??= `${controllers[index].socket}: the target hung up: ${reason}`;
      });
    }
  }

  /**
   * Runs the load once. Rejects if a command fails, data is not what was written (VerifyError), a target hangs up before anything is
   * measured, or completes nothing for half a minute.
   */
  async run(options: RunOptions): Promise<WorkloadResult> {
    const lanes = this.#lanes;
    if (options.warmup > 0) {
      for (const lane of lanes) lane.start(Number.POSITIVE_INFINITY);
      await this.#poll('warm-up', options.warmup, options);
    }
    options.onStart?.();
    for (const [index, lane] of lanes.entries()) {
      lane.clear();
      // The remainder goes to the first lanes.
      const share = Math.floor((options.commands + lanes.length - 1 - index) / lanes.length);
      lane.start(options.signal?.aborted ? 0 : share);
    }
    this.#readClock();
    const start = this.#time[0];
    let lost = await this.#untilLost('load', options.seconds, options);
    const seconds = (this.#time[0] - start) / 1e9;
    const totals = lanes.map((lane) => [...lane.totals]);
    for (const lane of lanes) lane.stop();
    lost ??= await this.#untilLost('load', Number.POSITIVE_INFINITY, {});
    const perSocket = lanes.length / this.controllers.length;
    const part = (from: number, to: number) => sum(lanes.slice(from, to), totals.slice(from, to));
    const all = part(0, lanes.length);
    const sockets = this.controllers.map((_, i) => part(i * perSocket, (i + 1) * perSocket));
    // What is read to verify the rest is not measured.
    if (lost === undefined) {
      for (const lane of lanes) lane.sweep();
      lost = await this.#untilLost('verify', Number.POSITIVE_INFINITY, options);
    }
    const verified = this.#verifiers.reduce((count, { checked }) => count + checked, 0);
    return { seconds, ...all, sockets, verified, lost };
  }

  /** Polls. Resolves with the reason if a target hangs up meanwhile. */
  async #untilLost(
    phase: Progress['phase'],
    seconds: number,
    options: Pick<RunOptions, 'onProgress' | 'signal'>,
  ): Promise<string | undefined> {
    try {
      await this.#poll(phase, seconds, options);
      return undefined;
    } catch (error) {
      if (!(error instanceof LostTarget)) {
        throw error;
      }
      return error.message;
    }
  }

  /** Hangs up. */
  close(): void {
    for (const client of this.#clients) client.close();
    for (const buffers of this.#buffers) buffers.close();
  }

  #total(index: number): number {
    return this.#lanes.reduce((sum, { totals }) => sum + totals[index], 0);
  }

  /** Polls for so many seconds, or until all lanes have finished. The clock is as it was at the end. */
  async #poll(
    phase: Progress['phase'],
    seconds: number,
    { onProgress, signal }: Pick<RunOptions, 'onProgress' | 'signal'>,
  ): Promise<void> {
    this.#readClock();
    const start = this.#time[0];
    const end = start + seconds * 1e9;
    let seen = this.#total(0) + this.#total(1);
    let last = start;
    let lastProgress = start;
    for (;;) {
      const finished = this.#slice(Math.min(end, this.#time[0] + SLICE_NS));
      const now = this.#time[0];
      if (finished || now >= end || signal?.aborted) {
        return;
      }
      const total = this.#total(0) + this.#total(1);
      if (total > seen) {
        lastProgress = now;
      } else if (now - lastProgress > PATIENCE_NS) {
        throw new Error(`no command has completed for ${PATIENCE_NS / 1e9} s`);
      }
      const iops = (total - seen) / ((now - last) / 1e9);
      onProgress?.({ phase, done: (now - start) / (end - start), iops });
      seen = total;
      last = now;
      await eventLoop();
      if (this.#lost !== undefined) {
        throw new LostTarget(this.#lost);
      }
      for (const lane of this.#lanes) lane.pause();
    }
  }

  /** Hot. Turns the lanes until a time; true if all of them have finished before. */
  #slice(end: number): boolean {
    const lanes = this.#lanes;
    const time = this.#time;
    for (let rounds = 1; ; rounds++) {
      let done = 0;
      for (let i = 0; i < lanes.length; i++) {
        done += lanes[i].turn();
      }
      if (rounds % ROUNDS_PER_CLOCK === 0) {
        this.#readClock();
        if (done === 0 && this.#finished()) {
          return true;
        }
      }
      if (time[0] >= end) {
        return false;
      }
    }
  }

  #finished(): boolean {
    for (let i = 0; i < this.#lanes.length; i++) {
      if (!this.#lanes[i].finished) {
        return false;
      }
    }
    return true;
  }
}

/** What lanes did together; `totals`: reads and writes that each had completed when the measurement ended. */
function sum(lanes: readonly Lane[], totals: readonly (readonly number[])[]): WorkloadPart {
  const [readLatencies, writeLatencies] = [new Latencies(), new Latencies()];
  for (const lane of lanes) {
    readLatencies.add(lane.readLatencies);
    writeLatencies.add(lane.writeLatencies);
  }
  const count = (index: number) => totals.reduce((all, each) => all + each[index], 0);
  return { reads: count(0), writes: count(1), readLatencies, writeLatencies };
}

/** What a lane uses of the namespaces: all of it; or, if data is verified, a part that no other lane touches. */
function laneRanges(
  namespaces: readonly WorkloadNamespace[],
  options: WorkloadOptions,
  lane: number,
): LaneRange[] {
  const { blockSize, size, verify, queuePairs, sockets } = options;
  const lanes = sockets.length * queuePairs;
  return namespaces.map(({ nsid, lbas, lbaBytes }) => {
    const lbasPerCommand = blockSize / lbaBytes;
    const all = Math.floor((size === 0 ? lbas * lbaBytes : size) / blockSize);
    if (!verify) {
      const start = Math.floor((all * lane) / lanes);
      return { nsid, lbasPerCommand, firstLba: 0, places: all, start };
    }
    const places = Math.floor(all / lanes);
    if (places <= options.depth) {
      const room = `${all} blocks of ${blockSize} bytes in namespace ${nsid}`;
      throw new Error(`${room} are too few to verify ${lanes} × ${options.depth} commands at once`);
    }
    const firstLba = places * lane * lbasPerCommand;
    return { nsid, lbasPerCommand, firstLba, places, start: 0 };
  });
}

function makeVerifier(
  ranges: readonly LaneRange[],
  namespaces: readonly WorkloadNamespace[],
  { verify, seed }: WorkloadOptions,
): Verifier | undefined {
  if (!verify) {
    return undefined;
  }
  const places = ranges.reduce((sum, range) => sum + range.places, 0);
  if (places > MAX_VERIFIED_PLACES) {
    throw new Error(`${places} blocks are too many to verify: give a smaller size`);
  }
  return new Verifier(
    seed,
    ranges.map((range, i) => ({
      ...range,
      lbas: range.lbasPerCommand,
      lbaBytes: namespaces[i].lbaBytes,
    })),
  );
}
