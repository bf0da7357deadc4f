/** What commands print on, and how they fail. */

import { describeError } from '../util/errors.ts';

/** Exit codes of all commands, as `docs/cli.md` has them. */
export const Exit = {
  OK: 0,
  /** What was asked for could not be done: the reason is on stderr. */
  FAILED: 1,
  /** The command line is wrong. */
  USAGE: 2,
  /** Nobody answers at the socket, or it is another's. */
  UNREACHABLE: 3,
} as const;

/** Ends the command: one line that says what, why, and what to do. */
export class CliError extends Error {
  override readonly name = 'CliError';
  readonly exitCode: number;

  constructor(message: string, exitCode: number = Exit.FAILED) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** A result for other programs. */
export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

/** Text and a newline. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Who reads stdout may stop reading (`| head`): that ends a command, and is no error; a disk that is full is one. */
export function endWithReader(): void {
  process.stdout.on('error', endWithoutReader);
}

/** For a command that has other things to do than to print. */
export function outliveReader(): void {
  process.stdout.off('error', endWithoutReader);
}

function endWithoutReader(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') {
    process.stderr.write(`doorbell: standard output: ${describeError(error)}\n`);
    process.exit(Exit.FAILED);
  }
  process.exit(process.exitCode ?? Exit.OK);
}
