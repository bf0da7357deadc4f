import assert from 'node:assert/strict';
import fc from 'fast-check';
import t from 'tap';
import { MAX_RPC_REQUEST_BYTES } from '../../src/limits.ts';
import { JsonStream, MAX_RPC_DEPTH } from '../../src/rpc/json-stream.ts';
import { idTexts, RpcError, toRequest } from '../../src/rpc/protocol.ts';

/** All values that come out of a stream fed with `chunks`. */
function feed(chunks: readonly Uint8Array[], values: unknown[] = []): unknown[] {
  const stream = new JsonStream();
  for (const chunk of chunks) {
    stream.push(Buffer.from(chunk));
    for (let next = stream.next(); next !== undefined; next = stream.next()) {
      values.push(next.value);
    }
  }
  return values;
}

/** Cuts bytes at the given places. */
function cut(bytes: Buffer, places: readonly number[]): Buffer[] {
  const at = [...new Set(places.map((place) => place % (bytes.length + 1)))].sort((a, b) => a - b);
  const chunks: Buffer[] = [];
  let from = 0;
  for (const to of [...at, bytes.length]) {
    chunks.push(bytes.subarray(from, to));
    from = to;
  }
  return chunks;
}

/** Parse errors are RpcErrors with their code; anything else is a bug. */
function isParseError(operation: () => unknown): boolean {
  try {
    operation();
    return false;
  } catch (error) {
    if (error instanceof RpcError && error.code === -32700) {
      return true;
    }
    throw error;
  }
}

const container = fc
  .jsonValue({ maxDepth: 6 })
  .filter((value) => typeof value === 'object' && value !== null);

t.test('any values, with any spacing, cut anywhere, come out as they went in', async (t) => {
  const spacing = fc.constantFrom('', ' ', '\n', '\r\n\t', '  \n ');
  fc.assert(
    fc.property(
      fc.array(fc.tuple(container, spacing, fc.constantFrom(0, 2)), { maxLength: 8 }),
      fc.array(fc.nat(), { maxLength: 20 }),
      (values, places) => {
        const text = values
          .map(([value, space, indent]) => space + JSON.stringify(value, null, indent))
          .join('');
        const expected = values.map(([value]) => JSON.parse(JSON.stringify(value)));
        t.match(feed(cut(Buffer.from(text), places)), expected);
      },
    ),
  );
});

t.test('byte by byte', async (t) => {
  const text = '{"a":"ü\\"}]","b":[1.5e-3,true,null,{"c":[]}]}\n[{}]';
  const bytes = [...Buffer.from(text)].map((byte) => Buffer.from([byte]));
  t.strictSame(feed(bytes), [{ a: 'ü"}]', b: [1.5e-3, true, null, { c: [] }] }, [{}]]);
});

/** The same by trial: the shortest prefix that JSON.parse takes, again and again. */
function cutByTrial(text: string): unknown[] {
  for (let end = 1; end <= text.length; end++) {
    try {
      const value: unknown = JSON.parse(text.slice(0, end));
      return [value, ...cutByTrial(text.slice(end))];
    } catch {}
  }
  return [];
}

t.test('cuts values exactly where JSON.parse would', async (t) => {
  const pieces = ['{', '}', '[', ']', ',', ':', '"a"', '"', '\\', '1', '-', 'true', 'nul', ' '];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...pieces), { maxLength: 9 }), (parts) => {
      const text = `[${parts.join('')}]`;
      const values: unknown[] = [];
      const refused = isParseError(() => feed([Buffer.from(text)], values));
      // A scalar between two values is where a client is told that it is confused.
      const expected = cutByTrial(text);
      const scalar = expected.findIndex((value) => typeof value !== 'object' || value === null);
      t.strictSame(values, scalar < 0 ? expected : expected.slice(0, scalar), text);
      t.ok(scalar < 0 || refused, text);
    }),
    { numRuns: 3000 },
  );
});

t.test('any bytes at all: values, nothing, or a parse error', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      isParseError(() => feed([Buffer.from('{'), bytes]));
      isParseError(() => feed([bytes]));
    }),
  );
  t.pass();
});

t.test('what can no longer become JSON is refused before it ends', async (t) => {
  const texts = [
    '42',
    '"x"',
    'true',
    '}',
    '{a',
    '{"a" 1',
    '{"a":1 "b"',
    '[1 2',
    '[1,]',
    '{,',
    '["\n',
  ];
  for (const text of [
    ...texts,
    '{"a":}',
    '{"a":1,}',
    '[}',
    '{]',
    '[1}',
    '{"a":1]',
    '[tru]',
    '[01]',
  ]) {
    t.ok(
      isParseError(() => feed([Buffer.from(text)])),
      text,
    );
  }
  t.ok(
    isParseError(() => feed([Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])])),
    'bytes that are not UTF-8',
  );
});

