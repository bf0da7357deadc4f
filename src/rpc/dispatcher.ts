/**
 * The table of methods: checks the parameters against the method's schema, calls it, and turns errors into what a client gets.
 * One declaration of parameters and result gives the check, the TypeScript types, the OpenRPC document and `docs/rpc.md`.
 */
import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv';
import type { Static, TObject, TSchema } from 'typebox';
import { describeError, errnoOf, FailedError, InvalidError } from '../util/errors.ts';
import type { Logger } from '../util/log.ts';
import { Lifecycle, type Phase } from './lifecycle.ts';
import { RpcCode, RpcError } from './protocol.ts';

/** One method, as {@link method} makes it. */
export interface RpcMethod {
  readonly name: string;
  /** One sentence for the reference. */
  readonly summary: string;
  readonly params: TObject;
  /** What it answers with; a result may have more keys. */
  readonly result: TSchema;
  readonly examples: readonly RpcExample[];
  /** Accepts keys that it does not know, as SPDK's decoder of the same method does. */
  readonly relaxed: boolean;
  readonly phase: Phase;
  readonly call: (params: unknown, caller: Caller) => unknown;
}

/** A call and what comes of it. */
export interface RpcExample {
  readonly params: Readonly<Record<string, unknown>>;
  readonly result: unknown;
}

export type ReadonlyDeep<T> = T extends readonly (infer Item)[]
  ? readonly ReadonlyDeep<Item>[]
  : T extends object
    ? { readonly [Key in keyof T]: ReadonlyDeep<T[Key]> }
    : T;

/** A method with the types that its schemas have. */
export interface DeclaredMethod<N extends string, P extends TObject, R extends TSchema>
  extends RpcMethod {
  readonly name: N;
  readonly params: P;
  readonly result: R;
}

/** Declares a method: `call` gets parameters of the schema's type, checked. It may be asynchronous. */
export function method<const N extends string, P extends TObject, R extends TSchema>(definition: {
  readonly name: N;
  readonly summary: string;
  readonly params: P;
  readonly result: R;
  readonly examples?: readonly RpcExample[];
  readonly relaxed?: boolean;
  /** Default: 'runtime'. */
  readonly phase?: Phase;
  readonly call: (
    params: Static<P>,
    caller: Caller,
  ) => ReadonlyDeep<Static<R>> | Promise<ReadonlyDeep<Static<R>>>;
}): DeclaredMethod<N, P, R> {
  return {
    relaxed: false,
    phase: 'runtime',
    examples: [],
    ...definition,
    // The dispatcher has checked the parameters against this very schema.
    call: (params, caller) => definition.call(params as Static<P>, caller),
  };
}

/** Who calls: what a method may need of the way that the request came. */
export interface Caller {
  /** The connection, if it can carry notifications. */
  readonly outlet?: Outlet | undefined;
}

/** A connection as far as notifications go. */
export interface Outlet {
  /** The client reads what it is sent: there is room for more. */
  readonly ready: boolean;
  /** Sends a notification; it is kept in memory until the client reads it, so only when `ready`. */
  notify(method: string, params: unknown): void;
  /** `listener` is called when `ready` may have become true; replaces the one before. */
  onReady(listener: () => void): void;
  /** `listener` is called when the connection is over, at once if it is; replaces the one before. */
  onClose(listener: () => void): void;
}

/** Requests so far, and those of them that were answered with an error. */
export interface CallCounts {
  calls: number;
  errors: number;
}

/** Who keeps what methods change. */
export interface Keeper {
  /** Raised by each change. */
  readonly revision: number;
  /** Resolves when all that was changed so far is kept. Rejects if it cannot be, or not in a bounded time. */
  keep(): Promise<void>;
}

interface Entry {
  readonly method: RpcMethod;
  validate: ValidateFunction | undefined;
}

export class Dispatcher {
  readonly #entries = new Map<string, Entry>();
  readonly #counts = new Map<string, CallCounts>();
  readonly #ajv = new Ajv({ verbose: true, strict: true });
  readonly #log: Logger;
  readonly #lifecycle: Lifecycle;
  /** Called after each method that succeeded, before it is answered. A call that changed something that cannot be kept is answered with an error. */
  keeper: Keeper | undefined;
  /** Calls wait for this: what the target was started with is being served. Settles in a bounded time, and does not reject. */
  opening: Promise<void> | undefined;

