/**
 * Whose turn it is. Every controller gets one turn a round, however many queues it has, and in it a bounded number of commands; its queues
 * share that in rotation. So a guest's part of a reactor does not grow with its queues.
 */
import type { IoEngine } from './engine.ts';
import type { Publisher } from './publisher.ts';
import type { IoQueue } from './view.ts';

/** Commands of a controller in one turn. */
const TURN_COMMANDS = 64;

/** The queues of a controller that are polled, and the one that begins. */
export interface Turn {
  readonly queues: readonly IoQueue[];
  first: number;
}

export class Turns {
  readonly #engine: IoEngine;
  readonly #publisher: Publisher;
  /** Tells main of a doorbell that lies outside its queue. */
  readonly #reportDoorbell: (controller: number, qid: number) => void;

  constructor(
    engine: IoEngine,
    publisher: Publisher,
    reportDoorbell: (controller: number, qid: number) => void,
  ) {
    this.#engine = engine;
    this.#publisher = publisher;
    this.#reportDoorbell = reportDoorbell;
  }

  /** Hot. Returns how many commands were taken. */
  take(turn: Turn): number {
    const { queues } = turn;
    const count = queues.length;
    let left = TURN_COMMANDS;
    let at = turn.first;
    this.#engine.beginTurn();
    for (let looked = 0; looked < count; looked++) {
      const queue = queues[at];
      at = at + 1 === count ? 0 : at + 1;
      const taken = this.#engine.poll(queue, left);
      if (taken > 0) {
        this.#publisher.publish(queue.sq.cq);
        left -= taken;
        if (left === 0) {
          turn.first = at;
          break;
        }
      } else if (queue.sq.badTail || queue.sq.cq.badHead) {
        this.#report(queue);
      }
    }
    return TURN_COMMANDS - left;
  }

  /** Once a queue: a host can write nonsense faster than anyone can read about it. */
  #report({ sq, controller }: IoQueue): void {
    const { cq } = sq;
    if (sq.badTail && !sq.reportedTail) {
      sq.reportedTail = true;
      this.#reportDoorbell(controller.id, sq.qid);
    }
    if (cq.badHead && !cq.reportedHead) {
      cq.reportedHead = true;
      this.#reportDoorbell(controller.id, cq.qid);
    }
    sq.badTail = false;
    cq.badHead = false;
  }
}
