/** What the schema of the short form says against a file. */
import { Ajv, type ErrorObject } from 'ajv';
import { similar } from '../../util/similar.ts';
import type { Path } from './problem.ts';
import { ShortForm } from './schema.ts';

let validate: ReturnType<Ajv['compile']> | undefined;

/** What the schema says, one fault a place. */
export function violations(value: unknown): { path: Path; message: string }[] {
  if (validate === undefined) {
    const ajv = new Ajv({ verbose: true, strict: true, allErrors: true, allowUnionTypes: true });
    ajv.addKeyword({ keyword: 'expected', schemaType: 'string' });
    validate = ajv.compile(ShortForm);
  }
  if (validate(value)) {
    return [];
  }
  const faults = new Map<string, { path: Path; message: string }>();
  for (const error of validate.errors ?? []) {
    const { pointer, message } = describe(error);
    // Of a choice, the choice is what is wrong: the last error of its place.
    const path = pathOf(pointer, value);
    faults.set(error.keyword === 'additionalProperties' ? `${pointer} ${message}` : pointer, {
      path,
      message,
    });
  }
  return [...faults.values()];
}

function describe({ keyword, instancePath, params, parentSchema, message = '' }: ErrorObject): {
  pointer: string;
  message: string;
} {
  if (keyword === 'additionalProperties') {
    const key = String(params.additionalProperty);
    const pointer = `${instancePath}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`;
    if (instancePath === '/vms') {
      return {
        pointer,
        message:
          'the name of a VM has letters, digits and . _ -, and starts with a letter or digit',
      };
    }
    const meant = similar(key, Object.keys(parentSchema?.properties ?? {}));
    return {
      pointer,
      message: `unknown key${meant === undefined ? '' : `, did you mean '${meant}'?`}`,
    };
  }
  const expected = parentSchema?.expected;
  return {
    pointer: instancePath,
    message: typeof expected === 'string' ? `must be ${expected}` : message,
  };
}

/** A JSON pointer as keys and indices. */
function pathOf(pointer: string, value: unknown): Path {
  const path: (string | number)[] = [];
  let node = value;
  for (const part of pointer.split('/').slice(1)) {
    const key = part.replaceAll('~1', '/').replaceAll('~0', '~');
    const step = Array.isArray(node) ? Number(key) : key;
    path.push(step);
    node = (node as Record<string | number, unknown> | undefined)?.[step];
  }
  return path;
}
