/** A configuration file as data, with the line and column of each part of it. YAML; JSON is YAML, too, and may have comments. */
import { resolve } from 'node:path';
import {
  type Document,
  isMap,
  isPair,
  isScalar,
  isSeq,
  LineCounter,
  parseDocument,
  visit,
} from 'yaml';
import { readTextFile } from '../../native/paths.ts';
import { describeError, withErrnoDetail } from '../../util/errors.ts';
import { askPath } from './host-files.ts';
import { ConfigError, type Path, type Place } from './problem.ts';

/** More is no configuration. Bytes. */
const MAX_BYTES = 16 * 1024 * 1024;

export interface Source {
  /** As it was named. */
  readonly file: string;
  readonly value: unknown;
  /** Of the part at `path`, or of what there is of it. */
  place(path: Path): Place;
}

/** Rejects with ConfigError. */
export async function readSource(file: string): Promise<Source> {
  let text: string | undefined;
  let message = `not a file of at most ${MAX_BYTES / 1024 / 1024} MiB`;
  try {
    text = await askPath(file, (calls) => readTextFile(calls, file, MAX_BYTES));
  } catch (error) {
    message = describeError(withErrnoDetail(error, ''));
  }
  if (text === undefined) {
    throw new ConfigError([{ place: { file, path: [] }, message }]);
  }
  return parseSource(text, file);
}

/** Throws ConfigError. `file`: for messages. */
export function parseSource(text: string, file: string): Source {
  const lineCounter = new LineCounter();
  const document = parseDocument(/^\s*[{/]/.test(text) ? withoutComments(text) : text, {
    lineCounter,
    prettyErrors: false,
    merge: true,
  });
  const at = (offset: number) => {
    const { line, col } = lineCounter.linePos(offset);
    return { line, column: col };
  };
  if (document.errors.length > 0) {
    throw new ConfigError(
      document.errors.map(({ message, pos }) => ({
        place: { file, path: [], ...at(pos[0]) },
        message,
      })),
    );
  }
  nameKeys(document);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    // Aliases that multiply, or lead nowhere.
    throw new ConfigError([{ place: { file, path: [] }, message: describeError(error) }]);
  }
  return {
    file,
    value,
    place: (path) => {
      const offset = locate(document, path);
      return { file, path, ...(offset !== undefined && at(offset)) };
    },
  };
}

/** JSON that a program wrote: where things are is looked for only when somebody asks. Throws SyntaxError. */
export function jsonSource(text: string, file: string): Source {
  const value: unknown = JSON.parse(text);
  let located: Source | undefined;
  return {
    file,
    value,
    place: (path) => {
      located ??= parseSource(text, file);
      return located.place(path);
    },
  };
}

/** Keys are names, also those that YAML has another meaning for: `null: 1T`. */
function nameKeys(document: Document): void {
  visit(document, {
    Pair: (_, { key }) => {
      if (isScalar(key) && typeof key.value !== 'string') {
        key.value = key.source ?? String(key.value);
      }
    },
  });
}

/** The offset of the deepest part along `path` that is there: of a key, or of an item. */
function locate(document: Document, path: Path): number | undefined {
  let node: unknown = document.contents;
  let offset = rangeStart(node);
  for (const key of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && item.key.value === key);
      if (!isPair(pair)) {
        break;
      }
      offset = rangeStart(pair.key) ?? offset;
      node = pair.value;
    } else if (isSeq(node) && typeof key === 'number' && key in node.items) {
      node = node.items[key];
      offset = rangeStart(node) ?? offset;
    } else {
      break;
    }
  }
  return offset;
}

function rangeStart(node: unknown): number | undefined {
  return isScalar(node) || isMap(node) || isSeq(node) ? node.range?.[0] : undefined;
}

/** SPDK's JSON may have comments. They become blanks, so that everything stays at its place. */
function withoutComments(text: string): string {
  return text.replace(
    /("(?:[^"\\\n]|\\.)*")|\/\/[^\n]*|\/\*[\s\S]*?\*\//g,
    (match, string: string | undefined) => string ?? match.replaceAll(/[^\n]/g, ' '),
  );
}

/** A path of a file, relative to the folder that the configuration file is in. */
export function resolveFrom(file: string, path: string): string {
  return resolve(file, '..', path);
}
