/** The JSON-RPC socket, byte by byte: framing, batches, many clients, rude clients. */
import { existsSync, linkSync, lstatSync, readdirSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { MAX_RPC_CLIENTS, MAX_RPC_REQUEST_BYTES } from '../../src/limits.ts';
import { Dispatcher } from '../../src/rpc/dispatcher.ts';
import { RpcServer } from '../../src/rpc/server.ts';
import { countingReactors, log, RawClient, shortFolder, startRpcTarget } from '../helpers/rpc.ts';

const request = (id: unknown, method: string, params?: object) =>
  JSON.stringify({ jsonrpc: '2.0', id, method, params });

t.test('several requests in one segment, one request in many', async (t) => {
  const { path } = await startRpcTarget(t);
  const client = await RawClient.connect(path);
  t.teardown(() => client.close());
  client.send(
    request(1, 'framework_wait_init') +
      request('two', 'framework_wait_init') +
      `\n\n  ${request(3, 'nope')}`,
  );
  const answers = [await client.next(), await client.next(), await client.next()];
  t.strictSame(
    new Set(answers.map((answer) => JSON.stringify(answer))),
    new Set([
      '{"jsonrpc":"2.0","id":1,"result":true}',
      '{"jsonrpc":"2.0","id":"two","result":true}',
      '{"jsonrpc":"2.0","id":3,"error":{"code":-32601,"message":"Method not found"}}',
    ]),
  );
  for (const byte of Buffer.from(request(4, 'framework_wait_init'))) {
    client.send(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.strictSame(await client.next(), { jsonrpc: '2.0', id: 4, result: true });
});

t.test('requests cut anywhere are answered, each once', async (t) => {
  const { path } = await startRpcTarget(t);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom('framework_wait_init', 'rpc_get_methods', 'nope'), {
        minLength: 1,
        maxLength: 20,
      }),
      fc.array(fc.nat(2000), { maxLength: 10 }),
      async (methods, cuts) => {
        const text = methods.map((method, id) => request(id, method)).join('');
        const client = await RawClient.connect(path);
        let from = 0;
        for (const to of [...cuts, text.length].sort((a, b) => a - b)) {
          client.send(text.slice(from, to));
          from = to;
          await new Promise((resolve) => setImmediate(resolve));
        }
        const ids = new Set<unknown>();
        for (let i = 0; i < methods.length; i++) {
          const answer = (await client.next()) as { id: number; error?: object };
          t.equal(answer.error === undefined, methods[answer.id] !== 'nope');
          ids.add(answer.id);
        }
        t.equal(ids.size, methods.length);
        client.close();
      },
    ),
    { numRuns: 30 },
  );
});

t.test('notifications get no answer, and are carried out', async (t) => {
  const { path, target } = await startRpcTarget(t);
  const client = await RawClient.connect(path);
  t.teardown(() => client.close());
  const params = { block_size: 512, num_blocks: 8 };
  client.send(JSON.stringify({ jsonrpc: '2.0', method: 'bdev_malloc_create', params }));
  client.send(request(null, 'bdev_malloc_create', params));
  client.send(JSON.stringify({ jsonrpc: '2.0', method: 'nope' }));
  client.send(request(7, 'bdev_get_bdevs'));
  t.match(await client.next(), { id: 7 });
  t.strictSame(
    target.bdevs.list().map(({ name }) => name),
    ['Malloc0', 'Malloc1'],
  );
});

t.test('batches', async (t) => {
  const { path } = await startRpcTarget(t);
  const client = await RawClient.connect(path);
  t.teardown(() => client.close());
  client.send(
    `[${request(1, 'bdev_malloc_create', { block_size: 512, num_blocks: 8 })},
      ${request(2, 'bdev_get_bdevs', { name: 'Malloc0' })},
      ${JSON.stringify({ jsonrpc: '2.0', method: 'framework_wait_init' })}, 5]`,
  );
  t.match(await client.next(), [
    { id: 1, result: 'Malloc0' },
    { id: 2, result: [{ name: 'Malloc0' }] },
    { id: null, error: { code: -32600 } },
  ]);
  client.send('[]');
  t.match(await client.next(), { id: null, error: { code: -32600 } });
  client.send(`[{"jsonrpc":"2.0","method":"framework_wait_init"}]${request(9, 'nope')}`);
  t.match(await client.next(), { id: 9 }, 'a batch of notifications is not answered');
});

