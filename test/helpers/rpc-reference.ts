/**
 * The reference of the methods in docs/rpc.md, made from the schemas that check their parameters.
 * `node dist/test/helpers/rpc-reference.js` writes it; a test compares.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { RpcMethod } from '../../src/rpc/dispatcher.ts';
import { allMethods } from '../../src/rpc/methods/index.ts';
import { Target } from '../../src/target/target.ts';
import { countingReactors, log, logControl } from './rpc.ts';

/** From dist/test/helpers. */
export const REFERENCE_PATH = fileURLToPath(new URL('../../../docs/rpc.md', import.meta.url));
const BEGIN = '<!-- made from the schemas: begin -->';
const END = '<!-- made from the schemas: end -->';

interface Schema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly description?: string;
  readonly expected?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly items?: Schema;
}

function typeOf(schema: Schema): string {
  if (schema.const !== undefined) {
    return `only ${JSON.stringify(schema.const)}`;
  }
  if (schema.enum !== undefined) {
    return schema.enum.map((value) => JSON.stringify(value)).join(', ');
  }
  if (schema.type === 'array') {
    return `array of ${typeOf(schema.items ?? {})}`;
  }
  return schema.expected ?? schema.type ?? 'any';
}

function rows(schema: Schema, prefix = ''): string[] {
  return Object.entries(schema.properties ?? {}).flatMap(([key, property]) => {
    if (property.type === 'object') {
      return rows(property, `${prefix}${key}.`);
    }
    const required = schema.required?.includes(key) ? ' **required**' : '';
    return [
      `| \`${prefix}${key}\`${required} | ${typeOf(property)} | ${property.description ?? ''} |`,
    ];
  });
}

function renderMethod({ name, summary, params, relaxed }: RpcMethod): string {
  const table = rows(params as Schema);
  return [
    `### ${name}`,
    '',
    summary + (relaxed ? ' Unknown keys are accepted.' : ''),
    ...(table.length === 0 ? [] : ['', '| key | value | |', '|---|---|---|', ...table]),
    '',
  ].join('\n');
}

/** The text of docs/rpc.md with its reference renewed. */
export function renewReference(text: string): string {
  const target = new Target({
    log,
    reactors: countingReactors(),
    listen: () => Promise.reject(new Error('only its methods are wanted')),
  });
  const reference = allMethods(target, '0.0.0', logControl).map(renderMethod).join('\n');
  const [before, rest] = text.split(BEGIN);
  const [, after] = rest.split(END);
  return `${before}${BEGIN}\n\n${reference}\n${END}${after}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeFileSync(REFERENCE_PATH, renewReference(readFileSync(REFERENCE_PATH, 'utf8')));
}
