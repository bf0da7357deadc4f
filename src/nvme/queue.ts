/**
 * Submission and completion queues over guest memory. Each belongs to one thread: the admin pair to main, I/O queues to a reactor.
 *
 * A completion can never find its queue full: a command is taken only when an entry of the CQ is free for it (`room`).
 * Completions are staged in guest memory and published together: the first one's phase bit is written last, with a release store, and a
 * driver that looks at its head entry sees nothing before that.
 */
import { DOORBELLS_BYTES } from '../limits.ts';
import { CQE_SIZE, Cqe, CqeDword3, SQE_SIZE } from '../spec/nvme.ts';

export const SQE_WORDS = SQE_SIZE / 4;
const CQE_WORDS = CQE_SIZE / 4;
const CQE_DW0 = Cqe.word('dw0');
const CQE_DW1 = Cqe.word('dw1');
const CQE_SQHD = Cqe.word('sqhd');
const CQE_CID = Cqe.word('cid');
const PHASE_SHIFT = CqeDword3.fields.p.shift;
const STATUS_SHIFT = CqeDword3.fields.status.shift;
/** In place of event indexes where the doorbell page is not shadowed: nobody reads them. */
export const NO_EVENT_INDEXES = new Int32Array(DOORBELLS_BYTES / 4);

export class CompletionQueue {
  readonly qid: number;
  /** Entries. */
  readonly size: number;
  #words: Int32Array;
  /** Where the host writes its head: the doorbell page, or its shadow. */
  doorbells: Int32Array;
  readonly headIndex: number;
  #tail = 0;
  #phase = 1;
  /** Commands taken from its SQs that complete later. */
  #reserved = 0;
  /** Entries free for further commands, when last counted. */
  #free = 0;
  #staged = 0;
  /** The first staged entry: its last dword is not written yet. */
  #firstWord = 0;
  #firstDw3 = 0;
  /** Interrupts are enabled for this queue (Create I/O Completion Queue, IEN). */
  readonly interrupts: boolean;
  readonly vector: number;
  /** Where to signal, or -1 if the client connected no eventfd to the vector. */
  eventfd = -1;
  /** A host that is still busy with the last interrupt is not interrupted again. */
  adaptive = false;
  /** Interrupts are held back for so long at most, as long as no more completions wait than the threshold. Nanoseconds; 0: none is. */
  coalescedNs = 0;
  threshold = 0;
  /** When the oldest completion was there that the host was not interrupted for, in ns; 0: not known yet. */
  #heldSince = 0;
  /** The tail when the host was last interrupted. */
  #signalled = 0;
  /** The host's head lies outside the queue; and that was reported. */
  badHead = false;
  reportedHead = false;
  /** Completions were published that the host has not been interrupted for. */
  needsSignal = false;
  /** It is in the reactor's lists: of queues to publish, and to signal. */
  touched = false;
  signalQueued = false;

  /** `doorbells`: 32-bit words from the first doorbell on. `words`: the queue's memory, zeroed by the host. */
  constructor(
    qid: number,
    size: number,
    words: Int32Array,
    doorbells: Int32Array,
    interrupts: boolean,
    vector: number,
  ) {
    this.qid = qid;
    this.size = size;
    this.#words = words;
    this.doorbells = doorbells;
    this.headIndex = 2 * qid + 1;
    this.interrupts = interrupts;
    this.vector = vector;
  }

  /** Takes the memory away (undefined words write nowhere) or gives it back: a DMA region under the queue went or came. */
  set memory(words: Int32Array) {
    this.#words = words;
  }

