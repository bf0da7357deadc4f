/** Child processes that never outlive the test's, however that ends: a test that failed or was killed leaves nothing behind. */
import {
  type ChildProcess,
  type ChildProcessWithoutNullStreams,
  type SpawnOptions,
  spawn,
  spawnSync,
} from 'node:child_process';

/** The kernel ends the child with us, even when SIGKILL ends us; it stays the same process. Without setpriv(1) 'exit' has to do. */
const TIE =
  spawnSync('setpriv', ['--version']).status === 0 ? ['setpriv', '--pdeathsig', 'KILL'] : [];

/** `spawn`, with stdin, stdout and stderr as pipes by default. */
export function spawnTied(command: string, args: readonly string[]): ChildProcessWithoutNullStreams;
export function spawnTied(
  command: string,
  args: readonly string[],
  options: SpawnOptions & { readonly stdio?: undefined },
): ChildProcessWithoutNullStreams;
export function spawnTied(
  command: string,
  args: readonly string[],
  options: SpawnOptions,
): ChildProcess;
export function spawnTied(
  command: string,
  args: readonly string[],
  options: SpawnOptions = {},
): ChildProcess {
  const [program, ...all] = [...TIE, command, ...args];
  const child = spawn(program, all, options);
  const end = () => child.kill('SIGKILL');
  process.on('exit', end);
  child.once('close', () => process.off('exit', end));
  return child;
}
