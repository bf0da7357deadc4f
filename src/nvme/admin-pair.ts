/** The memory of the admin queue pair: where AQA, ASQ and ACQ say, as long as it is guest memory. Owned by main. */
import type { GuestMemory } from '../memory/guest.ts';
import { native } from '../native/index.ts';
import { CQE_SIZE, SQE_SIZE } from '../spec/nvme.ts';
import { Aqa } from '../spec/registers.ts';
import type { AdminQueueDiagnosis } from './diagnosis.ts';
import { CompletionQueue, SubmissionQueue } from './queue.ts';
import type { Registers } from './registers.ts';

const NOTHING = new Int32Array(0);

/** Where the admin queues are, and their sizes in entries. */
export class AdminPlace {
  readonly asq: number;
  readonly acq: number;
  readonly sqSize: number;
  readonly cqSize: number;

  constructor({ aqa, asq, acq }: Pick<Registers, 'aqa' | 'asq' | 'acq'>) {
    const { asqsZ, acqsZ } = Aqa.decode(aqa);
    this.asq = asq;
    this.acq = acq;
    this.sqSize = asqsZ + 1;
    this.cqSize = acqsZ + 1;
  }
}

export class AdminPair {
  readonly sq: SubmissionQueue;
  readonly cq: CompletionQueue;
  readonly #place: AdminPlace;
  /** Extra mappings over several DMA regions. */
  #aliases: Uint8Array[] = [];
  /** The queue that is not in guest memory. */
  missing: 'asq' | 'acq' | undefined;

  constructor(place: AdminPlace, memory: GuestMemory, doorbells: Int32Array) {
    this.#place = place;
    this.cq = new CompletionQueue(0, place.cqSize, NOTHING, doorbells, true, 0);
    this.sq = new SubmissionQueue(0, place.sqSize, NOTHING, doorbells, this.cq);
    this.find(memory);
  }

  /** Looks the memory up, at the start and when the guest's memory has changed. False if some of it is not there. */
  find(memory: GuestMemory): boolean {
    this.release();
    const { asq, acq, sqSize, cqSize } = this.#place;
    const sq = memory.queueMemory(asq, sqSize * SQE_SIZE, false);
    const cq = memory.queueMemory(acq, cqSize * CQE_SIZE, true);
    this.#aliases = [sq?.alias, cq?.alias].filter((alias) => alias !== undefined);
    this.sq.words = sq?.words ?? NOTHING;
    this.cq.memory = cq?.words ?? NOTHING;
    this.missing = sq === undefined ? 'asq' : cq === undefined ? 'acq' : undefined;
    return this.missing === undefined;
  }

  /** Gives the extra mappings back. */
  release(): void {
    for (const alias of this.#aliases.splice(0)) {
      native.revoke(alias);
    }
  }

  /** The host wrote a value outside the queue, which it was not told of. */
  get unreported(): boolean {
    const { sq, cq } = this;
    return (sq.badTail && !sq.reportedTail) || (cq.badHead && !cq.reportedHead);
  }

  /** `zeros`: an entry was all zeros. */
  describe(zeros: boolean): AdminQueueDiagnosis {
    const { sq, cq } = this;
    const { head, tail, phase } = cq.progress;
    return {
      sqSize: sq.size,
      cqSize: cq.size,
      head: sq.head,
      tail: sq.tail(),
      cqHead: head,
      cqTail: tail,
      phase,
      stopped: sq.stopped,
      zeros,
    };
  }
}
