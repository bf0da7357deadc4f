/** Runs a shell command on a terminal of its own, by script(1): for what a program does only there. */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Test } from './target.ts';
import { spawnTied } from './tied.ts';

/** Escape, and what sets colours. */
export const ESC = String.fromCharCode(27);
export const SGR = new RegExp(`${ESC}\\[\\d*m`, 'g');

export const canPty = spawnSync('script', ['--version']).status === 0;

export class Pty {
  readonly #child: ChildProcess;
  /** All that came out, once it is over. */
  readonly outcome: Promise<{ readonly code: number | null; readonly output: string }>;
  #output = '';
  #changed: () => void = () => {};
  #over = false;

  /** Ended at the end of the test. */
  constructor(t: Test, command: string, { columns = 100, rows = 30 } = {}, env = {}) {
    const sized = `stty cols ${columns} rows ${rows}; ${command}`;
    this.#child = spawnTied('script', ['-qfec', sized, '/dev/null'], {
      env: { ...process.env, TERM: 'xterm', SHELL: '/bin/sh', ...env },
    });
    this.#child.stdin?.on('error', () => {});
    this.#child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text;
      this.#changed();
    });
    this.outcome = new Promise((resolve) => {
      this.#child.on('close', (code) => {
        this.#over = true;
        this.#changed();
        resolve({ code, output: this.#output });
      });
    });
    t.teardown(() => this.#child.kill('SIGKILL'));
  }

  type(keys: string): void {
    this.#child.stdin?.write(keys);
  }

  /** Resolves when it was shown; forgets what was shown before. Rejects if the command ends without. */
  async shown(pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const match = pattern.exec(this.#output);
      if (match !== null) {
        this.#output = this.#output.slice(match.index + match[0].length);
        return match;
      }
      if (this.#over) {
        throw new Error(`ended without ${pattern}:\n${JSON.stringify(this.#output.slice(-2000))}`);
      }
      await new Promise<void>((resolve) => {
        this.#changed = resolve;
      });
    }
  }

  /** The process of the command whose arguments contain a text. */
  find(text: string): number {
    const below = (pid: number): number[] => {
      const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
      return children
        .split(' ')
        .filter(Boolean)
        .flatMap((child) => [Number(child), ...below(Number(child))]);
    };
    // The last is the innermost: shells above it have the text in their arguments too.
    const pid = below(this.#child.pid!).findLast((pid) =>
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(text),
    );
    if (pid === undefined) {
      throw new Error(`no process with ${text}`);
    }
    return pid;
  }
}
