/** The reference in `docs/rpc.md`: the OpenRPC document as Markdown. */
import type { ContentDescriptor, DocMethod, DocSchema, OpenRpcDocument } from './openrpc.ts';

const BEGIN = '<!-- made from the schemas: begin -->';
const END = '<!-- made from the schemas: end -->';
const PHASES: Readonly<Record<string, string>> = {
  startup: ' Before initialisation only (`--wait-for-rpc`).',
  any: ' At any time.',
  runtime: '',
};

/** The text of docs/rpc.md with its reference renewed. Throws if it has no place for one. */
export function renewReference(text: string, document: OpenRpcDocument): string {
  const [before, rest] = text.split(BEGIN);
  const after = rest?.split(END)[1];
  if (after === undefined) {
    throw new Error(`no ${BEGIN} … ${END}`);
  }
  const reference = document.methods.map(renderMethod).join('\n');
  return `${before}${BEGIN}\n\n${reference}\n${END}${after}`;
}

function renderMethod(method: DocMethod): string {
  const { name, summary, params, result } = method;
  const rows = params.flatMap((param) => paramRows(param));
  return [
    `### ${name}`,
    '',
    summary +
      (method['x-unknown-keys'] ? ' Unknown keys are accepted.' : '') +
      PHASES[method['x-phase']],
    '',
    ...(rows.length === 0 ? [] : ['| key | value | |', '|---|---|---|', ...rows, '']),
    `Result: ${inline(result.schema)}${describe(result.schema)}`,
    ...outline(result.schema, ''),
    '',
  ].join('\n');
}

/** Keys of an object in an object are shown under a dot. */
function paramRows(param: ContentDescriptor, prefix = ''): string[] {
  const { name, required = false, schema } = param;
  if (schema.type === 'object' && schema.properties !== undefined) {
    return Object.entries(schema.properties).flatMap(([key, inner]) =>
      paramRows(
        { name: key, required: schema.required?.includes(key) ?? false, schema: inner },
        `${prefix}${name}.`,
      ),
    );
  }
  const mark = required ? ' **required**' : '';
  return [`| \`${prefix}${name}\`${mark} | ${allowed(schema)} | ${schema.description ?? ''} |`];
}

/** What a parameter may be. */
function allowed(schema: DocSchema): string {
  if (schema.const !== undefined) {
    return `only ${JSON.stringify(schema.const)}`;
  }
  if (schema.enum !== undefined) {
    return schema.enum.map((value) => JSON.stringify(value)).join(', ');
  }
  if (schema.type === 'array') {
    return `array of ${allowed(schema.items ?? {})}`;
  }
  return schema.expected ?? schema.type ?? 'any';
}

/** What a result is, in a word. */
function inline(schema: DocSchema): string {
  if (schema.const !== undefined) {
    return JSON.stringify(schema.const);
  }
  if (schema.enum !== undefined) {
    return 'string';
  }
  if (schema.anyOf !== undefined) {
    return schema.anyOf.map(inline).join(' or ');
  }
  return schema.type === 'array'
    ? `array of ${inline(schema.items ?? {})}`
    : (schema.type ?? 'any value');
}

function describe({ description }: DocSchema): string {
  return description === undefined ? '' : `: ${description}`;
}

/** The keys of a result, as a list; those of objects in it below. */
function outline(schema: DocSchema, indent: string): string[] {
  if (schema.type === 'array') {
    return outline(schema.items ?? {}, indent);
  }
  return Object.entries(schema.properties ?? {}).flatMap(([key, inner]) => {
    const optional = schema.required?.includes(key) ? '' : ' (not always)';
    return [
      `${indent}* \`${key}\`${optional} ${inline(inner)}${describe(inner)}`,
      ...outline(inner, `${indent}  `),
    ];
  });
}
