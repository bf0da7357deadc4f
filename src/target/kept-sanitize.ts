/** Sanitize operations by the NQN of their subsystem, kept so that one that was under way goes on after a restart. Owned by main. */
import type { KeptSanitizeState, SanitizeState } from '../nvme/sanitize.ts';

export interface KeptOperation extends KeptSanitizeState {
  readonly nqn: string;
}

export class KeptSanitize {
  readonly #kept = new Map<string, KeptSanitizeState>();
  /** Puts `list` on stable storage; undefined: nobody keeps it. */
  #save: (() => Promise<void>) | undefined;

  /** What was kept before; and from now on `save` is called when `list` gives something else. */
  follow(before: readonly KeptOperation[], save: () => Promise<void>): void {
    for (const { nqn, ...state } of before) {
      this.#kept.set(nqn, state);
    }
    this.#save = save;
  }

  list(): readonly KeptOperation[] {
    return [...this.#kept].map(([nqn, state]) => ({ nqn, ...state }));
  }

  /** The state of a subsystem is as it was, and kept from now on. */
  attach(nqn: string, state: SanitizeState): void {
    const kept = this.#kept.get(nqn);
    if (kept !== undefined) {
      state.restore(kept);
    }
    state.keep = (changed) => this.#keep(nqn, changed);
  }

  /** Rejects with what the system says: then it is as before. */
  async #keep(nqn: string, changed: KeptSanitizeState): Promise<void> {
    const before = this.#kept.get(nqn);
    this.#kept.set(nqn, changed);
    try {
      await this.#save?.();
    } catch (error) {
      // Unless it was forgotten meanwhile.
      if (this.#kept.get(nqn) === changed) {
        this.#put(nqn, before);
        // What failed may have been written all the same, or be written with the change of another subsystem.
        this.#save?.().catch(() => {});
      }
      throw error;
    }
  }

  #put(nqn: string, state: KeptSanitizeState | undefined): void {
    if (state === undefined) {
      this.#kept.delete(nqn);
    } else {
      this.#kept.set(nqn, state);
    }
  }

  /** The subsystem is deleted: another of its name has nothing to do with what it did. Never rejects: a failure is logged by who saves. */
  async forget(nqn: string, state: SanitizeState): Promise<void> {
    state.keep = async () => {};
    if (this.#kept.delete(nqn)) {
      await this.#save?.().catch(() => {});
    }
  }
}
