/** `doorbell config check`: all that is wrong with configuration files, where, and in which words. */
import { checkFiles } from '../../app/config/check.ts';
import type { LoadedConfig } from '../../app/config/load.ts';
import { methodTable } from '../../app/config/methods.ts';
import { ConfigError, formatPath, formatProblem, type Problem } from '../../app/config/problem.ts';
import { CliError, print, printJson } from '../output.ts';

export interface CheckFlags {
  readonly json?: true;
  /** Look at disks and folders, too. */
  readonly host: boolean;
}

/** Rejects with a CliError if something is wrong; what it is has been printed then. */
export async function runCheck(
  files: readonly string[],
  { json, host }: CheckFlags,
): Promise<void> {
  const { loaded, problems } = await check(files, host);
  if (json) {
    printJson({
      ok: problems.length === 0,
      files,
      ...(loaded !== undefined && summary(loaded)),
      problems: problems.map(problemJson),
      ignored: (loaded?.ignored ?? []).map(({ method, place }) => ({
        ...placeJson({ place }),
        method,
      })),
    });
  } else if (problems.length > 0) {
    process.stderr.write(`${problems.map(formatProblem).join('\n')}\n`);
  }
  if (problems.length > 0) {
    throw new CliError(problems.length === 1 ? '1 mistake' : `${problems.length} mistakes`);
  }
  if (!json && loaded !== undefined) {
    const { disks, subsystems, listeners } = summary(loaded);
    for (const { method, place } of loaded.ignored) {
      print(formatProblem({ place, message: `${method} has no effect here` }));
    }
    const counts = [count(disks, 'disk'), count(subsystems, 'subsystem')];
    print(`${files.join(', ')}: good: ${counts.join(', ')}, ${count(listeners, 'socket')}`);
  }
}

async function check(
  files: readonly string[],
  host: boolean,
): Promise<{ loaded?: LoadedConfig; problems: readonly Problem[] }> {
  try {
    return { loaded: await checkFiles(files, methodTable(), host), problems: [] };
  } catch (error) {
    if (error instanceof ConfigError) {
      return { problems: error.problems };
    }
    throw error;
  }
}

const summary = ({ plan }: LoadedConfig) => ({
  disks: plan.bdevs.size,
  subsystems: plan.subsystems.size,
  listeners: [...plan.subsystems.values()].reduce((sum, { listeners }) => sum + listeners.size, 0),
});

const count = (number: number, noun: string): string =>
  `${number} ${noun}${number === 1 ? '' : 's'}`;

/** `line` and `column` from 1, null if nothing is written there; `key` as `vms.web.disks[0].size`, empty for the whole file. */
function placeJson({ place }: Pick<Problem, 'place'>) {
  const { file, line, column, path } = place;
  return { file, line: line ?? null, column: column ?? null, key: formatPath(path) };
}

const problemJson = (problem: Problem) => ({ ...placeJson(problem), message: problem.message });
