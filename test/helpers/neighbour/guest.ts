/**
 * The neighbour in a process of its own, so that a troublemaker's processor time is not its: a VM with a RAM disk and a file, each on a
 * queue pair, which verifies its data and times its commands, and asks its admin queue and registers something all the while.
 *
 * Argument: `GuestOptions` as JSON. Messages: `GuestRequest` from the parent, `GuestReply` to it.
 */
import { setImmediate as eventLoop, setTimeout as sleep } from 'node:timers/promises';
import { Latencies } from '../../../src/client/latencies.ts';
import { NvmeClient } from '../../../src/client/nvme.ts';
import { native } from '../../../src/native/index.ts';
import { NvmOpcode } from '../../../src/spec/nvm.ts';
import { Register } from '../../../src/spec/registers.ts';
import { NeighbourLoad } from './load.ts';

export interface GuestOptions {
  readonly socket: string;
  /** The doorbells are trapped: shadow doorbells are used, as Linux does. */
  readonly shadow: boolean;
  /** Pages of each disk. */
  readonly pages: number;
  readonly depth: number;
  /**
   * Polls without a pause, bound to the first processor, so that latencies are the target's; else it sleeps when there is nothing, to leave
   * the processor to others.
   */
  readonly polls: boolean;
}

/** What it does, each of which has to go on. */
export const ACTIVITIES = [
  'RAM reads',
  'RAM writes',
  'RAM flushes',
  'file reads',
  'file writes',
  'file flushes',
  'admin commands',
] as const;

export interface Percentiles {
  readonly count: number;
  /** Microseconds. */
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

/** Since the last lap. */
export interface Lap {
  readonly seconds: number;
  readonly commands: number;
  readonly reads: Percentiles;
  readonly writes: Percentiles;
  readonly flushes: Percentiles;
  /** Reads and writes. */
  readonly transfers: Percentiles;
}

export type GuestRequest =
  /** Replied to when each activity has been done so many times more. */
  | { readonly id: number; readonly kind: 'advance'; readonly count: number }
  | { readonly id: number; readonly kind: 'counts' }
  | { readonly id: number; readonly kind: 'lap' }
  | { readonly id: number; readonly kind: 'finish' };

export type GuestReply =
  | { readonly kind: 'ready' }
  | { readonly kind: 'failed'; readonly reason: string }
  | { readonly kind: 'reply'; readonly id: number; readonly value: unknown };

const ADMIN_PAUSE_MS = 5;
/** Turns between two looks at the messages. */
const TURNS = 256;

class Guest {
  readonly #client: NvmeClient;
  readonly #loads: readonly NeighbourLoad[];
  readonly #polls: boolean;
  #admin = 0;
  #ending = false;
  #lapStart = performance.now();
  #waiting: { readonly id: number; readonly goals: readonly number[] }[] = [];

  static async connect({ socket, shadow, pages, depth, polls }: GuestOptions): Promise<Guest> {
    if (polls) {
      native.setAffinity(native.getAffinity().slice(0, 1));
    }
    const client = await NvmeClient.connect(socket, {
      memoryBytes: 4 * 1024 * 1024,
      ...(shadow && { shadowDoorbells: true }),
    });
    const loads: NeighbourLoad[] = [];
    for (const nsid of [1, 2]) {
      const pair = await client.createQueuePair(nsid, depth + 1);
      const seed = Date.now() + nsid;
      loads.push(new NeighbourLoad({ client, pair, nsid, pages, depth, seed }));
    }
    return new Guest(client, loads, polls);
  }

  private constructor(client: NvmeClient, loads: readonly NeighbourLoad[], polls: boolean) {
    this.#client = client;
    this.#loads = loads;
    this.#polls = polls;
  }