t.test('a long batch lets others have their turn', async (t) => {
  const { path } = await startRpcTarget(t);
  const [busy, other] = [await RawClient.connect(path), await RawClient.connect(path)];
  t.teardown(() => busy.close());
  t.teardown(() => other.close());
  const request = { jsonrpc: '2.0', method: 'spdk_get_version' };
  busy.send(JSON.stringify([...Array(2000).fill(request), { ...request, id: 1 }]));
  other.send(JSON.stringify({ ...request, id: 2 }));
  const first = await Promise.race([busy.next(), other.next()]);
  t.match(first, { id: 2 });
});

t.test('one batch of a client at a time: their answers are long', async (t) => {
  let most = 0;
  let now = 0;
  const report = async () => {
    now += 1;
    most = Math.max(most, now);
    await new Promise((resolve) => setImmediate(resolve));
    now -= 1;
  };
  const { path } = await startRpcTarget(t, { reactors: { ...countingReactors(), report } });
  const client = await RawClient.connect(path);
  t.teardown(() => client.close());
  const batch = [1, 2, 3].map((id) => ({ jsonrpc: '2.0', id, method: 'doorbell_get_snapshot' }));
  client.send(JSON.stringify(batch).repeat(5));
  for (let i = 0; i < 5; i++) {
    t.match(await client.next(), [{ id: 1 }, { id: 2 }, { id: 3 }]);
  }
  t.equal(most, 1);
});

t.test('a batch whose answers are too long', async (t) => {
  const { path, target } = await startRpcTarget(t);
  const client = await RawClient.connect(path);
  t.teardown(() => client.close());
  const geometry = { block_size: 512, num_blocks: 8 };
  const ask = Array.from({ length: 1500 }, (_, id) => request(id, 'rpc.discover'));
  client.send(`[${ask},${request('last', 'bdev_malloc_create', geometry)}]`);
  const answers = (await client.next()) as { id: unknown; error?: { message: string } }[];
  t.strictSame(
    answers.map(({ id }) => id),
    [...ask.keys(), 'last'],
    'each request has its answer',
  );
  const refused = answers.filter(({ error }) => error !== undefined);
  t.ok(refused.length > 1000 && refused.length < ask.length, `${refused.length} were refused`);
  t.ok(refused.every(({ error }) => /too long/.test(error?.message ?? '')));
  t.strictSame(target.bdevs.list(), [], 'and not carried out');
});

t.test('ids are answered as they came', async (t) => {
  const { path } = await startRpcTarget(t);
  const client = await RawClient.connect(path);
  t.teardown(() => client.close());
  for (const id of [0, -1, 1.5, 2 ** 53, '', 'a', '☃', 'x'.repeat(128)]) {
    client.send(request(id, 'framework_wait_init'));
    t.strictSame(await client.next(), { jsonrpc: '2.0', id, result: true });
    client.send(request(id, 'nope'));
    t.match(await client.next(), { id, error: { code: -32601 } });
  }
  for (const id of [true, {}, [1], 'x'.repeat(129)]) {
    client.send(request(id, 'framework_wait_init'));
    t.match(await client.next(), { id: null, error: { code: -32600, message: /'id'/ } });
  }
});

t.test('invalid requests are answered, and the connection lives', async (t) => {
  const { path } = await startRpcTarget(t);
  const client = await RawClient.connect(path);
  t.teardown(() => client.close());
  client.send('{}');
  t.match(await client.next(), { id: null, error: { code: -32600, message: /jsonrpc/ } });
  client.send('{"jsonrpc":"2.0","id":5,"method":"m","params":"x"}');
  t.match(await client.next(), { id: 5, error: { code: -32600, message: /params/ } });
  client.send(request(6, 'framework_wait_init', []));
  t.match(await client.next(), { id: 6, error: { code: -32602, message: /params/ } });
  client.send(request(7, 'framework_wait_init'));
  t.match(await client.next(), { id: 7, result: true });
});

t.test('what is not JSON is answered, and ends the connection', async (t) => {
  const { path, call } = await startRpcTarget(t);
  for (const text of ['hello', '{"a":1 "b":2}', '}', 'GET / HTTP/1.1\r\n\r\n', '["\u0000"]']) {
    const client = await RawClient.connect(path);
    client.send(text);
    t.match(await client.next(), { id: null, error: { code: -32700 } }, JSON.stringify(text));
    t.equal(await client.next(), undefined, 'closed');
    client.close();
  }
  t.equal(await call('framework_wait_init'), true);
});

t.test('a request that is too long', async (t) => {
  const { path, call } = await startRpcTarget(t);
  const client = await RawClient.connect(path);
  client.send(`{"jsonrpc":"2.0","id":1,"method":"${'x'.repeat(MAX_RPC_REQUEST_BYTES)}"}`);
  t.match(await client.next(), { error: { code: -32700, message: /262144/ } });
  t.equal(await client.next(), undefined);
  client.close();
  const name = 'x'.repeat(MAX_RPC_REQUEST_BYTES - 100);
  t.equal(await call('framework_wait_init'), true);
  await t.rejects(call('bdev_null_delete', { name }), { code: -19 }, 'one that just fits');
});

