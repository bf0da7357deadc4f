/**
 * A guest that keeps a queue pair busy with writes and reads of its own blocks, turn by turn on the event loop, and checks everything: each
 * command completes once and with success, and each read finds what was written last.
 */
import assert from 'node:assert/strict';
import type { NvmeClient } from '../../src/client/nvme.ts';
import type { QueuePair } from '../../src/client/queue-pair.ts';
import { NvmOpcode } from '../../src/spec/nvm.ts';
import type { Random } from './random.ts';

const { READ, WRITE } = NvmOpcode;
const PAGE = 4096;
const WORDS = PAGE / 4;
const LBAS = PAGE / 512;

export interface VerifiedLoadOptions {
  readonly client: NvmeClient;
  readonly pair: QueuePair;
  readonly random: Random;
  /** Commands in flight at most; below the entries of the queue. */
  readonly depth: number;
  /** Pages on the disk that are this load's alone. */
  readonly firstPage: number;
  readonly pages: number;
  /** Completions are taken when an interrupt comes, and never otherwise. */
  readonly interrupts: boolean;
}

export class VerifiedLoad {
  readonly #options: VerifiedLoadOptions;
  readonly #buffers: Int32Array[] = [];
  readonly #freeCids: number[] = [];
  /** Version of each page on the disk, 0: never written. */
  readonly #versions: Int32Array;
  /** Pages that no command is about. */
  readonly #freePages: number[];
  /** By command id: the page and version it is about, or undefined if there is no such command. */
  readonly #commands: ({ opcode: number; page: number; version: number } | undefined)[];
  #version = 0;
  #closing = false;
  reads = 0;
  writes = 0;

  constructor(options: VerifiedLoadOptions) {
    const { client, pair, depth, pages } = options;
    this.#options = options;
    this.#versions = new Int32Array(pages);
    this.#freePages = Array.from({ length: pages }, (_, page) => page);
    this.#commands = new Array(depth).fill(undefined);
    for (let cid = 0; cid < depth; cid++) {
      const offset = client.memory.allocate(PAGE);
      this.#buffers.push(new Int32Array(client.memory.buffer, offset, WORDS));
      pair.setBuffer(cid, client.memory.iova + offset, 0);
      this.#freeCids.push(cid);
    }
    if (options.interrupts) {
      pair.onInterrupt = () => this.#reap();
    }
  }

  get inflight(): number {
    return this.#options.pair.inflight;
  }

  /** Submits some commands, or none, and takes completions. */
  turn(): void {
    const { pair, random, depth, interrupts } = this.#options;
    if (!interrupts) {
      this.#reap();
    }
    const room = this.#closing ? 0 : depth - pair.inflight;
    const count = room > 0 ? random.below(room + 1) : 0;
    for (let i = 0; i < count; i++) {
      this.#submit();
    }
    if (count > 0) {
      pair.ring();
    }
  }

  /** No more commands; resolves when all have completed. */
  async finish(turn: () => Promise<void>): Promise<void> {
    this.#closing = true;
    while (this.inflight > 0) {
      this.turn();
      await turn();
    }
  }

  #submit(): void {
    const { pair, random, firstPage } = this.#options;
    const cid = this.#freeCids.pop()!;
    const at = random.below(this.#freePages.length);
    const page = this.#freePages[at];
    this.#freePages[at] = this.#freePages.at(-1)!;
    this.#freePages.pop();
    const isRead = this.#versions[page] > 0 && random.below(2) === 0;
    const version = isRead ? this.#versions[page] : ++this.#version;
    const buffer = this.#buffers[cid];
    if (isRead) {
      buffer.fill(-1);
    } else {
      fill(buffer, firstPage + page, version);
    }
    const opcode = isRead ? READ : WRITE;
    this.#commands[cid] = { opcode, page, version };
    pair.push(cid, opcode, 1, (firstPage + page) * LBAS, LBAS - 1);
  }

  #reap(): void {
    const { pair, firstPage } = this.#options;
    const done = pair.poll();
    for (let i = 0; i < done; i++) {
      const cid = pair.doneIds[i];
      const command = this.#commands[cid];
      assert.ok(command, `command ${cid} completed and was not in flight`);
      assert.equal(pair.doneStatus[i], 0);
      this.#commands[cid] = undefined;
      if (command.opcode === READ) {
        this.reads += 1;
        check(this.#buffers[cid], firstPage + command.page, command.version);
      } else {
        this.writes += 1;
        this.#versions[command.page] = command.version;
      }
      this.#freePages.push(command.page);
      this.#freeCids.push(cid);
    }
  }
}

/** Words that no other page, version or place in the page has. */
function word(page: number, version: number, index: number): number {
  return Math.imul(page, 0x9e37_79b1) ^ Math.imul(version, 0x85eb_ca6b) ^ index;
}

function fill(buffer: Int32Array, page: number, version: number): void {
  for (let i = 0; i < WORDS; i++) {
    buffer[i] = word(page, version, i);
  }
}

function check(buffer: Int32Array, page: number, version: number): void {
  for (let i = 0; i < WORDS; i++) {
    if (buffer[i] !== word(page, version, i)) {
      assert.fail(`page ${page}, version ${version}: word ${i} is ${buffer[i]}`);
    }
  }
}
