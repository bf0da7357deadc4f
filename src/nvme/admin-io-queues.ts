/**
 * Commands that create and delete I/O queues: which there are, what may be made and deleted, and in which order. NVMe Base 2.0 §5.4 to §5.7.
 * Owned by main; the queues live in reactors, which the commands wait for.
 */
import { PAGE_SIZE } from '../limits.ts';
import { AdminOpcode, Status } from '../spec/nvme.ts';
import type { Command } from './admin.ts';
import { AdminOrder, cqKey, sqKey } from './admin-order.ts';
import type { Features } from './features.ts';
import type { ControllerConfig, ControllerHost } from './host.ts';

/** Physically contiguous queue memory; interrupts enabled. */
const QUEUE_PC = 1;
const QUEUE_IEN = 2;

export class AdminIoQueues {
  readonly #config: ControllerConfig;
  readonly #host: ControllerHost;
  readonly #features: Features;
  /** I/O completion queues. New objects at each reset: a command that waits for a reactor meanwhile changes the old ones. */
  #cqs = new Set<number>();
  /** qid of an SQ → that of its CQ. */
  #sqs = new Map<number, number>();
  #order = new AdminOrder();
  /** Create SQ commands under way. */
  #creating = new Set<{ readonly qid: number; readonly cqid: number }>();

  constructor(config: ControllerConfig, host: ControllerHost, features: Features) {
    this.#config = config;
    this.#host = host;
    this.#features = features;
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

  /** Creates or deletes a queue, after the commands about the same queues that were sent before. Resolves with a status. */
  change(command: Command): Promise<number> {
    const qid = command.cdw10 & 0xffff;
    switch (command.opcode) {
      case AdminOpcode.CREATE_IO_CQ:
        return this.#order.run([cqKey(qid)], () => this.#createCq(command));
      case AdminOpcode.CREATE_IO_SQ: {
        const cqid = command.cdw11 >>> 16;
        const sq = { qid, cqid };
        const creating = this.#creating;
        creating.add(sq);
        return this.#order
          .run([sqKey(qid), cqKey(cqid)], () => this.#createSq(command))
          .finally(() => creating.delete(sq));
      }
      case AdminOpcode.DELETE_IO_CQ: {
        // The SQs that use it may be about to go.
        const users = [...this.#sqs, ...[...this.#creating].map((sq) => [sq.qid, sq.cqid])];
        const sqs = users.filter(([, cqid]) => cqid === qid).map(([sqid]) => sqKey(sqid));
        return this.#order.run([cqKey(qid), ...sqs], () => this.#deleteCq(qid));
      }
      default:
        return this.#order.run([sqKey(qid)], () => this.#deleteSq(qid));
    }
  }

  /** Checks that both kinds of queue share: identifier, size, address. A status. */
  #checkQueue(command: Command, exists: boolean): number {
    const qid = command.cdw10 & 0xffff;
    const sizeZ = command.cdw10 >>> 16;
    if (qid === 0 || qid > this.#features.queues || exists) {
      return Status.INVALID_QUEUE_IDENTIFIER;
    }
    if (sizeZ === 0 || sizeZ >= this.#config.maxQueueEntries) {
      return Status.INVALID_QUEUE_SIZE;
    }
    if ((command.cdw11 & QUEUE_PC) === 0) {
      return Status.INVALID_FIELD;
    }
    if (command.prp1 > Number.MAX_SAFE_INTEGER) {
      return Status.DATA_TRANSFER_ERROR;
    }
    return command.prp1 % PAGE_SIZE === 0 ? Status.SUCCESS : Status.INVALID_PRP_OFFSET;
  }

  async #createCq(command: Command): Promise<number> {
    const qid = command.cdw10 & 0xffff;
    const vector = command.cdw11 >>> 16;
    const checked = this.#checkQueue(command, this.#cqs.has(qid));
    if (checked !== Status.SUCCESS) {
      return checked;
    }
    if (vector > this.#config.maxIoQueuePairs) {
      return Status.INVALID_INTERRUPT_VECTOR;
    }
    const cqs = this.#cqs;
    const status = await this.#host.createCq({
      qid,
      size: (command.cdw10 >>> 16) + 1,
      iova: command.prp1,
      interrupts: (command.cdw11 & QUEUE_IEN) !== 0,
      vector,
    });
    if (status === Status.SUCCESS) {
      cqs.add(qid);
    }
    return status;
  }

  async #createSq(command: Command): Promise<number> {
    const qid = command.cdw10 & 0xffff;
    const cqid = command.cdw11 >>> 16;
    const checked = this.#checkQueue(command, this.#sqs.has(qid));
    if (checked !== Status.SUCCESS) {
      return checked;
    }
    if (cqid === 0 || cqid > this.#features.queues) {
      return Status.INVALID_QUEUE_IDENTIFIER;
    }
    if (!this.#cqs.has(cqid)) {
      return Status.COMPLETION_QUEUE_INVALID;
    }
    const size = (command.cdw10 >>> 16) + 1;
    const sqs = this.#sqs;
    const status = await this.#host.createSq({ qid, size, iova: command.prp1, cqid });
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
