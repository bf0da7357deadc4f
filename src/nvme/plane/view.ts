/** Controllers, namespaces and queues as the NVMe plane of a reactor has them. */

import { PENDING } from '../../bdev/backend.ts';
import type { Counters } from '../../bdev/counters.ts';
import type { Limiter } from '../../bdev/limiter.ts';
import type { Op } from '../../bdev/op.ts';
import type { BdevChannel } from '../../bdev/requests/channel.ts';
import { Owner, type RequestQueue } from '../../bdev/requests/owner.ts';
import { Share } from '../../bdev/requests/share.ts';
import { Result } from '../../bdev/result.ts';
import { GuestMemory } from '../../memory/guest.ts';
import type { System } from '../../native/system.ts';
import { Status } from '../../spec/nvme.ts';
import type { Access } from '../namespace-state.ts';
import type { SubmissionQueue } from '../queue.ts';
import type { IoFailure } from './failure.ts';
import { statusOf } from './status.ts';

export interface NamespaceGeometry {
  readonly nsid: number;
  /** Bytes. */
  readonly blockSize: number;
  readonly numBlocks: number;
}

/** A namespace of one controller. */
export class IoNamespace extends Share {
  readonly nsid: number;
  readonly blockShift: number;
  numBlocks: number;
  readonly: boolean;
  /** See Access. `readonly` is that `writeStatus` is one of refusal. */
  readStatus: number;
  writeStatus: number;
  readonly #controller: IoController;

  constructor(
    geometry: NamespaceGeometry,
    controller: IoController,
    channel: BdevChannel,
    counters: Counters,
    limiter: Limiter | undefined,
    access: Access,
  ) {
    super(controller, channel, counters, limiter);
    this.#controller = controller;
    this.nsid = geometry.nsid;
    this.blockShift = Math.log2(geometry.blockSize);
    this.numBlocks = geometry.numBlocks;
    this.readStatus = access.read;
    this.writeStatus = access.write;
    this.readonly = access.write !== Status.SUCCESS;
  }

  override failed(op: Op, errno: number, offset: number, count: number, result: number): void {
    const { nsid, blockShift } = this;
    const lba = Math.floor(offset / 2 ** blockShift);
    const status = statusOf(result === PENDING ? Result.FAILED : result);
    this.#controller.failed({ nsid, op, errno, status, lba, count });
  }

  override countError(result: number): void {
    this.counters.fail(statusOf(result));
  }
}

export interface ControllerOptions {
  readonly id: number;
  readonly system: System;
  /** Largest transfer of a command. Bytes. */
  readonly maxTransferBytes: number;
  readonly writeThrough: boolean;
  readonly copyFormats: number;
  /** Of commands that were refused before a namespace was asked. */
  readonly counters: Counters;
  /** Told of errors that a disk reports. */
  readonly failed: (failure: IoFailure) => void;
}

export class IoController extends Owner {
  readonly memory: GuestMemory;
  /** By NSID; see `access.ts`. */
  readonly barred = new Map<number, IoNamespace>();
  /** By NSID − 1. */
  readonly namespaces: (IoNamespace | undefined)[] = [];
  readonly maxTransferBytes: number;
  /** Formats of source ranges that Copy takes: a bit each. */
  copyFormats: number;
  /** The host turned the volatile write cache off: each write is made durable. */
  writeThrough: boolean;
  readonly counters: Counters;
  readonly failed: (failure: IoFailure) => void;
  /** Commands that this reactor does not carry out itself: PENDING, BUSY or an NVMe status. */
  forward: (queue: IoQueue, words: Int32Array, base: number) => number = () =>
    Status.INVALID_OPCODE;

  constructor(options: ControllerOptions) {
    const { id, system, maxTransferBytes, writeThrough, copyFormats, counters, failed } = options;
    super(id);
    this.memory = new GuestMemory(system);
    this.maxTransferBytes = maxTransferBytes;
    this.writeThrough = writeThrough;
    this.copyFormats = copyFormats;
    this.counters = counters;
    this.failed = failed;
  }
}

/** What carries out the commands of queues. */
export interface CommandEngine {
  resume(queue: IoQueue, sqes: Int32Array, base: number): void;
  completed(queue: IoQueue, cid: number, result: number): void;
}

/** A submission queue and the controller it belongs to. */
export class IoQueue implements RequestQueue {
  readonly sq: SubmissionQueue;
  readonly controller: IoController;
  readonly #engine: CommandEngine;
  /** No command is taken any more: it is about to go. */
  closing = false;

  constructor(sq: SubmissionQueue, controller: IoController, engine: CommandEngine) {
    this.sq = sq;
    this.controller = controller;
    this.#engine = engine;
  }

  get owner(): IoController {
    return this.controller;
  }

  get line(): IoQueue {
    return this;
  }

  get discarded(): boolean {
    return this.sq.discarded;
  }

  get stopped(): boolean {
    return this.sq.stopped;
  }

  reserve(): void {
    this.sq.cq.reserve();
  }

  unreserve(): void {
    this.sq.cq.unreserve();
  }

  completed(cid: number, result: number): void {
    this.#engine.completed(this, cid, result);
  }

  resume(words: Int32Array, base: number): void {
    this.#engine.resume(this, words, base);
  }
}