  /** In the order of `ACTIVITIES`. */
  counts(): number[] {
    const { READ, WRITE, FLUSH } = NvmOpcode;
    const io = this.#loads.flatMap(({ done }) => [done[READ], done[WRITE], done[FLUSH]]);
    return [...io, this.#admin];
  }

  async run(): Promise<void> {
    const admin = this.#administrate();
    while (!this.#ending || this.#loads.some(({ finished }) => !finished)) {
      let done = 0;
      for (let i = 0; i < (this.#polls ? TURNS : 1); i++) {
        for (const load of this.#loads) {
          done += load.turn();
        }
      }
      this.#wake();
      await (done === 0 && !this.#polls ? sleep(1) : eventLoop());
    }
    await admin;
    this.#client.close();
  }

  async #administrate(): Promise<void> {
    while (!this.#ending) {
      const { vid } = await this.#client.identifyController();
      const csts = await this.#client.readRegister(Register.offset.csts);
      if (vid === 0 || (csts & 3) !== 1) {
        throw new Error(`VID ${vid}, CSTS ${csts}`);
      }
      this.#admin += 1;
      await sleep(ADMIN_PAUSE_MS);
    }
  }

  answer(request: GuestRequest): void {
    switch (request.kind) {
      case 'advance': {
        const goals = this.counts().map((count) => count + request.count);
        this.#waiting.push({ id: request.id, goals });
        break;
      }
      case 'counts':
        reply(request.id, this.counts());
        break;
      case 'lap':
        reply(request.id, this.#lap());
        break;
      case 'finish':
        this.#ending = true;
        for (const load of this.#loads) {
          load.sweep();
        }
        this.#waiting.push({ id: request.id, goals: [] });
        break;
    }
  }

  #wake(): void {
    const counts = this.counts();
    this.#waiting = this.#waiting.filter(({ id, goals }) => {
      const last = goals.length === 0;
      const reached = last
        ? this.#loads.every(({ finished }) => finished)
        : goals.every((goal, i) => counts[i] >= goal);
      if (reached) {
        const checked = this.#loads.reduce((sum, load) => sum + load.checked, 0);
        reply(id, last ? checked : counts);
      }
      return !reached;
    });
  }

  #lap(): Lap {
    const now = performance.now();
    const seconds = (now - this.#lapStart) / 1000;
    this.#lapStart = now;
    const { READ, WRITE, FLUSH } = NvmOpcode;
    const of = (...opcodes: readonly number[]): Percentiles => {
      const sum = new Latencies();
      for (const { latencies } of this.#loads) {
        for (const opcode of opcodes) {
          sum.add(latencies[opcode]);
        }
      }
      return percentiles(sum);
    };
    const all = of(READ, WRITE, FLUSH);
    const lap = {
      seconds,
      commands: all.count,
      reads: of(READ),
      writes: of(WRITE),
      flushes: of(FLUSH),
      transfers: of(READ, WRITE),
    };
    for (const { latencies } of this.#loads) {
      for (const histogram of latencies) {
        histogram.clear();
      }
    }
    return lap;
  }
}

/** To the upper bound of a bucket. */
function percentiles(latencies: Latencies): Percentiles {
  const { count, max } = latencies;
  const at = (share: number): number => {
    let seen = 0;
    for (const bucket of latencies.buckets()) {
      seen += bucket.count;
      if (seen >= share * count) {
        return Math.min(bucket.to, max) / 1000;
      }
    }
    return 0;
  };
  return { count, p50: at(0.5), p99: at(0.99), p999: at(0.999), max: max / 1000 };
}

const tell = (message: GuestReply): void => {
  process.send?.(message);
};
const reply = (id: number, value: unknown): void => tell({ kind: 'reply', id, value });

const [options] = process.argv.slice(2);
if (options !== undefined && process.send !== undefined) {
  process.once('disconnect', () => process.exit(1));
  try {
    const guest = await Guest.connect(JSON.parse(options));
    process.on('message', (request: GuestRequest) => guest.answer(request));
    tell({ kind: 'ready' });
    await guest.run();
    process.disconnect();
  } catch (error) {
    tell({ kind: 'failed', reason: (error as Error).stack ?? String(error) });
    process.exitCode = 1;
    process.removeAllListeners('message');
    process.removeAllListeners('disconnect');
    process.disconnect();
    setTimeout(() => process.exit(1), 100);
  }
}