t.test('a client that ends its side gets its answers', async (t) => {
  const { path } = await startRpcTarget(t);
  const client = await RawClient.connect(path);
  client.send(request(1, 'rpc_get_methods'));
  client.socket.end();
  t.match(await client.next(), { id: 1 });
  t.equal(await client.next(), undefined);

  const half = await RawClient.connect(path);
  half.send('{"jsonrpc":');
  half.socket.end();
  t.match(await half.next(), { error: { code: -32700 } }, 'and is told what it left out');
  t.equal(await half.next(), undefined);
});

t.test('idle clients make room, the longest idle first', async (t) => {
  const { path } = await startRpcTarget(t);
  const silent: RawClient[] = [];
  for (let i = 0; i < MAX_RPC_CLIENTS; i++) {
    silent.push(await RawClient.connect(path));
  }
  t.teardown(() => {
    for (const client of silent) {
      client.close();
    }
  });
  // The first of them does something: the second is the longest idle.
  silent[0].send(request('a', 'framework_wait_init'));
  t.match(await silent[0].next(), { id: 'a', result: true });
  for (let i = 1; i < 4; i++) {
    const working = await RawClient.connect(path);
    working.send(request(i, 'framework_wait_init'));
    t.match(await working.next(), { id: i, result: true });
    silent.push(working);
    t.equal(await silent[i].next(), undefined, 'closed');
  }
  for (const client of [silent[0], ...silent.slice(4)]) {
    client.send(request('b', 'framework_wait_init'));
    t.match(await client.next(), { id: 'b', result: true }, 'still there');
  }
});

