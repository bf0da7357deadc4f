/** Random choices from a seed, so that a failure can be had again: SEED=… in the environment. */

export class Random {
  readonly seed: number;
  #state: number;

  constructor(seed = Number(process.env.SEED ?? Date.now() % 2 ** 31)) {
    this.seed = seed;
    this.#state = seed;
  }

  /** 32 random bits (mulberry32). */
  bits(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let x = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return (x ^ (x >>> 14)) >>> 0;
  }

  /** 0 to `bound` − 1. */
  below(bound: number): number {
    return Math.floor((this.bits() / 2 ** 32) * bound);
  }

  chance(probability: number): boolean {
    return this.bits() / 2 ** 32 < probability;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)];
  }

  /** 1 to `most`, small numbers as likely as large ones. */
  size(most: number): number {
    return Math.min(most, 1 + this.below(2 ** this.below(Math.ceil(Math.log2(most)) + 1)));
  }

  fill(data: Uint8Array): Uint8Array {
    for (let i = 0; i < data.length; i++) {
      data[i] = this.bits();
    }
    return data;
  }
}
