/**
 * Moves a completion queue with its submission queues from one reactor to another while the guest works. Owned by main.
 *
 * The reactor that has them takes no more commands, completes those in flight, forgets the queues and writes down how far they are
 * (`release-queues`); the other goes on from there (`adopt-queues`). Between the two, nobody looks at the doorbells: the guest's memory keeps
 * what it writes. Commands that do not end within a bound end the move instead, and the queues go on where they were.
 */
import type { CqDescriptor, SqDescriptor } from '../nvme/plane/messages.ts';
import { Status } from '../spec/nvme.ts';
import { ErrnoError, FailedError, InvalidError } from '../util/errors.ts';

/** How long the queues may stand still for the commands in flight. Milliseconds. */
const MOVE_TIMEOUT_MS = 1000;

type MoveRequest =
  | { readonly kind: 'release-queues' | 'keep-queues'; readonly cqid: number }
  | {
      readonly kind: 'adopt-queues';
      readonly cq: CqDescriptor;
      readonly sqs: readonly SqDescriptor[];
    };

/** The queues of a controller, as far as a move has to do with them. */
export interface MovableQueues {
  /** Where a CQ is, if it is anywhere. */
  reactorOf(cqid: number): number | undefined;
  /** A CQ and its SQs as a reactor makes them, with what is connected to the vector now. */
  describe(cqid: number): { readonly cq: CqDescriptor; readonly sqs: readonly SqDescriptor[] };
  /** Sees to it that a reactor knows the controller. Resolves with a status. */
  attach(reactor: number): Promise<number>;
  /** Resolves with a status. Rejects if the reactor is dead or dies. */
  ask(reactor: number, request: MoveRequest): Promise<number>;
  /** The CQ and its SQs are there from now on. */
  placed(cqid: number, reactor: number): void;
  /** No reactor would have them. */
  lost(cqid: number): void;
}

interface Move {
  /** Settles with the move, and never rejects. */
  over: Promise<void>;
  /** Why it is given up, if it is. */
  givenUp: ErrnoError | undefined;
}

export class QueueMoves {
  readonly #queues: MovableQueues;
  /** By CQ. */
  readonly #moves = new Map<number, Move>();

  constructor(queues: MovableQueues) {
    this.#queues = queues;
  }

  get underWay(): boolean {
    return this.#moves.size > 0;
  }

  /**
   * Moves a CQ with its SQs. Resolves when they go on there, with the reactor that had them. Rejects with InvalidError if there is no such queue, with EBUSY if it moves
   * already, or its commands do not end, with FailedError if the reactor cannot take it.
   */
  move(cqid: number, to: number): Promise<number> {
    const from = this.#queues.reactorOf(cqid);
    if (from === undefined) {
      return Promise.reject(new InvalidError(`key 'cqid': there is no completion queue ${cqid}`));
    }
    if (this.#moves.has(cqid)) {
      return Promise.reject(new ErrnoError('EBUSY', `completion queue ${cqid} is being moved`));
    }
    if (from === to) {
      return Promise.resolve(from);
    }
    const move: Move = { over: Promise.resolve(), givenUp: undefined };
    const moved = this.#run(move, cqid, from, to).finally(() => this.#moves.delete(cqid));
    move.over = moved.then(
      () => {},
      () => {},
    );
    this.#moves.set(cqid, move);
    return moved;
  }

  /** The guest is about to change its queues: gives up the moves that still wait. Resolves when none is under way. */
  async settle(): Promise<void> {
    const moves = [...this.#moves];
    for (const [cqid, move] of moves) {
      this.#giveUp(move, cqid, new ErrnoError('EBUSY', 'the guest changes its queues'));
    }
    await Promise.all(moves.map(([, { over }]) => over));
  }

  /** What is kept, or gone, does not mind to be kept. */
  #giveUp(move: Move, cqid: number, reason: ErrnoError): void {
    move.givenUp ??= reason;
    const from = this.#queues.reactorOf(cqid);
    if (from !== undefined) {
      void this.#ask(from, { kind: 'keep-queues', cqid });
    }
  }

  async #run(move: Move, cqid: number, from: number, to: number): Promise<number> {
    const queues = this.#queues;
    if ((await queues.attach(to)) !== Status.SUCCESS) {
      throw new FailedError(`Reactor ${to} cannot open all namespaces`);
    }
    if (move.givenUp !== undefined) {
      throw move.givenUp;
    }
    const patience = setTimeout(() => {
      const reason = `commands of completion queue ${cqid} do not end`;
      this.#giveUp(move, cqid, new ErrnoError('EBUSY', reason));
    }, MOVE_TIMEOUT_MS);
    const status = await this.#ask(from, { kind: 'release-queues', cqid });
    clearTimeout(patience);
    if (status !== Status.SUCCESS) {
      throw move.givenUp ?? new FailedError(`Reactor ${from} lost completion queue ${cqid}`);
    }
    if (await this.#place(cqid, to)) {
      return from;
    }
    if (queues.reactorOf(cqid) !== to) {
      throw new FailedError(`Reactor ${to} died`);
    }
    if (!(await this.#place(cqid, from))) {
      queues.lost(cqid);
    }
    throw new FailedError(`Reactor ${to} cannot take completion queue ${cqid}`);
  }

  async #place(cqid: number, reactor: number): Promise<boolean> {
    const queues = this.#queues;
    // Before the message: doorbells that come through main are to wake this reactor from now on.
    queues.placed(cqid, reactor);
    const adopt = { kind: 'adopt-queues', ...queues.describe(cqid) } as const;
    return (await this.#ask(reactor, adopt)) === Status.SUCCESS;
  }

  /** A reactor that is dead fails. */
  #ask(reactor: number, request: MoveRequest): Promise<number> {
    return this.#queues.ask(reactor, request).catch(() => Status.INTERNAL_ERROR);
  }
}
