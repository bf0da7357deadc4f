/** The neighbour, seen from the test: what it has done, and that it goes on. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { bareEnvironment } from '../bare-environment.ts';
import {
  ACTIVITIES,
  type GuestOptions,
  type GuestReply,
  type GuestRequest,
  type Lap,
} from './guest.ts';

const GUEST = fileURLToPath(new URL('guest.js', import.meta.url));
/** A neighbour that does nothing of a kind for so long is taken for stopped: a test is then over, but none passes by it. Milliseconds. */
const PATIENCE_MS = 60_000;

interface Question {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

export class Neighbour {
  readonly #child: ChildProcess;
  readonly #questions = new Map<number, Question>();
  #nextId = 1;
  /** Why it is over, if it is. */
  #failure: Error | undefined;
  readonly #exit: Promise<void>;

  /** Connected, and at work. */
  static async start(options: GuestOptions): Promise<Neighbour> {
    const env = bareEnvironment();
    const child = fork(GUEST, [JSON.stringify(options)], { execArgv: [], env });
    return new Promise((resolve, reject) => {
      const neighbour = new Neighbour(child, () => resolve(neighbour), reject);
    });
  }

  private constructor(child: ChildProcess, ready: () => void, failed: (error: Error) => void) {
    this.#child = child;
    const fail = (error: Error): void => {
      this.#failure ??= error;
      failed(this.#failure);
      for (const question of this.#questions.values()) {
        question.reject(this.#failure);
      }
      this.#questions.clear();
    };
    child.on('message', (message: GuestReply) => {
      if (message.kind === 'ready') {
        ready();
      } else if (message.kind === 'failed') {
        fail(new Error(`the neighbour failed: ${message.reason}`));
      } else {
        this.#questions.get(message.id)?.resolve(message.value);
        this.#questions.delete(message.id);
      }
    });
    this.#exit = new Promise((resolve) => {
      child.once('exit', (code, signal) => {
        fail(new Error(`the neighbour ended: ${signal ?? code}`));
        resolve();
      });
    });
  }

  #ask(request: Omit<GuestRequest, 'id'> & { readonly count?: number }): Promise<unknown> {
    if (this.#failure !== undefined) {
      return Promise.reject(this.#failure);
    }
    return new Promise((resolve, reject) => {
      const id = this.#nextId;
      this.#nextId += 1;
      this.#questions.set(id, { resolve, reject });
      this.#child.send({ ...request, id });
    });
  }

  /** What it has done so far, in the order of `ACTIVITIES`. */
  async counts(): Promise<readonly number[]> {
    return (await this.#ask({ kind: 'counts' })) as number[];
  }

  /**
   * Resolves when it has done everything it does `count` times more, all begun to be counted now. Rejects if it found anything wrong, or
   * stopped.
   */
  async advance(count: number): Promise<void> {
    const before = await this.#within(this.counts(), () => 'its process does not answer');
    let last = before;
    const watch = setInterval(() => {
      this.counts().then(
        (counts) => {
          last = counts;
        },
        () => {},
      );
    }, 1000);
    try {
      await this.#within(this.#ask({ kind: 'advance', count }), () => {
        const behind = ACTIVITIES.filter((_, i) => last[i] < before[i] + count);
        const done = behind.map((name) => {
          const i = ACTIVITIES.indexOf(name);
          return `${last[i] - before[i]} of ${count} ${name}`;
        });
        return `it did ${done.join(', ')}`;
      });
    } finally {
      clearInterval(watch);
    }
  }

  async #within<T>(work: Promise<T>, why: () => string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`the neighbour stands still: ${why()} in ${PATIENCE_MS / 1000} s`)),
        PATIENCE_MS,
      );
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Latencies since the last lap. */
  async lap(): Promise<Lap> {
    return (await this.#ask({ kind: 'lap' })) as Lap;
  }

  /** Reads all that it wrote once more, and hangs up. Resolves with the number of reads that were compared in all. */
  async finish(): Promise<number> {
    const work = this.#ask({ kind: 'finish' }) as Promise<number>;
    const checked = await this.#within(work, () => 'it did not read all it wrote');
    await this.#exit;
    return checked;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exit;
  }
}