t.test('so do those that take long to send a request, or to read an answer', async (t) => {
  const { path } = await startRpcTarget(t);
  const slow = await Promise.all(
    Array.from({ length: MAX_RPC_CLIENTS }, () => RawClient.connect(path)),
  );
  for (const [i, client] of slow.entries()) {
    if (i % 2 === 0) {
      client.send('{"jsonrpc":"2.0","method":"');
    } else {
      client.socket.pause();
      client.send(request(1, 'rpc_get_methods').repeat(200));
    }
  }
  const drip = setInterval(() => {
    for (let i = 0; i < slow.length; i += 2) {
      slow[i].send('a');
    }
  }, 1000);
  t.teardown(() => {
    clearInterval(drip);
    for (const client of slow) {
      client.close();
    }
  });
  // They have their time; then others have their place.
  for (;;) {
    const client = await RawClient.connect(path);
    client.send(request(1, 'framework_wait_init'));
    const answer = (await client.next()) as { result?: boolean };
    client.close();
    if (answer?.result === true) {
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  t.pass();
});

t.test('ids come back as they were written', async (t) => {
  const { path } = await startRpcTarget(t);
  const socket = connect(path);
  t.teardown(() => socket.destroy());
  let received = '';
  socket.setEncoding('utf8').on('data', (text: string) => {
    received += text;
  });
  const ids = ['9007199254740993', '1.0', '1e5', '"\\u0061\\/"', '-0', '18446744073709551615'];
  const wait = (id: string) => `{"jsonrpc":"2.0","id":${id},"method":"framework_wait_init"}`;
  for (const id of ids) {
    socket.write(wait(id));
  }
  socket.write(`[${ids.map(wait).join(' , ')}]`);
  socket.write('{"jsonrpc":"2.0","id":9007199254740993,"method":"none"}');
  while (!received.includes('Method not found') || !received.includes(']')) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  const result = (id: string) => `{"jsonrpc":"2.0","id":${id},"result":true}`;
  for (const id of ids) {
    t.ok(received.split('\n').includes(result(id)), id);
  }
  t.ok(received.includes(`[${ids.map(result).join(',')}]`));
  t.ok(received.includes('"id":9007199254740993,"error"'));
});

t.test('as many clients as allowed, and one more', async (t) => {
  const { path } = await startRpcTarget(t);
  const clients = await Promise.all(
    Array.from({ length: MAX_RPC_CLIENTS }, () => RawClient.connect(path)),
  );
  // Who watches is never idle.
  for (const [id, client] of clients.entries()) {
    client.send(request(id, 'doorbell_watch'));
  }
  for (const [id, client] of clients.entries()) {
    t.match(await client.next(), { id, result: 0 });
  }
  const extra = await RawClient.connect(path);
  t.match(await extra.next(), { id: null, error: { code: -32603, message: /clients/ } });
  t.equal(await extra.next(), undefined);

  const gone = clients.pop();
  const closed = new Promise((resolve) => gone?.socket.once('close', resolve));
  gone?.close();
  await closed;
  // The server learns of it in its own time.
  for (;;) {
    const again = await RawClient.connect(path);
    again.send(request(1, 'framework_wait_init'));
    const answer = (await again.next()) as { result?: boolean };
    again.close();
    if (answer.result === true) {
      break;
    }
  }
  for (const client of clients) {
    client.close();
  }
});

t.test('a client that does not read is no longer read from, and harms nobody', async (t) => {
  const { path, call } = await startRpcTarget(t);
  const slow = await RawClient.connect(path);
  slow.socket.pause();
  // Each answer is larger than its request, and there are far more than all the buffers in between hold.
  const count = 20_000;
  for (let id = 0; id < count; id++) {
    slow.send(request(id, 'rpc_get_methods'));
  }
  for (let i = 0; i < 50; i++) {
    t.equal(await call('framework_wait_init'), true);
  }
  t.ok(slow.socket.writableLength > 0, 'the rest of the requests was left with the client');
  slow.socket.resume();
  const ids = new Set<unknown>();
  for (let i = 0; i < count; i++) {
    ids.add(((await slow.next()) as { id: number }).id);
  }
  t.equal(ids.size, count, 'and all are answered once it reads');
  slow.close();
});

t.test('clients that vanish in the middle', async (t) => {
  const { path, call } = await startRpcTarget(t);
  for (let i = 0; i < 200; i++) {
    const client = await RawClient.connect(path);
    client.send(
      request(1, 'rpc_get_methods')
        .repeat(10)
        .slice(0, -(i % 40)),
    );
    client.close();
  }
  t.equal(await call('framework_wait_init'), true);
});

t.test('the socket: whom it is open to', async (t) => {
  const path = join(shortFolder(t), 's');
  const dispatcher = new Dispatcher([], log);
  const open = await RpcServer.listen(path, dispatcher, log, { mode: 0o660 });
  t.equal(lstatSync(path).mode & 0o777, 0o660);
  await open.close();

  const root = process.getuid?.() === 0;
  const owner = root ? { uid: 12345, gid: 54321 } : { uid: 0, gid: 0 };
  const given = RpcServer.listen(path, dispatcher, log, { mode: 0o620, owner });
  if (root) {
    const server = await given;
    t.match(lstatSync(path), { uid: 12345, gid: 54321 });
    t.equal(lstatSync(path).mode & 0o777, 0o620);
    await server.close();
  } else {
    await t.rejects(given, { code: 'EPERM', message: new RegExp(path) });
  }
  t.equal(existsSync(path), false);
});

t.test('the socket: mode, life, and who else is there', async (t) => {
  const folder = shortFolder(t);
  const path = join(folder, 's');
  const dispatcher = new Dispatcher([], log);
  const server = await RpcServer.listen(path, dispatcher, log);
  t.equal(lstatSync(path).mode & 0o777, 0o600, 'for this user only');
  await t.rejects(RpcServer.listen(path, dispatcher, log), { code: 'EADDRINUSE' }, 'live');
  const client = await RawClient.connect(path);
  client.send(request(1, 'x'));
  t.match(await client.next(), { id: 1 }, 'the live one was left alone');
  const ended = client.next();
  await server.close();
  t.equal(await ended, undefined, 'clients are disconnected');
  t.equal(existsSync(path), false, 'and the file is gone');

  // A process that dies leaves its socket file.
  const dead = createServer();
  await new Promise<void>((resolve) => dead.listen(join(folder, 'dead'), resolve));
  linkSync(join(folder, 'dead'), path);
  await new Promise((resolve) => dead.close(resolve));
  t.strictSame(readdirSync(folder), ['s']);
  const next = await RpcServer.listen(path, dispatcher, log);
  const other = await RawClient.connect(path);
  other.send(request(1, 'x'));
  t.match(await other.next(), { id: 1 }, 'stale: taken over');
  await next.close();

  writeFileSync(path, 'precious');
  await t.rejects(RpcServer.listen(path, dispatcher, log), {
    code: 'EADDRINUSE',
    message: /not a socket/,
  });
  t.equal(lstatSync(path).size, 8, 'a file that is not a socket is left alone');

  await t.rejects(RpcServer.listen(join(folder, 'x'.repeat(108)), dispatcher, log), {
    code: 'ENAMETOOLONG',
  });
  await t.rejects(RpcServer.listen(join(folder, 'none', 's'), dispatcher, log), {
    code: 'ENOENT',
    message: /there is no folder .*none/,
  });
});
