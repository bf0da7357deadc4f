/**
 * The state folder: the configuration as it was last, in SPDK's format, so that it outlives the process. The file is replaced whole:
 * after a crash at any moment there is the old one or the new one. One process a folder. Owned by main.
 */
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { BlockingCalls } from '../../native/blocking-calls.ts';
import { native } from '../../native/index.ts';
import { makeFolder, replaceFile } from '../../native/paths.ts';
import type { ConfigDocument } from '../../target/model/plan.ts';
import { EMPTY_PLAN, type Plan } from '../../target/model/plan.ts';
import { describeError, FailedError, withErrnoDetail } from '../../util/errors.ts';
import { VERSION } from '../../util/version.ts';
import { foldCalls } from './fold.ts';
import { ConfigError, type Path, type Place, type Problem } from './problem.ts';
import { jsonSource, type Source } from './source.ts';
import { type MethodTable, readSpdk } from './spdk.ts';

const FORMAT = 1;
/** What can be done about a file that cannot be used. */
const HINT = 'restore it from a backup, or move it away to start without it';

/** What is kept. */
export interface State {
  readonly plan: Plan;
  readonly places: ReadonlyMap<string, Place>;
  /** What the configuration files said when they were last taken over. */
  readonly base: Plan;
}

/** What is to be kept; `revision` tells which change was the last. */
type Content = () => {
  readonly document: ConfigDocument;
  readonly base: ConfigDocument;
  readonly revision: number;
};

export class StateFile {
  readonly path: string;
  /** What is to be written. */
  content: Content | undefined;
  /** Held as long as the process lives. */
  readonly #lock: number;
  readonly #calls: BlockingCalls;
  #writing: Promise<unknown> = Promise.resolve();
  /** The write that has not begun: it will have all that is there when it does. */
  #next: Promise<number> | undefined;
  #closed = false;
  /** What a write has that begins after the end did: nothing of that. */
  #last: ReturnType<Content> | undefined;

  /** Makes the folder if it is not there, and locks it. Rejects with FailedError if another process has it, and with what the system says. */
  static async open(folder: string): Promise<StateFile> {
    const path = resolve(folder);
    const calls = new BlockingCalls({ limit: 1 });
    await makeFolder(calls, path, 0o700);
    let lock: number;
    try {
      lock = openSync(join(path, 'lock'), 'a', 0o600);
    } catch (error) {
      throw withErrnoDetail(error, path);
    }
    if (!native.lockFile(lock, true)) {
      closeSync(lock);
      throw new FailedError(`another target uses the state folder ${path}`);
    }
    return new StateFile(path, lock, calls);
  }

  private constructor(folder: string, lock: number, calls: BlockingCalls) {
    this.path = join(folder, 'state.json');
    this.#lock = lock;
    this.#calls = calls;
  }

  /** What was written last; undefined if nothing was. Throws ConfigError if it cannot be understood. */
  read(methods: MethodTable): State | undefined {
    let text: string;
    try {
      text = readFileSync(this.path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') {
        return undefined;
      }
      throw withErrnoDetail(error, this.path);
    }
    return parseState(text, this.path, methods);
  }

  /** Resolves with the revision that is on stable storage then: the present one or a later. Who asks while a write is under way shares the next. */
  save(): Promise<number> {
    if (this.#closed) {
      return Promise.reject(new FailedError('The target is shutting down'));
    }
    this.#next ??= this.#writing
      .catch(() => {})
      .then(() => {
        this.#next = undefined;
        const writing = this.#write();
        this.#writing = writing;
        return writing;
      });
    return this.#next;
  }

  /** Waits for the last write, so that nothing of the target's end is written. */
  async stop(): Promise<void> {
    this.#closed = true;
    if (this.#next !== undefined) {
      this.#last ??= this.content?.();
    }
    await (this.#next ?? this.#writing).catch(() => {});
  }

  /** The same, and lets another process have the folder. To be called once. */
  async close(): Promise<void> {
    await this.stop();
    closeSync(this.#lock);
  }

  async #write(): Promise<number> {
    const content = this.#last ?? this.content?.();
    if (content === undefined) {
      throw new FailedError('there is nothing to keep yet');
    }
    const { document, base, revision } = content;
    const text = JSON.stringify({ version: FORMAT, doorbell: VERSION, ...document, base }, null, 1);
    await replaceFile(this.#calls, this.path, text, 0o600);
    return revision;
  }
}

function parseState(text: string, file: string, methods: MethodTable): State {
  let source: Source;
  try {
    source = jsonSource(text, file);
  } catch (error) {
    throw new FailedError(`${file} is damaged: ${describeError(error)} (${HINT})`);
  }
  const { version, base } = (source.value ?? {}) as { version?: unknown; base?: unknown };
  if (version !== FORMAT) {
    throw new FailedError(
      version === undefined
        ? `${file} is damaged: it has no version (${HINT})`
        : `${file} has version ${version}, this Doorbell knows ${FORMAT}: use the Doorbell that wrote it`,
    );
  }
  const problems: Problem[] = [];
  const read = (value: unknown, above: Path) => {
    const part = { ...source, value, place: (path: Path) => source.place([...above, ...path]) };
    return foldCalls(readSpdk(part, methods, problems).calls, problems);
  };
  const { plan, places } = read(source.value, []);
  const known = base === undefined ? EMPTY_PLAN : read(base, ['base']).plan;
  if (problems.length > 0) {
    const what = new ConfigError(problems).message;
    throw new FailedError(`${file} is damaged:\n${what}\n(${HINT})`);
  }
  return { plan, places, base: known };
}
