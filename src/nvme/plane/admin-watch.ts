/**
 * The admin doorbells of controllers, watched for main. The admin queue is main's, but its doorbells lie in the page that the client maps, so
 * that only a poll can see them.
 */
import { AdminWord, NOT_WAITING } from './messages.ts';

interface Watch {
  readonly controller: number;
  readonly doorbells: Int32Array;
  /** See AdminWord. */
  readonly seen: Int32Array;
  /** `admin` messages sent; counted from what main had taken at the start. */
  sent: number;
}

export class AdminWatches {
  readonly #tell: (controller: number) => void;
  #watches: Watch[] = [];

  /** `tell` has main look at the admin queue of a controller. */
  constructor(tell: (controller: number) => void) {
    this.#tell = tell;
  }

  get any(): boolean {
    return this.#watches.length > 0;
  }

  add(controller: number, doorbells: Int32Array, words: SharedArrayBuffer): void {
    const seen = new Int32Array(words);
    this.#watches.push({
      controller,
      doorbells,
      seen,
      sent: Atomics.load(seen, AdminWord.TAKEN),
    });
  }

  remove(controller: number): void {
    this.#watches = this.#watches.filter((watch) => watch.controller !== controller);
  }

  /** Hot. Returns how many controllers main was told about. */
  look(): number {
    const watches = this.#watches;
    let told = 0;
    for (let i = 0; i < watches.length; i++) {
      const { doorbells, seen, sent, controller } = watches[i];
      const head = seen[AdminWord.HEAD];
      if (
        doorbells[0] === seen[AdminWord.TAIL] &&
        (head === NOT_WAITING || doorbells[1] === head)
      ) {
        continue;
      }
      // Main may have taken a message of an earlier watch, too.
      const taken = Atomics.load(seen, AdminWord.TAKEN);
      if (((taken - sent) | 0) >= 0) {
        watches[i].sent = (taken + 1) | 0;
        told += 1;
        this.#tell(controller);
      }
    }
    return told;
  }
}
