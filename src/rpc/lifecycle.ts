/**
 * SPDK's two states: a target started with --wait-for-rpc takes options first, and everything else once framework_start_init was
 * called. Without it there is only the second state. Owned by main.
 */
import { RpcCode, RpcError } from './protocol.ts';

/** When a method can be called: before initialisation, after it, or both. */
export type Phase = 'startup' | 'runtime' | 'any';

export class Lifecycle {
  /** Resolves once the target is initialised. */
  readonly initialized: Promise<void>;
  readonly #initialize: () => Promise<void>;
  #resolve: () => void = () => {};
  #state: 'startup' | 'runtime';
  #starting: Promise<void> | undefined;

  /** With `initialize`, calls of framework_start_init run it, and what it rejects with is their error; without, it is over already. */
  constructor(initialize?: () => Promise<void>) {
    this.#initialize = initialize ?? (async () => {});
    this.#state = initialize === undefined ? 'runtime' : 'startup';
    this.initialized =
      initialize === undefined
        ? Promise.resolve()
        : new Promise((resolve) => {
            this.#resolve = resolve;
          });
  }

  allows(phase: Phase): boolean {
    return phase === 'any' || phase === this.#state;
  }

  /** Throws what SPDK says if a method cannot be called now. */
  check(phase: Phase): void {
    if (!this.allows(phase)) {
      throw new RpcError(
        RpcCode.INVALID_STATE,
        phase === 'startup'
          ? 'Method may only be called before framework is initialized. Use --wait-for-rpc command line parameter and then issue this RPC before the framework_start_init RPC.'
          : 'Method may only be called after framework is initialized using framework_start_init RPC.',
      );
    }
  }

  /** Initialises the target, once; who asks meanwhile waits for the same. After a failure it can be tried again. */
  start(): Promise<void> {
    this.#starting ??= this.#initialize()
      .then(() => {
        this.#state = 'runtime';
        this.#resolve();
      })
      .finally(() => {
        this.#starting = undefined;
      });
    return this.#starting;
  }
}
