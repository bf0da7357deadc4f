/** Between a target and its state folder: restores it at the start, and keeps each change before it is answered. Owned by main. */
import type { Dispatcher } from '../rpc/dispatcher.ts';
import { saveConfig } from '../rpc/save-config.ts';
import type { Target } from '../target/target.ts';
import { describeError, FailedError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import type { StateDir } from './state-dir.ts';

export class StateKeeper {
  readonly #dir: StateDir;
  readonly #target: Target;
  readonly #log: Logger;
  /** The target's revision that the file has, and the write that is going to make it another. */
  #kept = -1;
  #writing: Promise<void> | undefined;

  constructor(dir: StateDir, target: Target, log: Logger) {
    this.#dir = dir;
    this.#target = target;
    this.#log = log;
  }

  /**
   * Makes again what was kept. False if there was nothing. Rejects with the first call that fails, whose object may have gone meanwhile: the
   * file stays as it is.
   */
  async restore(dispatcher: Dispatcher): Promise<boolean> {
    const { saved, path } = this.#dir;
    if (saved === undefined) {
      return false;
    }
    for (const { config } of saved.subsystems) {
      for (const { method, params } of config ?? []) {
        try {
          await dispatcher.dispatch(method, params, { restoring: true });
        } catch (error) {
          throw new FailedError(
            `${path} cannot be restored: ${method} ${JSON.stringify(params)}: ${describeError(error)} ` +
              '(bring back what is missing, or take the entry out of the file)',
          );
        }
      }
    }
    const { bdevs, subsystems } = this.#target;
    this.#log.info(
      { file: path, bdevs: bdevs.list().length, subsystems: subsystems.length },
      'state restored',
    );
    for (const { name } of bdevs.list().filter(({ module }) => module === 'malloc')) {
      this.#log.warn({ bdev: name }, 'a RAM disk comes back empty');
    }
    return true;
  }

  /** Resolves when all that was changed so far is kept. Rejects with FailedError if it cannot be. */
  async keep(): Promise<void> {
    while (this.#kept !== this.#target.revision) {
      if (this.#writing === undefined) {
        this.#writing = this.#write().finally(() => {
          this.#writing = undefined;
        });
      }
      await this.#writing;
    }
  }

  async #write(): Promise<void> {
    const { revision } = this.#target;
    try {
      await this.#dir.write(saveConfig(this.#target));
    } catch (error) {
      const reason = describeError(error);
      this.#log.error({ err: error, file: this.#dir.path }, 'a change could not be kept');
      throw new FailedError(`done, but it will not outlast a restart: ${reason}`);
    }
    this.#kept = revision;
  }
}
