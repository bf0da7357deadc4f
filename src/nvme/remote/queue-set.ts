/** The queues of a host whose memory is reached by messages, as they come and go. Owned by main. */
import { REMOTE_ADMIN_ENTRIES } from '../../limits.ts';
import type { CqRequest, SqRequest } from '../host.ts';
import { RemoteCq, RemoteSq } from './queues.ts';
import type { Staging } from './staging.ts';

export interface QueueSetParts {
  readonly staging: Staging;
  /** The host's doorbells, as 32-bit words. */
  readonly doorbells: Int32Array;
  /** A new queue of the host's begins at 0. */
  readonly clearDoorbell: (index: number) => void;
}

export class QueueSet {
  readonly sqs = new Map<number, RemoteSq>();
  readonly cqs = new Map<number, RemoteCq>();
  readonly #parts: QueueSetParts;

  constructor(parts: QueueSetParts) {
    this.#parts = parts;
    parts.staging.clear();
  }

  addCq(request: CqRequest): void {
    const { qid, size } = request;
    const { doorbells, staging, clearDoorbell } = this.#parts;
    clearDoorbell(2 * qid + 1);
    const staged = staging.cq(qid, stagedSize(qid, size));
    this.cqs.set(qid, new RemoteCq({ ...request, doorbells, staged }));
  }

  addSq(request: SqRequest): void {
    const { qid, size, cqid } = request;
    const cq = this.cqs.get(cqid);
    if (cq !== undefined) {
      const { doorbells, staging, clearDoorbell } = this.#parts;
      clearDoorbell(2 * qid);
      const staged = staging.sq(qid, stagedSize(qid, size));
      this.sqs.set(qid, new RemoteSq({ ...request, cq, doorbells, staged }));
    }
  }

  removeCq(qid: number): void {
    this.cqs.delete(qid);
    this.#parts.staging.clearCq(qid);
  }

  removeSq(qid: number): void {
    this.sqs.delete(qid);
  }

  clear(): void {
    this.sqs.clear();
    this.cqs.clear();
  }
}

/** Entries of the controller's queue: the admin queues' are as many as the relay needs. */
function stagedSize(qid: number, size: number): number {
  return qid === 0 ? REMOTE_ADMIN_ENTRIES : size;
}
