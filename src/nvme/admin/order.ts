/**
 * The order among commands about I/O queues. They wait for reactors, which may wait for a disk; those about different queues do not wait
 * for each other, those about the same one are carried out as they were sent. Owned by main.
 */
import { Status } from '../../spec/nvme.ts';

/** A queue, numbered as its doorbell. */
export const sqKey = (qid: number): number => 2 * qid;
export const cqKey = (qid: number): number => 2 * qid + 1;

export class AdminOrder {
  /** Queue → the end of the last command about it that was sent. */
  readonly #last = new Map<number, Promise<void>>();
  #dropped = false;

  /** A command is under way. */
  get busy(): boolean {
    return this.#last.size > 0;
  }

  /** Carries a command out, at once if no earlier one about these queues is under way, else after those. Resolves with its status. */
  async run(queues: readonly number[], command: () => Promise<number>): Promise<number> {
    const earlier = queues.flatMap((queue) => this.#last.get(queue) ?? []);
    let end = (): void => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    for (const queue of queues) {
      this.#last.set(queue, ended);
    }
    try {
      if (earlier.length > 0) {
        await Promise.all(earlier);
      }
      return this.#dropped ? Status.ABORTED_BY_REQUEST : await command();
    } finally {
      for (const queue of queues) {
        if (this.#last.get(queue) === ended) {
          this.#last.delete(queue);
        }
      }
      end();
    }
  }

  /** The controller is reset: what still waits for its turn is not carried out. */
  drop(): void {
    this.#dropped = true;
  }
}