  /** The host's head, as it wrote it. A value outside the queue counts as "nothing consumed", and is left in `badHead` to be reported. */
  #head(): number {
    const head = Atomics.load(this.doorbells, this.headIndex);
    if (head >>> 0 < this.size) {
      return head;
    }
    this.badHead = true;
    return this.#tail + 1 === this.size ? 0 : this.#tail + 1;
  }

  /** Hot. Entries free for new commands, at least `wanted` if there are as many; counts anew only when it must. */
  room(wanted: number): number {
    if (this.#free < wanted) {
      const posted = this.#tail - this.#head();
      this.#free = this.size - 1 - (posted < 0 ? posted + this.size : posted) - this.#reserved;
    }
    return this.#free;
  }

  /** Keeps an entry for a command that completes later. */
  reserve(): void {
    this.#reserved += 1;
    this.#free -= 1;
  }

  /** Gives up a reserved entry: its completion is about to be staged, or never will be. */
  unreserve(): void {
    this.#reserved -= 1;
    this.#free += 1;
  }

  /** Hot. Writes a completion into the next entry, not yet visible to the host. The entry was free by `room` or reserved. */
  stage(dw0: number, sqid: number, sqhd: number, cid: number, status: number): void {
    const words = this.#words;
    const at = this.#tail * CQE_WORDS;
    const dw3 = cid | (this.#phase << PHASE_SHIFT) | (status << STATUS_SHIFT);
    words[at + CQE_DW0] = dw0;
    words[at + CQE_DW1] = 0;
    words[at + CQE_SQHD] = sqhd | (sqid << 16);
    if (this.#staged === 0) {
      this.#firstWord = at + CQE_CID;
      this.#firstDw3 = dw3;
    } else {
      words[at + CQE_CID] = dw3;
    }
    this.#staged += 1;
    this.#free -= 1;
    const next = this.#tail + 1;
    if (next === this.size) {
      this.#tail = 0;
      this.#phase ^= 1;
    } else {
      this.#tail = next;
    }
  }

  /** Goes on where another reactor left it: at the next entry to post, with its phase tag. */
  resume(tail: number, phase: number): void {
    this.#tail = tail;
    this.#phase = phase;
    this.#signalled = tail;
  }

  /** Every command taken from its SQs has been completed, and the completions published. */
  get idle(): boolean {
    return this.#reserved === 0 && this.#staged === 0;
  }

  /** The host's head as far as it is valid, the next entry to post, and its phase tag. For diagnosis. */
  get progress(): { readonly head: number; readonly tail: number; readonly phase: number } {
    return { head: this.#head(), tail: this.#tail, phase: this.#phase };
  }

  get hasStaged(): boolean {
    return this.#staged > 0;
  }

  /** Makes all staged completions visible to the host. */
  publish(): void {
    this.#staged = 0;
    this.needsSignal = this.interrupts;
    if (this.#firstWord < this.#words.length) {
      Atomics.store(this.#words, this.#firstWord, this.#firstDw3);
    }
  }

  /** Published completions that the host has not consumed. */
  get pending(): boolean {
    return this.#head() !== this.#tail;
  }

  /**
   * The host has not yet consumed what it was last interrupted for: it is going to look for more when it does. (A lone completion finds
   * the host waiting.)
   */
  get hostBusy(): boolean {
    const unseen = distance(this.#head(), this.#tail, this.size);
    return this.adaptive && unseen > distance(this.#signalled, this.#tail, this.size);
  }

  /**
   * Whether its interrupt is held back: few completions wait, and not for long. Asked in each round in which some do. `now`: ns, at index 0.
   * NVMe Base 2.0 §5.27.1.6.
   */
  coalesces(now: Float64Array): boolean {
    if (distance(this.#signalled, this.#tail, this.size) > this.threshold) {
      return false;
    }
    if (this.#heldSince === 0) {
      this.#heldSince = now[0];
    }
    return now[0] - this.#heldSince < this.coalescedNs;
  }

  /** When an interrupt that is held back comes, in ns. */
  get coalescedUntil(): number {
    return this.#heldSince + this.coalescedNs;
  }

  /** The host is about to be interrupted for all that was published: by `eventfd`, if that is not -1. */
  signalled(): void {
    this.needsSignal = false;
    this.#heldSince = 0;
    this.#signalled = this.#tail;
  }

  /** The queue is gone: nothing is signalled any more. */
  close(): void {
    this.needsSignal = false;
    this.eventfd = -1;
  }
}

/** Steps from `from` to `to` round a queue. */
function distance(from: number, to: number, size: number): number {
  const steps = to - from;
  return steps < 0 ? steps + size : steps;
}

export class SubmissionQueue {
  readonly qid: number;
  /** Which of the queues that had this id. */
  readonly generation: number;
  readonly size: number;
  readonly cq: CompletionQueue;
  words: Int32Array;
  /** Where the host writes its tail: the doorbell page, or its shadow. */
  doorbells: Int32Array;
  /** Event indexes beside a shadow page; otherwise words that nobody reads. See `hush`. */
  eventIdx: Int32Array = NO_EVENT_INDEXES;
  readonly tailIndex: number;
  /** The head when the event index was last written. */
  #hushedAt = 0;
  /** Next entry to take. */
  head = 0;
  /** No further command is taken: memory of the queue or of its CQ is unmapped. */
  stopped = false;
  /** Completions go nowhere: the controller is being reset. */
  discarded = false;
  /** The host's tail lies outside the queue; and that was reported. */
  badTail = false;
  reportedTail = false;

  constructor(
    qid: number,
    size: number,
    words: Int32Array,
    doorbells: Int32Array,
    cq: CompletionQueue,
    generation = 0,
  ) {
    this.qid = qid;
    this.generation = generation;
    this.size = size;
    this.words = words;
    this.doorbells = doorbells;
    this.tailIndex = 2 * qid;
    this.cq = cq;
  }

  /**
   * Hot. The host's tail if there is something new, else the head. A value outside the queue reads as nothing new, and is left in
   * `badTail` for the caller to report once (NVMe Base 2.0 §5.2.1: Invalid Doorbell Write Value).
   */
  tail(): number {
    const probe = this.doorbells[this.tailIndex];
    if (probe === this.head) {
      return probe;
    }
    const tail = Atomics.load(this.doorbells, this.tailIndex);
    if (tail >>> 0 < this.size) {
      return tail;
    }
    this.badTail = true;
    return this.head;
  }

  /**
   * Keeps the host from ringing while its shadow page is polled (NVMe Base 2.0 §5.8, shadow doorbells): it rings when its tail passes the
   * event index, so that is kept behind it. Once half a lap is enough (a host that fills the queue may ring once in vain).
   */
  hush(): void {
    const head = this.head;
    if (2 * distance(this.#hushedAt, head, this.size) >= this.size) {
      this.hushNow();
    }
  }

  hushNow(): void {
    this.#hushedAt = this.head;
    Atomics.store(this.eventIdx, this.tailIndex, (this.head === 0 ? this.size : this.head) - 1);
  }

  /**
   * Asks the host to ring when it goes on: with its next command or, if commands wait for room in the CQ, when it consumes completions.
   * The caller looks at the queue once more before it sleeps.
   */
  arm(): void {
    const { cq } = this;
    const tail = Atomics.load(this.doorbells, this.tailIndex);
    Atomics.store(this.eventIdx, this.tailIndex, tail);
    if (tail !== this.head) {
      Atomics.store(this.eventIdx, cq.headIndex, Atomics.load(cq.doorbells, cq.headIndex));
    }
  }
}