t.test('bounds', async (t) => {
  const open = '['.repeat(MAX_RPC_DEPTH);
  t.equal(feed([Buffer.from(open + ']'.repeat(MAX_RPC_DEPTH))]).length, 1, 'deepest');
  t.ok(
    isParseError(() => feed([Buffer.from(`${open}[`)])),
    'deeper',
  );
  const fill = (bytes: number) => Buffer.from(`["${'x'.repeat(bytes - 4)}"]`);
  const largest = fill(MAX_RPC_REQUEST_BYTES);
  t.equal(feed([largest, largest]).length, 2, 'longest, twice');
  t.equal(feed(cut(largest, [1000, 70_000])).length, 1, 'longest, in pieces');
  t.ok(
    isParseError(() => feed([fill(MAX_RPC_REQUEST_BYTES + 1)])),
    'longer',
  );
  t.ok(
    isParseError(() => feed(cut(Buffer.alloc(MAX_RPC_REQUEST_BYTES + 2, '['.concat('"x')), [9]))),
    'longer and never ending',
  );
  const spaces = Buffer.alloc(2 * MAX_RPC_REQUEST_BYTES, ' ');
  t.strictSame(feed([spaces, Buffer.from('{}')]), [{}], 'spaces between requests do not count');
});

t.test('requests', async (t) => {
  const good = { jsonrpc: '2.0', method: 'm' };
  t.strictSame(toRequest(good), { isNotification: true, method: 'm', params: undefined });
  t.ok(toRequest({ ...good, id: null }).isNotification);
  t.notOk(toRequest({ ...good, id: 0 }).isNotification);
  t.strictSame(toRequest({ ...good, id: 'x'.repeat(128), params: { a: 1 } }), {
    isNotification: false,
    method: 'm',
    params: { a: 1 },
  });
  const bad: [unknown, RegExp][] = [
    [[], /object/],
    [null, /object/],
    [{}, /jsonrpc/],
    [{ ...good, jsonrpc: '1.0' }, /jsonrpc/],
    [{ jsonrpc: '2.0' }, /method/],
    [{ ...good, method: 7 }, /method/],
    [{ ...good, params: 'x' }, /params/],
    [{ ...good, params: null }, /params/],
    [{ ...good, id: {} }, /id/],
    [{ ...good, id: true }, /id/],
    [{ ...good, id: 'x'.repeat(129) }, /id/],
    [{ ...good, extra: 1 }, /extra/],
  ];
  for (const [value, reason] of bad) {
    t.throws(() => toRequest(value), { name: 'RpcError', code: -32600, message: reason });
  }
});

t.test('ids as they were written', async (t) => {
  for (const id of [
    '9007199254740993',
    '123456789012345678901234567890',
    '-0',
    '1.0',
    '1e5',
    '1E+400',
    '"a"',
    '"\\u0061\\"]}{[,:\\\\"',
    '"id"',
    '""',
  ]) {
    const before = '{"jsonrpc":"2.0","params":{"id":7,"x":[{"id":8}],"y":"\\"id\\":9,"},';
    t.strictSame(idTexts(`${before}"id":${id},"method":"id"}`), [id]);
    t.strictSame(idTexts(`  { "id" :\n${id} }`), [id]);
    t.strictSame(idTexts(`{"id":3,"\\u0069d":${id}}`), [id], 'the last counts');
    t.strictSame(
      idTexts(` [ {"id":${id},"params":[{"id":1}]}, 7, {}, [{"id":2}], "x",{"a":"id","id":${id}}]`),
      [id, undefined, undefined, undefined, undefined, id],
    );
  }
  t.strictSame(idTexts('{"id":{"id":1}}'), [undefined]);
  t.strictSame(idTexts('{"id":1,"id":[2]}'), [undefined]);
  t.strictSame(idTexts('{}'), [undefined]);
  t.strictSame(idTexts('[]'), []);
});

t.test('the ids of any batch are those that JSON.parse finds', async () => {
  const id = fc.oneof(fc.double({ noNaN: true, noDefaultInfinity: true }), fc.string());
  const request = fc.record({ a: fc.jsonValue(), id, z: fc.jsonValue() }, { requiredKeys: [] });
  const batch = fc.array(fc.oneof(request, fc.jsonValue()), { maxLength: 6 });
  const property = fc.property(batch, fc.nat(3), (values, indent) => {
    const parsed = JSON.parse(JSON.stringify(values)) as unknown[];
    const expected = parsed.map((value) => {
      const found =
        typeof value === 'object' && value !== null && !Array.isArray(value) && 'id' in value
          ? value.id
          : undefined;
      return typeof found === 'object' && found !== null ? undefined : JSON.stringify(found);
    });
    assert.deepEqual(idTexts(JSON.stringify(values, null, indent)), expected);
  });
  fc.assert(property, { numRuns: 500 });
});
