/** A method's parameters as they are typed: one JSON value, or key=value words. Pure. */
import { CliError, Exit } from '../output.ts';
import { describeSchema, type MethodDoc, type Schema } from './methods.ts';

const wrong = (message: string) => new CliError(message, Exit.USAGE);

/** Whether the words have to be read with the method's schema at hand. */
export const needsSchema = (words: readonly string[]): boolean =>
  words.some((word) => !isJson(word) && word.includes('='));

const isJson = (word: string): boolean => /^\s*[[{]/.test(word);

/**
 * `{"a": 1}`, or `a=1 b.c=x`: a dot leads into an object. With a schema a value is read as its type says; without, it is JSON if it can
 * be, else a string. Throws a CliError.
 */
export function parseParams(words: readonly string[], doc?: MethodDoc): unknown {
  const [first] = words;
  if (first === undefined || (words.length === 1 && first.trim() === '')) {
    return undefined;
  }
  if (words.length === 1 && !/^[^\s[{"]+=/.test(first)) {
    return parseJson(first);
  }
  const params: Record<string, unknown> = {};
  for (const word of words) {
    const at = word.indexOf('=');
    if (at <= 0 || isJson(word)) {
      throw wrong(`'${word}' is not key=value (parameters are key=value words, or one JSON value)`);
    }
    assign(params, word.slice(0, at), word.slice(at + 1), doc);
  }
  return params;
}

function parseJson(source: string): unknown {
  try {
    return JSON.parse(source);
  } catch (error) {
    throw wrong(`the parameters are not JSON: ${(error as Error).message}`);
  }
}

function assign(
  params: Record<string, unknown>,
  key: string,
  value: string,
  doc: MethodDoc | undefined,
): void {
  const path = key.split('.');
  let into = params;
  let schema: Schema | undefined = doc && { properties: schemasOf(doc) };
  for (const [depth, name] of path.entries()) {
    schema = schema?.properties?.[name];
    const last = depth === path.length - 1;
    if (last) {
      if (Object.hasOwn(into, name)) {
        throw wrong(`'${key}' is given twice`);
      }
      define(into, name, coerce(key, value, schema));
      return;
    }
    if (!Object.hasOwn(into, name)) {
      define(into, name, {});
    }
    const next = into[name];
    if (typeof next !== 'object' || next === null || Array.isArray(next)) {
      throw wrong(`'${path.slice(0, depth + 1).join('.')}' is given a value and parts`);
    }
    into = next as Record<string, unknown>;
  }
}

/** Sets a key of the user's choice, `__proto__` too, as an own one. */
function define(into: Record<string, unknown>, name: string, value: unknown): void {
  Object.defineProperty(into, name, {
    value,
    enumerable: true,
    configurable: true,
    writable: true,
  });
}

const schemasOf = (doc: MethodDoc): Record<string, Schema> =>
  Object.fromEntries(doc.params.map(({ name, schema }) => [name, schema]));

function coerce(key: string, text: string, schema: Schema | undefined): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const types = schema === undefined ? undefined : typesOf(schema);
  if (types === undefined) {
    return value === undefined ? text : value;
  }
  if (value !== undefined && types.some((type) => type !== 'string' && isOfType(value, type))) {
    return value;
  }
  if (types.includes('string')) {
    return text;
  }
  throw wrong(`'${key}' takes ${describeSchema(schema ?? {})}, not '${text}'`);
}

/** The JSON types that a schema allows; undefined if it does not say. */
function typesOf(schema: Schema): readonly string[] | undefined {
  if (schema.type !== undefined) {
    return typeof schema.type === 'string' ? [schema.type] : schema.type;
  }
  const values = schema.enum ?? (schema.const === undefined ? undefined : [schema.const]);
  if (values !== undefined) {
    return values.map((value) => typeof value);
  }
  const several = (schema.anyOf ?? schema.oneOf)?.map(typesOf);
  return several?.every((types) => types !== undefined) ? several.flat() : undefined;
}

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case 'integer':
      return Number.isInteger(value);
    case 'array':
      return Array.isArray(value);
    case 'object':
      return typeof value === 'object' && value !== null && !Array.isArray(value);
    case 'null':
      return value === null;
    default:
      return typeof value === type;
  }
}

/** A line of a batch: a method and its words, quoted as in a shell; undefined if the line is empty or a comment. */
export function parseLine(line: string): { method: string; words: string[] } | undefined {
  const trimmed = line.trim();
  if (trimmed === '' || trimmed.startsWith('#')) {
    return undefined;
  }
  const [method] = trimmed.split(/\s/, 1);
  const rest = trimmed.slice(method.length).trim();
  return { method, words: isJson(rest) ? [rest] : splitWords(rest) };
}

function splitWords(text: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote: string | undefined;
  for (let i = 0; i < text.length; i += 1) {
    const char = text[i];
    if (quote !== undefined) {
      if (char === quote) {
        quote = undefined;
      } else if (char === '\\' && quote === '"' && i + 1 < text.length) {
        i += 1;
        word += text[i];
      } else {
        word += char;
      }
    } else if (char === "'" || char === '"') {
      quote = char;
      word ??= '';
    } else if (/\s/.test(char)) {
      if (word !== undefined) {
        words.push(word);
      }
      word = undefined;
    } else {
      word = (word ?? '') + char;
    }
  }
  if (quote !== undefined) {
    throw wrong(`a ${quote} is not closed`);
  }
  return word === undefined ? words : [...words, word];
}
