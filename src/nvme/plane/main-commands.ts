/**
 * I/O commands that main carries out: passed on with what their hosts send, completed with what main answers. Rare, few at a time, and of a
 * bounded number. Owned by one reactor.
 */
import { PENDING } from '../../bdev/backend.ts';
import type { BackendContext } from '../../bdev/context.ts';
import { BUSY } from '../../bdev/requests/waiting.ts';
import { protocolResult, Result } from '../../bdev/result.ts';
import { COMMAND_WORDS } from '../../limits.ts';
import { Sqe, Status } from '../../spec/nvme.ts';
import { FORWARDED } from '../forwarded.ts';
import { mapPrps } from '../prp.ts';
import { findNamespace } from './access.ts';
import type { NvmeEvent } from './messages.ts';
import { statusOf } from './status.ts';
import type { IoController, IoQueue } from './view.ts';

const CDW0 = Sqe.word('cdw0');
const NSID = Sqe.word('nsid');
const PRP1 = Sqe.word('prp1');
const PRP2 = Sqe.word('prp2');
/** Of one controller, with main or answered and held, at a time. The next waits in its queue. */
const MAX_FORWARDED = 16;
/** Data of one. Bytes. */
const MAX_BYTES = 8192;

interface Answer {
  readonly status: number;
  readonly data: Uint8Array | undefined;
}

interface Forwarded {
  readonly queue: IoQueue;
  readonly words: Int32Array;
  /** It came while memory of its queues was unmapped, and waits for that. */
  held: Answer | undefined;
}

export class MainCommands {
  readonly #owner: IoController;
  readonly #context: BackendContext;
  readonly #tell: (event: NvmeEvent) => void;
  readonly #forwarded = new Map<number, Forwarded>();
  #nextId = 0;
  #buffer: { readonly bytes: Uint8Array; readonly address: Float64Array } | undefined;

  constructor(owner: IoController, context: BackendContext, tell: (event: NvmeEvent) => void) {
    this.#owner = owner;
    this.#context = context;
    this.#tell = tell;
  }

  /** PENDING, BUSY or an NVMe status. */
  forward(queue: IoQueue, words: Int32Array, base: number): number {
    const copy = words.slice(base, base + COMMAND_WORDS);
    const command = FORWARDED.get(copy[CDW0] & 0xff);
    if (command === undefined) {
      return Status.INVALID_OPCODE;
    }
    if (this.#forwarded.size >= MAX_FORWARDED) {
      return BUSY;
    }
    const data = new Uint8Array(command.fromHost);
    const status = command.fromHost === 0 ? Status.SUCCESS : this.#move(copy, data, false);
    if (status !== Status.SUCCESS) {
      return status;
    }
    const id = this.#nextId;
    this.#nextId = (id + 1) % 0x8000_0000;
    this.#forwarded.set(id, { queue, words: copy, held: undefined });
    queue.reserve();
    const { qid, generation } = queue.sq;
    const controller = this.#owner.id;
    this.#tell({ kind: 'command', controller, id, qid, generation, words: copy, data });
    return PENDING;
  }

  /** Main has carried it out. Nothing is left of it if its queue went meanwhile. */
  answered(id: number, status: number, data: Uint8Array | undefined): void {
    const forwarded = this.#forwarded.get(id);
    if (forwarded?.queue.stopped) {
      forwarded.held = { status, data };
    } else if (forwarded !== undefined) {
      this.#complete(id, forwarded, { status, data });
    }
  }

  /** Memory has come: what was answered without it completes. */
  lookAgain(): void {
    for (const [id, forwarded] of this.#forwarded) {
      const { held, queue } = forwarded;
      if (held !== undefined && !queue.stopped) {
        this.#complete(id, forwarded, held);
      }
    }
  }

  /**
   * A queue goes, or all do: what main answers later is not for them. Commands complete with `result` as far as somebody is to see it: their
   * queue is not discarded, and its memory is there.
   */
  forget(gone: IoQueue | undefined, result: number): void {
    for (const [id, { queue, words }] of this.#forwarded) {
      if (gone === undefined || queue === gone) {
        this.#forwarded.delete(id);
        queue.unreserve();
        if (!queue.discarded && !queue.stopped) {
          this.#owner.counters.fail(statusOf(result));
          queue.completed(words[CDW0] >>> 16, result);
        }
      }
    }
  }

  #complete(id: number, { queue, words }: Forwarded, { status, data }: Answer): void {
    this.#forwarded.delete(id);
    queue.unreserve();
    const moved = status === Status.SUCCESS && data !== undefined;
    const end = moved ? this.#move(words, data.subarray(0, MAX_BYTES), true) : status;
    if (end !== Status.SUCCESS) {
      (findNamespace(this.#owner, words[NSID]) ?? this.#owner).counters.fail(end);
    }
    queue.completed(words[CDW0] >>> 16, end === Status.SUCCESS ? Result.OK : protocolResult(end));
  }

  /** Copies data from or to the buffer of a command. A status. */
  #move(words: Int32Array, data: Uint8Array, toHost: boolean): number {
    const { copies, request, system } = this.#context;
    const { segments } = request;
    if (this.#buffer === undefined) {
      const bytes = new Uint8Array(system.mapAnonymous(MAX_BYTES));
      this.#buffer = { bytes, address: Float64Array.of(system.addressOf(bytes)) };
    }
    const { bytes, address } = this.#buffer;
    const mapped = mapPrps(
      this.#owner.memory,
      words[PRP1],
      words[PRP1 + 1],
      words[PRP2],
      words[PRP2 + 1],
      data.length,
      toHost,
      segments,
    );
    if (mapped !== Status.SUCCESS) {
      return mapped;
    }
    if (toHost) {
      bytes.set(data);
    }
    let done = 0;
    for (let i = 0; i < segments.count; i++) {
      if (toHost) {
        copies.push(segments.address, i, 0, address, 0, done, segments.length[i]);
      } else {
        copies.push(address, 0, done, segments.address, i, 0, segments.length[i]);
      }
      done += segments.length[i];
    }
    copies.flush();
    segments.count = 0;
    if (!toHost) {
      data.set(bytes.subarray(0, data.length));
    }
    return Status.SUCCESS;
  }
}
