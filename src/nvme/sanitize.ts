/**
 * Sanitize: all namespaces of a subsystem are erased, in the background, and no command is carried out on them until that is over. It goes on
 * when the controller that it was asked of is reset, or gone. NVMe Base 2.0 §5.24, §5.16.1.25, §8.21. Owned by main.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { SanitizeAction } from '../spec/admin.ts';
import {
  SANITIZE_IDLE,
  SANITIZE_UNKNOWN,
  SanitizeLog,
  SanitizeStateCode,
  SanitizeStatus,
} from '../spec/logs.ts';
import { Status } from '../spec/nvme.ts';
import { type Eraser, eraseNamespace } from './erase.ts';
import type { ControllerHost, Operate } from './host.ts';

const WHOLE = 0x1_0000;
/** Between attempts to keep how an operation ended. Milliseconds. */
const KEEP_AGAIN_MS = 1000;

/** What is to be done. */
export interface SanitizeRequest {
  readonly action: number;
  /** What was asked for, as the log repeats it. */
  readonly dw10: number;
  /** A failure may be left by Exit Failure Mode. */
  readonly unrestricted: boolean;
  readonly noDeallocate: boolean;
  readonly passes: number;
  readonly invert: boolean;
  readonly pattern: number;
}

/** As it is kept. `state`: see SanitizeStateCode. */
export interface KeptSanitizeState {
  readonly state: number;
  readonly request: SanitizeRequest;
  /** UUIDs of the namespaces that it is about; undefined: of all that there are. */
  readonly uuids?: readonly string[] | undefined;
}

/** Of a subsystem, for all its controllers. */
export class SanitizeState {
  #state: number = SanitizeStateCode.NEVER;
  #request: SanitizeRequest | undefined;
  #uuids: readonly string[] | undefined;
  /** From 0 to 1. */
  #progress = 0;
  #passes = 0;
  /** It is being carried out, and not only to be. */
  #isCarriedOut = false;
  #isAbandoned = false;
  /** Puts what has changed on stable storage, if that is wanted. */
  keep: (changed: KeptSanitizeState) => Promise<void> = async () => {};

  /** As it was when the process ended. */
  restore({ state, request, uuids }: KeptSanitizeState): void {
    this.#state = state;
    this.#request = request;
    this.#uuids = uuids;
  }

  /** What was under way when the process ended is done again. */
  resume(host: ControllerHost): void {
    if (
      this.isRunning &&
      !this.#isCarriedOut &&
      !this.#isAbandoned &&
      this.#request !== undefined
    ) {
      void this.#run(host, this.#request);
    }
  }

  /** The subsystem goes: nothing is carried out any more. What is kept of it stays as it is. */
  abandon(): void {
    this.#isAbandoned = true;
  }

  get isRunning(): boolean {
    return this.#state === SanitizeStateCode.IN_PROGRESS;
  }

  get hasFailed(): boolean {
    return this.#state === SanitizeStateCode.FAILED;
  }

  /** The failure of the last may be left without success. */
  get canExit(): boolean {
    return this.#request?.unrestricted === true;
  }

  /** The status of commands that are not carried out now, but for Success. */
  get refusal(): number {
    if (this.isRunning) {
      return Status.SANITIZE_IN_PROGRESS;
    }
    return this.hasFailed ? Status.SANITIZE_FAILED : Status.SUCCESS;
  }

