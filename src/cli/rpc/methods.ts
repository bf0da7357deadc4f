/** What a running target's methods are: its OpenRPC document, if it has one, else their names. */
import { callRpc } from '../../rpc/client.ts';
import { RpcCode, RpcError } from '../../rpc/protocol.ts';
import { formatTable } from '../table.ts';

/** A JSON schema, as far as it is read here. */
export interface Schema {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly items?: Schema;
  readonly description?: string;
  readonly expected?: string;
}

export interface MethodDoc {
  readonly name: string;
  readonly summary: string;
  readonly params: readonly {
    readonly name: string;
    readonly required: boolean;
    readonly description: string;
    readonly schema: Schema;
  }[];
}

type Json = Readonly<Record<string, unknown>>;
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const text = (value: unknown): string => (typeof value === 'string' ? value : '');

/** The methods as `rpc.discover` describes them; undefined if the target has no such method. Rejects as callRpc does. */
export async function discover(
  socket: string,
  timeoutMs: number,
): Promise<readonly MethodDoc[] | undefined> {
  let document: unknown;
  try {
    document = await callRpc(socket, 'rpc.discover', undefined, timeoutMs);
  } catch (error) {
    if (error instanceof RpcError && error.code === RpcCode.METHOD_NOT_FOUND) {
      return undefined;
    }
    throw error;
  }
  if (!isObject(document) || !Array.isArray(document.methods)) {
    return undefined;
  }
  const root = document;
  return document.methods.filter(isObject).map((method) => ({
    name: text(method.name),
    summary: text(method.summary) || text(method.description),
    params: (Array.isArray(method.params) ? method.params : [])
      .map((param) => resolve(param, root))
      .filter(isObject)
      .map((param) => {
        const schema = resolve(param.schema, root) as Schema | undefined;
        return {
          name: text(param.name),
          required: param.required === true,
          description: text(param.description) || text(param.summary) || text(schema?.description),
          schema: schema ?? {},
        };
      }),
  }));
}

/** Follows a `$ref` into the same document. */
function resolve(value: unknown, root: Json): unknown {
  if (!isObject(value) || typeof value.$ref !== 'string' || !value.$ref.startsWith('#/')) {
    return value;
  }
  return value.$ref
    .slice(2)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
    .reduce<unknown>((at, key) => (isObject(at) ? at[key] : undefined), root);
}

/** The names of all methods, sorted. Rejects as callRpc does. */
export async function methodNames(socket: string, timeoutMs: number): Promise<readonly string[]> {
  const names = await callRpc(socket, 'rpc_get_methods', undefined, timeoutMs);
  return Array.isArray(names) ? names.map(text).filter(Boolean).sort() : [];
}

/** A schema in a few words. */
export function describeSchema(schema: Schema): string {
  if (schema.enum !== undefined) {
    return schema.enum.map((value) => JSON.stringify(value)).join(' | ');
  }
  if (schema.const !== undefined) {
    return JSON.stringify(schema.const);
  }
  if (schema.type === 'array') {
    return `array of ${describeSchema(schema.items ?? {})}`;
  }
  const several = schema.anyOf ?? schema.oneOf;
  if (several !== undefined) {
    return several.map(describeSchema).join(' | ');
  }
  const types = typeof schema.type === 'string' ? [schema.type] : (schema.type ?? ['any']);
  return schema.expected ?? types.join(' | ');
}

/** Parameters with those of nested objects under a dot, as they can be typed. */
export function flatParams(doc: MethodDoc): MethodDoc['params'] {
  const flatten = (param: MethodDoc['params'][number]): MethodDoc['params'] => {
    const { properties, required = [] } = param.schema;
    if (properties === undefined) {
      return [param];
    }
    return Object.entries(properties).flatMap(([name, schema]) =>
      flatten({
        name: `${param.name}.${name}`,
        required: param.required && required.includes(name),
        description: schema.description ?? '',
        schema,
      }),
    );
  };
  return doc.params.flatMap(flatten);
}

/** The help text of one method. */
export function methodHelp(doc: MethodDoc): string {
  const params = flatParams(doc);
  const required = params.filter((param) => param.required).map(({ name }) => ` ${name}=…`);
  const optional = params.some((param) => !param.required) ? ' [key=value…]' : '';
  const table = formatTable(
    [{ title: 'Parameter' }, { title: '' }, { title: 'Value' }, { title: 'Meaning' }],
    params.map(({ name, required, schema, description }) => [
      name,
      required ? 'required' : '',
      describeSchema(schema),
      description,
    ]),
  );
  return [
    `Usage: doorbell rpc ${doc.name}${required.join('')}${optional}`,
    '',
    doc.summary,
    ...(params.length === 0 ? [] : ['', ...table]),
  ].join('\n');
}
