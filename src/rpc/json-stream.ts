/** Cuts a stream of bytes into JSON values, as SPDK does: nothing stands between them that could delimit them. Pure: no sockets here. */
import { MAX_RPC_REQUEST_BYTES } from '../limits.ts';
import { RpcCode, RpcError } from './protocol.ts';

/** Nesting of a request. */
export const MAX_RPC_DEPTH = 64;
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
