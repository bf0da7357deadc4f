/** Parameters of `doorbell rpc` as words, with a method's description and without; OpenRPC documents; suggestions. */
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { discover, flatParams, type MethodDoc, methodHelp } from '../../src/cli/rpc/methods.ts';
import { parseLine, parseParams } from '../../src/cli/rpc/params.ts';
import { JsonStream } from '../../src/rpc/json-stream.ts';
import { encode } from '../../src/rpc/protocol.ts';
import { similar } from '../../src/util/similar.ts';
import { shortFolder } from '../helpers/rpc.ts';

t.test('without a description', async (t) => {
  t.equal(parseParams([]), undefined);
  t.equal(parseParams([' \n']), undefined);
  t.strictSame(parseParams(['{"a": [1]}']), { a: [1] });
  t.strictSame(
    parseParams(['a=1', 'b=x', 'c=true', 'd=', 'e=a=b', 'f="1"', 'g=[1, 2]', 'h=null']),
    {
      a: 1,
      b: 'x',
      c: true,
      d: '',
      e: 'a=b',
      f: '1',
      g: [1, 2],
      h: null,
    },
  );
  t.strictSame(parseParams(['n.bdev_name=d', 'n.nsid=3', 'nqn=q']), {
    n: { bdev_name: 'd', nsid: 3 },
    nqn: 'q',
  });
  const odd = parseParams(['__proto__.x=1', 'constructor=2']) as object;
  t.strictSame(Object.keys(odd), ['__proto__', 'constructor']);
  t.equal(({} as Record<string, unknown>).x, undefined);
  const bad: [string[], RegExp][] = [
    [['{a'], /not JSON/],
    [['word'], /not JSON/],
    [['a=1', 'word'], /'word' is not key=value/],
    [['a=1', '=2'], /'=2' is not key=value/],
    [['a=1', '{}'], /not key=value/],
    [['a=1', 'a=2'], /'a' is given twice/],
    [['a=1', 'a.b=2'], /'a' is given a value and parts/],
    [['a.b=1', 'a=2'], /'a' is given twice/],
  ];
  for (const [words, message] of bad) {
    t.throws(() => parseParams(words), { message, exitCode: 2 }, words.join(' '));
  }
});

const param = (name: string, schema: object, required = false) => ({
  name,
  required,
  description: '',
  schema,
});
const doc: MethodDoc = {
  name: 'm',
  summary: 'Does it.',
  params: [
    param('name', { type: 'string', description: 'of it' }, true),
    param('size', { type: 'integer' }, true),
    param('on', { type: 'boolean' }),
    param('list', { type: 'array', items: { type: 'integer' } }),
    param('mode', { anyOf: [{ type: 'integer' }, { type: 'string' }] }),
    param('kind', { enum: ['a', 'b'] }),
    param('any', {}),
    param('deep', {
      type: 'object',
      properties: { text: { type: 'string' }, count: { type: 'integer' } },
      required: ['text'],
    }),
  ],
};

t.test('with a description', async (t) => {
  t.strictSame(
    parseParams(
      [
        'name=1',
        'size=2',
        'on=false',
        'list=[1]',
        'mode=3',
        'kind=a',
        'any=4',
        'deep.text=5',
        'deep.count=6',
        'new=7',
      ],
      doc,
    ),
    {
      name: '1',
      size: 2,
      on: false,
      list: [1],
      mode: 3,
      kind: 'a',
      any: 4,
      deep: { text: '5', count: 6 },
      new: 7,
    },
  );
  t.strictSame(parseParams(['mode=fast', 'deep={"text":"x"}'], doc), {
    mode: 'fast',
    deep: { text: 'x' },
  });
  t.throws(() => parseParams(['size=x'], doc), { message: "'size' takes integer, not 'x'" });
  t.throws(() => parseParams(['size=1.5'], doc), { message: /takes integer/ });
  t.throws(() => parseParams(['on=1'], doc), { message: /takes boolean/ });
  t.throws(() => parseParams(['list=1'], doc), { message: /takes array of integer/ });
});

t.test('help', async (t) => {
  t.strictSame(
    flatParams(doc).map(({ name }) => name),
    ['name', 'size', 'on', 'list', 'mode', 'kind', 'any', 'deep.text', 'deep.count'],
  );
  const text = methodHelp(doc);
  t.match(text, /^Usage: doorbell rpc m name=… size=… \[key=value…\]\n\nDoes it\.\n\nParameter/);
  t.match(text, /^kind +"a" \| "b"$/m);
  t.match(text, /^list +array of integer$/m);
});

t.test('an OpenRPC document', async (t) => {
  const path = join(shortFolder(t), 's');
  const document = {
    openrpc: '1.3.2',
    methods: [
      {
        name: 'm',
        summary: 's',
        params: [
          { $ref: '#/components/contentDescriptors/Name' },
          { name: 'b', schema: { $ref: '#/components/schemas/B' } },
          { $ref: '#/nowhere' },
          'nonsense',
        ],
      },
      7,
    ],
    components: {
      contentDescriptors: { Name: { name: 'a', required: true, schema: { type: 'string' } } },
      schemas: { B: { type: 'integer', description: 'how many' } },
    },
  };
  const server = createServer((socket) => {
    const stream = new JsonStream(1 << 20);
    socket.on('data', (chunk) => {
      stream.push(chunk);
      if (stream.next() !== undefined) {
        socket.end(encode({ jsonrpc: '2.0', id: 1, result: document }));
      }
    });
  }).listen(path);
  t.teardown(() => server.close());
  t.strictSame(await discover(path, 5000), [
    {
      name: 'm',
      summary: 's',
      params: [
        { name: 'a', required: true, description: '', schema: { type: 'string' } },
        {
          name: 'b',
          required: false,
          description: 'how many',
          schema: { type: 'integer', description: 'how many' },
        },
      ],
    },
  ]);
});

t.test('lines of a batch', async (t) => {
  t.equal(parseLine('  # x'), undefined);
  t.equal(parseLine(''), undefined);
  t.strictSame(parseLine('m'), { method: 'm', words: [] });
  t.strictSame(parseLine(` m  a=1 b='x y' c="p\\"q" d='' `), {
    method: 'm',
    words: ['a=1', 'b=x y', 'c=p"q', 'd='],
  });
  t.strictSame(parseLine('m {"a": "b c"}'), { method: 'm', words: ['{"a": "b c"}'] });
});

t.test('what was meant', async (t) => {
  const names = ['bdev_get_bdevs', 'bdev_malloc_create', 'bdev_malloc_delete'];
  t.equal(similar('bdev_get_bdev', names), 'bdev_get_bdevs');
  t.equal(similar('bdev_maloc_craete', names), 'bdev_malloc_create');
  t.equal(similar('BDEV_MALLOC_DELETE', names), 'bdev_malloc_delete');
  t.equal(similar('reboot', names), undefined);
});
