/**
 * JSON-RPC 2.0 as SPDK speaks it: a stream of JSON values with nothing between them that could delimit them. A request
 * may come in many pieces, many requests in one, and a request may be a batch (an array). Pure: no sockets here.
 */
import { MAX_RPC_REQUEST_BYTES } from '../limits.ts';

export const RpcCode = {
  PARSE_ERROR: -32700,
  INVALID_REQUEST: -32600,
  METHOD_NOT_FOUND: -32601,
  INVALID_PARAMS: -32602,
  INTERNAL_ERROR: -32603,
  /** SPDK's: not in this state of the target. */
  INVALID_STATE: -1,
} as const;

/** Nesting of a request. */
export const MAX_RPC_DEPTH = 64;
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

/** A value that came, and how it was written. */
export interface JsonValue {
  readonly value: unknown;
  readonly text: string;
}

/** What the next character may begin. */
const Expect = {
  VALUE: 0,
  VALUE_OR_END: 1,
  KEY: 2,
  KEY_OR_END: 3,
  COLON: 4,
  COMMA_OR_END: 5,
} as const;
type Expect = (typeof Expect)[keyof typeof Expect];

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;
const COMMA = 0x2c;
const COLON = 0x3a;
const SPACE = 0x20;

function isSpace(byte: number): boolean {
  return byte === SPACE || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/** Characters of numbers, `true`, `false` and `null`. Whether they spell one is left to `JSON.parse`. */
function isScalar(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e ||
    byte === 0x45
  );
}

/**
 * Cuts a byte stream into JSON objects and arrays. Looks at each byte once, and sees a value that cannot become JSON as
 * soon as its structure is wrong, so that a confused client is told instead of being waited for.
 */
export class JsonStream {
  /** Bytes not yet looked at. */
  #input: Buffer = Buffer.alloc(0);
  /** Earlier bytes of the value under way: the first `#length` of them. */
  #value: Buffer = Buffer.alloc(0);
  #length = 0;
  /** Open containers: the byte that closes each. */
  readonly #open: number[] = [];
  #expect: Expect = Expect.VALUE;
  #inString = false;
  #escaped = false;
  #inScalar = false;
  readonly #maxBytes: number;

  /** `maxBytes` bounds one value. */
  constructor(maxBytes: number = MAX_RPC_REQUEST_BYTES) {
    this.#maxBytes = maxBytes;
  }

  push(chunk: Buffer): void {
    this.#input = this.#input.length === 0 ? chunk : Buffer.concat([this.#input, chunk]);
  }

  /** Bytes of a value have come, and not its end. */
  get pending(): boolean {
    return this.#length > 0;
  }

  /** The next complete value, or `undefined` if its end has not come. Throws PARSE_ERROR: there is no way to go on from there. */
  next(): JsonValue | undefined {
    const input = this.#input;
    let start = 0;
    if (this.#length === 0) {
      while (start < input.length && isSpace(input[start])) {
        start++;
      }
    }
    for (let at = start; at < input.length; at++) {
      this.#step(input[at]);
      if (this.#length + (at - start) + 1 > this.#maxBytes) {
        throw parseError(`request is longer than ${this.#maxBytes} bytes`);
      }
      if (this.#open.length === 0) {
        const bytes = this.#take(input.subarray(start, at + 1));
        this.#expect = Expect.VALUE;
        this.#input = input.subarray(at + 1);
        return parse(bytes);
      }
    }
    if (start < input.length) {
      this.#keep(input.subarray(start));
    }
    this.#input = Buffer.alloc(0);
    return undefined;
  }

  #keep(bytes: Buffer): void {
    const length = this.#length + bytes.length;
    if (length > this.#value.length) {
      const larger = Buffer.alloc(Math.max(length, 2 * this.#value.length));
      this.#value.copy(larger, 0, 0, this.#length);
      this.#value = larger;
    }
    bytes.copy(this.#value, this.#length);
    this.#length = length;
  }

  /** The whole value, of which `rest` is the last piece. */
  #take(rest: Buffer): Buffer {
    if (this.#length === 0) {
      return rest;
    }
    this.#keep(rest);
    const whole = this.#value.subarray(0, this.#length);
    this.#value = Buffer.alloc(0);
    this.#length = 0;
    return whole;
  }

  #step(byte: number): void {
    if (this.#inString) {
      this.#stepString(byte);
      return;
    }
    if (this.#inScalar) {
      if (isScalar(byte)) {
        return;
      }
      this.#inScalar = false;
      this.#expect = Expect.COMMA_OR_END;
    }
    if (!isSpace(byte)) {
      this.#stepToken(byte);
    }
  }

  #stepString(byte: number): void {
    if (byte < SPACE) {
      throw parseError('control character in a string');
    }
    if (this.#escaped) {
      this.#escaped = false;
    } else if (byte === BACKSLASH) {
      this.#escaped = true;
    } else if (byte === QUOTE) {
      this.#inString = false;
    }
  }

  #stepToken(byte: number): void {
    const expect = this.#expect;
    if (this.#open.length === 0 && byte !== OPEN_BRACE && byte !== OPEN_BRACKET) {
      throw parseError('a request is an object or an array');
    }
    switch (expect) {
      case Expect.VALUE:
      case Expect.VALUE_OR_END:
        if (expect === Expect.VALUE_OR_END && byte === CLOSE_BRACKET) {
          this.#close();
        } else {
          this.#stepValue(byte);
        }
        return;
      case Expect.KEY:
      case Expect.KEY_OR_END:
        if (expect === Expect.KEY_OR_END && byte === CLOSE_BRACE) {
          this.#close();
        } else if (byte === QUOTE) {
          this.#inString = true;
          this.#expect = Expect.COLON;
        } else {
          throw parseError('a key is a string');
        }
        return;
      case Expect.COLON:
        if (byte !== COLON) {
          throw parseError('no colon after a key');
        }
        this.#expect = Expect.VALUE;
        return;
      case Expect.COMMA_OR_END:
        if (byte === COMMA) {
          this.#expect = this.#open.at(-1) === CLOSE_BRACE ? Expect.KEY : Expect.VALUE;
        } else if (byte === this.#open.at(-1)) {
          this.#close();
        } else {
          throw parseError('no comma between two values');
        }
    }
  }

  #stepValue(byte: number): void {
    if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      if (this.#open.length === MAX_RPC_DEPTH) {
        throw parseError(`nested deeper than ${MAX_RPC_DEPTH} levels`);
      }
      this.#open.push(byte === OPEN_BRACE ? CLOSE_BRACE : CLOSE_BRACKET);
      this.#expect = byte === OPEN_BRACE ? Expect.KEY_OR_END : Expect.VALUE_OR_END;
    } else if (byte === QUOTE) {
      this.#inString = true;
      this.#expect = Expect.COMMA_OR_END;
    } else if (isScalar(byte)) {
      this.#inScalar = true;
    } else {
      throw parseError('not the beginning of a value');
    }
  }

  #close(): void {
    this.#open.pop();
    this.#expect = Expect.COMMA_OR_END;
  }
}

function parseError(detail: string): RpcError {
  return new RpcError(RpcCode.PARSE_ERROR, `Parse error: ${detail}`);
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function parse(bytes: Buffer): JsonValue {
  try {
    const text = utf8.decode(bytes);
    return { value: JSON.parse(text), text };
  } catch (error) {
    throw parseError((error as Error).message);
  }
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
