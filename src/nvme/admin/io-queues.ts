/**
 * Commands that create and delete I/O queues: which there are, what may be made and deleted, and in which order. NVMe Base 2.0 §5.4 to §5.7.
 * Owned by main; the queues live in reactors, which the commands wait for.
 */
import { PAGE_SIZE } from '../../limits.ts';
import { CreateIoCq, CreateIoSq, DeleteIoCq, DeleteIoSq } from '../../spec/admin.ts';
import type { Parsed } from '../../spec/command.ts';
import { Status } from '../../spec/nvme.ts';

import type { ControllerConfig, ControllerHost } from '../host.ts';
import { type AdminCommand, adminCommand, done } from './command.ts';
import { AdminOrder, cqKey, sqKey } from './order.ts';

/** A command that creates a queue. `iova`: PRP1. */
type CqCommand = Parsed<typeof CreateIoCq> & { readonly iova: number };
type SqCommand = Parsed<typeof CreateIoSq> & { readonly iova: number };

export const QUEUE_COMMANDS: readonly AdminCommand[] = [
  adminCommand(CreateIoCq, async (cq, { queues }, { prp1 }) =>
    done(await queues.createCq({ ...cq, iova: prp1 })),
  ),
  adminCommand(CreateIoSq, async (sq, { queues }, { prp1 }) =>
    done(await queues.createSq({ ...sq, iova: prp1 })),
  ),
  adminCommand(DeleteIoCq, async ({ qid }, { queues }) => done(await queues.deleteCq(qid))),
  adminCommand(DeleteIoSq, async ({ qid }, { queues }) => done(await queues.deleteSq(qid))),
];

export class AdminIoQueues {
  readonly #config: ControllerConfig;
  readonly #host: ControllerHost;
  /** I/O queue pairs that the host may create. */
  readonly #queues: () => number;
  /** I/O completion queues. New objects at each reset: a command that waits for a reactor meanwhile changes the old ones. */
  #cqs = new Set<number>();
  /** qid of an SQ → that of its CQ. */
  #sqs = new Map<number, number>();
  #order = new AdminOrder();
  /** Create SQ commands under way. */
  #creating = new Set<{ readonly qid: number; readonly cqid: number }>();

  constructor(config: ControllerConfig, host: ControllerHost, queues: () => number) {
    this.#config = config;
    this.#host = host;
    this.#queues = queues;
  }

  /** All are gone; commands that wait for their turn are not carried out. */
  reset(): void {
    this.#cqs = new Set();
    this.#sqs = new Map();
    this.#order.drop();
    this.#order = new AdminOrder();
    this.#creating = new Set();
  }

  /** There is a queue, or one is being made or deleted. */
  get exist(): boolean {
    return this.#cqs.size + this.#sqs.size > 0 || this.#order.busy;
  }

  /** Each of these is carried out after the commands about the same queues that were sent before. Resolves with a status. */
  createCq(command: CqCommand): Promise<number> {
    return this.#order.run([cqKey(command.qid)], () => this.#createCq(command));
  }

  createSq(command: SqCommand): Promise<number> {
    const creating = this.#creating;
    creating.add(command);
    return this.#order
      .run([sqKey(command.qid), cqKey(command.cqid)], () => this.#createSq(command))
      .finally(() => creating.delete(command));
  }

  deleteCq(qid: number): Promise<number> {
    // The SQs that use it may be about to go.
    const users = [...this.#sqs, ...[...this.#creating].map((sq) => [sq.qid, sq.cqid])];
    const sqs = users.filter(([, cqid]) => cqid === qid).map(([sqid]) => sqKey(sqid));
    return this.#order.run([cqKey(qid), ...sqs], () => this.#deleteCq(qid));
  }

  deleteSq(qid: number): Promise<number> {
    return this.#order.run([sqKey(qid)], () => this.#deleteSq(qid));
  }

  /** Checks that both kinds of queue share: identifier, size, address. A status. */
  #checkQueue({ qid, sizeZ, pc, iova }: CqCommand | SqCommand, exists: boolean): number {
    if (qid === 0 || qid > this.#queues() || exists) {
      return Status.INVALID_QUEUE_IDENTIFIER;
    }
    if (sizeZ === 0 || sizeZ >= this.#config.maxQueueEntries) {
      return Status.INVALID_QUEUE_SIZE;
    }
    if (!pc) {
      return Status.INVALID_FIELD;
    }
    if (iova > Number.MAX_SAFE_INTEGER) {
      return Status.DATA_TRANSFER_ERROR;
    }
    return iova % PAGE_SIZE === 0 ? Status.SUCCESS : Status.INVALID_PRP_OFFSET;
  }

  async #createCq(command: CqCommand): Promise<number> {
    const { qid, sizeZ, ien, iv, iova } = command;
    const checked = this.#checkQueue(command, this.#cqs.has(qid));
    if (checked !== Status.SUCCESS) {
      return checked;
    }
    if (iv > this.#config.maxIoQueuePairs) {
      return Status.INVALID_INTERRUPT_VECTOR;
    }
    const cqs = this.#cqs;
    const status = await this.#host.createCq({
      qid,
      size: sizeZ + 1,
      iova,
      interrupts: ien,
      vector: iv,
    });
    if (status === Status.SUCCESS) {
      cqs.add(qid);
    }
    return status;
  }

  async #createSq(command: SqCommand): Promise<number> {
    const { qid, cqid, sizeZ, iova } = command;
    const checked = this.#checkQueue(command, this.#sqs.has(qid));
    if (checked !== Status.SUCCESS) {
      return checked;
    }
    if (cqid === 0 || cqid > this.#queues()) {
      return Status.INVALID_QUEUE_IDENTIFIER;
    }
    if (!this.#cqs.has(cqid)) {
      return Status.COMPLETION_QUEUE_INVALID;
    }
    const sqs = this.#sqs;
    const status = await this.#host.createSq({ qid, size: sizeZ + 1, iova, cqid });
    if (status === Status.SUCCESS) {
      sqs.set(qid, cqid);
    }
    return status;
  }

  async #deleteCq(qid: number): Promise<number> {
    if (!this.#cqs.has(qid)) {
      return Status.INVALID_QUEUE_IDENTIFIER;
    }
    if ([...this.#sqs.values()].includes(qid)) {
      return Status.INVALID_QUEUE_DELETION;
    }
    const cqs = this.#cqs;
    const status = await this.#host.deleteCq(qid);
    cqs.delete(qid);
    return status;
  }

  async #deleteSq(qid: number): Promise<number> {
    if (!this.#sqs.has(qid)) {
      return Status.INVALID_QUEUE_IDENTIFIER;
    }
    const sqs = this.#sqs;
    const status = await this.#host.deleteSq(qid);
    sqs.delete(qid);
    return status;
  }
}
