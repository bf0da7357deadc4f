/** The command line as a process. */
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { constants } from 'node:os';
import { fileURLToPath } from 'node:url';
import { spawnTied } from './tied.ts';

/** From dist/test/helpers. */
const CLI = fileURLToPath(new URL('../../src/cli/doorbell.js', import.meta.url));

export interface Outcome {
  /** Exit code, or 128 and the number of the signal that ended it, as a shell has it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** It ends with this process at the latest. */
export class Doorbell {
  readonly child: ChildProcessWithoutNullStreams;
  /** Once the process is over. */
  readonly outcome: Promise<Outcome>;
  #stdout = '';
  #stderr = '';
  #changed: () => void = () => {};
  #over = false;

  /** `env` comes on top of our own environment. */
  constructor(args: readonly string[], cwd?: string, env?: Readonly<Record<string, string>>) {
    this.child = spawnTied(process.execPath, [CLI, ...args], {
      ...(cwd !== undefined && { cwd }),
      ...(env !== undefined && { env: { ...process.env, ...env } }),
    });
    this.child.stdin.on('error', () => {});
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#stdout += text;
      this.#changed();
    });
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr += text;
      this.#changed();
    });
    this.outcome = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('close', (status, signal) => {
        const code = status ?? 128 + constants.signals[signal as NodeJS.Signals];
        this.#over = true;
        this.#changed();
        resolve({ code, stdout: this.#stdout, stderr: this.#stderr });
      });
    });
  }

  /** Resolves when `pattern` was printed on stdout. Rejects if the process ends without. */
  async printed(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.#stdout);
      if (match !== null) {
        return match;
      }
      if (this.#over) {
        throw new Error(`doorbell ended without ${pattern}:\n${this.#stdout}${this.#stderr}`);
      }
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }
}

/** Runs it to its end. */
export function doorbell(args: readonly string[], stdin = ''): Promise<Outcome> {
  const { child, outcome } = new Doorbell(args);
  child.stdin.end(stdin);
  return outcome;
}
