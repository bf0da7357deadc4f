/** What figures depend on besides the code. Nothing that names the machine. */
import { execFileSync } from 'node:child_process';
import { cpus, release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { VERSION } from '../src/util/version.ts';

/** From dist/bench. */
const ROOT = fileURLToPath(new URL('../../', import.meta.url));

export interface Machine {
  readonly cpu: string;
  /** Logical processors. */
  readonly cores: number;
  readonly kernel: string;
  readonly node: string;
  readonly fio?: string;
  readonly doorbell: string;
  /** Of the sources; with a plus sign if they were changed after it. */
  readonly commit?: string;
  /** ISO 8601. */
  readonly time: string;
}

function ask(command: string, ...args: string[]): string | undefined {
  try {
    return execFileSync(command, args, { cwd: ROOT, encoding: 'utf8', stdio: 'pipe' }).trim();
  } catch {
    // Not installed, or not a checkout.
    return undefined;
  }
}

export function describeMachine(): Machine {
  const commit = ask('git', 'rev-parse', '--short', 'HEAD');
  const changed = commit !== undefined && ask('git', 'status', '--porcelain', '-uno') !== '';
  const fio = ask('fio', '--version');
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: cpus().length,
    kernel: /^\d+\.\d+/.exec(release())?.[0] ?? release(),
    node: process.version,
    ...(fio !== undefined && { fio }),
    doorbell: VERSION,
    ...(commit !== undefined && { commit: changed ? `${commit}+` : commit }),
    time: new Date().toISOString(),
  };
}
