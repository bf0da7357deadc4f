/** A program of examples/pci, run as a VMM's user would. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Test } from 'tap';
import { bareEnvironment } from './bare-environment.ts';
import { socketPath } from './vfio.ts';

const FOLDER = fileURLToPath(new URL('../../../examples/pci/', import.meta.url));

export class PciExample {
  readonly path: string;
  readonly child: ChildProcess;
  /** Its exit code, when it has ended. */
  readonly exit: Promise<number | null>;
  readonly #lines: string[] = [];
  #wake = () => {};

  /** `fds`: descriptors that it inherits, from 3 on; they are closed here. */
  constructor(
    t: Test,
    name: string,
    path: string,
    args: readonly string[],
    fds: readonly number[] = [],
  ) {
    this.path = path;
    this.child = spawn(process.execPath, [join(FOLDER, `${name}.mjs`), ...args], {
      stdio: ['pipe', 'pipe', 'inherit', ...fds],
      env: bareEnvironment(),
    });
    fds.forEach((fd) => {
      closeSync(fd);
    });
    this.exit = once(this.child, 'exit').then(([code]) => code);
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      this.#lines.push(line);
      this.#wake();
    });
    t.teardown(() => this.child.kill('SIGKILL'));
  }

  /** Resolves when it takes connections. */
  static async start(t: Test, name: string, ...args: string[]): Promise<PciExample> {
    const path = socketPath(t);
    const example = new PciExample(t, name, path, [`--socket-path=${path}`, ...args]);
    await example.line(/connect to/);
    return example;
  }

  /** The next line that it prints which is of that form; others are dropped. */
  async line(form: RegExp): Promise<string> {
    for (;;) {
      const line = this.#lines.shift();
      if (line === undefined) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      } else if (form.test(line)) {
        return line;
      }
    }
  }

  /** A line for its standard input. */
  say(line: string): void {
    this.child.stdin!.write(`${line}\n`);
  }

  /** SIGTERM. Resolves with its exit code. */
  stop(): Promise<number | null> {
    this.child.kill('SIGTERM');
    return this.exit;
  }
}
