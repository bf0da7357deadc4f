/** The OpenRPC document of the methods: what `rpc.discover` serves, and `docs/rpc.md` is made from. https://spec.open-rpc.org */
import type { RpcExample, RpcMethod } from './dispatcher.ts';
import { RpcCode } from './protocol.ts';

const OPENRPC_VERSION = '1.3.2';

/** A JSON schema as far as documents show it. `expected` is our own: in words what a pattern or range means. */
export interface DocSchema {
  readonly type?: string;
  readonly properties?: Readonly<Record<string, DocSchema>>;
  readonly patternProperties?: Readonly<Record<string, DocSchema>>;
  readonly required?: readonly string[];
  readonly description?: string;
  readonly expected?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly items?: DocSchema;
  readonly anyOf?: readonly DocSchema[];
}

/** A parameter, or a result. */
export interface ContentDescriptor {
  readonly name: string;
  readonly description?: string;
  readonly required?: boolean;
  readonly schema: DocSchema;
}

export interface DocMethod {
  readonly name: string;
  readonly summary: string;
  readonly paramStructure: 'by-name';
  readonly params: readonly ContentDescriptor[];
  readonly result: ContentDescriptor;
  readonly errors: readonly { readonly code: number; readonly message: string }[];
  readonly examples?: readonly object[];
  /** Keys that are not among the parameters are accepted, too. */
  readonly 'x-unknown-keys': boolean;
  /** When it can be called: before initialisation (--wait-for-rpc), after it, or both. */
  readonly 'x-phase': string;
}

export interface OpenRpcDocument {
  readonly openrpc: string;
  readonly info: { readonly title: string; readonly version: string; readonly description: string };
  readonly methods: readonly DocMethod[];
}

/** Errors that every method can end in; others are -errno. */
const ERRORS = [
  { code: RpcCode.INVALID_PARAMS, message: 'Invalid parameters: and the key that is' },
  { code: RpcCode.INTERNAL_ERROR, message: 'It could not be carried out: and why' },
] as const;
const NOT_NOW = {
  code: RpcCode.INVALID_STATE,
  message: 'Not in this state of the target',
} as const;

/** `version`: of the package. */
export function openRpcDocument(methods: readonly RpcMethod[], version: string): OpenRpcDocument {
  return {
    openrpc: OPENRPC_VERSION,
    info: {
      title: 'Doorbell',
      version,
      description:
        'JSON-RPC 2.0 of an NVMe-over-vfio-user target, with the names, parameters and errors of SPDK.',
    },
    methods: methods.map(describeMethod),
  };
}

function describeMethod(method: RpcMethod): DocMethod {
  const { name, summary, relaxed, phase, examples } = method;
  const params = method.params as DocSchema;
  const result = method.result as DocSchema;
  return {
    name,
    summary,
    paramStructure: 'by-name',
    params: Object.entries(params.properties ?? {}).map(([key, schema]) => ({
      name: key,
      ...(schema.description !== undefined && { description: schema.description }),
      required: params.required?.includes(key) ?? false,
      schema,
    })),
    result: {
      name: 'result',
      ...(result.description !== undefined && { description: result.description }),
      schema: result,
    },
    errors: phase === 'any' ? ERRORS : [...ERRORS, NOT_NOW],
    ...(examples.length > 0 && { examples: examples.map(describeExample) }),
    'x-unknown-keys': relaxed,
    'x-phase': phase,
  };
}

function describeExample({ params, result }: RpcExample, index: number): object {
  return {
    name: `example ${index + 1}`,
    params: Object.entries(params).map(([name, value]) => ({ name, value })),
    result: { name: 'result', value: result },
  };
}
