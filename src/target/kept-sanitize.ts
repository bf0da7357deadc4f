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
    state.keep = async (changed) => {
      this.#kept.set(nqn, changed);
      await this.#save?.();
    };
  }
}
