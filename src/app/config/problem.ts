/** What can be wrong with a configuration, and where. */
import { FailedError } from '../../util/errors.ts';

/** Keys and indices from the top of a document. */
export type Path = readonly (string | number)[];

/** Where something stands. */
export interface Place {
  readonly file: string;
  readonly path: Path;
  /** From 1; absent if the place is not in a text. */
  readonly line?: number;
  readonly column?: number;
}

export interface Problem {
  readonly place: Place;
  readonly message: string;
}

/** A configuration that cannot be used. The message has a line a problem. */
export class ConfigError extends FailedError {
  readonly problems: readonly Problem[];

  constructor(problems: readonly Problem[]) {
    const ordered = inOrder(problems);
    super(ordered.map(formatProblem).join('\n'));
    this.problems = ordered;
  }
}

/** As they stand in the files. */
export function inOrder(problems: readonly Problem[]): Problem[] {
  return [...problems].sort(
    (a, b) =>
      (a.place.line ?? 0) - (b.place.line ?? 0) || (a.place.column ?? 0) - (b.place.column ?? 0),
  );
}

/** Throws a ConfigError if there are problems. */
export function refuse(problems: readonly Problem[]): void {
  if (problems.length > 0) {
    throw new ConfigError(problems);
  }
}

/** `vms.web.disks[0].size` */
export function formatPath(path: Path): string {
  return path
    .map((key, i) => (typeof key === 'number' ? `[${key}]` : `${i > 0 ? '.' : ''}${quote(key)}`))
    .join('');
}

function quote(key: string): string {
  return /^[\w-]+$/.test(key) ? key : JSON.stringify(key);
}

/** As compilers write it: `FILE:LINE:COLUMN: PATH: what is wrong`. */
export function formatProblem({ place, message }: Problem): string {
  const { file, line, column, path } = place;
  const position = line === undefined ? file : `${file}:${line}:${column}`;
  return [position, ...(path.length > 0 ? [formatPath(path)] : []), message].join(': ');
}
