/** JSON-RPC 2.0: what a request is, and what an answer looks like. A request may be a batch (an array). Pure: no sockets here. */
export const RpcCode = {
  PARSE_ERROR: -32700,
  INVALID_REQUEST: -32600,
  METHOD_NOT_FOUND: -32601,
  INVALID_PARAMS: -32602,
  INTERNAL_ERROR: -32603,
  /** SPDK's: not in this state of the target. */
  INVALID_STATE: -1,
} as const;

/** Bytes of an id that is a string. */
const MAX_ID_BYTES = 128;

/** An error that a client gets: `code` is one of {@link RpcCode}, or -errno. */
export class RpcError extends Error {
  override readonly name = 'RpcError';
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** An id as the client wrote it, which is how it comes back: a number may be larger than one of JavaScript's, and 1.0 is not 1. JSON text. */
export type RpcIdText = string;

/** A request that asks for a method. */
export interface RpcRequest {
  /** Without an id (or with a null one) it gets no answer. */
  readonly isNotification: boolean;
  readonly method: string;
  readonly params: unknown;
}

/** A request has an id under which it can be answered. */
export function hasId(value: unknown): boolean {
  const id = typeof value === 'object' && value !== null && 'id' in value ? value.id : undefined;
  return typeof id === 'string' ? Buffer.byteLength(id) <= MAX_ID_BYTES : typeof id === 'number';
}

/** Strings, brackets, separators, and what lies between them. */
const TOKENS = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/**
 * The ids of a request (one), or of the requests of a batch, as they stand there; undefined where there is none. `text` is JSON, an object or
 * an array. Of an id that comes twice the last counts, as for JSON.parse.
 */
export function idTexts(text: string): (RpcIdText | undefined)[] {
  const ids: (RpcIdText | undefined)[] = [];
  /** Depth of the keys of a request. */
  const level = text.trimStart().startsWith('[') ? 2 : 1;
  let depth = 0;
  let key = '';
  let last = '';
  for (const [token] of text.matchAll(TOKENS)) {
    const opens = token === '{' || token === '[';
    if (level === 2 && depth === 1 && token !== ',' && token !== ']') {
      ids.push(undefined);
    } else if (level === 1 && depth === 0) {
      ids.push(undefined);
    }
    if (token === ':' && depth === level) {
      key = JSON.parse(last);
    } else if (last === ':' && depth === level && key === 'id') {
      ids[ids.length - 1] = opens ? undefined : token;
    }
    depth += opens ? 1 : token === '}' || token === ']' ? -1 : 0;
    last = token;
  }
  return ids;
}

/** Checks one request. Throws INVALID_REQUEST. */
export function toRequest(value: unknown): RpcRequest {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalidRequest('a request is an object');
  }
  const request = value as Readonly<Record<string, unknown>>;
  for (const key of Object.keys(request)) {
    if (!['jsonrpc', 'method', 'params', 'id'].includes(key)) {
      throw invalidRequest(`unknown key '${key}'`);
    }
  }
  if (request.jsonrpc !== '2.0') {
    throw invalidRequest(`key 'jsonrpc' must be "2.0"`);
  }
  if (typeof request.method !== 'string') {
    throw invalidRequest(`key 'method' must be a string`);
  }
  const answerable = hasId(value);
  if (!answerable && request.id !== undefined && request.id !== null) {
    throw invalidRequest(`key 'id' must be a number, or a string of at most ${MAX_ID_BYTES} bytes`);
  }
  const { params } = request;
  if (params !== undefined && (typeof params !== 'object' || params === null)) {
    throw invalidRequest(`key 'params' must be an object`);
  }
  return { isNotification: !answerable, method: request.method, params };
}

function invalidRequest(detail: string): RpcError {
  return new RpcError(RpcCode.INVALID_REQUEST, `Invalid request: ${detail}`);
}

/** A successful answer. */
export function resultText(id: RpcIdText, result: unknown): string {
  return `{"jsonrpc":"2.0","id":${id},"result":${JSON.stringify(result)}}`;
}

/** An answer that tells of an error; `id` is null where there is none to answer under. */
export function errorText(id: RpcIdText | null, { code, message }: RpcError): string {
  return `{"jsonrpc":"2.0","id":${id},"error":${JSON.stringify({ code, message })}}`;
}

/** One line on the wire. */
export function encode(body: unknown): string {
  return `${JSON.stringify(body)}\n`;
}
