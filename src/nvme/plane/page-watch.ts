/** All doorbells of controllers that main serves by itself, watched for it: those of hosts whose memory is reached by messages. */
import { PAGE_DOORBELLS, PageWord } from './messages.ts';

interface Watch {
  readonly controller: number;
  readonly page: Int32Array;
  /** See PageWord. */
  readonly seen: Int32Array;
  /** `rung` messages sent; counted from what main had taken at the start. */
  sent: number;
}

export class PageWatches {
  readonly #tell: (controller: number) => void;
  #watches: Watch[] = [];

  /** `tell` has main look at the doorbells of a controller. */
  constructor(tell: (controller: number) => void) {
    this.#tell = tell;
  }

  get any(): boolean {
    return this.#watches.length > 0;
  }

  add(controller: number, page: SharedArrayBuffer, words: SharedArrayBuffer): void {
    const seen = new Int32Array(words);
    const sent = Atomics.load(seen, PageWord.TAKEN);
    this.#watches.push({ controller, page: new Int32Array(page), seen, sent });
  }

  remove(controller: number): void {
    this.#watches = this.#watches.filter((watch) => watch.controller !== controller);
  }

  /** Hot. Returns how many controllers main was told about: each of one message at a time. */
  look(): number {
    const watches = this.#watches;
    let told = 0;
    for (let i = 0; i < watches.length; i++) {
      const { page, seen, sent, controller } = watches[i];
      let index = 0;
      while (index < PAGE_DOORBELLS && page[index] === seen[index]) {
        index += 1;
      }
      if (index === PAGE_DOORBELLS) {
        continue;
      }
      const taken = Atomics.load(seen, PageWord.TAKEN);
      if (((taken - sent) | 0) >= 0) {
        watches[i].sent = (taken + 1) | 0;
        told += 1;
        this.#tell(controller);
      }
    }
    return told;
  }
}
