/** The NVMe initiator in C, which shares no code with the target: its building, and its runs. */
import { type ChildProcessWithoutNullStreams, execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { spawnTied } from './tied.ts';

/** From dist/test/helpers. */
const SOURCE = fileURLToPath(new URL('../../../test/foreign/initiator.c', import.meta.url));

/** Compiles it into a folder; gives the program's path. Throws with the compiler's words. */
export function buildInitiator(folder: string): string {
  const program = join(folder, 'initiator');
  const options = ['-O2', '-Wall', '-Wextra', '-Werror'];
  execFileSync('cc', [...options, SOURCE, '-o', program], { stdio: 'pipe' });
  return program;
}

export interface InitiatorOutcome {
  /** Exit code, or `null` where a signal ended it. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** A run of it. */
export class Initiator {
  readonly child: ChildProcessWithoutNullStreams;
  /** Once the run is over. */
  readonly outcome: Promise<InitiatorOutcome>;
  /** Once it has printed its first line; at the latest when it is over. */
  readonly printed: Promise<void>;

  constructor(program: string, args: readonly string[]) {
    this.child = spawnTied(program, args);
    let stdout = '';
    let stderr = '';
    this.child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    this.child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    this.outcome = new Promise((resolve, reject) => {
      this.child.on('error', reject);
      this.child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
    });
    this.printed = new Promise((resolve) => {
      this.child.stdout.once('data', () => resolve());
      this.child.once('close', () => resolve());
    });
  }
}
