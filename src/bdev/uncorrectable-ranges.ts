/**
 * The blocks of a disk that hosts have marked uncorrectable: reading them fails until they are written. Main keeps them, since they outlast
 * reactors, and with a state folder the process; reactors ask (`block-states.ts`). Owned by main.
 */
import { MAX_UNCORRECTABLE_RANGES } from '../limits.ts';
import { Answer, BlockStatesOwner, Change, makeBlockStates } from './block-states.ts';

/** Offset and end, in bytes. */
export type ByteRange = readonly [offset: number, end: number];

/** Makes what is asked durable, and resolves then. Whatever it rejects with, it may not be. */
export type KeepRanges = () => Promise<void>;

/** Ascending, and apart. */
function marked(ranges: readonly ByteRange[], offset: number, end: number): ByteRange[] {
  const touching = ranges.filter((range) => range[0] <= end && offset <= range[1]);
  const first = Math.min(offset, ...touching.map((range) => range[0]));
  const last = Math.max(end, ...touching.map((range) => range[1]));
  return [
    ...ranges.filter((range) => range[1] < offset),
    [first, last],
    ...ranges.filter((range) => range[0] > end),
  ];
}

function cleared(ranges: readonly ByteRange[], offset: number, end: number): ByteRange[] {
  return ranges.flatMap(([first, last]): ByteRange[] => {
    if (last <= offset || end <= first) {
      return [[first, last]];
    }
    const before: ByteRange = [first, offset];
    const after: ByteRange = [end, last];
    return [before, after].filter((range) => range[0] < range[1]);
  });
}

export class UncorrectableRanges {
  /** For reactors. */
  readonly memory: SharedArrayBuffer;
  readonly #owner: BlockStatesOwner;
  readonly #keep: KeepRanges;
  #ranges: readonly ByteRange[];

  /** `ranges`: as they were kept before. */
  constructor(ranges: readonly ByteRange[] = [], keep: KeepRanges = async () => {}) {
    this.memory = makeBlockStates();
    this.#owner = new BlockStatesOwner(this.memory);
    this.#ranges = ranges;
    this.#keep = keep;
    this.#owner.publish(ranges);
    void this.#serve();
  }

  /** All there are, with those that are being kept. */
  get list(): readonly ByteRange[] {
    return this.#ranges;
  }

  /** Reactors learn of a change when it is kept: a mark that came back after a crash would be the loss of a block that was written. */
  async #serve(): Promise<void> {
    for await (const asked of this.#owner.asked()) {
      const before = this.#ranges;
      const answers = asked.map(({ change, offset, end }): Answer => {
        const ranges =
          change === Change.MARK
            ? marked(this.#ranges, offset, end)
            : cleared(this.#ranges, offset, end);
        if (ranges.length > MAX_UNCORRECTABLE_RANGES) {
          return Answer.FULL;
        }
        this.#ranges = ranges;
        return Answer.DONE;
      });
      let isKept = true;
      try {
        await this.#keep();
        this.#owner.publish(this.#ranges);
      } catch {
        isKept = false;
        this.#ranges = before;
      }
      for (const [i, change] of asked.entries()) {
        const isDone = answers[i] === Answer.DONE;
        this.#owner.answer(change, isDone && !isKept ? Answer.FAILED : answers[i]);
      }
    }
  }

  /** No reactor uses the disk any more. */
  close(): void {
    this.#owner.close();
  }
}
