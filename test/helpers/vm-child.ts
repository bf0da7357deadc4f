/** A child process of a test: its output is kept, its end can be awaited, and it never outlives the test process. */

import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { spawnTied } from './tied.ts';

export class Child {
  readonly #process: ChildProcessWithoutNullStreams;
  /** What it printed on stderr, and on stdout unless somebody else reads that. */
  output = '';
  /** Settled when it is gone: its exit code, or the signal or the error that ended it. Never rejected. */
  readonly exit: Promise<number | string>;

  /** @param keepStdout whether stdout goes to `output`; otherwise read {@link stdout} */
  constructor(command: string, args: readonly string[], keepStdout: boolean) {
    this.#process = spawnTied(command, args);
    for (const stream of keepStdout
      ? [this.stdout, this.#process.stderr]
      : [this.#process.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.output += text;
      });
    }
    this.exit = new Promise((resolve) => {
      this.#process.once('error', (error) => resolve(error.message));
      this.#process.once('close', (code, signal) => resolve(code ?? signal ?? 'unknown'));
    });
  }

  get pid(): number {
    if (this.#process.pid === undefined) {
      throw new Error('the process did not start');
    }
    return this.#process.pid;
  }

  get stdin(): Writable {
    return this.#process.stdin;
  }

  get stdout(): Readable {
    return this.#process.stdout;
  }

  kill(signal: NodeJS.Signals): void {
    this.#process.kill(signal);
  }

  /** Waits for its end; after `timeoutMs` it is killed, and the answer is then `'SIGKILL'`. */
  async end(timeoutMs: number): Promise<number | string> {
    const timer = setTimeout(() => this.kill('SIGKILL'), timeoutMs);
    const how = await this.exit;
    clearTimeout(timer);
    return how;
  }
}
