/**
 * Running other programs during set-up: found on PATH, quiet when they succeed, shown in full when they fail.
 *
 * Everything in this folder is plain JavaScript over Node alone, because it runs before anything is installed.
 */

import { spawnSync } from 'node:child_process';
import {
  accessSync,
  closeSync,
  constants,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

/** A failure that the user can act on: its message is shown without a stack. */
export class SetupError extends Error {
  /** What the failed tool printed; shown before the message. */
  output = '';
}

/**
 * Says in one line what is being done. It goes to stderr, so that stdout stays the program's own.
 *
 * @param {string} text
 */
export function say(text) {
  process.stderr.write(`doorbell: ${text}\n`);
}

/** @returns {boolean} whether packages may be installed on this machine */
export function isRoot() {
  return process.getuid?.() === 0;
}

/**
 * @param {string} name a program's name
 * @returns {string | undefined} its path, from PATH
 */
export function which(name) {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(folder, name);
    try {
      accessSync(path, constants.X_OK);
      if (statSync(path).isFile()) return path;
    } catch {
      // Not in this folder.
    }
  }
  return undefined;
}

/**
 * Runs a program to its end and returns what it printed on stdout.
 *
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: Record<string, string>, stdin?: string | Buffer }} [options]
 *   `env` is added to our own
 * @returns {string}
 * @throws {SetupError} with all that it printed, when it cannot start or does not exit with 0
 */
export function run(command, args, options = {}) {
  // Through files, not pipes: no limit on length, and stderr stays readable after a crash.
  const folder = mkdtempSync(join(tmpdir(), 'doorbell-setup-'));
  try {
    const path = { out: join(folder, 'stdout'), err: join(folder, 'stderr') };
    const out = openSync(path.out, 'w');
    const err = openSync(path.err, 'w');
    const result = spawnSync(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      input: options.stdin ?? '',
      stdio: ['pipe', out, err],
    });
    closeSync(out);
    closeSync(err);
    const stdout = readFileSync(path.out, 'utf8');
    if (result.error || result.status !== 0) {
      const how =
        result.error?.message ??
        (result.signal ? `killed by ${result.signal}` : `exit code ${result.status}`);
      const failure = new SetupError(`${[command, ...args].join(' ')} failed: ${how}`);
      failure.output = stdout + readFileSync(path.err, 'utf8');
      throw failure;
    }
    return stdout;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
