/** Sanitize operations, kept in the state folder: one that was under way goes on after any end of the process. Owned by main. */
import type { KeptOperation, KeptSanitize } from '../../target/kept-sanitize.ts';
import type { Logger } from '../../util/log.ts';
import { KeptFile } from './kept-file.ts';

/** Fields of a request that are numbers, and flags. */
const NUMBERS = ['action', 'dw10', 'passes', 'pattern'] as const;
const FLAGS = ['unrestricted', 'noDeallocate', 'invert'] as const;

export class SanitizeFile extends KeptFile<KeptOperation> {
  constructor(folder: string, log: Logger) {
    const complaint =
      'a sanitize operation could not be kept: after a restart it will not be known';
    super(folder, { name: 'sanitize.json', key: 'operations', isEntry, complaint }, log);
  }

  /** Keeps what `kept` has from now on. */
  follow(kept: KeptSanitize, before: readonly KeptOperation[]): void {
    kept.follow(before, () => this.save(() => kept.list()));
  }
}

function isEntry({ nqn, state, request, uuids }: Readonly<Record<string, unknown>>): boolean {
  const fields = Object(request) as Readonly<Record<string, unknown>>;
  return (
    typeof nqn === 'string' &&
    Number.isInteger(state) &&
    NUMBERS.every((key) => Number.isInteger(fields[key])) &&
    FLAGS.every((key) => typeof fields[key] === 'boolean') &&
    isUuids(uuids)
  );
}

/** Of the namespaces of an operation; those before there were any were about all. */
function isUuids(value: unknown): boolean {
  return (
    value === undefined || (Array.isArray(value) && value.every((each) => typeof each === 'string'))
  );
}
