/**
 * A Flush of all namespaces of a controller (NSID FFFFFFFFh; NVMe Base 2.0 §7.1): one of each, and one completion when the last has ended.
 * Each waits and is left behind as any request of its queue.
 */
import { PENDING } from '../../bdev/backend.ts';
import { Op } from '../../bdev/op.ts';
import type { Requests } from '../../bdev/requests/layer.ts';
import { BUSY } from '../../bdev/requests/waiting.ts';
import { protocolResult, Result } from '../../bdev/result.ts';
import { Status } from '../../spec/nvme.ts';
import { type CommandEngine, type IoNamespace, IoQueue } from './view.ts';

/** Rare: made for each such command. */
export class FlushAll {
  readonly queue: IoQueue;
  readonly engine: CommandEngine;
  readonly #requests: Requests;
  readonly #cid: number;
  /** Parts that keep room for the one completion. */
  #reserved = 0;
  /** Parts that have not ended; and one while they are being begun. */
  #left = 1;
  #result: number = Result.OK;

  constructor(queue: IoQueue, engine: CommandEngine, requests: Requests, cid: number) {
    this.queue = queue;
    this.engine = engine;
    this.#requests = requests;
    this.#cid = cid;
  }

  /** Returns a Result, or PENDING. `words`: the command, at `base`. */
  begin(words: Int32Array, base: number): number {
    const { namespaces, barred } = this.queue.controller;
    for (const namespace of namespaces) {
      if (namespace?.writeStatus === Status.RESERVATION_CONFLICT) {
        this.#fail(Status.RESERVATION_CONFLICT);
      } else if (namespace !== undefined) {
        this.#left += 1;
        this.go(new FlushPart(this, namespace), words, base, false);
      }
    }
    for (const { readStatus } of barred.values()) {
      this.#fail(readStatus);
    }
    this.#left -= 1;
    return this.#left === 0 ? this.#result : PENDING;
  }

  /** Starts a part, or has it go on. */
  go(part: FlushPart, words: Int32Array, base: number, resumed: boolean): void {
    const { namespace } = part;
    const cid = this.#cid;
    const result = this.#requests.submitSlowly(
      part,
      namespace,
      Op.FLUSH,
      cid,
      words,
      base,
      resumed,
    );
    if (result === PENDING) {
      return;
    }
    const outcome = result === BUSY ? Result.NOT_READY : result;
    if (outcome !== Result.OK) {
      namespace.countError(outcome);
    }
    this.#end(outcome);
    if (resumed) {
      this.#complete();
    }
  }

  /** A namespace that this host may not flush now. */
  #fail(status: number): void {
    this.#left += 1;
    this.#end(protocolResult(status));
  }

  #end(result: number): void {
    this.#left -= 1;
    // A namespace that goes meanwhile is none of those that are there.
    if (this.#result === Result.OK && result !== Result.BDEV_GONE) {
      this.#result = result;
    }
  }

  ended(result: number): void {
    this.#end(result);
    this.#complete();
  }

  #complete(): void {
    if (this.#left === 0) {
      this.engine.completed(this.queue, this.#cid, this.#result);
    }
  }

  reserve(): void {
    if (this.#reserved === 0) {
      this.queue.reserve();
    }
    this.#reserved += 1;
  }

  unreserve(): void {
    this.#reserved -= 1;
    if (this.#reserved === 0) {
      this.queue.unreserve();
    }
  }
}

/** The Flush of one of the namespaces, to the request layer a queue of its own. */
class FlushPart extends IoQueue {
  readonly namespace: IoNamespace;
  readonly #all: FlushAll;

  constructor(all: FlushAll, namespace: IoNamespace) {
    super(all.queue.sq, all.queue.controller, all.engine);
    this.namespace = namespace;
    this.#all = all;
  }

  override get line(): IoQueue {
    return this.#all.queue;
  }

  override reserve(): void {
    this.#all.reserve();
  }

  override unreserve(): void {
    this.#all.unreserve();
  }

  override completed(_cid: number, result: number): void {
    this.#all.ended(result);
  }

  override resume(words: Int32Array, base: number): void {
    this.#all.go(this, words, base, true);
  }
}