  /** Resolves when namespaces are no more for commands to have; then it goes on by itself. Rejects if it cannot begin: then it is as before. */
  async start(host: ControllerHost, request: SanitizeRequest): Promise<void> {
    const before = { state: this.#state, request: this.#request, uuids: this.#uuids };
    const uuids = [...host.namespaces.values()].map(({ uuid }) => uuid);
    this.#state = SanitizeStateCode.IN_PROGRESS;
    this.#request = request;
    this.#uuids = uuids;
    this.#progress = 0;
    this.#passes = 0;
    this.#isCarriedOut = true;
    try {
      await host.occupyNamespaces([...host.namespaces.keys()], Status.SANITIZE_IN_PROGRESS);
      // Last: what is kept is carried out after a restart, also if the host was told that it is not.
      await this.keep({ state: this.#state, request, uuids });
    } catch (error) {
      this.#isCarriedOut = false;
      this.#state = before.state;
      this.#request = before.request;
      this.#uuids = before.uuids;
      await this.#settle(host);
      throw error;
    }
    void this.#run(host, request);
  }

  async #run(host: ControllerHost, request: SanitizeRequest): Promise<void> {
    this.#isCarriedOut = true;
    const status = await host
      .maintain((operate) => this.#erase(host, operate, request))
      .catch((error: unknown) => {
        host.log.error({ err: error }, 'a sanitize operation could not go on');
        return Status.INTERNAL_ERROR;
      });
    const { COMPLETED, COMPLETED_NO_DEALLOCATE, FAILED } = SanitizeStateCode;
    const completed = request.noDeallocate ? COMPLETED_NO_DEALLOCATE : COMPLETED;
    const state = status === Status.SUCCESS ? completed : FAILED;
    if (!(await this.#keepEnd({ state, request, uuids: this.#uuids }))) {
      return;
    }
    this.#state = state;
    this.#isCarriedOut = false;
    await this.#settle(host);
    host.tellHosts({ kind: 'sanitized' });
  }

  /** Until then it is not over: after a restart, what hosts have written meanwhile would be erased. Resolves with false if it is abandoned. */
  async #keepEnd(end: KeptSanitizeState): Promise<boolean> {
    while (!this.#isAbandoned) {
      try {
        await this.keep(end);
        return !this.#isAbandoned;
      } catch {
        await sleep(KEEP_AGAIN_MS, undefined, { ref: false });
      }
    }
    return false;
  }

  /** What commands may do now. */
  async #settle(host: ControllerHost): Promise<void> {
    try {
      await host.occupyNamespaces([...host.namespaces.keys()], this.refusal);
    } catch (error) {
      host.log.error(
        { err: error },
        'a reactor could not be told of the end of a sanitize operation',
      );
    }
  }

  /** Exit Failure Mode. Rejects if that cannot be kept: then it is as before. */
  async exit(host: ControllerHost): Promise<void> {
    const request = this.#request;
    if (!this.hasFailed || request === undefined) {
      return;
    }
    const { NEVER, FAILED } = SanitizeStateCode;
    this.#state = NEVER;
    try {
      await this.keep({ state: NEVER, request, uuids: this.#uuids });
    } catch (error) {
      this.#state = FAILED;
      throw error;
    }
    await this.#settle(host);
  }

  /** A namespace that came later, or under the NQN of before, is none that the host wanted erased. */
  #affected({ namespaces }: ControllerHost): readonly number[] {
    const uuids = this.#uuids;
    return [...namespaces.values()]
      .filter(({ uuid }) => uuids === undefined || uuids.includes(uuid))
      .map(({ nsid }) => nsid);
  }

  async #erase(host: ControllerHost, operate: Operate, request: SanitizeRequest): Promise<number> {
    const nsids = this.#affected(host);
    const { action, passes, invert, pattern, noDeallocate } = request;
    const isOverwrite = action === SanitizeAction.OVERWRITE;
    const rounds = isOverwrite ? passes : 1;
    const parts = rounds * nsids.length;
    for (let round = 0; round < rounds; round++) {
      const inverted = invert && (passes - round) % 2 === 0;
      const written = (inverted ? ~pattern : pattern) >>> 0;
      const eraser: Eraser = isOverwrite ? { pattern: written } : { deallocate: !noDeallocate };
      for (const [i, nsid] of nsids.entries()) {
        const status = await eraseNamespace(host, operate, nsid, eraser, (done) => {
          this.#progress = (round * nsids.length + i + done) / parts;
        });
        // One that was taken away is not the subsystem's any more.
        if (status !== Status.SUCCESS && host.namespaces.has(nsid)) {
          return status;
        }
      }
      this.#passes = isOverwrite ? round + 1 : 0;
    }
    return Status.SUCCESS;
  }

  /** LID 81h. */
  page(): Uint8Array {
    return SanitizeLog.encode({
      sprog: this.isRunning
        ? Math.min(WHOLE - 2, Math.floor(WHOLE * this.#progress))
        : SANITIZE_IDLE,
      sstat: SanitizeStatus.encode({ state: this.#state, passes: this.#passes }),
      scdw10: this.#request?.dw10 ?? 0,
      etOverwrite: SANITIZE_UNKNOWN,
      etBlockErase: SANITIZE_UNKNOWN,
      etCryptoErase: SANITIZE_UNKNOWN,
      etOverwriteNoDeallocate: SANITIZE_UNKNOWN,
      etBlockEraseNoDeallocate: SANITIZE_UNKNOWN,
      etCryptoEraseNoDeallocate: SANITIZE_UNKNOWN,
    });
  }
}