  constructor(methods: readonly RpcMethod[], log: Logger, lifecycle = new Lifecycle()) {
    this.#log = log;
    this.#lifecycle = lifecycle;
    // Says in words what a pattern means.
    this.#ajv.addKeyword({ keyword: 'expected', schemaType: 'string' });
    for (const entry of methods) {
      this.#entries.set(entry.name, { method: entry, validate: undefined });
    }
  }

  /** What is wrong with the parameters of a method that exists, in words that name the key; or undefined. */
  violation(name: string, params: unknown): string | undefined {
    const entry = this.#entries.get(name)!;
    // Compiled when first needed: for all methods it takes as long as the rest of the start.
    entry.validate ??= this.#ajv.compile({
      ...entry.method.params,
      additionalProperties: entry.method.relaxed,
    });
    return entry.validate(params) ? undefined : describeViolation(entry.validate.errors?.[0]);
  }

  get names(): readonly string[] {
    return [...this.#entries.keys()];
  }

  /** By the methods that were called; '' stands for all that do not exist. */
  get counts(): ReadonlyMap<string, CallCounts> {
    return this.#counts;
  }

  /** Runs a method. Rejects with an {@link RpcError}, whatever goes wrong. */
  async dispatch(name: string, params: unknown = {}, caller: Caller = {}): Promise<unknown> {
    const counted = this.#entries.has(name) ? name : '';
    const counts = this.#counts.get(counted) ?? { calls: 0, errors: 0 };
    this.#counts.set(counted, counts);
    counts.calls += 1;
    try {
      await this.opening;
      return await this.#run(name, params, caller);
    } catch (error) {
      counts.errors += 1;
      throw error;
    }
  }

  async #run(name: string, params: unknown, caller: Caller): Promise<unknown> {
    const entry = this.#entries.get(name);
    if (entry === undefined) {
      throw new RpcError(RpcCode.METHOD_NOT_FOUND, 'Method not found');
    }
    this.#lifecycle.check(entry.method.phase);
    const violation = this.violation(name, params);
    if (violation !== undefined) {
      throw invalidParams(violation);
    }
    this.#log.debug({ method: name }, 'method called');
    try {
      const before = this.keeper?.revision;
      const result = await entry.method.call(params, caller);
      const kept = this.keeper?.keep();
      if (this.keeper?.revision === before) {
        // What only asks waits for no disk. But each call tries again what an earlier one failed to keep.
        kept?.catch(() => {});
      } else {
        await kept;
      }
      return result;
    } catch (error) {
      const failure = this.#toRpcError(name, error);
      this.#log.debug({ method: name, reason: failure.message }, 'method failed');
      throw failure;
    }
  }

  #toRpcError(name: string, error: unknown): RpcError {
    if (error instanceof RpcError) {
      return error;
    }
    if (error instanceof InvalidError) {
      return invalidParams(error.message);
    }
    const errno = errnoOf(error);
    if (errno !== undefined) {
      return new RpcError(-errno, describeError(error));
    }
    if (!(error instanceof FailedError)) {
      this.#log.error({ err: error, method: name }, 'method failed unexpectedly');
    }
    return new RpcError(RpcCode.INTERNAL_ERROR, describeError(error));
  }
}

function invalidParams(detail: string): RpcError {
  return new RpcError(RpcCode.INVALID_PARAMS, `Invalid parameters: ${detail}`);
}

/** What is wrong, naming the key. */
function describeViolation(error: ErrorObject | undefined): string {
  if (error === undefined) {
    return 'not valid';
  }
  const path = error.instancePath.slice(1).replaceAll('/', '.');
  const prefix = path === '' ? '' : `${path}.`;
  switch (error.keyword) {
    case 'additionalProperties':
      return `unknown key '${prefix}${error.params.additionalProperty}'`;
    case 'required':
      return `missing key '${prefix}${error.params.missingProperty}'`;
    case 'enum':
      return `key '${path}' must be one of ${error.params.allowedValues.join(', ')}`;
    case 'const':
      return `key '${path}' must be ${JSON.stringify(error.params.allowedValue)}`;
    default: {
      const expected = error.parentSchema?.expected;
      const demand = typeof expected === 'string' ? `must be ${expected}` : error.message;
      return path === '' ? `params ${demand}` : `key '${path}' ${demand}`;
    }
  }
}
