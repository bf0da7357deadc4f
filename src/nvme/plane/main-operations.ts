/**
 * What main has done to the namespaces of a controller: operations that go the way of commands, with a slot, a share and a turn, and whose
 * answers are messages. Owned by one reactor.
 */
import { PENDING } from '../../bdev/backend.ts';
import type { BackendContext } from '../../bdev/context.ts';
import { Op } from '../../bdev/op.ts';
import type { Requests } from '../../bdev/requests/layer.ts';
import type { RequestQueue } from '../../bdev/requests/owner.ts';
import { BUSY } from '../../bdev/requests/waiting.ts';
import { Result } from '../../bdev/result.ts';
import { COMMAND_WORDS } from '../../limits.ts';
import { findNamespace } from './access.ts';
import type { Operation } from './messages.ts';
import { statusOf } from './status.ts';
import type { IoController } from './view.ts';

/** Bytes that a write writes at most. */
export const MAX_PATTERN_BYTES = 1024 * 1024;
/** Command ids are 16 bits. */
const CIDS = 0x1_0000;

interface Wanted extends Operation {
  readonly id: number;
  readonly nsid: number;
}

export class MainOperations implements RequestQueue {
  readonly owner: IoController;
  readonly discarded = false;
  readonly stopped = false;
  readonly #context: BackendContext;
  readonly #requests: Requests;
  readonly #answer: (id: number, status: number) => void;
  readonly #wanted = new Map<number, Wanted>();
  #nextCid = 0;
  /** In place of a command: the request layer keeps it while it waits. The last word is its id. */
  readonly #words = new Int32Array(COMMAND_WORDS);
  #pattern: { readonly words: Int32Array; readonly address: number; value: number } | undefined;

  constructor(
    owner: IoController,
    context: BackendContext,
    requests: Requests,
    answer: (id: number, status: number) => void,
  ) {
    this.owner = owner;
    this.#context = context;
    this.#requests = requests;
    this.#answer = answer;
  }

  /** `id`: of the message, which is answered with the status that the operation ends with. */
  begin(id: number, nsid: number, operation: Operation): void {
    const cid = this.#nextCid;
    this.#nextCid = (cid + 1) % CIDS;
    this.#wanted.set(cid, { ...operation, id, nsid });
    this.#words[0] = cid;
    this.#submit(cid, this.#words, 0, false);
  }

  #submit(cid: number, words: Int32Array, base: number, resumed: boolean): void {
    const wanted = this.#wanted.get(cid);
    const namespace = wanted && findNamespace(this.owner, wanted.nsid);
    if (wanted === undefined || namespace === undefined) {
      this.completed(cid, Result.BDEV_GONE);
      return;
    }
    const { op, offset, length, deallocate = false } = wanted;
    if (offset + length > namespace.numBlocks * 2 ** namespace.blockShift) {
      this.completed(cid, Result.OUT_OF_RANGE);
      return;
    }
    const { request } = this.#context;
    const { segments, ranges } = request;
    segments.count = 0;
    request.offset[0] = offset;
    request.length = length;
    request.fua = false;
    request.deallocate = deallocate;
    if (op === Op.DISCARD) {
      request.length = 0;
      request.span[0] = length;
      ranges.count = 1;
      ranges.offset[0] = offset;
      ranges.length[0] = length;
    } else if (op === Op.WRITE) {
      segments.count = 1;
      segments.address[0] = this.#fill(wanted.pattern ?? 0);
      segments.length[0] = length;
    }
    const result = this.#requests.submitSlowly(this, namespace, op, cid, words, base, resumed);
    if (result === BUSY) {
      this.completed(cid, Result.NOT_READY);
    } else if (result !== PENDING) {
      this.#context.copies.flush();
      this.completed(cid, result);
    }
  }

  /** Host address of memory that is full of the pattern. No other pattern is in use at the time. */
  #fill(value: number): number {
    const { system } = this.#context;
    if (this.#pattern === undefined) {
      const words = new Int32Array(system.mapAnonymous(MAX_PATTERN_BYTES));
      this.#pattern = { words, address: system.addressOf(words), value: 0 };
    }
    const pattern = this.#pattern;
    if (pattern.value !== value) {
      pattern.words.fill(value);
      pattern.value = value;
    }
    return pattern.address;
  }

  get line(): this {
    return this;
  }

  // Its completions are messages, for which there is always room.
  reserve(): void {}

  unreserve(): void {}

  completed(cid: number, result: number): void {
    const wanted = this.#wanted.get(cid);
    this.#wanted.delete(cid);
    if (wanted !== undefined) {
      this.#answer(wanted.id, statusOf(result));
    }
  }

  resume(words: Int32Array, base: number): void {
    this.#submit(words[base], words, base, true);
  }
}
