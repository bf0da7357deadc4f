/**
 * Who uses which bdev. A claim is (subsystem, namespace), or the bdev on top; a bdev has at most one. It begins with the use that is asked
 * for, and ends when nothing uses the bdev any more: a namespace that an endpoint does not let go of keeps its claim.
 */

/** Names of what uses a bdev. */
export type Claim = { readonly nqn: string } | { readonly bdev: string };

export class Claims {
  readonly #byBdev = new Map<string, Claim>();

  /** The caller has asked `problem` before. */
  add(bdev: string, claim: Claim): void {
    this.#byBdev.set(bdev, claim);
  }

  release(bdev: string): void {
    this.#byBdev.delete(bdev);
  }

  /** Why nobody else can use a bdev, in words; undefined if it is free. */
  problem(bdev: string): string | undefined {
    const owner = this.ownerOf(bdev);
    return owner === undefined ? undefined : `bdev '${bdev}' is already claimed by ${owner}`;
  }

  /** Whoever uses it, in words. */
  ownerOf(bdev: string): string | undefined {
    const claim = this.#byBdev.get(bdev);
    if (claim === undefined) {
      return undefined;
    }
    return 'nqn' in claim ? claim.nqn : `bdev '${claim.bdev}'`;
  }

  /** NQN of the subsystem of which it is a namespace. */
  subsystemOf(bdev: string): string | undefined {
    const claim = this.#byBdev.get(bdev);
    return claim !== undefined && 'nqn' in claim ? claim.nqn : undefined;
  }

  /** The bdev on top of it. */
  wrapperOf(bdev: string): string | undefined {
    const claim = this.#byBdev.get(bdev);
    return claim !== undefined && 'bdev' in claim ? claim.bdev : undefined;
  }

  /** A bdev is gone: with it go what used it, and its use of another. */
  forget(bdev: string): void {
    this.#byBdev.delete(bdev);
    for (const [base, claim] of this.#byBdev) {
      if ('bdev' in claim && claim.bdev === bdev) {
        this.#byBdev.delete(base);
      }
    }
  }
}
