/**
 * `npm run bench:turn`: what a command costs a reactor, on one processor. The reactor is run turn by turn in the thread that is its host as well: it
 * fills a submission queue, rings, has the reactor turn until everything is completed, and rings for the completions. So there is no other core
 * whose distance decides, as in `npm run bench`, and a change of a nanosecond shows. Options after `--`:
 *
 *   --rounds N         measurements of each load (15)
 *   --seconds S        of each (0.3)
 *
 * Prints nanoseconds a command: the median, and between which values half of the rounds lie; writes bench/results/turn.json.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MessageChannel } from 'node:worker_threads';
import type { BackendDescriptor } from '../src/bdev/bdev.ts';
import { makeBlockStates } from '../src/bdev/block-states.ts';
import { COUNTERS_BYTES } from '../src/bdev/counters.ts';
import type { MallocDescriptor } from '../src/bdev/create.ts';
import { makeStaleWrites } from '../src/bdev/requests/stale-writes.ts';
import { formatTable } from '../src/cli/table.ts';
import { DOORBELLS_BYTES, PAGE_SIZE } from '../src/limits.ts';
import { native } from '../src/native/index.ts';
import { NO_COALESCING } from '../src/nvme/features/coalescing.ts';
import { FULL_ACCESS } from '../src/nvme/namespace-state.ts';
import { type NvmeRequest, QUEUE_WORDS_BYTES } from '../src/nvme/plane/messages.ts';
import { NvmePlane } from '../src/nvme/plane/plane.ts';
import { inlineAcrossLayers } from '../src/reactor/compiler.ts';
import { CONTROL_BYTES, type Message, type ReactorTask, Word } from '../src/reactor/control.ts';
import { Reactor } from '../src/reactor/loop.ts';
import { realPlatform } from '../src/reactor/platform.ts';
import { NvmOpcode } from '../src/spec/nvm.ts';
import { CQE_SIZE, Cqe, SQE_SIZE, Sqe } from '../src/spec/nvme.ts';
import { describeMachine } from './machine.ts';
import { median, quantile } from './stats.ts';

const FOLDER = 'bench/results';
const ENTRIES = 1024;
const BLOCK_SIZE = 512;
const DISK_BYTES = 64 * 1024 * 1024;
/** Where the guest's memory begins for the device, and what lies where in it. */
const IOVA = 0x10_0000;
const SQ_AT = 0;
const CQ_AT = ENTRIES * SQE_SIZE;
const DATA_AT = CQ_AT + ENTRIES * CQE_SIZE;
/** Rounds of doorbell and turns between two looks at the clock. */
const BATCHES = 64;

interface TurnLoad {
  readonly name: string;
  readonly backend: BackendDescriptor;
  readonly depth: number;
  /** Bytes of a command: as many as two PRPs name, or a list of them. */
  readonly bytes: number;
}

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '15' },
    seconds: { type: 'string', default: '0.3' },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
if (!(Number.isInteger(rounds) && rounds > 0 && seconds > 0)) {
  throw new Error('--rounds and --seconds are numbers above 0');
}

/** A reactor with one controller of one queue pair, and the host of it. */
class Bench {
  readonly #load: TurnLoad;
  readonly #memory: SharedArrayBuffer;
  readonly #words: Int32Array;
  readonly #doorbells = new Int32Array(new SharedArrayBuffer(DOORBELLS_BYTES));
  readonly #reactor: Reactor;
  readonly #port: MessageChannel;
  #tail = 0;
  #head = 0;
  #phase = 1;

  constructor(load: TurnLoad) {
    this.#load = load;
    const pages = Math.ceil(load.bytes / PAGE_SIZE);
    this.#memory = native.mapAnonymous(DATA_AT + ENTRIES * (pages + 1) * PAGE_SIZE);
    this.#words = new Int32Array(this.#memory, 0, DATA_AT / 4);
    this.#fillQueue(pages);
    const control = new SharedArrayBuffer(CONTROL_BYTES);
    this.#port = new MessageChannel();
    const task: ReactorTask = {
      ...{ index: 0, cpu: undefined, workerCpus: native.getAffinity() },
      ...{ spinUs: 1_000_000, maxSleepUs: 1000, control },
      counters: new SharedArrayBuffer(COUNTERS_BYTES),
      wakeFd: native.eventfdCreate(),
      port: this.#port.port1,
    };
    this.#reactor = new Reactor(task, realPlatform(task), (parts) => new NvmePlane(parts));
    this.#reactor.start();
    const messages = this.#messages();
    for (const [id, message] of messages.entries()) {
      const posted: Message = { id, request: { kind: 'plane', message } };
      this.#port.port2.postMessage(posted);
    }
    Atomics.store(new Int32Array(control), Word.MESSAGES, messages.length);
    for (let turn = 0; turn < messages.length + 1; turn++) {
      this.#reactor.turn();
    }
  }

