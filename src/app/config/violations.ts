/** What the schema of the short form says against a file, and what is left of the file without that. */
import { Ajv, type ErrorObject } from 'ajv';
import { similar } from '../../util/similar.ts';
import type { Path } from './problem.ts';
import { Disk, ShortForm } from './schema.ts';

let validate: ReturnType<Ajv['compile']> | undefined;

interface Fault {
  readonly path: Path;
  readonly message: string;
}

/** One fault a place. `form`: what else it says, for further checks. Where that leaves a gap there is something that nothing can be said against. */
export function soundForm(value: unknown): { form: ShortForm; faults: readonly Fault[] } {
  const faults = violations(value);
  const rest = faults.length === 0 ? value : structuredClone(value);
  for (const { path } of faults) {
    leaveOut(rest, path);
  }
  const isSound = faults.length === 0 || violations(rest).length === 0;
  return { form: isSound ? (rest as ShortForm) : {}, faults };
}

type Tree = Record<string | number, unknown>;

/** What of a disk nothing else depends on. */
const OPTIONAL = ['uuid', 'nguid', 'eui64', 'nsid', 'qos'];
/** A disk that is no trouble to anybody. */
const PLACEHOLDER = { null: 1 << 20 };

/** Takes out what is wrong at a path: a key, or what cannot be understood without it. */
function leaveOut(value: unknown, path: Path): void {
  const vm = path[0] === 'vms' ? 2 : 0;
  const [key, index, inDisk] = path.slice(vm);
  if (key === 'disks' && typeof index === 'number') {
    const disks = at(value, path.slice(0, vm + 1));
    const disk = disks?.[index];
    if (isTree(disk) && inDisk !== undefined) {
      delete disk[inDisk];
    }
    if (disks !== undefined && (inDisk === undefined || !OPTIONAL.includes(String(inDisk)))) {
      disks[index] = isKnown(inDisk) ? placeholderOf(disk) : disk;
    }
    return;
  }
  const whole = key === 'socket' || key === 'sockets' || key === undefined;
  const gone = vm === 2 && whole ? path.slice(0, 2) : path.slice(0, vm + 1);
  const parent = at(value, gone.slice(0, -1));
  if (parent !== undefined && gone.length > 0) {
    delete parent[gone[gone.length - 1]];
  }
  if (vm === 0 && whole && isTree(value)) {
    delete value.disks;
  }
}

const isTree = (value: unknown): value is Tree => typeof value === 'object' && value !== null;

function at(value: unknown, path: Path): Tree | undefined {
  let node = value;
  for (const step of path) {
    node = isTree(node) ? node[step] : undefined;
  }
  return isTree(node) ? node : undefined;
}

/** Whether the key of a disk means something: one that does not can be left out. Without a key it is the disk itself. */
const isKnown = (key: string | number | undefined): boolean =>
  key === undefined || Object.hasOwn(Disk.properties, key);

function placeholderOf(disk: unknown): unknown {
  const name = isTree(disk) ? disk.name : undefined;
  return typeof name === 'string' ? { name, ...PLACEHOLDER } : PLACEHOLDER;
}

function violations(value: unknown): Fault[] {
  if (validate === undefined) {
    const ajv = new Ajv({ verbose: true, strict: true, allErrors: true, allowUnionTypes: true });
    ajv.addKeyword({ keyword: 'expected', schemaType: 'string' });
    validate = ajv.compile(ShortForm);
  }
  if (validate(value)) {
    return [];
  }
  const faults = new Map<string, Fault>();
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