  #messages(): NvmeRequest[] {
    const controller = 0;
    const bdev = {
      ...{ generation: 1, index: 0, blockSize: BLOCK_SIZE, numBlocks: DISK_BYTES / BLOCK_SIZE },
      ...{ stale: makeStaleWrites(), blocks: makeBlockStates() },
      ...{ readonly: false, backend: this.#load.backend },
    };
    const region = { iova: IOVA, size: this.#memory.byteLength, buffer: this.#memory };
    return [
      {
        ...{ kind: 'attach', controller, trapped: false, shadow: undefined, socket: -1, row: 1 },
        doorbells: this.#doorbells.buffer as SharedArrayBuffer,
        ...{ maxTransferBytes: 1024 * 1024, writeThrough: false, copyFormats: 3 },
        ...{ coalescing: NO_COALESCING },
        namespaces: [{ nsid: 1, row: 0, limits: undefined, access: FULL_ACCESS, bdev }],
        progress: new SharedArrayBuffer(QUEUE_WORDS_BYTES),
      },
      { kind: 'map', controller, regions: [{ ...region, writable: true }] },
      {
        ...{ kind: 'create-cq', controller, qid: 1, size: ENTRIES, iova: IOVA + CQ_AT },
        ...{ interrupts: false, vector: 0, eventfd: -1, adaptive: false },
      },
      {
        kind: 'create-sq',
        controller,
        qid: 1,
        size: ENTRIES,
        iova: IOVA + SQ_AT,
        cqid: 1,
        generation: 1,
      },
    ];
  }

  /** A read in each entry, at places spread over the disk: entries are used again and again. */
  #fillQueue(pages: number): void {
    const blocks = this.#load.bytes / BLOCK_SIZE;
    const places = Math.floor(DISK_BYTES / this.#load.bytes);
    for (let entry = 0; entry < ENTRIES; entry++) {
      const view = new DataView(this.#memory, SQ_AT + entry * SQE_SIZE, SQE_SIZE);
      const data = DATA_AT + entry * (pages + 1) * PAGE_SIZE;
      const list = data + pages * PAGE_SIZE;
      const prps = new BigUint64Array(this.#memory, list, PAGE_SIZE / 8);
      for (let page = 1; page < pages; page++) {
        prps[page - 1] = BigInt(IOVA + data + page * PAGE_SIZE);
      }
      Sqe.write(view, 0, {
        cdw0: NvmOpcode.READ | (entry << 16),
        nsid: 1,
        prp1: IOVA + data,
        prp2: pages === 1 ? 0 : pages === 2 ? IOVA + data + PAGE_SIZE : IOVA + list,
        cdw10: ((entry * 7919) % places) * blocks,
        cdw12: blocks - 1,
      });
    }
  }

  /** Nanoseconds a command. */
  measure(seconds: number): number {
    const { depth } = this.#load;
    const end = performance.now() + seconds * 1000;
    const start = performance.now();
    let commands = 0;
    while (performance.now() < end) {
      for (let batch = 0; batch < BATCHES; batch++) {
        this.#batch(depth);
      }
      commands += BATCHES * depth;
    }
    return ((performance.now() - start) * 1e6) / commands;
  }

  #batch(depth: number): void {
    this.#tail = (this.#tail + depth) % ENTRIES;
    Atomics.store(this.#doorbells, 2, this.#tail);
    for (let left = depth; left > 0; ) {
      this.#reactor.turn();
      left -= this.#consume();
    }
    Atomics.store(this.#doorbells, 3, this.#head);
  }

  /** Completions that have come. */
  #consume(): number {
    const word = CQ_AT / 4 + Cqe.word('cid');
    let count = 0;
    for (;;) {
      const dw3 = Atomics.load(this.#words, word + this.#head * (CQE_SIZE / 4));
      if (((dw3 >>> 16) & 1) !== this.#phase) {
        return count;
      }
      if (dw3 >>> 17 !== 0) {
        throw new Error(`a command failed with status ${(dw3 >>> 17).toString(16)}h`);
      }
      count += 1;
      this.#head += 1;
      if (this.#head === ENTRIES) {
        this.#head = 0;
        this.#phase ^= 1;
      }
    }
  }

  close(): void {
    this.#port.port1.close();
  }
}

function ram(): MallocDescriptor {
  const memory = native.mapAnonymous(DISK_BYTES, true);
  // Memory that was never written is one page of zeros.
  new Uint8Array(memory).fill(0x5a);
  return { kind: 'malloc', memory };
}

const LOADS: readonly TurnLoad[] = [
  { name: 'null-read-4k-1', backend: { kind: 'null' }, depth: 1, bytes: 4096 },
  { name: 'null-read-4k-32', backend: { kind: 'null' }, depth: 32, bytes: 4096 },
  { name: 'null-read-128k-32', backend: { kind: 'null' }, depth: 32, bytes: 131072 },
  { name: 'ram-read-4k-32', backend: ram(), depth: 32, bytes: 4096 },
];
inlineAcrossLayers();
const results = LOADS.map((load) => {
  const bench = new Bench(load);
  // The compiler's turn.
  bench.measure(Math.max(0.5, seconds));
  const ns = Array.from({ length: rounds }, () => bench.measure(seconds));
  bench.close();
  return { name: load.name, ns };
});
const rows = results.map(({ name, ns }) => [
  name,
  median(ns).toFixed(1),
  `${quantile(ns, 0.25).toFixed(1)} to ${quantile(ns, 0.75).toFixed(1)}`,
]);
const titles = ['load', 'ns a command', 'half of the rounds'];
const columns = titles.map((title, i) => ({ title, align: i === 0 ? 'left' : 'right' }) as const);
process.stdout.write(`${formatTable(columns, rows).join('\n')}\n`);
mkdirSync(FOLDER, { recursive: true });
const file = { machine: describeMachine(), rounds, seconds, results };
writeFileSync(join(FOLDER, 'turn.json'), `${JSON.stringify(file, undefined, 2)}\n`);
process.exit();
